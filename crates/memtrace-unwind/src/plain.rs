//! The walk in its plainest form: what all cleverer ones must agree with.
//!
//! Safe code over a closure that reads words, one frame after the other, each by the rule of its
//! address.
//!
//! # Invariants
//!
//! - **I1** Every address handed to `read_word` is a multiple of 8 and lies either within the given
//!   stack bounds, above the red zone of the stack pointer, or between that and 16 MiB above the stack
//!   pointer at which the walk entered a stack that is not the thread's own (a signal's alternate
//!   stack, a coroutine's).
//! - **I2** Stepping by CFI, the stack pointer strictly rises, except across a signal frame, which
//!   may lie on another stack. With at most `out.len() + 1` steps a walk always ends.
//!
//! # Cost
//!
//! Three loads and a table look-up a frame.

use crate::bounds::StackBounds;
use crate::reach::Reach;
use crate::rule::{CfaBase, End, Registers, Rule, Walk};

/// What [`walk`] needs to know about code.
pub trait Rules {
    /// Returns the rule for the instruction at `call_addr`.
    fn rule(&mut self, call_addr: u64) -> Rule;

    /// Steps by interpreting the unwind tables, for a rule that does not fit one word.
    ///
    /// Returns the caller's registers, or `None` if the tables do not say or a word is out of reach.
    fn interpret(
        &mut self,
        registers: Registers,
        read_word: &mut dyn FnMut(u64) -> Option<u64>,
    ) -> Option<Registers>;
}

/// Follows the stack outward from `start` and writes call addresses to `out`, newest first.
///
/// `start` is the first frame reported. `read_word` returns the 8 bytes at an address, or `None` if
/// they are out of reach; which addresses it is asked for is bounded by `stack` (see the invariants
/// of this module), so that it may be a plain load, or a look-up in a synthetic stack.
///
/// **Cost**: proportional to the number of frames.
pub fn walk(
    start: Registers,
    stack: &StackBounds,
    rules: &mut impl Rules,
    mut read_word: impl FnMut(u64) -> Option<u64>,
    out: &mut [u64],
) -> Walk {
    let mut registers = start;
    let mut reach = Reach::at(start.sp, stack);
    let mut len = 0;
    loop {
        match out.get_mut(len) {
            Some(slot) => *slot = registers.call_addr(),
            // The step before this led to a frame: there is one more than fits.
            None => return Walk { len, end: End::Limit },
        }
        len = len.saturating_add(1);

        let mut read = |addr: u64| {
            if reach.contains(addr) { read_word(addr) } else { None }
        };
        let rule = rules.rule(registers.call_addr());
        let next = if rule.is_plain() {
            step_by_rule(registers, rule, &mut read)
        } else if rule == Rule::OUTERMOST {
            return Walk { len, end: End::Outermost };
        } else if rule == Rule::INTERPRETED {
            rules.interpret(registers, &mut read)
        } else {
            None
        };
        let Some(next) = next else { return Walk { len, end: End::Truncated } };
        let crossed_signal_frame = next.is_exact_pc;
        if crossed_signal_frame {
            reach = Reach::at(next.sp, stack);
        } else if next.sp <= registers.sp {
            return Walk { len, end: End::Truncated };
        }
        if next.pc == 0 {
            return Walk { len, end: End::Outermost };
        }
        registers = next;
    }
}

fn step_by_rule(
    registers: Registers,
    rule: Rule,
    read: &mut impl FnMut(u64) -> Option<u64>,
) -> Option<Registers> {
    let base = match rule.base() {
        CfaBase::Sp => registers.sp,
        CfaBase::Fp => registers.fp,
    };
    let cfa = base.wrapping_add(rule.cfa_offset());
    let pc = read(cfa.wrapping_sub(8))?;
    let fp = match rule.saved_fp() {
        Some(offset) => read(cfa.wrapping_add(offset))?,
        None => registers.fp,
    };
    Some(Registers { pc, sp: cfa, fp, is_exact_pc: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reach::FOREIGN_WINDOW;
    extern crate std;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::{vec, vec::Vec};

    /// Rules by call address; everything else is unknown.
    struct Table(HashMap<u64, Rule>);

    /// Rules of a handler's frame, which leads to what it interrupted, and of that.
    struct Interrupted(Registers);

    impl Rules for Interrupted {
        fn rule(&mut self, call_addr: u64) -> Rule {
            match call_addr {
                0x40_0000 => Rule::INTERPRETED,
                addr if addr == self.0.pc => Rule::INTERPRETED,
                0x40_2000 => Rule::FRAME_POINTER,
                _ => Rule::OUTERMOST,
            }
        }

        fn interpret(
            &mut self,
            registers: Registers,
            read_word: &mut dyn FnMut(u64) -> Option<u64>,
        ) -> Option<Registers> {
            if registers.pc != self.0.pc {
                return Some(self.0);
            }
            let (pc, fp) = (read_word(registers.sp)?, read_word(registers.sp - 8)?);
            Some(Registers { pc, sp: registers.sp + 8, fp, is_exact_pc: false })
        }
    }

    impl Rules for Table {
        fn rule(&mut self, call_addr: u64) -> Rule {
            self.0.get(&call_addr).copied().unwrap_or(Rule::UNKNOWN)
        }

        fn interpret(
            &mut self,
            _: Registers,
            _: &mut dyn FnMut(u64) -> Option<u64>,
        ) -> Option<Registers> {
            None
        }
    }

    const STACK: u64 = 0x7000_0000;

    /// A frame of a synthetic stack: how large it is, and how its function treats the frame pointer.
    #[derive(Clone, Copy, Debug)]
    enum Kind {
        /// Leaves the frame pointer alone.
        Plain,
        /// Saves it and uses it for something else.
        Saves,
        /// Standard prologue.
        FramePointer,
    }

    fn frames() -> impl Strategy<Value = Vec<(Kind, u64)>> {
        let kind = prop_oneof![Just(Kind::Plain), Just(Kind::Saves), Just(Kind::FramePointer)];
        prop::collection::vec((kind, 2..40u64), 1..40)
    }

    /// Lays the frames out on a stack, newest first, and returns the words, the rules, the start and
    /// the call addresses that a walk must find.
    fn lay_out(frames: &[(Kind, u64)]) -> (Vec<u64>, Table, Registers, Vec<u64>) {
        let n_words = frames.iter().map(|(_, words)| words).sum::<u64>();
        let mut stack = vec![0xDEAD_BEEF_DEAD_BEEF_u64; n_words as usize];
        let mut rules = HashMap::new();
        let mut calls = vec![];
        // Built outermost first: where each frame's CFA is and what the frame pointer holds.
        let mut cfa = STACK + n_words * 8;
        let mut fp = 0x1234_5678;
        let mut pc = 0;
        for (i, &(kind, words)) in frames.iter().enumerate().rev() {
            let mut put = |addr: u64, value: u64| stack[((addr - STACK) / 8) as usize] = value;
            put(cfa - 8, pc);
            let sp = cfa - words * 8;
            let rule = match kind {
                Kind::Plain => Rule::plain(CfaBase::Sp, (words * 8) as i64, None),
                Kind::Saves => {
                    put(cfa - 16, fp);
                    fp = 0xFFFF_0000_0000_0000 | i as u64;
                    Rule::plain(CfaBase::Sp, (words * 8) as i64, Some(-16))
                }
                Kind::FramePointer => {
                    put(cfa - 16, fp);
                    fp = cfa - 16;
                    Some(Rule::FRAME_POINTER)
                }
            };
            pc = 0x40_0000 + i as u64 * 16;
            rules.insert(pc - 1, rule.unwrap());
            calls.push(pc - 1);
            cfa = sp;
        }
        calls.reverse();
        (stack, Table(rules), Registers { pc, sp: cfa, fp, is_exact_pc: false }, calls)
    }

    /// Compares the walk of this module with the one that captures take.
    fn assert_walked_alike(
        start: Registers,
        stack: &StackBounds,
        rules: &mut Table,
        read: &impl Fn(u64) -> Option<u64>,
        limit: usize,
    ) {
        let (mut plain, mut fast) = (vec![0; limit], vec![0; limit]);
        let plain_walk = walk(start, stack, rules, read, &mut plain);
        let fast_walk = crate::walker::walk(start, stack, rules, read, &mut fast);
        assert_eq!(plain_walk, fast_walk);
        assert_eq!(plain, fast);
    }

    /// A rule that could be, for any word.
    fn any_rule(word: u32) -> Rule {
        let rule = Rule::from_word(word);
        if !rule.is_plain() {
            return rule;
        }
        let saved_fp = rule.saved_fp().map(|offset| offset as i64);
        Rule::plain(rule.base(), rule.cfa_offset() as i64, saved_fp).unwrap_or(Rule::UNKNOWN)
    }

    fn bounds(stack: &[u64]) -> StackBounds {
        StackBounds::from_range(STACK..STACK + stack.len() as u64 * 8)
    }

    proptest! {
        #[test]
        fn a_synthetic_stack_is_walked_to_its_end(frames in frames()) {
            let (stack, mut rules, start, calls) = lay_out(&frames);
            let read = |addr: u64| stack.get(((addr - STACK) / 8) as usize).copied();
            let mut out = vec![0; frames.len() + 3];
            let walked = walk(start, &bounds(&stack), &mut rules, read, &mut out);
            prop_assert_eq!(walked, Walk { len: calls.len(), end: End::Outermost });
            prop_assert_eq!(&out[..walked.len], &calls[..]);
            assert_walked_alike(start, &bounds(&stack), &mut rules, &read, out.len());
        }

        #[test]
        fn a_short_buffer_gets_the_newest_frames_and_the_limit_mark(frames in frames()) {
            let (stack, mut rules, start, calls) = lay_out(&frames);
            let read = |addr: u64| stack.get(((addr - STACK) / 8) as usize).copied();
            let mut out = vec![0; frames.len() / 2];
            let walked = walk(start, &bounds(&stack), &mut rules, read, &mut out);
            prop_assert_eq!(walked, Walk { len: out.len(), end: End::Limit });
            prop_assert_eq!(&out[..], &calls[..out.len()]);
            assert_walked_alike(start, &bounds(&stack), &mut rules, &read, out.len());
        }

        #[test]
        fn on_any_words_and_rules_a_walk_ends_and_reads_only_what_it_may(
            words in prop::collection::vec(
                prop_oneof![
                    any::<u64>(),
                    (0..64u64).prop_map(|i| STACK + i * 8),
                    (0..32u64).prop_map(|i| 0x40_0000 + i),
                ],
                64,
            ),
            packed in prop::collection::vec(any::<u32>(), 32),
            sp in prop_oneof![Just(STACK), any::<u64>()],
            fp in any::<u64>(),
        ) {
            let rules = packed.iter().enumerate();
            let mut rules = Table(
                rules.map(|(i, &word)| (0x40_0000 + i as u64, any_rule(word))).collect(),
            );
            let bounds = bounds(&words);
            let window = sp.saturating_sub(128)..sp.saturating_add(FOREIGN_WINDOW);
            let is_own = bounds.contains_word(sp);
            let read = |addr: u64| {
                assert!(addr.is_multiple_of(8), "{addr:#x} is not aligned");
                assert!(
                    bounds.contains_word(addr) || !is_own && window.contains(&addr),
                    "{addr:#x} is out of reach"
                );
                words.get((addr.wrapping_sub(STACK) / 8) as usize).copied()
            };
            let mut out = [0; 1000];
            let start = Registers { pc: 0x40_0001, sp, fp, is_exact_pc: false };
            let walked = walk(start, &bounds, &mut rules, read, &mut out);
            prop_assert!(walked.len <= out.len());
            for limit in [walked.len / 2, walked.len, walked.len + 1] {
                assert_walked_alike(start, &bounds, &mut rules, &read, limit);
            }
        }
    }

    #[test]
    fn an_unknown_address_truncates_the_stack_and_says_so() {
        let mut rules = Table(HashMap::new());
        let start = Registers { pc: 0x40_0001, sp: STACK, fp: 0, is_exact_pc: false };
        let mut out = [0; 4];
        let walked = walk(start, &StackBounds::UNKNOWN, &mut rules, |_| Some(0), &mut out);
        assert_eq!(walked, Walk { len: 1, end: End::Truncated });
        assert_eq!(out[0], 0x40_0000);
    }

    #[test]
    fn a_stack_that_just_fills_the_buffer_is_complete() {
        let mut rules = Table(HashMap::from([(0x40_0000, Rule::OUTERMOST)]));
        let start = Registers { pc: 0x40_0001, sp: STACK, fp: 0, is_exact_pc: false };
        let walked = walk(start, &StackBounds::UNKNOWN, &mut rules, |_| None, &mut [0; 1]);
        assert_eq!(walked, Walk { len: 1, end: End::Outermost });
    }

    #[test]
    fn a_stack_of_one_frame_more_than_the_buffer_is_cut() {
        let rules = [(0x40_0000, Rule::FRAME_POINTER), (0x40_0010, Rule::OUTERMOST)];
        let mut rules = Table(HashMap::from(rules));
        let words = [STACK + 64, 0x40_0011];
        let read = |addr: u64| words.get(((addr - STACK) / 8) as usize).copied();
        let start = Registers { pc: 0x40_0001, sp: STACK, fp: STACK, is_exact_pc: false };
        let walked = walk(start, &bounds(&words), &mut rules, read, &mut [0; 1]);
        assert_eq!(walked, Walk { len: 1, end: End::Limit });
        let walked = walk(start, &bounds(&words), &mut rules, read, &mut [0; 2]);
        assert_eq!(walked, Walk { len: 2, end: End::Outermost });
    }

    #[test]
    fn a_frame_pointer_that_points_to_itself_ends_the_walk() {
        let mut rules = Table(HashMap::from([(0x40_0000, Rule::FRAME_POINTER)]));
        let words = [STACK, 0x40_0001];
        let read = |addr: u64| words.get(((addr - STACK) / 8) as usize).copied();
        let start = Registers { pc: 0x40_0001, sp: STACK, fp: STACK, is_exact_pc: false };
        let mut out = [0; 1000];
        let walked = walk(start, &bounds(&words), &mut rules, read, &mut out);
        assert_eq!(walked, Walk { len: 2, end: End::Truncated });
    }

    #[test]
    fn what_an_interrupted_epilogue_has_popped_is_found_below_the_stack_pointer() {
        // The frame pointer was popped from the word below the return address; the caller needs it.
        let words = [STACK + 24, 0x40_2001, 0, 0x1234, 0x40_3001];
        let interrupted = Registers { pc: 0x40_1000, sp: STACK + 8, fp: 0, is_exact_pc: true };
        let read = |addr: u64| words.get((addr.wrapping_sub(STACK) / 8) as usize).copied();
        let start = Registers { pc: 0x40_0001, sp: 0x1000, fp: 0, is_exact_pc: false };
        // On the thread's own stack, and on one of which nothing is known.
        for bounds in [bounds(&words), StackBounds::UNKNOWN] {
            let mut out = [0; 8];
            let mut rules = Interrupted(interrupted);
            let walked = walk(start, &bounds, &mut rules, read, &mut out);
            assert_eq!(walked, Walk { len: 4, end: End::Outermost }, "{bounds:?}");
            assert_eq!(out[..4], [0x40_0000, 0x40_1000, 0x40_2000, 0x40_3000]);
        }
    }
}
