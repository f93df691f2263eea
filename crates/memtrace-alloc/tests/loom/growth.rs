//! Pages grow while blocks are released, recorded, and recorded again at the same address.

use crate::live::{LiveTable, LiveTrace};
use crate::setting::{
    A, B, C, D, E, F, SHARING, alone, assert_holds, assert_holds_all, fails, holds, insert,
    insert_all, new_trace, release, shadow, spawn, trace,
};

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

/// Two threads find no place in a page, which grows once.
fn grown_by_two() {
    insert_all(&[A, B]);
    let other = spawn(|| insert_all(&[D]));
    insert_all(&[E]);
    other.join().unwrap();
    assert_holds_all(&[A, B, D, E]);
}

/// Two threads record the first blocks of a page.
fn first_blocks() {
    let other = spawn(|| insert_all(&[A]));
    insert(B, alone(B));
    other.join().unwrap();
    assert_holds(&[(A, trace(A)), (B, alone(B))]);
}

/// Two threads record blocks that are likely to be alone, in a page where there was one before.
fn two_that_would_be_alone() {
    insert(A, alone(A));
    release(A, alone(A));
    let other = spawn(|| insert(B, alone(B)));
    insert(A, alone(A));
    other.join().unwrap();
    assert_holds(&[(A, alone(A)), (B, alone(B))]);
}

/// Of a page with one block, it is released while another is recorded.
fn one_is_released_as_another_comes() {
    insert(A, alone(A));
    let other = spawn(|| insert_all(&[B]));
    release(A, alone(A));
    other.join().unwrap();
    assert_holds_all(&[B]);
}

holds!(a_block_released_while_its_page_grows_is_taken_once: released_quickly, 3);
holds!(a_block_elsewhere_released_while_its_page_grows_is_taken_once: released_at_length, 2);
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
holds!(the_last_place_is_taken_by_one_of_two: last_place, 3);
holds!(the_last_place_is_taken_by_one_of_two_elsewhere: last_places_of_a_line, 3);
holds!(a_page_that_two_let_grow_grows_once: grown_by_two, 2);
holds!(two_first_blocks_of_a_page_are_there: first_blocks, 3);
holds!(two_blocks_that_would_be_alone_are_both_there: two_that_would_be_alone, 3);
holds!(a_lone_block_released_as_another_comes_is_gone: one_is_released_as_another_comes, 3);

fails!(copies_that_count_keep_released_blocks: released_quickly, 3, CopiesCount, "still there");
fails!(copies_that_count_keep_old_traces: recorded_again_at_length, 3, CopiesCount, "still there");
fails!(a_copy_after_its_original_is_gone_comes_late: released_at_length, 3, GoneBeforeCopy, "lost");
fails!(a_copy_made_live_anyway_keeps_a_released_block: released_quickly, 3, CopyLiveAnyway, "lost or left");
fails!(a_copy_made_live_anyway_is_there_beside_the_new: recorded_again_quickly, 3, CopyLiveAnyway, "unseen");
fails!(without_a_second_look_a_moved_trace_is_lost: released_while_growing_twice, 2, NoSecondLook, "lost");
fails!(without_seals_a_late_insertion_is_lost: inserted_quickly, 3, NoSeals, "lost");
fails!(seals_that_are_ignored_lose_a_late_insertion: inserted_at_length, 3, SealsIgnored, "lost");
fails!(a_trace_taken_in_two_steps_may_have_moved: released_quickly, 3, TakeInTwoSteps, "still there");
fails!(a_place_taken_in_two_steps_is_taken_by_two: last_place, 3, InsertInTwoSteps, "lost");
