use crate::array_memory::Supply;
use crate::live::{LiveTable, LiveTrace};
use crate::mistakes::{self, Mistake};
use crate::page_shadow::PageShadow;
use crate::site::SiteId;
use crate::sync::atomic::{self, AtomicU8, Ordering};
use crate::thread_slot::{SLOTS, Slot};
use crate::{array_memory, thread};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Blocks of one page: all but one of its lower half, where a page with one line of two words has no room for
/// more than two.
const A: u64 = 0;
const B: u64 = 64 * 16;
const C: u64 = 65 * 16;
/// Of the upper half.
const D: u64 = 128 * 16;
const E: u64 = 129 * 16;
const F: u64 = 200 * 16;
/// The other page.
const OTHER: u64 = 4096;
/// A page with the same lock as the first.
const SHARING: u64 = 16 * 4096;

/// No run accesses more.
const N_ATOMICS: usize = 56;
const MAX_THREADS: usize = 3;

/// Runs `model` in every order, with `mistake` made.
fn explore(max_preemptions: usize, supply: Supply, mistake: Mistake, model: fn()) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(max_preemptions);
    builder.max_branches = 100_000;
    builder.check(move || {
        mistakes::make(mistake);
        atomic::begin_run(N_ATOMICS);
        array_memory::begin_run(supply);
        SLOTS_TO_HOLD.set((0..MAX_THREADS).map(|_| SLOTS.claim().unwrap()).collect());
        thread::hold_slot(SLOTS_TO_HOLD.with_borrow_mut(Vec::pop));
        model();
    });
}

thread_local! {
    static SHADOW: &'static PageShadow = Box::leak(Box::new(PageShadow::new()));
    /// For threads to come.
    static SLOTS_TO_HOLD: RefCell<Vec<&'static Slot>> = const { RefCell::new(Vec::new()) };
    static STATE: &'static AtomicU8 = Box::leak(Box::new(AtomicU8::new(0)));
}

fn shadow() -> &'static PageShadow {
    SHADOW.with(|shadow| *shadow)
}

fn spawn<R: 'static>(run: impl FnOnce() -> R + 'static) -> loom::thread::JoinHandle<R> {
    let slot = SLOTS_TO_HOLD.with_borrow_mut(Vec::pop);
    assert!(slot.is_some());
    loom::thread::spawn(move || {
        thread::hold_slot(slot);
        run()
    })
}

/// The trace of a block that shares its page; each has its own.
const fn trace(addr: u64) -> LiveTrace {
    LiveTrace { size: 16, site: SiteId(addr as u32) }
}

/// Of a block that is likely to be alone.
const fn alone(addr: u64) -> LiveTrace {
    LiveTrace { size: 1024, site: SiteId(addr as u32) }
}

/// As the recorder inserts. No block was there before.
fn insert(addr: u64, trace: LiveTrace) {
    if !shadow().insert_quickly(addr, trace) {
        assert_eq!(shadow().insert(addr, trace), Ok(None), "given back unseen");
    }
}

fn insert_all(addrs: &[u64]) {
    addrs.iter().for_each(|&addr| insert(addr, trace(addr)));
}

/// As the recorder takes.
fn take(addr: u64) -> Option<LiveTrace> {
    shadow().take_quickly(addr).or_else(|| shadow().take(addr))
}

fn release(addr: u64, trace: LiveTrace) {
    assert_eq!(take(addr), Some(trace), "lost");
    assert_eq!(shadow().get(addr), None, "still there");
}

/// What a scan sees, each block once.
fn scan() -> BTreeMap<u64, LiveTrace> {
    let mut seen = BTreeMap::new();
    shadow().for_each::<false>(|addr, trace, _| {
        assert_eq!(seen.insert(addr, trace), None, "visited twice");
    });
    seen
}

/// What there is when all threads have ended.
fn assert_holds(expected: &[(u64, LiveTrace)]) {
    let expected: BTreeMap<_, _> = expected.iter().copied().collect();
    assert_eq!(scan(), expected, "lost or left");
    for (addr, trace) in expected {
        assert_eq!(take(addr), Some(trace), "lost");
        assert_eq!(take(addr), None, "there twice");
    }
}

fn assert_holds_all(addrs: &[u64]) {
    assert_holds(&addrs.iter().map(|&addr| (addr, trace(addr))).collect::<Vec<_>>());
}

/// A page grows while a block is released that stands where it is likeliest to be.
fn released_quickly() {
    insert_all(&[A, B]);
    let grower = spawn(|| insert_all(&[D]));
    release(A, trace(A));
    grower.join().unwrap();
    assert_holds_all(&[B, D]);
}

/// The same with one that does not.
fn released_at_length() {
    insert_all(&[A, B]);
    let grower = spawn(|| insert_all(&[D]));
    release(B, trace(B));
    grower.join().unwrap();
    assert_holds_all(&[A, D]);
}

/// The same while the page grows twice.
fn released_while_growing_twice() {
    insert_all(&[A, B]);
    let releaser = spawn(|| release(B, trace(B)));
    insert_all(&[C]);
    releaser.join().unwrap();
    assert_holds_all(&[A, C]);
}

/// The same while another page grows under the same lock.
fn released_while_two_pages_grow() {
    insert_all(&[A, B, SHARING + A, SHARING + B]);
    let releaser = spawn(|| release(B, trace(B)));
    let other = spawn(|| insert_all(&[SHARING + D]));
    insert_all(&[D]);
    releaser.join().unwrap();
    other.join().unwrap();
    assert_holds_all(&[A, D, SHARING + A, SHARING + B, SHARING + D]);
}

/// A page grows while a block in another of its lines is recorded, by a thread that may have read the entry
/// before, where it is likeliest to be.
fn inserted_quickly() {
    insert_all(&[A, B, D]);
    let grower = spawn(|| insert_all(&[C]));
    insert_all(&[F]);
    assert_eq!(shadow().get(F), Some(trace(F)), "lost");
    grower.join().unwrap();
    assert_holds_all(&[A, B, C, D, F]);
}

/// The same where another stands there.
fn inserted_at_length() {
    insert_all(&[A, B, D]);
    let grower = spawn(|| insert_all(&[C]));
    insert_all(&[E]);
    assert_eq!(shadow().get(E), Some(trace(E)), "lost");
    grower.join().unwrap();
    assert_holds_all(&[A, B, C, D, E]);
}

/// A page grows while a block is released whose place another takes.
fn released_and_another_recorded() {
    insert_all(&[A, B]);
    let grower = spawn(|| insert_all(&[D]));
    release(A, trace(A));
    insert_all(&[C]);
    grower.join().unwrap();
    assert_holds_all(&[B, C, D]);
}

/// What another block at an address has for a trace.
const fn new_trace(addr: u64) -> LiveTrace {
    LiveTrace { size: 32, site: SiteId(addr as u32 + 1) }
}

fn recorded_again(addr: u64, other: u64, again: LiveTrace) {
    insert_all(&[A, B]);
    let grower = spawn(|| insert_all(&[D]));
    release(addr, trace(addr));
    insert(addr, again);
    assert_eq!(shadow().get(addr), Some(again), "lost");
    grower.join().unwrap();
    assert_holds(&[(addr, again), (other, trace(other)), (D, trace(D))]);
}

/// A page grows while a block is released and another recorded at its address.
fn recorded_again_quickly() {
    recorded_again(A, B, new_trace(A));
}

fn recorded_again_at_length() {
    recorded_again(B, A, new_trace(B));
}

/// The same where nothing tells the one from the other.
fn recorded_again_alike_quickly() {
    recorded_again(A, B, trace(A));
}

fn recorded_again_alike_at_length() {
    recorded_again(B, A, trace(B));
}

/// A page grows, a block is released, and a second thread gets its address.
fn handed_to_another_thread() {
    insert_all(&[A, B]);
    let grower = spawn(|| insert_all(&[D]));
    release(A, trace(A));
    let next = spawn(|| insert(A, new_trace(A)));
    grower.join().unwrap();
    next.join().unwrap();
    assert_holds(&[(A, new_trace(A)), (B, trace(B)), (D, trace(D))]);
}

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

/// Scans of a page while a block gets an array to share with another.
fn scanned_while_an_array_begins() {
    insert(A, alone(A));
    let sharer = spawn(|| insert_all(&[B]));
    assert_eq!(scan().get(&A), Some(&alone(A)), "passed by");
    sharer.join().unwrap();
    assert_holds(&[(A, alone(A)), (B, trace(B))]);
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

/// Forgets all, and returns what there was by site.
fn sweep() -> BTreeMap<u32, LiveTrace> {
    let mut forgotten = BTreeMap::new();
    shadow().clear(&mut |trace| {
        assert_eq!(forgotten.insert(trace.site.0, trace), None, "forgotten twice");
    });
    forgotten
}

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
    assert_holds_all(&[addr, OTHER]);
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

/// Two threads record blocks in the last place of a line.
fn last_place() {
    insert_all(&[A]);
    let other = spawn(|| insert_all(&[B]));
    insert_all(&[C]);
    other.join().unwrap();
    assert_holds_all(&[A, B, C]);
}

/// The same in words that are likeliest for each.
fn last_places_of_a_line() {
    insert_all(&[A]);
    let other = spawn(|| insert_all(&[D]));
    insert_all(&[B]);
    other.join().unwrap();
    assert_holds_all(&[A, B, D]);
}

/// Two threads record the first blocks of a page.
fn first_blocks() {
    let other = spawn(|| insert_all(&[A]));
    insert(B, alone(B));
    other.join().unwrap();
    assert_holds(&[(A, trace(A)), (B, alone(B))]);
}

/// Of a page with one block, it is released while another is recorded.
fn one_is_released_as_another_comes() {
    insert(A, alone(A));
    let other = spawn(|| insert_all(&[B]));
    release(A, alone(A));
    other.join().unwrap();
    assert_holds_all(&[B]);
}

const OFF: u8 = 0;
const ON: u8 = 1;

fn state() -> &'static AtomicU8 {
    STATE.with(|state| *state)
}

/// `Recorder::record_in` and `take_back`, as far as the table goes.
fn record(addr: u64) {
    if state().load(Ordering::SeqCst) != ON {
        return;
    }
    let is_still_before =
        mistakes::is_made(Mistake::LookBeforeWord) && state().load(Ordering::SeqCst) == ON;
    insert(addr, trace(addr));
    if !is_still_before && state().load(Ordering::SeqCst) != ON {
        shadow().take_if(addr, trace(addr));
    }
}

/// `control::stop`.
fn stop() {
    if mistakes::is_made(Mistake::SweepBeforeState) {
        sweep();
        state().store(OFF, Ordering::SeqCst);
        return;
    }
    state().swap(OFF, Ordering::SeqCst);
    sweep();
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

macro_rules! holds {
    ($name:ident: $model:ident, $bound:expr $(, $supply:ident)?) => {
        #[test]
        fn $name() {
            #[allow(unused_mut, unused_assignments)]
            let mut supply = Supply::Plenty;
            $(supply = Supply::$supply;)?
            explore($bound, supply, Mistake::None, $model);
        }
    };
}

macro_rules! fails {
    ($name:ident: $model:ident, $bound:expr, $mistake:ident, $message:literal $(, $supply:ident)?) => {
        #[test]
        #[should_panic(expected = $message)]
        fn $name() {
            #[allow(unused_mut, unused_assignments)]
            let mut supply = Supply::Plenty;
            $(supply = Supply::$supply;)?
            explore($bound, supply, Mistake::$mistake, $model);
        }
    };
}

holds!(a_block_released_while_its_page_grows_is_taken_once: released_quickly, 3);
holds!(a_block_elsewhere_released_while_its_page_grows_is_taken_once: released_at_length, 3);
holds!(a_block_released_while_its_page_grows_twice_is_taken_once: released_while_growing_twice, 2);
holds!(a_block_released_while_two_pages_grow_is_taken_once: released_while_two_pages_grow, 2);
holds!(a_block_recorded_while_its_page_grows_is_there: inserted_quickly, 3);
holds!(a_block_recorded_elsewhere_while_its_page_grows_is_there: inserted_at_length, 3);
holds!(a_place_given_up_while_its_page_grows_can_be_taken: released_and_another_recorded, 2);
holds!(an_address_recorded_again_has_the_new_trace: recorded_again_quickly, 2);
holds!(an_address_elsewhere_recorded_again_has_the_new_trace: recorded_again_at_length, 2);
holds!(an_address_recorded_again_alike_has_one_trace: recorded_again_alike_quickly, 2);
holds!(an_address_elsewhere_recorded_again_alike_has_one_trace: recorded_again_alike_at_length, 2);
holds!(an_address_handed_to_another_thread_has_the_new_trace: handed_to_another_thread, 2);
holds!(a_scan_visits_live_blocks_of_a_page_that_grows: scanned, 3);
holds!(a_scan_visits_live_blocks_of_a_page_that_grows_twice: scanned_while_growing_twice, 2);
holds!(a_scan_does_not_visit_what_was_released_before: scanned_after_release, 2);
holds!(a_scan_does_not_visit_what_was_released_before_two_growths:
    scanned_after_release_while_growing_twice, 2);
holds!(a_scan_visits_no_block_twice_that_is_recorded_again: scanned_while_recorded_again, 1);
holds!(a_scan_visits_a_block_that_gets_an_array: scanned_while_an_array_begins, 3);
holds!(a_sweep_and_a_release_take_a_trace_once: swept_while_released_quickly, 3);
holds!(a_sweep_and_a_release_take_a_trace_elsewhere_once: swept_while_released_at_length, 3);
holds!(a_sweep_takes_what_was_there_while_the_page_grows: swept_while_growing, 3);
holds!(a_sweep_takes_what_was_there_while_a_block_comes: swept_while_recorded_quickly, 3);
holds!(a_sweep_takes_a_block_that_gets_an_array: swept_while_an_array_begins, 3);
holds!(an_array_given_back_takes_no_trace_along: given_back_while_recorded, 3, Scarce);
holds!(an_array_given_back_takes_no_trace_along_behind: given_back_while_recorded_behind, 3, Scarce);
holds!(an_array_given_back_takes_none_of_two_traces_along: given_back_while_two_are_recorded, 1, Scarce);
holds!(the_last_place_is_taken_by_one_of_two: last_place, 3);
holds!(the_last_place_is_taken_by_one_of_two_elsewhere: last_places_of_a_line, 3);
holds!(two_first_blocks_of_a_page_are_there: first_blocks, 3);
holds!(a_lone_block_released_as_another_comes_is_gone: one_is_released_as_another_comes, 3);
holds!(stop_leaves_no_first_block: stopped_with_a_first_block, 3);
holds!(stop_leaves_nothing_where_an_array_begins: stopped_as_an_array_begins, 3);
holds!(stop_leaves_nothing_beside_another: stopped_with_a_quick_one, 3);
holds!(stop_leaves_nothing_in_a_page_that_grows: stopped_while_growing, 3);
holds!(stop_leaves_nothing_of_two_hooks: stopped_with_two_hooks, 2);
holds!(an_array_is_used_again_when_no_release_looks_at_it: used_again_while_released, 2, UsedAgain);
holds!(an_array_is_used_again_when_nobody_looks_at_it: used_again_while_found, 2, UsedAgain);
holds!(an_array_is_used_again_when_no_insertion_looks_at_it: used_again_while_recorded, 2, UsedAgain);

fails!(copies_that_count_keep_released_blocks: released_quickly, 3, CopiesCount, "still there");
fails!(copies_that_count_keep_old_traces: recorded_again_at_length, 3, CopiesCount, "still there");
fails!(a_copy_after_its_original_is_gone_comes_late: released_at_length, 3, GoneBeforeCopy, "lost");
fails!(a_copy_after_its_original_is_gone_is_passed_by: scanned, 3, GoneBeforeCopy, "passed by");
fails!(a_copy_made_live_anyway_keeps_a_released_block: released_quickly, 3, CopyLiveAnyway, "");
fails!(a_copy_made_live_anyway_is_there_beside_the_new: recorded_again_quickly, 3, CopyLiveAnyway, "");
fails!(without_a_second_look_a_moved_trace_is_lost: released_while_growing_twice, 2, NoSecondLook, "lost");
fails!(without_seals_a_late_insertion_is_lost: inserted_quickly, 3, NoSeals, "lost");
fails!(seals_that_are_ignored_lose_a_late_insertion: inserted_at_length, 3, SealsIgnored, "lost");
fails!(copies_that_are_visited_show_released_blocks:
    scanned_after_release, 3, CopiesAreVisited, "visited after");
fails!(what_is_gone_and_passed_by_is_not_seen: scanned, 3, GoneIsNotVisited, "passed by");
fails!(a_trace_taken_in_two_steps_is_taken_twice:
    swept_while_released_quickly, 3, TakeInTwoSteps, "taken twice");
fails!(a_trace_taken_in_two_steps_may_have_moved: released_quickly, 3, TakeInTwoSteps, "");
fails!(an_array_given_back_without_seals_takes_a_trace_along:
    given_back_while_recorded, 3, NoSeals, "lost", Scarce);
fails!(a_place_taken_in_two_steps_is_taken_by_two: last_place, 3, InsertInTwoSteps, "lost");
fails!(a_hook_that_looks_too_early_leaves_a_trace:
    stopped_with_a_quick_one, 3, LookBeforeWord, "left behind");
fails!(a_stop_that_sweeps_too_early_leaves_a_trace:
    stopped_with_a_quick_one, 3, SweepBeforeState, "left behind");
fails!(weaker_orders_leave_a_trace: stopped_with_a_quick_one, 3, NoSeqCst, "left behind");
fails!(weaker_orders_leave_a_first_block: stopped_with_a_first_block, 3, NoSeqCst, "left behind");
fails!(an_array_used_again_at_once_is_looked_at:
    used_again_while_released, 2, UseAgainAtOnce, "", UsedAgain);
fails!(operations_marked_without_a_fence_are_not_seen:
    used_again_while_released, 2, NoLightFence, "", UsedAgain);
