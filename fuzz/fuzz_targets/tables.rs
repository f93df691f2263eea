//! Whatever bytes are taken for unwind tables: no panic, no endless work, and answers that agree
//! with each other and with gimli's own machine for their programs.
//!
//! An input is the length of `.eh_frame_hdr` (2 bytes), its address, that of `.eh_frame` and the
//! address that is asked for (8 bytes each), then both sections. Mutations change one of these
//! parts and leave the others where they are; some make the address one that the tables know.

#![no_main]

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, Error, LittleEndian, Register, RegisterRule,
    UnwindContext, UnwindContextStorage, UnwindSection, UnwindTableRow, X86_64,
};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use memtrace_unwind::{CfaBase, Registers, Rule, UnwindTables};

/// Bytes before the sections.
const FIXED_LEN: usize = 26;
/// Bytes that a mutation may add to a section.
const MAX_GROWTH: usize = 64;

/// An input, taken apart.
#[derive(Clone, Default)]
struct Input {
    header_addr: u64,
    frames_addr: u64,
    call_addr: u64,
    header: Vec<u8>,
    frames: Vec<u8>,
}

impl Input {
    fn split(bytes: &[u8]) -> Option<Self> {
        let (fixed, sections) = bytes.split_at_checked(FIXED_LEN)?;
        let (header_len, words) = fixed.split_first_chunk()?;
        let word = |i: usize| u64::from_le_bytes(words[8 * i..8 * i + 8].try_into().unwrap());
        let header_len = usize::from(u16::from_le_bytes(*header_len)).min(sections.len());
        let (header, frames) = sections.split_at(header_len);
        Some(Self {
            header_addr: word(0),
            frames_addr: word(1),
            call_addr: word(2),
            header: header.to_vec(),
            frames: frames.to_vec(),
        })
    }

    fn join(&self) -> Vec<u8> {
        let mut bytes = (self.header.len() as u16).to_le_bytes().to_vec();
        for word in [self.header_addr, self.frames_addr, self.call_addr] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(&self.header);
        bytes.extend(&self.frames);
        bytes
    }

    /// The extents of some of the functions in `.eh_frame`.
    fn functions(&self) -> Vec<(u64, u64)> {
        let section = EhFrame::new(&self.frames, LittleEndian);
        let bases = BaseAddresses::default().set_eh_frame(self.frames_addr);
        let mut entries = section.entries(&bases);
        let mut functions = Vec::new();
        while let (Ok(Some(entry)), true) = (entries.next(), functions.len() < 16) {
            let CieOrFde::Fde(partial) = entry else { continue };
            let Ok(fde) = partial.parse(EhFrame::cie_from_offset) else { continue };
            functions.push((fde.initial_address(), fde.len()));
        }
        functions
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some(input) = Input::split(bytes) else { return };
    let Input { header_addr, frames_addr, call_addr, header, frames } = &input;
    let _ = UnwindTables::frames_addr(header, *header_addr);
    let indexed = UnwindTables::new(header, *header_addr, frames, *frames_addr);
    check(&indexed, *call_addr);
    // Without the index: in order of the entries.
    let unindexed = UnwindTables::new(&[], *header_addr, frames, *frames_addr);
    compare(&input, unindexed.rule(*call_addr));
    if let Some(range) = check(&unindexed, *call_addr) {
        check(&unindexed, range.end);
        check(&indexed, range.end.wrapping_sub(1));
    }
});

/// Storage for gimli's machine.
struct Rows;

impl UnwindContextStorage<usize> for Rows {
    type Rules = [(Register, RegisterRule<usize>); 64];
    type Stack = [UnwindTableRow<usize, Self>; 4];
}

/// The longest CIE that is read, in bytes.
const MAX_CIE_LEN: usize = 256;

/// Compares the rule of an address with gimli's row, in a section without an index.
fn compare(input: &Input, rule: Rule) {
    let section = EhFrame::new(&input.frames, LittleEndian);
    let bases = BaseAddresses::default()
        .set_eh_frame_hdr(input.header_addr)
        .set_eh_frame(input.frames_addr);
    let fde = section.fde_for_address(&bases, input.call_addr, EhFrame::cie_from_offset);
    // gimli gives up at the first entry that it does not understand.
    let Ok(fde) = fde else { return };
    let return_addr = fde.cie().return_address_register();
    if fde.cie().entry_len() + 12 > MAX_CIE_LEN || [X86_64::RSP, X86_64::RBP].contains(&return_addr)
    {
        return;
    }
    let mut context = UnwindContext::<usize, Rows>::new_in();
    match fde.unwind_info_for_address(&section, &bases, &mut context, input.call_addr) {
        Ok(row) => {
            assert_eq!(rule, rule_of(row, return_addr, fde.is_signal_trampoline()), "{row:?}");
        }
        // These limits are gimli's only.
        Err(Error::TooManyRegisterRules | Error::StackFull) => {}
        Err(error) => assert_eq!(rule, Rule::UNKNOWN, "{error:?}"),
    }
}

fn rule_of(row: &UnwindTableRow<usize, Rows>, return_addr: Register, is_signal: bool) -> Rule {
    let saved_fp = match row.register(X86_64::RBP) {
        None | Some(RegisterRule::SameValue) => Some(None),
        Some(RegisterRule::Offset(offset)) => Some(Some(offset)),
        Some(_) => None,
    };
    match (row.cfa(), row.register(return_addr), saved_fp) {
        (_, Some(RegisterRule::Undefined), _) => Rule::OUTERMOST,
        (
            CfaRule::RegisterAndOffset { register: base @ (X86_64::RSP | X86_64::RBP), offset },
            Some(RegisterRule::Offset(-8)),
            Some(saved_fp),
        ) if !is_signal && row.register(X86_64::RSP).is_none() => {
            let base = if *base == X86_64::RSP { CfaBase::Sp } else { CfaBase::Fp };
            Rule::plain(base, *offset, saved_fp).unwrap_or(Rule::INTERPRETED)
        }
        _ => Rule::INTERPRETED,
    }
}

/// Asks all questions about an address and compares the answers.
fn check(tables: &UnwindTables<'_>, call_addr: u64) -> Option<std::ops::Range<u64>> {
    let rule = tables.rule(call_addr);
    let range = tables.function_range(call_addr);
    assert!(range.as_ref().is_none_or(|range| range.contains(&call_addr)));
    assert!(range.is_some() || rule == Rule::UNKNOWN);
    let registers =
        Registers { pc: call_addr, sp: 0x7FFF_1234_5600, fp: 0x7FFF_1234_5700, is_exact_pc: true };
    let mut n_reads = 0;
    let step = tables.step(registers, &mut |addr| {
        n_reads += 1;
        word_at(addr)
    });
    assert!(n_reads < 1000, "{n_reads} reads");
    if rule.is_plain() {
        assert_eq!(step, step_by(rule, registers));
    } else if rule != Rule::INTERPRETED {
        assert_eq!(step, None);
    }
    range
}

/// A memory in which every word differs, and some cannot be read.
fn word_at(addr: u64) -> Option<u64> {
    (addr & 0xF80 != 0xF80).then(|| addr.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// What a plain rule says.
fn step_by(rule: Rule, registers: Registers) -> Option<Registers> {
    let base = match rule.base() {
        CfaBase::Sp => registers.sp,
        CfaBase::Fp => registers.fp,
    };
    let sp = base.wrapping_add(rule.cfa_offset());
    let pc = word_at(sp.wrapping_sub(8))?;
    let fp = match rule.saved_fp() {
        // An unreadable one is as good as a lost one.
        Some(offset) => word_at(sp.wrapping_add(offset)).unwrap_or(0),
        None => registers.fp,
    };
    Some(Registers { pc, sp, fp, is_exact_pc: false })
}

fuzz_mutator!(|bytes: &mut [u8], len: usize, max_len: usize, seed: u32| {
    let seed = seed as usize;
    let input = if seed.is_multiple_of(8) { None } else { Input::split(&bytes[..len]) };
    let Some(mut input) = input else { return fuzzer_mutate(bytes, len, max_len) };
    match seed / 8 % 8 {
        0 => mutate(&mut input.header),
        1 => {
            let mut words = input.join()[2..FIXED_LEN].to_vec();
            fuzzer_mutate(&mut words, FIXED_LEN - 2, FIXED_LEN - 2);
            let fixed = [&[0, 0], &words[..]].concat();
            let Input { header_addr, frames_addr, call_addr, .. } = Input::split(&fixed).unwrap();
            input = Input { header_addr, frames_addr, call_addr, ..input };
        }
        2 => {
            let functions = input.functions();
            if let Some((start, len)) = functions.get(seed / 64 % functions.len().max(1)) {
                input.call_addr =
                    start.wrapping_add(seed as u64 / 1024 % len.wrapping_add(2).max(1));
            }
        }
        _ => mutate(&mut input.frames),
    }
    let forged = input.join();
    if forged.len() > max_len {
        return fuzzer_mutate(bytes, len, max_len);
    }
    bytes[..forged.len()].copy_from_slice(&forged);
    forged.len()
});

fn mutate(section: &mut Vec<u8>) {
    let len = section.len();
    section.resize(len + MAX_GROWTH, 0);
    let new_len = fuzzer_mutate(section, len, len + MAX_GROWTH);
    section.truncate(new_len);
}
