//! The recording rules of CPython's tracemalloc: streams of allocations, resizes and releases, with the
//! figures that CPython's own hooks gave for them.
//!
//! `data/events_seed1.jsonl` was computed by CPython 3.11. A line is a case: `ops`, a list of tokens, and
//! `expect`, what those tokens that ask for something are answered.
//!
//! | token | what |
//! | --- | --- |
//! | `M8`, `N8` | allocates 8 bytes; the same as the resize of no block |
//! | `K2,4` | allocates 2 × 4 zeroed bytes |
//! | `R0,9` | resizes the block that came first to 9 bytes; one of 2⁶² bytes fails |
//! | `F0` | releases it |
//! | `T7,4096,9`, `U7,4096` | tracks 9 bytes at 4096 in domain 7; forgets them |
//! | `S25`, `E`, `L`, `P` | starts with 25 frames and clears; stops; clears; resets the peak |
//! | `Q` | asks for current and peak bytes, whether tracing is on, and (domain, size) of all traces |
//!
//! The same rules are then tried on random streams against [`Model`], which is them in plain words.

use super::ALLOC;
use libtest_mimic::{Arguments, Trial};
use memtrace::untraced;
use memtrace_tests::rng::Rng;
use serde_json::{Value, json};
use std::alloc::{GlobalAlloc, Layout};
use std::collections::BTreeMap;
use std::process::ExitCode;

/// An allocator, with blocks of no bytes, as `malloc` has them and CPython counts them.
///
/// `GlobalAlloc` leaves requests for no bytes to the allocator's own definition. memtrace passes every
/// size on as it comes; here they are defined.
pub(crate) struct WithEmptyBlocks<A>(pub(crate) A);

fn at_least_a_byte(layout: Layout) -> Layout {
    Layout::from_size_align(layout.size().max(1), layout.align()).unwrap_or(layout)
}

// SAFETY: the allocator does it all; requests for nothing are requests for a byte.
unsafe impl<A: GlobalAlloc> GlobalAlloc for WithEmptyBlocks<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the size is not zero.
        unsafe { self.0.alloc(at_least_a_byte(layout)) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the size is not zero.
        unsafe { self.0.alloc_zeroed(at_least_a_byte(layout)) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the layout that it was allocated with.
        unsafe { self.0.dealloc(block, at_least_a_byte(layout)) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the layout that it was allocated with; the new size is not zero.
        unsafe { self.0.realloc(block, at_least_a_byte(layout), new_size.max(1)) }
    }
}

unsafe extern "C" {
    fn memtrace_track(domain: u32, addr: usize, size: usize) -> i32;
    fn memtrace_untrack(domain: u32, addr: usize) -> i32;
}

/// A size that no allocator has.
const TOO_LARGE: usize = 1 << 62;

#[derive(Clone, Copy, Debug)]
enum Op {
    Allocate(usize),
    AllocateZeroed(usize),
    Resize(usize, usize),
    Release(usize),
    Track(u32, usize, usize),
    Untrack(u32, usize),
    Start(u16),
    Stop,
    Clear,
    ResetPeak,
    Query,
}

fn parse(token: &str) -> Op {
    let (kind, numbers) = token.split_at(1);
    let numbers: Vec<usize> =
        numbers.split(',').filter(|n| !n.is_empty()).map(|n| n.parse().unwrap()).collect();
    match (kind, &numbers[..]) {
        ("M" | "N", &[size]) => Op::Allocate(size),
        ("K", &[n, size]) => Op::AllocateZeroed(n * size),
        ("R", &[block, size]) => Op::Resize(block, size),
        ("F", &[block]) => Op::Release(block),
        ("T", &[domain, addr, size]) => Op::Track(domain as u32, addr, size),
        ("U", &[domain, addr]) => Op::Untrack(domain as u32, addr),
        ("S", &[n_frames]) => Op::Start(n_frames as u16),
        ("E", []) => Op::Stop,
        ("L", []) => Op::Clear,
        ("P", []) => Op::ResetPeak,
        ("Q", []) => Op::Query,
        _ => panic!("unknown token {token}"),
    }
}

/// What a `Q` is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    current: u64,
    peak: u64,
    is_tracing: bool,
    /// (domain, size), sorted.
    traces: Vec<(u32, u64)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Code(char, i32),
    State(State),
}

impl Answer {
    fn to_json(&self) -> Value {
        match self {
            Self::Code(kind, code) => json!([kind.to_string(), code]),
            Self::State(state) => {
                let State { current, peak, is_tracing, traces } = state;
                let traces: Vec<_> =
                    traces.iter().map(|(domain, size)| json!([domain, size])).collect();
                json!(["Q", current, peak, u8::from(*is_tracing), traces])
            }
        }
    }
}

/// Carries out a stream through the real hook, and releases what it leaves.
fn run(ops: &[Op]) -> Vec<Answer> {
    // Only the blocks of the stream are traced: everything here has its memory before.
    let mut blocks: Vec<Option<(*mut u8, Layout)>> = untraced(|| Vec::with_capacity(ops.len()));
    let mut answers = untraced(|| Vec::with_capacity(ops.len()));
    let layout = |size| Layout::from_size_align(size, 1).expect("sizes are below 2^63");
    for op in ops {
        match *op {
            Op::Allocate(size) => {
                // SAFETY: the allocator has blocks of every size.
                let block = unsafe { ALLOC.alloc(layout(size)) };
                blocks.push(Some((block, layout(size))));
            }
            Op::AllocateZeroed(size) => {
                // SAFETY: as above.
                let block = unsafe { ALLOC.alloc_zeroed(layout(size)) };
                blocks.push(Some((block, layout(size))));
            }
            Op::Resize(i, size) => {
                let (block, old) = blocks[i].expect("the block is alive");
                // SAFETY: allocated with this layout.
                let resized = unsafe { ALLOC.realloc(block, old, size) };
                assert_eq!(resized.is_null(), size == TOO_LARGE);
                if !resized.is_null() {
                    blocks[i] = Some((resized, layout(size)));
                }
            }
            Op::Release(i) => {
                let (block, layout) = blocks[i].take().expect("the block is alive");
                // SAFETY: allocated with this layout.
                unsafe { ALLOC.dealloc(block, layout) };
            }
            Op::Track(domain, addr, size) => {
                // SAFETY: any numbers will do.
                answers.push(Answer::Code('T', unsafe { memtrace_track(domain, addr, size) }));
            }
            Op::Untrack(domain, addr) => {
                // SAFETY: any numbers will do.
                answers.push(Answer::Code('U', unsafe { memtrace_untrack(domain, addr) }));
            }
            Op::Start(n_frames) => {
                memtrace::start(n_frames).unwrap();
                memtrace::clear_traces();
            }
            Op::Stop => memtrace::stop(),
            Op::Clear => memtrace::clear_traces(),
            Op::ResetPeak => memtrace::reset_peak(),
            Op::Query => {
                let state = untraced(state);
                answers.push(Answer::State(state));
            }
        }
    }
    memtrace::stop();
    for (block, layout) in blocks.into_iter().flatten() {
        // SAFETY: allocated with this layout.
        unsafe { ALLOC.dealloc(block, layout) };
    }
    answers
}

fn state() -> State {
    let memory = memtrace::traced_memory();
    let mut traces = Vec::new();
    if memtrace::is_tracing() {
        let snapshot = memtrace::take_raw_snapshot().unwrap();
        traces.extend(snapshot.traces().map(|trace| (trace.domain, trace.size)));
        traces.sort_unstable();
    }
    let is_tracing = memtrace::is_tracing();
    State { current: memory.current, peak: memory.peak, is_tracing, traces }
}

/// The rules, in plain words.
#[derive(Default)]
struct Model {
    is_tracing: bool,
    peak: u64,
    /// Traced blocks by number.
    blocks: BTreeMap<usize, u64>,
    tracked: BTreeMap<(u32, usize), u64>,
    n_blocks: usize,
}

impl Model {
    fn current(&self) -> u64 {
        self.blocks.values().chain(self.tracked.values()).sum()
    }

    fn forget_all(&mut self) {
        self.blocks.clear();
        self.tracked.clear();
        self.peak = 0;
    }

    fn step(&mut self, op: Op) -> Option<Answer> {
        let mut answer = None;
        match op {
            // A block is traced with the size that was asked for, 0 included, if tracing is on.
            Op::Allocate(size) | Op::AllocateZeroed(size) => {
                if self.is_tracing {
                    self.blocks.insert(self.n_blocks, size as u64);
                }
                self.n_blocks += 1;
            }
            // A resize that fails changes nothing. Any other makes the block traced, also one from
            // before the start; the peak sees the difference, never both sizes.
            Op::Resize(_, TOO_LARGE) => {}
            Op::Resize(block, size) => {
                if self.is_tracing {
                    self.blocks.insert(block, size as u64);
                }
            }
            Op::Release(block) => {
                self.blocks.remove(&block);
            }
            Op::Track(..) | Op::Untrack(..) if !self.is_tracing => {
                let kind = if matches!(op, Op::Track(..)) { 'T' } else { 'U' };
                answer = Some(Answer::Code(kind, -2));
            }
            // An address in two domains is two traces.
            Op::Track(domain, addr, size) => {
                self.tracked.insert((domain, addr), size as u64);
                answer = Some(Answer::Code('T', 0));
            }
            Op::Untrack(domain, addr) => {
                self.tracked.remove(&(domain, addr));
                answer = Some(Answer::Code('U', 0));
            }
            Op::Start(_) => {
                self.is_tracing = true;
                self.forget_all();
            }
            Op::Stop => {
                self.is_tracing = false;
                self.forget_all();
            }
            Op::Clear => self.forget_all(),
            Op::ResetPeak => self.peak = self.current(),
            Op::Query => {
                let blocks = self.blocks.values().map(|&size| (0, size));
                let tracked = self.tracked.iter().map(|(&(domain, _), &size)| (domain, size));
                let mut traces: Vec<_> = blocks.chain(tracked).collect();
                traces.sort_unstable();
                let (current, peak) = (self.current(), self.peak);
                let is_tracing = self.is_tracing;
                answer = Some(Answer::State(State { current, peak, is_tracing, traces }));
            }
        }
        self.peak = self.peak.max(self.current());
        answer
    }
}

fn random_ops(rng: &mut Rng) -> Vec<Op> {
    let (mut ops, mut alive, mut n_blocks) = (Vec::new(), Vec::new(), 0);
    for _ in 0..10 + rng.below(150) {
        let size = match rng.below(5) {
            0 => rng.below(3),
            1 => rng.below(600),
            2 => 512 + rng.below(2),
            3 => rng.below(300_000),
            _ => rng.below(10_000),
        };
        let domain = [0, 1, 7, u32::MAX][rng.below(4)];
        let addr = [0, 1, 4096, usize::MAX][rng.below(4)];
        let block = (!alive.is_empty()).then(|| rng.below(alive.len()));
        ops.push(match (rng.below(16), block) {
            (0..=2, _) | (3..=7, None) => {
                alive.push(n_blocks);
                n_blocks += 1;
                if rng.below(3) == 0 { Op::AllocateZeroed(size) } else { Op::Allocate(size) }
            }
            (3, Some(i)) if rng.below(3) == 0 => Op::Resize(alive[i], TOO_LARGE),
            (3..=5, Some(i)) => Op::Resize(alive[i], size),
            (6..=7, Some(i)) => Op::Release(alive.swap_remove(i)),
            (8, _) => Op::Track(domain, addr, size),
            (9, _) => Op::Untrack(domain, addr),
            (10, _) => Op::Start(1 + rng.below(30) as u16),
            (11, _) if rng.below(3) == 0 => Op::Stop,
            (11, _) => Op::ResetPeak,
            (12, _) if rng.below(2) == 0 => Op::Clear,
            _ => Op::Query,
        });
    }
    ops.push(Op::Query);
    ops
}

/// The file's cases; its first line says what it is.
fn cases() -> Vec<Value> {
    let lines = include_str!("../../data/events_seed1.jsonl").lines();
    lines.skip(1).map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ops_of(case: &Value) -> Vec<Op> {
    case["ops"].as_array().unwrap().iter().map(|token| parse(token.as_str().unwrap())).collect()
}

fn every_case_is_answered_as_cpython_answered_it() {
    let cases = cases();
    assert_eq!(cases.len(), 120);
    for case in cases {
        let answers = run(&ops_of(&case));
        let expected = case["expect"].as_array().unwrap();
        for (i, (answer, expected)) in answers.iter().zip(expected).enumerate() {
            assert_eq!(answer.to_json(), *expected, "case {}, answer {i}", case["id"]);
        }
        assert_eq!(answers.len(), expected.len(), "case {}", case["id"]);
    }
}

/// The model is what the random streams are judged by.
fn the_model_answers_every_case_as_cpython_did() {
    for case in cases() {
        let mut model = Model::default();
        let answers: Vec<_> = ops_of(&case)
            .into_iter()
            .filter_map(|op| model.step(op))
            .map(|a| a.to_json())
            .collect();
        assert_eq!(answers, *case["expect"].as_array().unwrap(), "case {}", case["id"]);
    }
}

fn random_streams_are_answered_as_the_model_answers_them() {
    for seed in 0..60 {
        let ops = random_ops(&mut Rng::new(seed));
        let mut model = Model::default();
        let expected: Vec<_> = ops.iter().filter_map(|&op| model.step(op)).collect();
        assert_eq!(run(&ops), expected, "seed {seed}: {ops:?}");
    }
}

pub(crate) fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One after another on the main thread: tracing is one for the whole process.
    arguments.test_threads = Some(1);
    let trial = |name: &str, case: fn()| {
        Trial::test(name, move || {
            case();
            Ok(())
        })
    };
    let trials = vec![
        trial(
            "the_model_answers_every_case_as_cpython_did",
            the_model_answers_every_case_as_cpython_did,
        ),
        trial(
            "every_case_is_answered_as_cpython_answered_it",
            every_case_is_answered_as_cpython_answered_it,
        ),
        trial(
            "random_streams_are_answered_as_the_model_answers_them",
            random_streams_are_answered_as_the_model_answers_them,
        ),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}
