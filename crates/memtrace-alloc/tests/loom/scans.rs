//! Scans of pages that grow.

use crate::setting::{
    A, B, C, D, alone, assert_holds, assert_holds_all, fails, holds, insert, insert_all, new_trace,
    release, scan, spawn, trace,
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
holds!(a_scan_does_not_visit_what_was_released_before: scanned_after_release, 2);
holds!(a_scan_does_not_visit_what_was_released_before_two_growths:
    scanned_after_release_while_growing_twice, 2);
holds!(a_scan_visits_no_block_twice_that_is_recorded_again: scanned_while_recorded_again, 2);
holds!(a_scan_visits_a_block_that_gets_an_array: scanned_while_an_array_begins, 3);

fails!(a_copy_after_its_original_is_gone_is_passed_by: scanned, 3, GoneBeforeCopy, "passed by");
fails!(copies_that_are_visited_show_released_blocks:
    scanned_after_release, 3, CopiesAreVisited, "visited after");
fails!(what_is_gone_and_passed_by_is_not_seen: scanned, 3, GoneIsNotVisited, "passed by");
