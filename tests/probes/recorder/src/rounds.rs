//! A round: threads begin, work, fall quiet for a comparison, and give everything back.
//!
//! In a *steady* round tracing is on throughout, and everything must be recorded. In the others a thread
//! stops, starts and clears while all others work.

use crate::arguments::Sabotage;
use crate::canaries::{self, Canary, Scans};
use crate::compare::{compare, expect_nothing};
use crate::held::Held;
use crate::load::{Load, empty_mailbox};
use crate::report::{FIGURES, count, differs, ensure};
use crate::rng::Rng;
use crate::sites::{self, N_SITES};
use crate::truth::{self, CLOCK};
use crate::{ALLOC, children};
use memtrace_alloc::{Options, Started};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Barrier, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

static IS_OVER: AtomicBool = AtomicBool::new(false);
static IS_STEADY: AtomicBool = AtomicBool::new(true);

/// Whether the threads are to fall quiet.
pub(crate) fn is_over() -> bool {
    IS_OVER.load(Relaxed)
}

/// Whether nobody stops, starts or clears now.
pub(crate) fn is_steady() -> bool {
    IS_STEADY.load(Relaxed)
}

/// What is recorded in a round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    pub(crate) is_steady: bool,
    pub(crate) n_frames: u16,
    pub(crate) threads: bool,
    pub(crate) generations: bool,
    pub(crate) has_limit: bool,
    /// All blocks of so many bytes are recorded, and some smaller ones; 0 if all are.
    pub(crate) sample_every: u64,
    pub(crate) site_totals: bool,
    pub(crate) lifetimes: bool,
}

/// The rounds of a process.
pub(crate) struct Rounds {
    rng: Rng,
    n_threads: usize,
    sabotage: Sabotage,
    extents: [Range<u64>; N_SITES],
    /// As tracing was started.
    round: Round,
    /// What the tables took after each of the latest rounds.
    table_bytes: [u64; N_NOTED],
}

/// Rounds of which the one counts after which the tables took most.
const N_NOTED: usize = 40;

impl Rounds {
    pub(crate) fn new(seed: u64, n_threads: usize, sabotage: Sabotage) -> Self {
        let mut rng = Rng::new(seed);
        let (round, options) = random_options(&mut rng, false);
        start(options);
        Self {
            rng,
            n_threads,
            sabotage,
            extents: sites::extents(),
            round,
            table_bytes: [0; N_NOTED],
        }
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let is_steady = self.rng.below(3) != 0;
        IS_STEADY.store(is_steady, Relaxed);
        self.begin(is_steady);
        let before = memtrace_alloc::losses();
        let canaries = canaries::allocate(&mut self.rng);
        let watched = if is_steady { canaries::recorded(&canaries) } else { Vec::new() };
        ensure!(
            !is_steady
                || self.round.has_limit
                || self.round.sample_every > 0
                || watched.len() == canaries.len(),
            "of {} blocks {} are recorded",
            canaries.len(),
            watched.len()
        );
        let mut scans = Scans::new();

        let barrier = Arc::new(Barrier::new(self.n_threads + 1));
        let watched = truth::untraced(|| Arc::new(watched));
        IS_OVER.store(false, Relaxed);
        let scanner = self.scanner(&watched);
        let loads = self.loads(&barrier);
        let toggler = (!is_steady).then(|| self.toggler(time * 3 / 4));
        self.wait(time, &canaries, &watched, &mut scans);
        IS_OVER.store(true, Relaxed);
        join(scanner);
        if let Some(round) = toggler.map(join) {
            self.round = round;
        }
        barrier.wait();
        compare(&self.round, &self.extents, &before);
        barrier.wait();
        loads.into_iter().for_each(join);
        drop(barrier);
        truth::untraced(|| drop((watched, scans)));
        empty_mailbox();
        compare(&self.round, &self.extents, &before);
        truth::untraced(|| drop(canaries));
        let n_left = compare(&self.round, &self.extents, &before);
        ensure!(n_left == 0, "{n_left} bytes are left when everything has been given back");
        count(&FIGURES.n_drifts);
        count(&FIGURES.n_rounds);
        self.note_tables();
    }

    /// Notes what the tables take. From round to round that differs several times, by what was recorded and when
    /// memory was last given back; so the most of several rounds is what can be compared.
    fn note_tables(&mut self) {
        let n_rounds = FIGURES.n_rounds.load(Relaxed);
        self.table_bytes[n_rounds as usize % N_NOTED] = memtrace_alloc::tracer_memory().charged;
        let most = self.table_bytes.into_iter().max().unwrap_or(0);
        if n_rounds <= N_NOTED as u64 {
            FIGURES.early_bytes.store(most, Relaxed);
        }
        FIGURES.last_bytes.store(most, Relaxed);
    }

    /// Forgets everything and starts anew, with other options or the same ones.
    fn begin(&mut self, is_steady: bool) {
        // Not every round can go on under a limit, or with samples.
        let must_start =
            !memtrace_alloc::is_tracing() || self.round.has_limit || self.round.sample_every > 0;
        if must_start || self.rng.below(3) != 0 {
            memtrace_alloc::stop();
            expect_nothing("with tracing stopped");
            let (round, options) = random_options(&mut self.rng, is_steady);
            self.round = round;
            start(options);
        } else {
            memtrace_alloc::clear_traces();
        }
        self.round.is_steady = is_steady;
        CLOCK.fetch_add(2, SeqCst);
        expect_nothing("with all traces forgotten");
        let refuse_every = 2 + self.rng.below(20) as u64;
        ALLOC.inner().disturb(refuse_every, self.sabotage.miss_frees);
    }

    fn loads(&mut self, barrier: &Arc<Barrier>) -> Vec<JoinHandle<()>> {
        let channels: Vec<_> = (0..self.n_threads).map(|_| mpsc::channel()).collect();
        let senders: Vec<_> = channels.iter().map(|(sender, _)| sender.clone()).collect();
        let received = channels.into_iter().map(|(_, received)| received);
        let (round, drop_records) = (self.round, self.sabotage.drop_records);
        let begin = |received| {
            let others = truth::untraced(|| senders.clone());
            let (seed, barrier) = (self.rng.number(), Arc::clone(barrier));
            thread::spawn(move || {
                Load::new(seed, received, others, drop_records).run(&barrier, &round);
            })
        };
        received.map(begin).collect()
    }

    fn scanner(&mut self, watched: &Arc<Vec<Canary>>) -> JoinHandle<()> {
        let watched = Arc::clone(watched);
        let mut rng = Rng::new(self.rng.number());
        thread::spawn(move || {
            let mut scans = Scans::new();
            while !is_over() {
                scans.scan(&watched);
                match rng.below(4) {
                    0 => scans.ask_more(),
                    1 => thread::sleep(Duration::from_micros(rng.below(3000) as u64)),
                    _ => {}
                }
            }
            truth::untraced(|| drop(scans));
        })
    }

    /// Stops, starts and clears for some time; returns what is recorded at last.
    fn toggler(&mut self, time: Duration) -> JoinHandle<Round> {
        let (mut rng, mut round) = (Rng::new(self.rng.number()), self.round);
        thread::spawn(move || {
            let begun = Instant::now();
            while begun.elapsed() < time {
                toggle(&mut rng, &mut round);
                if rng.below(4) == 0 {
                    thread::sleep(Duration::from_micros(rng.below(5000) as u64));
                }
            }
            if !memtrace_alloc::is_tracing() && rng.below(8) != 0 {
                start_again(&mut rng, &mut round);
            }
            round
        })
    }

    /// Waits for the round to be over, and forks meanwhile.
    fn wait(&mut self, time: Duration, canaries: &[Held], watched: &[Canary], scans: &mut Scans) {
        let begun = Instant::now();
        let every = self.sabotage.drop_canaries;
        let is_dropped =
            every != 0 && FIGURES.n_rounds.load(Relaxed) % every == every - 1 && is_steady();
        let mut n_forks = if self.rng.below(2) == 0 { self.rng.below(4) } else { 0 };
        while let Some(left) = time.checked_sub(begun.elapsed()) {
            thread::sleep(left.min(Duration::from_millis(1 + self.rng.below(30) as u64)));
            if n_forks > 0 {
                n_forks -= 1;
                children::fork(watched, scans);
            }
            if is_dropped && memtrace_alloc::untrack(0, canaries[7].addr()).is_ok() {
                count(&FIGURES.n_spoilt);
                // A scan that begins from here on tells.
                let n_scans = FIGURES.n_scans.load(Relaxed) + 2;
                while FIGURES.n_scans.load(Relaxed) < n_scans {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        }
    }
}

fn join<R>(thread: JoinHandle<R>) -> R {
    thread.join().unwrap_or_else(|_| differs(format_args!("a thread panicked")))
}

fn start(options: Options) {
    match memtrace_alloc::start_with(options) {
        Ok(Started::Now) => {}
        other => differs(format_args!("tracing does not start: {other:?}")),
    }
}

/// Options, and what they make of a round.
fn random_options(rng: &mut Rng, is_steady: bool) -> (Round, Options) {
    let n_frames = [1, 25, 25, 100][rng.below(4)];
    let (threads, generations) = (rng.below(3) == 0, rng.below(3) == 0);
    let mut options = Options::new().frames(n_frames).threads(threads).generations(generations);
    if rng.below(4) == 0 {
        options = options.peak_percent([0, 1, 10][rng.below(3)]);
    }
    let has_limit = is_steady && rng.below(8) == 0;
    if has_limit {
        let charged = memtrace_alloc::tracer_memory().charged;
        let limit = charged / 2 + charged * rng.below(64) as u64 / 64;
        options = options.table_limit(limit.max(Options::LEAST_TABLE_LIMIT));
    }
    // What a sample stands for may drift by the difference of two periods where toggles race with it.
    let is_sampled = is_steady && rng.below(6) == 0;
    let sample_every = if is_sampled { 2 << rng.below(16) } else { 0 };
    let site_totals = rng.below(4) == 0;
    let lifetimes = rng.below(4) == 0;
    let options = options.sample_every(sample_every).site_totals(site_totals).lifetimes(lifetimes);
    let round = Round {
        is_steady: true,
        n_frames,
        threads,
        generations,
        has_limit,
        sample_every,
        site_totals: site_totals || lifetimes,
        lifetimes,
    };
    (round, options)
}

/// Changes what is traced, while others work.
fn toggle(rng: &mut Rng, round: &mut Round) {
    count(&FIGURES.n_toggles);
    let change = |change: &dyn Fn()| {
        CLOCK.fetch_add(1, SeqCst);
        change();
        CLOCK.fetch_add(1, SeqCst);
    };
    match (memtrace_alloc::is_tracing(), rng.below(8)) {
        (_, 0) => memtrace_alloc::reset_peak(),
        (true, 1..=4) => change(&memtrace_alloc::clear_traces),
        (true, _) => change(&memtrace_alloc::stop),
        (false, 1) => {
            memtrace_alloc::stop();
            memtrace_alloc::clear_traces();
        }
        (false, _) => start_again(rng, round),
    }
}

fn start_again(rng: &mut Rng, round: &mut Round) {
    let (next, options) = random_options(rng, false);
    CLOCK.fetch_add(1, SeqCst);
    start(options);
    CLOCK.fetch_add(1, SeqCst);
    *round = Round { is_steady: false, ..next };
}
