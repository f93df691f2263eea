//! Arrays without traces are given back, and used again for other pages.

use crate::live::LiveTable;
use crate::setting::{
    A, B, D, OTHER, assert_holds_all, fails, holds, insert_all, release, shadow, spawn, trace,
};

/// An array without a trace in it is given back while a block is recorded in its page.
fn given_back(addr: u64) {
    insert_all(&[A]);
    release(A, trace(A));
    let inserter = spawn(move || {
        insert_all(&[addr]);
        assert_eq!(shadow().get(addr), Some(trace(addr)), "lost");
    });
    // Scavenges the other page, for want of an array.
    insert_all(&[OTHER]);
    inserter.join().unwrap();
    // No seal is left in an array that was not given back.
    insert_all(&[B]);
    assert_holds_all(&[addr, B, OTHER]);
}

fn given_back_while_recorded() {
    given_back(A);
}

/// The same where another word is the likeliest, which is sealed last.
fn given_back_while_recorded_behind() {
    given_back(D);
}

/// An array is given back while two blocks are recorded there, one of which is released again.
fn given_back_while_two_are_recorded() {
    insert_all(&[A]);
    release(A, trace(A));
    let first = spawn(|| insert_all(&[A]));
    let second = spawn(|| {
        insert_all(&[D]);
        release(D, trace(D));
    });
    insert_all(&[OTHER]);
    first.join().unwrap();
    second.join().unwrap();
    assert_holds_all(&[A, OTHER]);
}

/// An array is used again for the other page, while another thread looks for a trace that stood there.
fn used_again(look: fn()) {
    insert_all(&[A, B]);
    let grower = spawn(|| insert_all(&[D, OTHER]));
    look();
    grower.join().unwrap();
}

fn used_again_while_released() {
    used_again(|| release(A, trace(A)));
    assert_holds_all(&[B, D, OTHER]);
}

fn used_again_while_found() {
    used_again(|| assert_eq!(shadow().get(B), Some(trace(B)), "lost"));
    assert_holds_all(&[A, B, D, OTHER]);
}

fn used_again_while_recorded() {
    // What has an address of the first page must not come into the second.
    insert_all(&[A, B]);
    let grower = spawn(|| insert_all(&[D, OTHER]));
    release(A, trace(A));
    insert_all(&[A]);
    grower.join().unwrap();
    assert_holds_all(&[A, B, D, OTHER]);
}

holds!(an_array_given_back_takes_no_trace_along: given_back_while_recorded, 3, Scarce);
holds!(an_array_given_back_takes_no_trace_along_behind: given_back_while_recorded_behind, 2, Scarce);
holds!(an_array_given_back_takes_none_of_two_traces_along: given_back_while_two_are_recorded, 1, Scarce);
holds!(an_array_is_used_again_when_no_release_looks_at_it: used_again_while_released, 2, UsedAgain);
holds!(an_array_is_used_again_when_nobody_looks_at_it: used_again_while_found, 2, UsedAgain);
holds!(an_array_is_used_again_when_no_insertion_looks_at_it: used_again_while_recorded, 2, UsedAgain);

fails!(an_array_given_back_without_seals_takes_a_trace_along:
    given_back_while_recorded, 3, NoSeals, "lost", Scarce);
fails!(an_array_used_again_at_once_is_looked_at:
    used_again_while_released, 2, UseAgainAtOnce, "Causality", UsedAgain);
fails!(operations_marked_without_a_fence_are_not_seen:
    used_again_while_released, 2, NoLightFence, "Causality", UsedAgain);
fails!(relaxed_orders_use_an_array_again_too_early:
    used_again_while_found, 2, AllRelaxed, "Causality", UsedAgain);
