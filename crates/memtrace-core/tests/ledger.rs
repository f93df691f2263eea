//! Laws that hold for every ledger.

use memtrace_core::{Ledger, LedgerKind, LedgerLine};
use proptest::collection::vec;
use proptest::prelude::*;

fn bytes() -> impl Strategy<Value = u64> {
    prop_oneof![0..100_u64, 0..1_u64 << 40, Just(u64::MAX), Just(i64::MAX as u64), any::<u64>()]
}

fn line() -> impl Strategy<Value = LedgerLine> {
    let kind = prop::sample::select(LedgerKind::ALL.to_vec());
    let name = prop::sample::select(vec!["a", "b", "unaccounted"]);
    (kind, name, bytes(), any::<bool>(), prop::option::of(bytes())).prop_map(
        |(kind, name, bytes, is_upper_bound, booked)| {
            let line = match is_upper_bound {
                true => LedgerLine::at_most(kind, name, bytes),
                false => LedgerLine::resident(kind, name, bytes),
            };
            match booked {
                Some(booked) => line.booked(booked),
                None => line,
            }
        },
    )
}

fn ledger() -> impl Strategy<Value = Ledger> {
    (bytes(), vec(line(), 0..12))
        .prop_map(|(resident, lines)| lines.into_iter().fold(Ledger::new(resident), Ledger::line))
}

/// What a line may have without anything saturating, for differences.
fn small(ledger: &Ledger) -> bool {
    let all = ledger.lines().iter().map(|line| line.bytes).chain([ledger.resident_bytes()]);
    all.into_iter().all(|bytes| bytes.abs() < 1 << 50)
}

proptest! {
    #[test]
    fn lines_sum_to_the_resident_bytes_whatever_they_are(ledger in ledger()) {
        let sum: i128 = ledger.lines().iter().map(|line| i128::from(line.bytes)).sum();
        prop_assert_eq!(sum, i128::from(ledger.resident_bytes()));
        let last = ledger.lines().last().unwrap();
        prop_assert_eq!(last.kind, LedgerKind::Unaccounted);
        let others = &ledger.lines()[..ledger.lines().len() - 1];
        prop_assert!(others.iter().all(|line| line.bytes >= 0));
        let by_kind: i128 = LedgerKind::ALL.map(|kind| i128::from(ledger.bytes_of(kind))).iter().sum();
        prop_assert_eq!(by_kind, sum);
    }

    #[test]
    fn any_two_ledgers_can_be_compared_and_written(a in ledger(), b in ledger()) {
        let diff = a.compare_to(&b);
        let text = format!("{a}{diff}");
        prop_assert_eq!(text.lines().count(), a.lines().len() + 1 + diff.lines().len() + 2);
        prop_assert!(a.compare_to(&a).lines().iter().all(|line| line.bytes_diff == 0));
        if small(&a) && small(&b) {
            let sum: i64 = diff.lines().iter().map(|line| line.bytes_diff).sum();
            prop_assert_eq!(sum, diff.resident_bytes_diff());
            prop_assert_eq!(diff.slack_bytes_diff(), a.slack_bytes() - b.slack_bytes());
        }
    }
}
