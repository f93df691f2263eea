//! Scans of pages that grow.

use crate::live::LiveTable;
use crate::setting::{
    A, B, C, D, SHARING, alone, assert_holds, assert_holds_all, fails, holds, insert, insert_all,
    new_trace, release, scan, shadow, spawn, trace,
};

/// A scan goes on while a page grows: live blocks are visited.
fn scanned() {
    insert_all(&[A, B]);
    let grower = spawn(|| insert_all(&[D]));
    let seen = scan();
    assert!(seen.get(&A) == Some(&trace(A)) && seen.get(&B) == Some(&trace(B)), "passed by");
    grower.join().unwrap();
    assert_holds_all(&[A, B, D]);
}

/// The same while it grows twice. The scan has the thread of its own, which saves a preemption.
fn scanned_while_growing_twice() {
    insert_all(&[A, B]);
    let scanner = spawn(scan);
    insert_all(&[C]);
    let seen = scanner.join().unwrap();
    assert!(seen.get(&A) == Some(&trace(A)) && seen.get(&B) == Some(&trace(B)), "passed by");
    assert_holds_all(&[A, B, C]);
}

/// A block is looked for while its page grows, and then another one under the same lock.
fn found_while_two_pages_grow() {
    insert_all(&[A, B, SHARING + A, SHARING + B]);
    let finder = spawn(|| assert_eq!(shadow().get(B), Some(trace(B)), "passed by"));
    insert_all(&[D, SHARING + D]);
    finder.join().unwrap();
    assert_holds_all(&[A, B, D, SHARING + A, SHARING + B, SHARING + D]);
}

/// The same for scans.
fn scanned_while_two_pages_grow() {
    insert_all(&[A, B, SHARING + A, SHARING + B]);
    let scanner = spawn(scan);
    insert_all(&[D, SHARING + D]);
    let seen = scanner.join().unwrap();
    let are_seen =
        [A, B, SHARING + A, SHARING + B].map(|addr| seen.get(&addr) == Some(&trace(addr)));
    assert_eq!(are_seen, [true; 4], "passed by");
    assert_holds_all(&[A, B, D, SHARING + A, SHARING + B, SHARING + D]);
}

/// A scan that begins when a block has been released, while the page grows.
fn scanned_after_release() {
    insert_all(&[A, B]);
    let grower = spawn(|| insert_all(&[D]));
    release(A, trace(A));
    let seen = scan();
    assert!(!seen.contains_key(&A), "visited after its release");
    assert_eq!(seen.get(&B), Some(&trace(B)), "passed by");
    grower.join().unwrap();
    assert_holds_all(&[B, D]);
}

/// The same while it grows twice.
fn scanned_after_release_while_growing_twice() {
    insert_all(&[A, B]);
    let grower = spawn(|| insert_all(&[C]));
    release(A, trace(A));
    let seen = scan();
    assert!(!seen.contains_key(&A), "visited after its release");
    assert_eq!(seen.get(&B), Some(&trace(B)), "passed by");
    grower.join().unwrap();
    assert_holds_all(&[B, C]);
}

/// A scan while a page grows and a block is released and another recorded at its address.
fn scanned_while_recorded_again() {
    insert_all(&[A, B]);
    let grower = spawn(|| insert_all(&[D]));
    let owner = spawn(|| {
        release(A, trace(A));
        insert(A, new_trace(A));
    });
    let seen = scan();
    assert_eq!(seen.get(&B), Some(&trace(B)), "passed by");
    assert!(seen.get(&A).is_none_or(|&seen| seen == trace(A) || seen == new_trace(A)));
    grower.join().unwrap();
    owner.join().unwrap();
    assert_holds(&[(A, new_trace(A)), (B, trace(B)), (D, trace(D))]);
}

/// Scans of a page while a block gets an array to share with another.
fn scanned_while_an_array_begins() {
    insert(A, alone(A));
    let sharer = spawn(|| insert_all(&[B]));
    assert_eq!(scan().get(&A), Some(&alone(A)), "passed by");
    sharer.join().unwrap();
    assert_holds(&[(A, alone(A)), (B, trace(B))]);
}

holds!(a_scan_visits_live_blocks_of_a_page_that_grows: scanned, 3);
holds!(a_scan_visits_live_blocks_of_a_page_that_grows_twice: scanned_while_growing_twice, 2);
holds!(a_block_is_found_while_two_pages_grow: found_while_two_pages_grow, 3);
holds!(a_scan_visits_live_blocks_of_two_pages_that_grow: scanned_while_two_pages_grow, 2);
holds!(a_scan_does_not_visit_what_was_released_before: scanned_after_release, 2);
holds!(a_scan_does_not_visit_what_was_released_before_two_growths:
    scanned_after_release_while_growing_twice, 2);
holds!(a_scan_visits_no_block_twice_that_is_recorded_again: scanned_while_recorded_again, 2);
holds!(a_scan_visits_a_block_that_gets_an_array: scanned_while_an_array_begins, 3);

fails!(a_copy_after_its_original_is_gone_is_passed_by: scanned, 3, GoneBeforeCopy, "passed by");
fails!(copies_that_are_visited_show_released_blocks:
    scanned_after_release, 3, CopiesAreVisited, "visited after");
fails!(what_is_gone_and_passed_by_is_not_seen: scanned, 3, GoneIsNotVisited, "passed by");
fails!(relaxed_orders_hide_a_block_that_gets_an_array:
    scanned_while_an_array_begins, 3, AllRelaxed, "passed by");
