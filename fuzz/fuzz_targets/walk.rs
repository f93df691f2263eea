//! Whatever a stack and rules are: a walk ends, reads only what it may, and all walks agree.
//!
//! An input is 16 rules of 4 bytes, 8 bytes of start, then words of the stack, 2 bytes each.

#![no_main]

use libfuzzer_sys::fuzz_target;
use memtrace_unwind::plain::{self, Rules};
use memtrace_unwind::{CfaBase, End, Registers, Rule, StackBounds, Walk};

type ReadWord<'a> = &'a mut dyn FnMut(u64) -> Option<u64>;
type WalkFn = fn(Registers, &StackBounds, &mut Code, ReadWord<'_>, &mut [u64]) -> Walk;

/// The walks to compare, the one to believe first.
const WALKS: &[WalkFn] = &[
    |start, stack, code, read, out| plain::walk(start, stack, code, read, out),
    |start, stack, code, read, out| memtrace_unwind::walk(start, stack, code, read, out),
];

const CODE: u64 = 0x40_0000;
const N_RULES: u64 = 16;
const STACK: u64 = 0x7000_0000;
/// How far above its stack pointer a stack of unknown size is trusted to reach, in bytes.
const FOREIGN_WINDOW: u64 = 16 << 20;
/// Bytes below the stack pointer that a function may use without moving it.
const RED_ZONE: u64 = 128;
/// Words of memory, before they come round again.
const MAX_WORDS: usize = 512;

/// Rules by call address, and what is told by the walk's questions.
#[derive(Clone)]
struct Code {
    rules: [(Rule, [u8; 4]); N_RULES as usize],
    /// The stack pointers at which a walk may have entered another stack.
    entered: Vec<u64>,
    n_asked: usize,
}

impl Code {
    fn split(input: &[u8]) -> Option<(Self, &[u8])> {
        let (bytes, rest) = input.split_at_checked(4 * N_RULES as usize)?;
        let (chunks, _) = bytes.as_chunks();
        let mut rules = [(Rule::UNKNOWN, [0; 4]); N_RULES as usize];
        for (rule, &bytes) in rules.iter_mut().zip(chunks) {
            *rule = (rule_of(bytes), bytes);
        }
        Some((Self { rules, entered: Vec::new(), n_asked: 0 }, rest))
    }
}

fn rule_of([kind, offset, saved, high]: [u8; 4]) -> Rule {
    let base = if kind & 1 == 0 { CfaBase::Sp } else { CfaBase::Fp };
    let saved_fp = (kind & 2 != 0).then_some(i64::from(saved as i8) * 8);
    let cfa_offset = i64::from(offset) * 8 + if high == 0xFF { 0xF000 } else { 8 };
    match kind >> 2 {
        0..32 => Rule::plain(base, cfa_offset, saved_fp).unwrap_or(Rule::UNKNOWN),
        32..48 => Rule::FRAME_POINTER,
        48..58 => Rule::INTERPRETED,
        58..62 => Rule::OUTERMOST,
        _ => Rule::UNKNOWN,
    }
}

/// A word that may mean something: a code address, a stack address, or neither.
fn word_of([kind, value]: [u8; 2]) -> u64 {
    let value = u64::from(value);
    match kind {
        0..96 => CODE + value % N_RULES + 1,
        96..192 => STACK + (u64::from(kind % 4) << 8 | value) * 8,
        192..200 => STACK + value,
        200..208 => 0,
        208..216 => STACK.wrapping_add(FOREIGN_WINDOW).wrapping_add(value).wrapping_sub(128),
        216..224 => u64::MAX - value,
        224..232 => (1 << 47) + value - 128,
        _ => value,
    }
}

impl Rules for Code {
    fn rule(&mut self, call_addr: u64) -> Rule {
        self.n_asked += 1;
        let index = call_addr.wrapping_sub(CODE) as usize;
        self.rules.get(index).map_or(Rule::UNKNOWN, |(rule, _)| *rule)
    }

    fn interpret(&mut self, registers: Registers, read_word: ReadWord<'_>) -> Option<Registers> {
        let index = registers.call_addr().wrapping_sub(CODE) as usize;
        let (rule, [kind, offset, to, _]) = self.rules[index];
        assert_eq!(rule, Rule::INTERPRETED);
        let cfa = registers.sp.wrapping_add(u64::from(offset));
        let pc = read_word(cfa)?;
        let next = match to % 4 {
            0 => Registers { pc, sp: cfa.wrapping_add(8), fp: registers.fp, is_exact_pc: false },
            1 => Registers { pc, sp: registers.fp, fp: registers.sp, is_exact_pc: false },
            2 => Registers { pc, sp: read_word(cfa ^ 8)?, fp: 0, is_exact_pc: kind & 1 == 0 },
            _ => Registers { pc, sp: word_of([kind, to]), fp: cfa, is_exact_pc: true },
        };
        if next.is_exact_pc {
            self.entered.push(next.sp);
        }
        Some(next)
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((code, rest)) = Code::split(input) else { return };
    let Some((&[pc, sp_kind, sp, fp_kind, fp, bounds, out_len, flags], words)) =
        rest.split_first_chunk()
    else {
        return;
    };
    let (words, _) = words.as_chunks();
    let words: Vec<u64> = words.iter().take(MAX_WORDS).map(|&word| word_of(word)).collect();
    let start = Registers {
        pc: CODE + u64::from(pc) % (N_RULES + 2),
        sp: word_of([sp_kind, sp]),
        fp: word_of([fp_kind, fp]),
        is_exact_pc: flags & 1 != 0,
    };
    let stack = match bounds {
        0 => StackBounds::UNKNOWN,
        _ => {
            // Whole words, as a walk is promised.
            let low = STACK + u64::from(bounds % 8) * 64;
            StackBounds::from_range(low..low + (u64::from(bounds) + 1) * 16)
        }
    };
    let out_len = usize::from(out_len);

    let mut expected = None;
    for walk in WALKS {
        let mut code = Code { entered: vec![start.sp], ..code.clone() };
        let mut out = vec![0xA5A5; out_len];
        let mut reads = Vec::new();
        let mut read = |addr: u64| {
            reads.push(addr);
            assert!(addr.is_multiple_of(8), "{addr:#x} is not aligned");
            let index = (addr.wrapping_sub(STACK) / 8) as usize;
            (!words.is_empty() && addr >= STACK).then(|| words[index % words.len()])
        };
        let walked = walk(start, &stack, &mut code, &mut read, &mut out);
        // Each read lay above where a stack was entered: in the thread's own, or near enough.
        for addr in reads {
            let is_in_reach = code.entered.iter().any(|&sp| {
                if stack.contains_word(sp) {
                    stack.contains_word(addr) && addr >= sp - RED_ZONE
                } else {
                    let low = sp.saturating_sub(RED_ZONE);
                    stack.contains_word(addr)
                        || (low..sp.saturating_add(FOREIGN_WINDOW)).contains(&addr)
                }
            });
            assert!(is_in_reach, "{addr:#x} is out of reach");
        }
        let Walk { len, end } = walked;
        assert!(len <= out_len);
        assert!(code.n_asked <= out_len + 1, "{} questions for {out_len} frames", code.n_asked);
        assert!(end != End::Limit || len == out_len);
        assert!(len == 0 || out[0] == start.call_addr());
        assert!(out[len..].iter().all(|&word| word == 0xA5A5));
        let answer = (len, end, out[..len].to_vec());
        let expected = expected.get_or_insert_with(|| answer.clone());
        assert_eq!(*expected, answer);
    }
});
