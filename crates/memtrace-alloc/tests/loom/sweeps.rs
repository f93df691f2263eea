//! Sweeps, by themselves and as a part of `stop`.

use crate::live::LiveTrace;
use crate::mistakes::{self, Mistake};
use crate::operation::during;
use crate::setting::{
    A, B, D, alone, assert_holds, assert_holds_all, fails, holds, insert, insert_all,
    insert_in_operation, new_trace, scan, spawn, sweep, take, trace,
};
use crate::sync::atomic::{AtomicU8, Ordering};
use crate::thread;
use crate::thread_slot::SLOTS;
use std::collections::BTreeMap;

/// A sweep forgets while a block is released.
fn swept_while_released(addr: u64) {
    insert_all(&[A, B]);
    let releaser = spawn(move || take(addr));
    let forgotten = sweep();
    let taken = releaser.join().unwrap();
    let n_taken = [A, B].map(|at| {
        u32::from(forgotten.contains_key(&(at as u32))) + u32::from(taken == Some(trace(at)))
    });
    assert_eq!(n_taken, [1, 1], "lost or taken twice");
    assert_holds(&[]);
}

fn swept_while_released_quickly() {
    swept_while_released(A);
}

fn swept_while_released_at_length() {
    swept_while_released(B);
}

/// What was there before is forgotten, what comes meanwhile is there or forgotten, and the page may grow or be
/// without an array by then.
fn swept_while_recorded(before: &[u64], now: u64) {
    insert_all(before);
    let inserter = spawn(move || insert_all(&[now]));
    let forgotten = sweep();
    inserter.join().unwrap();
    for &addr in before {
        assert!(forgotten.contains_key(&(addr as u32)), "left behind");
    }
    if forgotten.contains_key(&(now as u32)) {
        assert_holds(&[]);
    } else {
        assert_holds_all(&[now]);
    }
}

fn swept_while_growing() {
    swept_while_recorded(&[A, B], D);
}

fn swept_while_recorded_quickly() {
    swept_while_recorded(&[B], A);
}

/// The page of one block gets an array while it is swept.
fn swept_while_an_array_begins() {
    insert(A, alone(A));
    let sharer = spawn(|| insert_all(&[B]));
    let forgotten = sweep();
    sharer.join().unwrap();
    assert!(forgotten.contains_key(&(A as u32)), "left behind");
    if forgotten.contains_key(&(B as u32)) {
        assert_holds(&[]);
    } else {
        assert_holds_all(&[B]);
    }
}

const OFF: u8 = 0;
const ON: u8 = 1;
/// Another run, in which a trace counts for something else.
const ON_AGAIN: u8 = 2;

thread_local! {
    static STATE: &'static AtomicU8 = Box::leak(Box::new(AtomicU8::new(OFF)));
}

fn state() -> &'static AtomicU8 {
    STATE.with(|state| *state)
}

/// As the recorder does, if it has seen tracing on.
fn record(addr: u64) {
    record_in(state().load(Ordering::Relaxed), addr, trace(addr));
}

/// The same in a state that it has seen at some time.
fn record_in(seen: u8, addr: u64, trace: LiveTrace) {
    if seen == OFF {
        return;
    }
    let is_seen_before =
        mistakes::is_made(Mistake::LookBeforeOperation) && state().load(Ordering::Acquire) == seen;
    during(|| {
        if is_seen_before || state().load(Ordering::Acquire) == seen {
            insert_in_operation(addr, trace);
        }
    });
}

/// `control::stop`.
fn stop() -> BTreeMap<u32, LiveTrace> {
    if mistakes::is_made(Mistake::SweepBeforeState) {
        let forgotten = sweep();
        state().store(OFF, Ordering::SeqCst);
        return forgotten;
    }
    state().swap(OFF, Ordering::SeqCst);
    let grace = SLOTS.begin_grace().unwrap();
    while !mistakes::is_made(Mistake::SweepAtOnce)
        && !SLOTS.is_over_for_others(grace, thread::slot())
    {
        loom::thread::yield_now();
    }
    sweep()
}

/// Tracing stops while a block is recorded.
fn stopped(before: &[(u64, LiveTrace)], addr: u64) {
    before.iter().for_each(|&(addr, trace)| insert(addr, trace));
    state().store(ON, Ordering::SeqCst);
    let hook = spawn(move || record(addr));
    stop();
    hook.join().unwrap();
    assert_eq!(scan(), BTreeMap::new(), "left behind");
}

/// In a page that had none.
fn stopped_with_a_first_block() {
    stopped(&[], A);
}

/// Beside one that has no array.
fn stopped_as_an_array_begins() {
    stopped(&[(A, alone(A))], B);
}

fn stopped_with_a_quick_one() {
    stopped(&[(B, trace(B))], D);
}

fn stopped_while_growing() {
    stopped(&[(A, trace(A)), (B, trace(B))], D);
}

/// Beside a lone one, where two come at once.
fn stopped_with_two_hooks() {
    insert(A, alone(A));
    state().store(ON, Ordering::SeqCst);
    let hooks = [spawn(|| record(B)), spawn(|| record(D))];
    stop();
    hooks.into_iter().for_each(|hook| hook.join().unwrap());
    assert_eq!(scan(), BTreeMap::new(), "left behind");
}

/// A block is recorded by one who has seen the first of two runs, while the second ends.
fn stopped_with_a_hook_of_the_run_before() {
    // It has a page with an array, so that there is something to sweep in both runs.
    insert_all(&[B, D]);
    state().store(ON, Ordering::SeqCst);
    let hook = spawn(|| record_in(ON, A, trace(A)));
    stop();
    state().store(ON_AGAIN, Ordering::SeqCst);
    record_in(ON_AGAIN, B, new_trace(B));
    let forgotten = stop();
    hook.join().unwrap();
    let expected = BTreeMap::from([(new_trace(B).site.0, new_trace(B))]);
    assert_eq!(forgotten, expected, "of another run");
}

holds!(a_sweep_and_a_release_take_a_trace_once: swept_while_released_quickly, 3);
holds!(a_sweep_and_a_release_take_a_trace_elsewhere_once: swept_while_released_at_length, 3);
holds!(a_sweep_takes_what_was_there_while_the_page_grows: swept_while_growing, 3);
holds!(a_sweep_takes_what_was_there_while_a_block_comes: swept_while_recorded_quickly, 3);
holds!(a_sweep_takes_a_block_that_gets_an_array: swept_while_an_array_begins, 3);
holds!(stop_leaves_no_first_block: stopped_with_a_first_block, 3);
holds!(stop_leaves_nothing_where_an_array_begins: stopped_as_an_array_begins, 3);
holds!(stop_leaves_nothing_beside_another: stopped_with_a_quick_one, 3);
holds!(stop_leaves_nothing_in_a_page_that_grows: stopped_while_growing, 3);
holds!(stop_leaves_nothing_of_two_hooks: stopped_with_two_hooks, 2);
holds!(a_run_has_no_trace_of_another: stopped_with_a_hook_of_the_run_before, 3);

fails!(a_trace_taken_in_two_steps_is_taken_twice:
    swept_while_released_quickly, 3, TakeInTwoSteps, "taken twice");
fails!(a_hook_that_looks_before_its_operation_leaves_a_trace:
    stopped_with_a_quick_one, 3, LookBeforeOperation, "left behind");
fails!(a_stop_that_sweeps_before_it_stores_the_state_leaves_a_trace:
    stopped_with_a_quick_one, 3, SweepBeforeState, "left behind");
fails!(a_stop_that_does_not_wait_leaves_a_trace:
    stopped_with_a_quick_one, 3, SweepAtOnce, "left behind");
fails!(operations_without_a_fence_leave_a_trace:
    stopped_with_a_quick_one, 3, NoLightFence, "left behind");
fails!(operations_without_a_fence_leave_a_first_block:
    stopped_with_a_first_block, 3, NoLightFence, "left behind");
fails!(a_look_before_the_operation_leaves_a_trace_for_another_run:
    stopped_with_a_hook_of_the_run_before, 3, LookBeforeOperation, "of another run");
fails!(a_stop_that_does_not_wait_leaves_a_trace_for_another_run:
    stopped_with_a_hook_of_the_run_before, 3, SweepAtOnce, "of another run");
