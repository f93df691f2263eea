//! Sampled blocks, whose releases look at a cell first.

use crate::live::{LiveTable, LiveTrace};
use crate::mistakes::{self, Mistake};
use crate::operation::during;
use crate::sampled_pages::SampledPages;
use crate::setting::{A, B, C, D, FAR, alone, fails, holds, shadow, spawn, sweep, trace};

thread_local! {
    static PAGES: &'static SampledPages = Box::leak(Box::new(SampledPages::new()));
}

fn pages() -> &'static SampledPages {
    PAGES.with(|pages| *pages)
}

/// As the recorder inserts a sampled block.
fn insert(addr: u64, trace: LiveTrace) {
    if mistakes::is_made(Mistake::MarkBeforeWord) {
        pages().mark(addr);
        assert_eq!(during(|| shadow().insert(addr, trace)), Ok(None), "given back unseen");
    } else {
        let replaced = during(|| shadow().insert_sampled(addr, trace, pages()));
        assert_eq!(replaced, Ok(None), "given back unseen");
    }
}

/// As the hook releases.
fn release(addr: u64, trace: LiveTrace) {
    assert!(!pages().has_none(addr), "let go");
    assert_eq!(during(|| shadow().take_sampled(addr, pages())), Some(trace), "lost");
}

/// Of a block that may have none.
fn release_any(addr: u64) -> Option<LiveTrace> {
    if pages().has_none(addr) {
        return None;
    }
    during(|| shadow().take_sampled(addr, pages()))
}

/// Of a block without a trace.
fn release_other(addr: u64) {
    assert_eq!(release_any(addr), None);
}

/// One block of a page is released while another is recorded, and released after that.
fn one_after_the_other(first: u64, second: u64) {
    insert(first, trace(first));
    let releaser = spawn(move || release(first, trace(first)));
    insert(second, trace(second));
    release(second, trace(second));
    releaser.join().unwrap();
    for addr in [first, second] {
        (0..3).for_each(|_| release_other(addr));
    }
    assert!(pages().has_none(first), "not clear again");
}

fn one_after_the_other_in_a_page() {
    one_after_the_other(A, B);
}

fn one_after_the_other_in_pages_of_a_cell() {
    one_after_the_other(A, FAR);
}

/// Three blocks of a page that has an array, two of which are released at the same time.
fn two_of_an_array() {
    [A, B, D].into_iter().for_each(|addr| insert(addr, trace(addr)));
    let releaser = spawn(|| release(A, trace(A)));
    release(B, trace(B));
    releaser.join().unwrap();
    release(D, trace(D));
}

/// A block without a trace finds a cell marked while another is recorded in its page.
fn beside_a_mark_of_nothing() {
    pages().mark(A);
    let releaser = spawn(|| release_other(C));
    insert(A, alone(A));
    release(A, alone(A));
    releaser.join().unwrap();
}

/// Two search at once while a block is recorded.
fn beside_two_searches() {
    insert(A, trace(A));
    let releaser = spawn(|| release(A, trace(A)));
    let other = spawn(|| release_other(C));
    insert(FAR, trace(FAR));
    release(FAR, trace(FAR));
    releaser.join().unwrap();
    other.join().unwrap();
}

/// A sweep while a block is released and another recorded.
fn swept() {
    insert(A, trace(A));
    let releaser = spawn(|| release_any(A));
    let sweeper = spawn(sweep);
    insert(FAR, trace(FAR));
    release(FAR, trace(FAR));
    let forgotten = sweeper.join().unwrap();
    let taken = releaser.join().unwrap();
    assert_eq!(taken.is_some(), forgotten.is_empty(), "lost or taken twice");
}

holds!(a_page_goes_on_after_its_sample: one_after_the_other_in_a_page, 3);
holds!(a_cell_goes_on_after_a_sample: one_after_the_other_in_pages_of_a_cell, 3);
holds!(samples_of_an_array: two_of_an_array, 2);
holds!(a_mark_of_nothing: beside_a_mark_of_nothing, 3);
holds!(two_searches: beside_two_searches, 2);
holds!(samples_that_are_swept: swept, 2);

fails!(a_mark_before_the_word: one_after_the_other_in_a_page, 3, MarkBeforeWord, "let go");
fails!(a_mark_before_the_word_of_another_page:
    one_after_the_other_in_pages_of_a_cell, 3, MarkBeforeWord, "let go");
fails!(a_cell_cleared_in_two_steps:
    one_after_the_other_in_a_page, 3, ClearInTwoSteps, "let go");
fails!(cells_without_orders: one_after_the_other_in_pages_of_a_cell, 3, AllRelaxed, "let go");
