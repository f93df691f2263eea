//! Synthetic programs that change what is further out on their stack while the state at the leaf stays
//! what it was, and caches that must not be fooled by it.
//!
//! A program is a list of frames, laid out as code of each kind would. It is edited at random, laid out
//! again over the words that the last one left, and captured: by a [`SiteCache`], and by
//! [`plain::walk`], which is believed. Every [`Check`] is then removed in turn, to see that without it
//! answers go wrong.

extern crate std;

use crate::bounds::StackBounds;
use crate::counts::Counts;
use crate::hash::StackHash;
use crate::native::cache::SiteCache;
use crate::native::world::{Check, World, without};
use crate::plain::{self, Rules};
use crate::rule::{CfaBase, End, Registers, Rule};
use crate::site::Sites;
use core::num::NonZeroU32;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::vec::Vec;

/// A small generator with a full period, so that runs repeat.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ mixed >> 31) % n
    }
}

/// How a function treats its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Leaves the frame pointer alone.
    Plain,
    /// Saves it and uses it for something else.
    Saves,
    /// Has a standard frame, below which it allocates as much as it likes.
    FramePointer,
    /// Has a frame pointer of an unusual kind.
    OddFramePointer,
    /// Is left by a rule that must be interpreted: a word at its stack pointer says where its frame
    /// begins.
    Rare,
    /// Has no unwind tables.
    Unknown,
    /// Has no caller.
    Start,
}

#[derive(Clone, Copy, Debug)]
struct Function {
    kind: Kind,
    /// Words of its frame, or the least that it has.
    n_words: u64,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    function: usize,
    call: u64,
    /// Words beyond those of its function, where these may vary.
    n_more: u64,
    /// What a function that saves the frame pointer has in it.
    scratch: u64,
}

const CODE: u64 = 0x40_0000;
const N_FUNCTIONS: usize = 16;
/// Code of the capturing tool itself.
const OWN_FUNCTION: usize = 0;

const N_WORDS: u64 = 1 << 12;
/// Ends of the thread's own stack, and of another.
const OWN_END: u64 = 0x7000_0000;
const FOREIGN_END: u64 = 0x2000_0000;

/// A process with two stacks.
struct Process {
    functions: RefCell<[Function; N_FUNCTIONS]>,
    /// Words by address; what was never written is not mapped.
    words: RefCell<HashMap<u64, u64>>,
    generation: Cell<u32>,
    n_faults: Cell<u64>,
    time: Cell<u64>,
}

fn call_addr(function: usize, call: u64) -> u64 {
    CODE + function as u64 * 64 + call * 8 + 7
}

impl Process {
    fn function_at(&self, call_addr: u64) -> Option<Function> {
        let number = usize::try_from(call_addr.checked_sub(CODE)? / 64).ok()?;
        self.functions.borrow().get(number).copied()
    }

    fn word(&self, addr: u64) -> Option<u64> {
        self.words.borrow().get(&addr).copied()
    }
}

struct ProcessRules<'a>(&'a Process);

impl Rules for ProcessRules<'_> {
    fn rule(&mut self, call_addr: u64) -> Rule {
        let Some(Function { kind, n_words }) = self.0.function_at(call_addr) else {
            return Rule::UNKNOWN;
        };
        let size = n_words as i64 * 8;
        match kind {
            Kind::Plain => Rule::plain(CfaBase::Sp, size, None).unwrap(),
            Kind::Saves => Rule::plain(CfaBase::Sp, size, Some(-16)).unwrap(),
            Kind::FramePointer => Rule::FRAME_POINTER,
            Kind::OddFramePointer => Rule::plain(CfaBase::Fp, 24, Some(-16)).unwrap(),
            Kind::Rare => Rule::INTERPRETED,
            Kind::Unknown => Rule::UNKNOWN,
            Kind::Start => Rule::OUTERMOST,
        }
    }

    fn interpret(
        &mut self,
        registers: Registers,
        read_word: &mut dyn FnMut(u64) -> Option<u64>,
    ) -> Option<Registers> {
        let cfa = read_word(registers.sp)?;
        let pc = read_word(cfa.wrapping_sub(8))?;
        Some(Registers { pc, sp: cfa, fp: registers.fp, is_exact_pc: false })
    }
}

impl<'a> World for &'a Process {
    type Rules = ProcessRules<'a>;

    fn rules(&self) -> ProcessRules<'a> {
        ProcessRules(self)
    }

    fn read_word(&self, addr: u64) -> u64 {
        self.word(addr).unwrap_or_else(|| {
            self.n_faults.set(self.n_faults.get() + 1);
            0
        })
    }

    fn trusted(&self, stack: &StackBounds) -> StackBounds {
        *stack
    }

    fn generation(&self) -> u32 {
        self.generation.get()
    }

    fn cycles(&self) -> u64 {
        // Now the one way is quicker, now the other.
        let time = self.time.get() + 1 + u64::from(self.time.get().is_multiple_of(7));
        self.time.set(time);
        time
    }

    fn look_for_unloaded(&self, _: impl Iterator<Item = u64>) {}
}

/// Sites by number, from 1.
#[derive(Default)]
struct Table {
    by_hash: RefCell<HashMap<u64, u32>>,
    stacks: RefCell<Vec<(Vec<u64>, End)>>,
}

impl Sites for Table {
    fn find(&self, hash: StackHash) -> Option<NonZeroU32> {
        self.by_hash.borrow().get(&hash.get()).copied().and_then(NonZeroU32::new)
    }

    fn insert(&self, hash: StackHash, call_addrs: &[u64], end: End) -> Option<NonZeroU32> {
        assert_eq!(hash, StackHash::of(call_addrs, end), "the hash is that of the stack");
        let mut stacks = self.stacks.borrow_mut();
        stacks.push((call_addrs.into(), end));
        let number = stacks.len() as u32;
        assert_eq!(self.by_hash.borrow_mut().insert(hash.get(), number), None);
        NonZeroU32::new(number)
    }

    fn is_own(&self, addr: u64) -> bool {
        addr.wrapping_sub(CODE) / 64 == OWN_FUNCTION as u64
    }
}

struct Program {
    rng: Rng,
    process: Process,
    /// Outermost first.
    frames: Vec<Frame>,
    is_on_own_stack: bool,
    limit: usize,
    /// Whether the outermost frame stays where it is, rather than the innermost.
    is_anchored: bool,
    /// How often at most a stack is captured before it changes.
    most_captures: u64,
}

impl Program {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let functions = core::array::from_fn(|i| {
            let kind = match i {
                OWN_FUNCTION => Kind::Plain,
                // A build with frame pointers.
                1..=9 if seed % 2 == 1 => Kind::FramePointer,
                1..=4 => Kind::Plain,
                5..=7 => Kind::Saves,
                8..=10 => Kind::FramePointer,
                11 => Kind::OddFramePointer,
                12 => Kind::Rare,
                13 => Kind::Unknown,
                14 => Kind::Start,
                _ => Kind::Plain,
            };
            Function { kind, n_words: 4 + 2 * rng.below(3) }
        });
        let process = Process {
            functions: RefCell::new(functions),
            words: RefCell::default(),
            generation: Cell::new(0),
            n_faults: Cell::new(0),
            time: Cell::new(0),
        };
        Self {
            rng,
            process,
            frames: Vec::new(),
            is_on_own_stack: true,
            limit: if seed % 2 == 1 { 16 } else { 8 },
            is_anchored: false,
            most_captures: 3,
        }
    }

    fn new_frame(&mut self) -> Frame {
        // Rare kinds are rare, and most calls are to few functions.
        let function = match self.rng.below(60) {
            0 => 12,
            1 => 13,
            2 => 14,
            n => 1 + n as usize % 11,
        };
        Frame {
            function,
            call: self.rng.below(2),
            n_more: 2 * self.rng.below(2),
            scratch: self.rng.below(1 << 40) << 3,
        }
    }

    fn has_variable_size(&self, i: usize) -> bool {
        let kind = self.process.functions.borrow()[self.frames[i].function].kind;
        matches!(kind, Kind::FramePointer | Kind::OddFramePointer | Kind::Rare)
    }

    /// Changes something, often far out.
    fn edit(&mut self) {
        let n = self.frames.len() as u64;
        match self.rng.below(100) {
            // Returns and calls.
            0..50 => {
                let n_kept = n.saturating_sub(self.rng.below(4)) as usize;
                self.frames.truncate(n_kept);
                let n_called = self.rng.below(if n < 10 { 5 } else { 4 });
                for _ in 0..n_called {
                    let frame = self.new_frame();
                    self.frames.push(frame);
                }
                if self.rng.below(4) == 0 {
                    let own = Frame { function: OWN_FUNCTION, ..self.new_frame() };
                    self.frames.push(own);
                }
            }
            // Another call in the same frame, anywhere.
            50..65 if n > 0 => {
                let i = self.rng.below(n) as usize;
                self.frames[i].call ^= 1;
            }
            // Another function with a frame of the same size.
            65..70 if n > 0 => {
                let i = self.rng.below(n) as usize;
                self.frames[i].function = self.new_frame().function;
            }
            // What dead registers hold.
            70..78 if n > 0 => {
                let i = self.rng.below(n) as usize;
                self.frames[i].scratch = self.rng.below(1 << 40) << 3;
            }
            // A frame moves, and those further in stay where they are.
            78..92 if n > 1 => {
                let i = 1 + self.rng.below(n - 1) as usize;
                if self.has_variable_size(i) {
                    let outer = (0..i).rev().find(|&outer| self.has_variable_size(outer));
                    let inward = if self.frames[i].n_more > 0 { 2 } else { 0 };
                    if let Some(outer) = outer {
                        if inward != 0 && self.rng.below(2) == 0 {
                            self.frames[i].n_more -= 2;
                            self.frames[outer].n_more += 2;
                        } else if self.frames[outer].n_more > 0 {
                            self.frames[i].n_more += 2;
                            self.frames[outer].n_more -= 2;
                        }
                    }
                }
            }
            // The outermost frames come and go, and those further in stay where they are.
            92..95 if n > 0 => {
                if self.rng.below(2) == 0 {
                    self.frames.remove(0);
                } else {
                    let frame = self.new_frame();
                    self.frames.insert(0, frame);
                }
            }
            95..97 => self.limit = [3, 5, 8, 25, 100, 101][self.rng.below(6) as usize],
            // A library is unloaded, and another loaded in its place.
            97 => {
                let function = 1 + self.rng.below(7) as usize;
                let n_words = 4 + 2 * self.rng.below(3);
                self.process.functions.borrow_mut()[function].n_words = n_words;
                self.process.generation.set(self.process.generation.get() + 1);
            }
            98 => self.is_on_own_stack ^= true,
            _ => {
                let n_kept = self.rng.below(n + 1) as usize;
                self.frames.truncate(n_kept);
            }
        }
        self.frames.truncate(60);
    }

    /// Writes the frames to the stack, over what was there, and returns the state of the innermost.
    ///
    /// Innermost frames end at a place that does not depend on how many there are further out: a
    /// program that is not at its outermost calls has these beyond.
    fn lay_out(&mut self) -> Registers {
        let end = if self.is_on_own_stack { OWN_END } else { FOREIGN_END };
        let functions = *self.process.functions.borrow();
        let mut words = self.process.words.borrow_mut();
        if !self.is_on_own_stack {
            // Other stacks are unmapped, and others mapped in their place.
            words.retain(|&addr, _| addr >= OWN_END - N_WORDS * 8);
        }
        let sizes = self.frames.iter().map(|frame| {
            let function = functions[frame.function];
            let n_more = match function.kind {
                Kind::FramePointer | Kind::OddFramePointer | Kind::Rare => frame.n_more,
                _ => 0,
            };
            function.n_words + n_more
        });
        let sizes: Vec<u64> = sizes.collect();
        // Where the innermost frame ends, in steps that some programs share.
        let total: u64 = sizes.iter().sum();
        let n_down = if self.is_anchored { total } else { total.next_multiple_of(128) };
        let lowest = end - 8 * (64 + n_down);
        let mut cfa = lowest + 8 * total;
        let top = cfa;
        if self.is_on_own_stack {
            // All of the thread's own stack is there.
            for addr in (top..OWN_END).step_by(8) {
                words.entry(addr).or_insert(0x1111_1111_1111_1111);
            }
        }
        let (mut fp, mut pc) = (0x5555_5550, 0);
        for (frame, &n_words) in self.frames.iter().zip(&sizes) {
            let sp = cfa - 8 * n_words;
            for addr in (sp..cfa).step_by(8) {
                words.entry(addr).or_insert(0xDEAD_BEEF_DEAD_BEEF);
            }
            words.insert(cfa - 8, pc);
            match functions[frame.function].kind {
                Kind::Plain | Kind::Unknown | Kind::Start => {}
                Kind::Saves => {
                    words.insert(cfa - 16, fp);
                    fp = frame.scratch;
                }
                Kind::FramePointer => {
                    words.insert(cfa - 16, fp);
                    fp = cfa - 16;
                }
                Kind::OddFramePointer => {
                    words.insert(cfa - 16, fp);
                    fp = cfa - 24;
                }
                Kind::Rare => {
                    words.insert(sp, cfa);
                }
            }
            pc = call_addr(frame.function, frame.call) + 1;
            cfa = sp;
        }
        Registers { pc, sp: cfa, fp, is_exact_pc: false }
    }
}

/// Runs a program and counts the answers of the cache that are not those of a plain walk.
fn differences(seed: u64, n_steps: usize) -> (u64, Counts) {
    differences_after(Program::new(seed), n_steps, Program::edit)
}

/// The same, of a program that changes as `edit` says.
fn differences_after(
    mut program: Program,
    n_steps: usize,
    edit: impl Fn(&mut Program),
) -> (u64, Counts) {
    let own = StackBounds::from_range(OWN_END - N_WORDS * 8..OWN_END);
    let (table, mut cache) = (Table::default(), SiteCache::new());
    let mut n_differences = 0;
    for _ in 0..n_steps {
        edit(&mut program);
        if program.frames.is_empty() {
            continue;
        }
        let start = program.lay_out();
        let (process, limit) = (&program.process, program.limit);
        let mut buffer = [0; 200];
        let read = |addr: u64| Some(process.word(addr).unwrap_or(0));
        let walk = plain::walk(start, &own, &mut ProcessRules(process), read, &mut buffer);
        let walked = &buffer[..walk.len];
        let mut n_own = walked.iter().take_while(|&&addr| table.is_own(addr)).count();
        if n_own == walked.len() {
            n_own = 0;
        }
        let expected = match walked[n_own..].get(..limit) {
            Some(newest) if walked.len() - n_own > limit => (newest, End::Limit),
            _ => (&walked[n_own..], walk.end),
        };
        process.n_faults.set(0);
        for _ in 0..1 + program.rng.below(program.most_captures) {
            let site = cache.site(&process, start, &own, limit, &table).unwrap();
            let stacks = table.stacks.borrow();
            let (frames, end) = &stacks[site.get() as usize - 1];
            n_differences += u64::from((&frames[..], *end) != expected);
        }
        n_differences += process.n_faults.get();
        assert!(cache.is_consistent() || !crate::native::world::is_complete());
    }
    (n_differences, cache.counts())
}

const N_STEPS: usize = 4000;

#[test]
fn a_cache_answers_as_a_walk_does_whatever_changes_further_out() {
    let mut sum = Counts::default();
    for seed in 0..24 {
        let (n_differences, counts) = differences(seed, N_STEPS);
        assert_eq!(n_differences, 0, "seed {seed}, {counts:?}");
        sum.n_hits += counts.n_hits;
        sum.n_joined += counts.n_joined;
        sum.n_walked += counts.n_walked;
        sum.n_plain += counts.n_plain;
    }
    let Counts { n_hits, n_joined, n_walked, n_plain } = sum;
    assert!(n_hits.min(n_joined).min(n_walked).min(n_plain) > 600, "{sum:?}");
}

/// A trail has room for 255 states: of a recursion that goes deeper, the outermost make way.
#[test]
fn a_recursion_deeper_than_a_trail_is_followed() {
    for seed in 0..2 {
        let mut program = Program::new(seed);
        (program.limit, program.is_anchored) = (25, true);
        let (n_differences, counts) = differences_after(program, 2500, |program| {
            // In by a few frames a step, then out again.
            let (n_returned, n_called) = if program.limit == 25 { (4, 9) } else { (8, 3) };
            let n = program.frames.len();
            let n_kept = n.saturating_sub(program.rng.below(n_returned) as usize);
            program.frames.truncate(n_kept);
            let n_called = program.rng.below(n_called);
            for _ in 0..n_called {
                let function = 1 + program.rng.below(10) as usize;
                let frame = Frame { function, ..program.new_frame() };
                program.frames.push(frame);
            }
            program.limit = match program.frames.len() {
                500.. => 26,
                0..10 => 25,
                _ => program.limit,
            };
        });
        assert_eq!(n_differences, 0, "seed {seed}, {counts:?}");
        assert!(counts.n_joined > 1000, "{counts:?}");
    }
}

/// Runs a program of which one frame is asked for, most of the time.
fn differences_of_one_frame(seed: u64) -> (u64, Counts) {
    differences_after(Program { most_captures: 1, ..Program::new(seed) }, N_STEPS, |program| {
        program.edit();
        program.limit = 1;
        // Elsewhere nothing is remembered.
        program.is_on_own_stack |= program.rng.below(4) != 0;
    })
}

/// The same, and now and then more frames are asked for.
fn differences_of_one_frame_and_more(seed: u64) -> (u64, Counts) {
    differences_after(Program { most_captures: 1, ..Program::new(seed) }, N_STEPS, |program| {
        program.edit();
        program.limit = if program.rng.below(300) == 0 { 25 } else { 1 };
    })
}

#[test]
fn one_frame_is_what_a_walk_finds_whatever_is_beyond_it() {
    for differences in [differences_of_one_frame, differences_of_one_frame_and_more] {
        let mut sum = Counts::default();
        for seed in 0..12 {
            let (n_differences, counts) = differences(seed);
            assert_eq!(n_differences, 0, "seed {seed}, {counts:?}");
            sum.n_hits += counts.n_hits;
            sum.n_plain += counts.n_plain;
        }
        assert!(sum.n_hits > 10_000 && sum.n_plain > 10_000, "{sum:?}");
    }
}

/// Asserts that answers go wrong without a check.
fn assert_needed(check: Check) {
    assert_needed_by(check, |seed| differences(seed, N_STEPS));
}

fn assert_needed_by(check: Check, differences: fn(u64) -> (u64, Counts)) {
    let is_fooled = |seed| {
        without(check, || std::panic::catch_unwind(|| differences(seed).0))
            .map_or(true, |n_differences| n_differences > 0)
    };
    assert!((0..40).any(is_fooled), "nothing goes wrong without {check:?}");
}

macro_rules! needed {
    ($($name:ident: $check:ident,)*) => {
        $(
            #[test]
            fn $name() {
                assert_needed(Check::$check);
            }
        )*
    };
}

needed! {
    without_the_start_a_cache_is_fooled: Start,
    without_the_frame_pointer_at_the_start_a_cache_is_fooled: StartFp,
    without_return_addresses_a_cache_is_fooled: ReturnAddrs,
    without_pairs_of_words_a_cache_is_fooled: Pairs,
    without_the_word_beyond_the_limit_a_cache_is_fooled: LimitWord,
    without_return_addresses_on_the_trail_a_cache_is_fooled: TrailReturnAddrs,
    without_saved_frame_pointers_on_the_trail_a_cache_is_fooled: TrailSavedFps,
    without_the_frame_pointer_that_meets_the_trail_a_cache_is_fooled: TrailFp,
    without_the_zero_at_the_end_of_the_trail_a_cache_is_fooled: TrailZero,
    without_saved_frame_pointers_a_cache_is_fooled: SavedFps,
    without_the_zero_at_the_end_a_cache_is_fooled: Zero,
    without_epochs_a_cache_is_fooled: Epoch,
    without_the_limit_to_plain_rules_a_cache_is_fooled: PlainRules,
    without_the_limit_to_the_own_stack_a_cache_is_fooled: OwnStack,
}

#[test]
fn without_each_of_its_checks_one_frame_is_another() {
    for check in [Check::Start, Check::LimitWord, Check::Epoch] {
        assert_needed_by(check, differences_of_one_frame);
    }
}
