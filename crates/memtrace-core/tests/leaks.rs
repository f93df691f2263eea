//! The search for leaks, on series as programs make them, on laws, and on the edges of its rule.

use std::collections::BTreeMap;

use memtrace_core::{
    Attribution, Frame, KeyType, LeakFindings, LeakSearch, LeakSearchError, LeakVerdict, SlopeUnit,
    Snapshot, Suppressions, Trace, Traceback, Verdict,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// Snapshots in which group k has the sizes `series[k]`, in file `k.rs`.
fn snapshots(series: &[Vec<u64>]) -> Vec<Snapshot> {
    let n_snapshots = series.first().map_or(0, Vec::len);
    let at = |i: usize| {
        let traces = series.iter().zip(0..).filter(|(sizes, _)| sizes[i] > 0).map(
            move |(sizes, k): (_, usize)| {
                let traceback = Traceback::new([Frame::new(format!("{k}.rs"), 1)]);
                Trace { domain: 0, size: sizes[i], traceback }
            },
        );
        Snapshot::from_traces(traces, 1)
    };
    (0..n_snapshots).map(at).collect()
}

fn judged(sizes: &[u64]) -> LeakVerdict {
    let findings = LeakSearch::new(KeyType::Lineno).run(&snapshots(&[sizes.to_vec()])).unwrap();
    findings.verdicts.into_iter().next().unwrap()
}

fn verdict(sizes: &[u64]) -> Verdict {
    judged(sizes).verdict
}

/// Series as they come from programs, and how often each verdict is given.
mod rates {
    use super::*;

    /// The splitmix64 generator, so that the figures are the same everywhere.
    pub(super) struct Rng(pub(super) u64);

    impl Rng {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }

        /// Evenly from `low` to `high`.
        fn within(&mut self, low: f64, high: f64) -> f64 {
            low + (high - low) * (self.next() >> 11) as f64 / (1_u64 << 53) as f64
        }

        /// Normal, with mean 0 and deviation 1, nearly.
        fn normal(&mut self) -> f64 {
            (0..12).map(|_| self.within(-0.5, 0.5)).sum()
        }
    }

    /// A kind of series: its name, and a generator of one for some number of snapshots.
    pub(super) type Kind = (&'static str, fn(&mut Rng, usize) -> Vec<f64>);

    fn series(n: usize, mut size: impl FnMut(f64) -> f64) -> Vec<f64> {
        (0..n).map(|i| size(i as f64)).collect()
    }

    pub(super) const LEAKS: [Kind; 7] = [
        ("even", |rng, n| {
            let (base, slope) = (rng.within(0.0, 1e6), rng.within(100.0, 1e5));
            series(n, |i| base + slope * i)
        }),
        ("noise up to a step", |rng, n| {
            let (base, slope) = (rng.within(2e5, 1e6), rng.within(100.0, 1e5));
            let noise = slope * rng.within(0.0, 1.0);
            series(n, |i| base + slope * i + noise * rng.normal())
        }),
        ("after a warm-up", |rng, n| {
            let (base, slope) = (rng.within(1e6, 1e7), rng.within(100.0, 1e5));
            series(n, |i| if i < 1.0 { 0.0 } else { base + slope * i + slope * 0.2 * rng.normal() })
        }),
        ("with pauses", |rng, n| {
            let (mut size, slope) = (rng.within(0.0, 1e6), rng.within(100.0, 1e5));
            series(n, |_| {
                if rng.within(0.0, 1.0) < 0.6 {
                    size += slope * rng.within(0.5, 1.5);
                }
                size
            })
        }),
        ("under a sawtooth", |rng, n| {
            let (base, slope) = (rng.within(0.0, 1e6), rng.within(100.0, 1e5));
            let (period, phase) = (rng.within(2.0, 4.0), rng.within(0.0, 4.0));
            series(n, |i| base + slope * (i + 2.0 * ((i + phase) / period).fract()))
        }),
        ("a vector that doubles", |rng, n| {
            let (start, slope) = (rng.within(1.0, 1e3), rng.within(10.0, 1e3));
            series(n, |i| 8.0 * (start + slope * i).log2().ceil().exp2())
        }),
        ("on a large base", |rng, n| {
            let base = rng.within(1e7, 1e9);
            let noise = base * 0.001;
            series(n, |i| base + noise * (i + rng.normal()))
        }),
    ];

    pub(super) const OTHERS: [Kind; 11] = [
        ("constant", |rng, n| vec![rng.within(0.0, 1e7); n]),
        ("steady, noise 1 to 5 %", |rng, n| {
            let (base, noise) = (rng.within(1e4, 1e7), rng.within(0.01, 0.05));
            series(n, |_| base * (1.0 + noise * rng.normal()))
        }),
        ("steady, slow noise", |rng, n| {
            let (base, mut offset) = (rng.within(1e4, 1e7), rng.normal());
            series(n, |_| {
                offset = 0.7 * offset + 0.7 * rng.normal();
                base * (1.0 + 0.05 * offset)
            })
        }),
        ("random walk", |rng, n| {
            let mut size = rng.within(1e6, 1e7);
            let step = size * 0.02;
            series(n, |_| {
                size += step * rng.normal();
                size
            })
        }),
        ("cache, full midway", |rng, n| {
            let full = rng.within(0.15, 0.6) * (n - 1) as f64;
            let limit = rng.within(1e4, 1e8);
            series(n, |i| limit * (i / full).min(1.0))
        }),
        ("cache, filling slower", |rng, n| {
            let (time, limit) = (rng.within(0.1, 0.3) * n as f64, rng.within(1e4, 1e8));
            series(n, |i| limit * (1.0 - (-(i + 1.0) / time).exp()))
        }),
        ("sawtooth", |rng, n| {
            let (base, height) = (rng.within(0.0, 1e6), rng.within(1e4, 1e7));
            let (period, phase) = (rng.within(2.0, 6.0), rng.within(0.0, 6.0));
            series(n, |i| base + height * ((i + phase) / period).fract())
        }),
        ("one jump", |rng, n| {
            let (at, jump) = (rng.within(0.0, (n - 1) as f64), rng.within(1e4, 1e8));
            let base = rng.within(0.0, 1e6);
            series(n, |i| base + if i > at { jump } else { 0.0 })
        }),
        ("one jump, and noise 1 %", |rng, n| {
            let (at, jump) = (rng.within(0.0, (n - 1) as f64), rng.within(1e5, 1e8));
            let base = rng.within(0.0, 1e6);
            series(n, |i| {
                let size = base + if i > at { jump } else { 0.0 };
                size * (1.0 + 0.01 * rng.normal())
            })
        }),
        ("warm-up, then noise 1 %", |rng, n| {
            let base = rng.within(1e5, 1e7);
            series(n, |i| if i < 1.0 { base * 0.2 } else { base * (1.0 + 0.01 * rng.normal()) })
        }),
        ("day and night", |rng, n| {
            let (base, phase) = (rng.within(1e5, 1e7), rng.within(0.0, 6.3));
            let turns = rng.within(0.8, 3.0) * 6.28 / n as f64;
            series(n, |i| base * (2.0 + (phase + turns * i).sin() + 0.05 * rng.normal()))
        }),
    ];

    /// How often each verdict is given to series of a kind, as shares of one.
    pub(super) fn shares(kind: Kind, n_snapshots: usize) -> BTreeMap<Verdict, f64> {
        const N_SERIES: usize = 1000;
        let mut rng = Rng(n_snapshots as u64);
        let one = |_| -> Vec<u64> {
            kind.1(&mut rng, n_snapshots).into_iter().map(|size| size.max(0.0) as u64).collect()
        };
        let series: Vec<Vec<u64>> = (0..N_SERIES).map(one).collect();
        let findings = LeakSearch::new(KeyType::Lineno).run(&snapshots(&series)).unwrap();
        let mut shares = BTreeMap::new();
        for verdict in &findings.verdicts {
            *shares.entry(verdict.verdict).or_default() += 1.0 / N_SERIES as f64;
        }
        shares
    }
}

#[test]
fn rates() {
    for (title, kinds) in [("leaks", &rates::LEAKS[..]), ("others", &rates::OTHERS[..])] {
        println!("{title}");
        for &kind in kinds {
            print!("{:26}", kind.0);
            for n in [3, 4, 5, 7, 10, 20, 60] {
                let shares = rates::shares(kind, n);
                print!(
                    " {n:3}: {:5.1} {:5.1} |",
                    100.0 * shares.get(&Verdict::Leak).unwrap_or(&0.0),
                    100.0 * shares.get(&Verdict::Growth).unwrap_or(&0.0)
                );
            }
            println!();
            println!("     {:?}", rates::shares(kind, 10));
        }
    }
}
