//! From the unwind tables of one object to a [`Rule`], a step, or a function's extent.
//!
//! The tables are read where the loader mapped them, or wherever their bytes are: `.eh_frame_hdr`
//! holds a sorted index of functions, `.eh_frame` a small program for each, whose rows say how to
//! unwind from each range of instructions. `gimli` decodes entries and instructions; the search of
//! the index and the machine that runs the programs are here. The machine keeps what a walk needs,
//! the CFA and three registers, so that no number of other saved registers is too many for it.
//!
//! # Invariants
//!
//! - **I1** Whatever the bytes are, an answer takes bounded work: a binary search or one pass over
//!   `.eh_frame` in which each entry costs at most [`MAX_CIE_LEN`], then at most
//!   [`MAX_INSTRUCTIONS`].
//! - **I2** An answer is given only for an address within the extent that its entry states: a gap
//!   between functions has none.
//!
//! # Cost
//!
//! A binary search and a program of some ten to fifty instructions, over half a KiB of stack. The
//! rule table sees to it that this is paid once for each address.

use crate::expression::{Bytes, evaluate};
use crate::rule::{CfaBase, Registers, Rule};
use core::ops::Range;
use gimli::{
    BaseAddresses, CallFrameInstruction, CallFrameInstructionIter, CfaRule, EhFrame, EhFrameHdr,
    EhFrameOffset, EndianSlice, FrameDescriptionEntry, LittleEndian, Register, RegisterRule,
    UnwindSection, X86_64,
};

/// The header of an index as every linker writes it: version 1, the address of `.eh_frame` relative
/// to itself, a 32-bit count, and pairs of 32-bit offsets from the header.
const INDEX_HEADER: [u8; 4] = [1, 0x1B, 0x03, 0x3B];
/// The longest CIE that is read, in bytes; usual ones take 20 to 30.
const MAX_CIE_LEN: u64 = 256;
/// Instructions after which a program is given up.
const MAX_INSTRUCTIONS: u32 = 1 << 16;
/// How many states `DW_CFA_remember_state` may stack up; compilers stack up one.
const MAX_REMEMBERED: usize = 4;

/// The unwind tables of one object, as bytes and the addresses that these have, or would have, in
/// the process whose stack is walked.
///
/// The bytes need not be trusted: there is an answer, right or wrong, to any of them.
///
/// ```
/// use memtrace_unwind::{Rule, UnwindTables};
///
/// // A CIE (CFA = rsp + 8, return address at CFA - 8), a function of 16 bytes at 0x5000, the end.
/// let frames = [
///     &[20, 0, 0, 0, 0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, 16, 1, 0x1B][..],
///     &[0x0C, 7, 8, 0x90, 1, 0, 0],
///     &[16, 0, 0, 0, 28, 0, 0, 0, 0xE0, 0x3F, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0],
///     &[0; 4],
/// ]
/// .concat();
/// // An index without entries: the frames are searched one after the other.
/// let header = [1, 0xFF, 0xFF, 0xFF];
/// let tables = UnwindTables::new(&header, 0x900, &frames, 0x1000);
/// assert_eq!(tables.function_range(0x5003), Some(0x5000..0x5010));
/// assert!(tables.rule(0x5003).is_plain());
/// assert_eq!(tables.rule(0x5010), Rule::UNKNOWN);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct UnwindTables<'a> {
    /// `.eh_frame_hdr` up to the end of its segment.
    header: &'a [u8],
    /// Address of `header`.
    header_addr: u64,
    /// `.eh_frame` up to the end of its segment.
    frames: &'a [u8],
    /// Address of `frames`.
    frames_addr: u64,
}

impl<'a> UnwindTables<'a> {
    /// Makes tables of the contents of `.eh_frame_hdr` and `.eh_frame` and their addresses.
    ///
    /// Either may be longer than the section. With an empty `header` (or any that is not an index
    /// as linkers write it) each question takes one pass over `frames`.
    pub const fn new(
        header: &'a [u8],
        header_addr: u64,
        frames: &'a [u8],
        frames_addr: u64,
    ) -> Self {
        Self { header, header_addr, frames, frames_addr }
    }

    pub(crate) const fn header(&self) -> &'a [u8] {
        self.header
    }

    pub(crate) const fn frames(&self) -> &'a [u8] {
        self.frames
    }

    /// Reads from `.eh_frame_hdr` where `.eh_frame` is.
    pub fn frames_addr(header: &[u8], header_addr: u64) -> Option<u64> {
        let bases = BaseAddresses::default().set_eh_frame_hdr(header_addr);
        let parsed = EhFrameHdr::new(header, LittleEndian).parse(&bases, 8).ok()?;
        parsed.eh_frame_ptr().direct().ok()
    }

    /// Returns the rule for the instruction at `call_addr`; [`Rule::UNKNOWN`] outside of every
    /// function and where the tables make no sense.
    pub fn rule(&self, call_addr: u64) -> Rule {
        let rule = self.find(call_addr).and_then(|fde| {
            let row = self.row(&fde, call_addr)?;
            Some(rule_of(&row, fde.is_signal_trampoline()))
        });
        rule.unwrap_or(Rule::UNKNOWN)
    }

    /// Steps out of the frame of `registers` by interpreting its row in full.
    ///
    /// Returns the caller's registers, or `None` if the tables do not say or need a word for which
    /// `read_word` answers `None`. The caller's frame pointer is 0 if it was lost.
    pub fn step(
        &self,
        registers: Registers,
        read_word: &mut dyn FnMut(u64) -> Option<u64>,
    ) -> Option<Registers> {
        let fde = self.find(registers.call_addr())?;
        self.step_by(fde, registers, read_word)
    }

    /// Steps as [`Self::step`] does, by the entry at an offset in `.eh_frame`.
    pub(crate) fn step_by_entry(
        &self,
        offset: usize,
        registers: Registers,
        read_word: &mut dyn FnMut(u64) -> Option<u64>,
    ) -> Option<Registers> {
        let fde = self.fde_at(offset).filter(|fde| fde.contains(registers.call_addr()))?;
        self.step_by(fde, registers, read_word)
    }

    fn step_by(
        &self,
        fde: Fde<'a>,
        registers: Registers,
        read_word: &mut dyn FnMut(u64) -> Option<u64>,
    ) -> Option<Registers> {
        let row = self.row(&fde, registers.call_addr())?;
        let section = self.section();
        let encoding = fde.cie().encoding();

        let cfa = match row.cfa {
            CfaRule::RegisterAndOffset { register, offset } => {
                let base = match register {
                    X86_64::RSP => registers.sp,
                    X86_64::RBP => registers.fp,
                    _ => return None,
                };
                base.wrapping_add(offset as u64)
            }
            CfaRule::Expression(expression) => {
                let expression = expression.get(&section).ok()?;
                evaluate(expression, encoding, None, registers, read_word)?
            }
        };
        let mut value = |rule: Option<RegisterRule<usize>>, same: Option<u64>| match rule {
            None | Some(RegisterRule::SameValue) => same,
            Some(RegisterRule::Offset(offset)) => read_word(cfa.wrapping_add(offset as u64)),
            Some(RegisterRule::ValOffset(offset)) => Some(cfa.wrapping_add(offset as u64)),
            Some(RegisterRule::Expression(expression)) => {
                let expression = expression.get(&section).ok()?;
                let addr = evaluate(expression, encoding, Some(cfa), registers, read_word)?;
                read_word(addr)
            }
            Some(RegisterRule::ValExpression(expression)) => {
                let expression = expression.get(&section).ok()?;
                evaluate(expression, encoding, Some(cfa), registers, read_word)
            }
            Some(_) => None,
        };
        let pc = value(row.return_addr, None)?;
        // A frame pointer that is lost makes only those outer frames unreachable that need it: they
        // are stopped by the guard rails, since zero is below every stack.
        let fp = value(row.fp, Some(registers.fp)).unwrap_or(0);
        let sp = match row.sp {
            // Without a rule the stack pointer before the call is the CFA, by definition.
            None => cfa,
            rule => value(rule, None)?,
        };
        Some(Registers { pc, sp, fp, is_exact_pc: fde.is_signal_trampoline() })
    }

    /// Returns the extent of the function that holds `call_addr`.
    pub fn function_range(&self, call_addr: u64) -> Option<Range<u64>> {
        let fde = self.find(call_addr)?;
        Some(fde.initial_address()..fde.end_address())
    }

    /// Runs the program of a function up to `call_addr`.
    fn row(&self, fde: &Fde<'a>, call_addr: u64) -> Option<Row> {
        let (section, bases) = (self.section(), self.bases());
        let cie = fde.cie();
        let mut machine = Machine::new(fde);
        machine.run(cie.instructions(&section, &bases), 0, u64::MAX)?;
        machine.initial = Some(machine.row.clone());
        machine.run(fde.instructions(&section, &bases), fde.initial_address(), call_addr)?;
        Some(machine.row)
    }

    fn find(&self, call_addr: u64) -> Option<Fde<'a>> {
        let fde = match self.index() {
            Some(index) => {
                let n_before = index.partition_point(|entry| self.start_of(entry) <= call_addr);
                self.fde_at(self.offset_of(index.get(n_before.checked_sub(1)?)?)?)
            }
            None => return self.search(call_addr),
        };
        fde.filter(|fde| fde.contains(call_addr))
    }

    /// The index: pairs of a function's start and its entry's address, relative to the header.
    fn index(&self) -> Option<&'a [[u8; 8]]> {
        let rest = self.header.strip_prefix(&INDEX_HEADER)?;
        let (_, rest) = rest.split_first_chunk::<4>()?;
        let (n_entries, rest) = rest.split_first_chunk::<4>()?;
        let (entries, _) = rest.as_chunks();
        let n_entries = u32::from_le_bytes(*n_entries) as usize;
        // A count beyond the end is that of a damaged index, of which the rest may serve.
        Some(entries.get(..n_entries).unwrap_or(entries))
    }

    fn start_of(&self, &[a, b, c, d, ..]: &[u8; 8]) -> u64 {
        self.header_addr.wrapping_add(i32::from_le_bytes([a, b, c, d]) as u64)
    }

    /// The offset in `.eh_frame` that an entry of the index leads to.
    fn offset_of(&self, &[.., a, b, c, d]: &[u8; 8]) -> Option<usize> {
        let addr = self.header_addr.wrapping_add(i32::from_le_bytes([a, b, c, d]) as u64);
        usize::try_from(addr.checked_sub(self.frames_addr)?).ok()
    }

    /// Goes through all entries, for the few objects without an index. Entries that make no sense
    /// are passed over; a zero length ends the section.
    fn search(&self, call_addr: u64) -> Option<Fde<'a>> {
        let mut offset = 0usize;
        loop {
            let len = self.entry_len(offset)?;
            if let Some(fde) = self.fde_at(offset).filter(|fde| fde.contains(call_addr)) {
                return Some(fde);
            }
            offset = offset.checked_add(usize::try_from(len).ok()?)?;
        }
    }

    /// The length in bytes of the entry at an offset, with that of the length itself. Never zero.
    fn entry_len(&self, offset: usize) -> Option<u64> {
        let rest = self.frames.get(offset..)?;
        let (short, rest) = rest.split_first_chunk()?;
        match u32::from_le_bytes(*short) {
            0 => None,
            u32::MAX => u64::from_le_bytes(*rest.first_chunk()?).checked_add(12),
            len => u64::from(len).checked_add(4),
        }
    }

    fn fde_at(&self, offset: usize) -> Option<Fde<'a>> {
        let get_cie = |section: &EhFrame<Bytes<'a>>, bases: &_, offset: EhFrameOffset| match self
            .entry_len(offset.0)
        {
            Some(..=MAX_CIE_LEN) => section.cie_from_offset(bases, offset),
            _ => Err(gimli::Error::NoEntryAtGivenOffset(offset.0 as u64)),
        };
        self.section().fde_from_offset(&self.bases(), EhFrameOffset(offset), get_cie).ok()
    }

    fn section(&self) -> EhFrame<Bytes<'a>> {
        EhFrame::from(EndianSlice::new(self.frames, LittleEndian))
    }

    fn bases(&self) -> BaseAddresses {
        BaseAddresses::default().set_eh_frame_hdr(self.header_addr).set_eh_frame(self.frames_addr)
    }
}

type Fde<'a> = FrameDescriptionEntry<Bytes<'a>>;

/// What a walk needs of a row: where the CFA is, and the rules of three registers, if they have
/// any.
#[derive(Clone)]
struct Row {
    cfa: CfaRule<usize>,
    return_addr: Option<RegisterRule<usize>>,
    fp: Option<RegisterRule<usize>>,
    sp: Option<RegisterRule<usize>>,
}

impl Row {
    const EMPTY: Self = Self {
        // Of no use before it is defined, but instructions may change a part of it.
        cfa: CfaRule::RegisterAndOffset { register: X86_64::RAX, offset: 0 },
        return_addr: None,
        fp: None,
        sp: None,
    };
}

/// Runs the programs of a CIE and an FDE.
struct Machine {
    row: Row,
    /// What the CIE's program ended with; `DW_CFA_restore` goes back to it.
    initial: Option<Row>,
    remembered: [Row; MAX_REMEMBERED],
    n_remembered: usize,
    n_instructions: u32,
    code_alignment: u64,
    data_alignment: i64,
    return_addr_register: Register,
}

impl Machine {
    fn new(fde: &Fde<'_>) -> Self {
        Self {
            row: Row::EMPTY,
            initial: None,
            remembered: [Row::EMPTY; MAX_REMEMBERED],
            n_remembered: 0,
            n_instructions: 0,
            code_alignment: fde.cie().code_alignment_factor(),
            data_alignment: fde.cie().data_alignment_factor(),
            return_addr_register: fde.cie().return_address_register(),
        }
    }

    /// Runs a program whose first row is that of `place`, until the row of `call_addr` is complete.
    fn run(
        &mut self,
        mut program: CallFrameInstructionIter<'_, Bytes<'_>>,
        mut place: u64,
        call_addr: u64,
    ) -> Option<()> {
        while let Some(instruction) = program.next().ok()? {
            self.n_instructions = self.n_instructions.checked_add(1)?;
            if self.n_instructions > MAX_INSTRUCTIONS {
                return None;
            }
            let next = match instruction {
                CallFrameInstruction::SetLoc { address } if address >= place => address,
                CallFrameInstruction::AdvanceLoc { delta } => {
                    place.checked_add(u64::from(delta).wrapping_mul(self.code_alignment))?
                }
                other => {
                    self.execute(other)?;
                    continue;
                }
            };
            if next > call_addr {
                return Some(());
            }
            place = next;
        }
        Some(())
    }

    fn execute(&mut self, instruction: CallFrameInstruction<usize>) -> Option<()> {
        use CallFrameInstruction as I;
        let factored = |offset: i64| offset.wrapping_mul(self.data_alignment);
        match instruction {
            I::DefCfa { register, offset } => self.define_cfa(register, offset as i64),
            I::DefCfaSf { register, factored_offset } => {
                self.define_cfa(register, factored(factored_offset));
            }
            I::DefCfaRegister { register } => {
                let (_, offset) = self.cfa()?;
                self.define_cfa(register, offset);
            }
            I::DefCfaOffset { offset } => {
                let (register, _) = self.cfa()?;
                self.define_cfa(register, offset as i64);
            }
            I::DefCfaOffsetSf { factored_offset } => {
                let (register, _) = self.cfa()?;
                self.define_cfa(register, factored(factored_offset));
            }
            I::DefCfaExpression { expression } => {
                self.row.cfa = CfaRule::Expression(expression);
            }
            I::Undefined { register } => self.set(register, RegisterRule::Undefined),
            I::SameValue { register } => self.set(register, RegisterRule::SameValue),
            I::Offset { register, factored_offset } => {
                self.set(register, RegisterRule::Offset(factored(factored_offset as i64)));
            }
            I::OffsetExtendedSf { register, factored_offset } => {
                self.set(register, RegisterRule::Offset(factored(factored_offset)));
            }
            I::ValOffset { register, factored_offset } => {
                self.set(register, RegisterRule::ValOffset(factored(factored_offset as i64)));
            }
            I::ValOffsetSf { register, factored_offset } => {
                self.set(register, RegisterRule::ValOffset(factored(factored_offset)));
            }
            I::Register { dest_register, src_register } => {
                self.set(dest_register, RegisterRule::Register(src_register));
            }
            I::Expression { register, expression } => {
                self.set(register, RegisterRule::Expression(expression));
            }
            I::ValExpression { register, expression } => {
                self.set(register, RegisterRule::ValExpression(expression));
            }
            I::Restore { register } => {
                let mut initial = self.initial.clone()?;
                let rule = slot(&mut initial, register, self.return_addr_register)
                    .and_then(|rule| rule.take());
                if let Some(slot) = slot(&mut self.row, register, self.return_addr_register) {
                    *slot = rule;
                }
            }
            I::RememberState => {
                *self.remembered.get_mut(self.n_remembered)? = self.row.clone();
                self.n_remembered = self.n_remembered.checked_add(1)?;
            }
            I::RestoreState => {
                self.n_remembered = self.n_remembered.checked_sub(1)?;
                self.row = self.remembered.get(self.n_remembered)?.clone();
            }
            I::ArgsSize { .. } | I::Nop => {}
            _ => return None,
        }
        Some(())
    }

    fn cfa(&self) -> Option<(Register, i64)> {
        match self.row.cfa {
            CfaRule::RegisterAndOffset { register, offset } => Some((register, offset)),
            CfaRule::Expression(_) => None,
        }
    }

    fn define_cfa(&mut self, register: Register, offset: i64) {
        self.row.cfa = CfaRule::RegisterAndOffset { register, offset };
    }

    fn set(&mut self, register: Register, rule: RegisterRule<usize>) {
        if let Some(slot) = slot(&mut self.row, register, self.return_addr_register) {
            *slot = Some(rule);
        }
    }
}

/// Where a row keeps the rule of a register, if it does.
fn slot(
    row: &mut Row,
    register: Register,
    return_addr_register: Register,
) -> Option<&mut Option<RegisterRule<usize>>> {
    match register {
        register if register == return_addr_register => Some(&mut row.return_addr),
        X86_64::RBP => Some(&mut row.fp),
        X86_64::RSP => Some(&mut row.sp),
        _ => None,
    }
}

/// Packs a row into a rule, or says that it must be interpreted at each step.
fn rule_of(row: &Row, is_signal_trampoline: bool) -> Rule {
    if matches!(row.return_addr, Some(RegisterRule::Undefined)) {
        return Rule::OUTERMOST;
    }
    let plain = || {
        if is_signal_trampoline || row.sp.is_some() {
            return None;
        }
        if !matches!(row.return_addr, Some(RegisterRule::Offset(-8))) {
            return None;
        }
        let (base, cfa_offset) = match row.cfa {
            CfaRule::RegisterAndOffset { register: X86_64::RSP, offset } => (CfaBase::Sp, offset),
            CfaRule::RegisterAndOffset { register: X86_64::RBP, offset } => (CfaBase::Fp, offset),
            _ => return None,
        };
        let saved_fp = match row.fp {
            None | Some(RegisterRule::SameValue) => None,
            Some(RegisterRule::Offset(offset)) => Some(offset),
            Some(_) => return None,
        };
        Rule::plain(base, cfa_offset, saved_fp)
    };
    plain().unwrap_or(Rule::INTERPRETED)
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use gimli::constants::{DW_EH_PE_pcrel, DW_EH_PE_sdata4};
    use gimli::write;
    use proptest::prelude::*;
    use std::{vec, vec::Vec};
    use write::CallFrameInstruction as I;

    const FRAMES_ADDR: u64 = 0x10_0000;
    const HEADER_ADDR: u64 = 0xF_0000;

    /// A section of functions of 64 bytes at these addresses, each with the same program.
    fn section(functions: &[u64], program: &[(u32, I)]) -> Vec<u8> {
        let encoding =
            gimli::Encoding { format: gimli::Format::Dwarf32, version: 1, address_size: 8 };
        let mut cie = write::CommonInformationEntry::new(encoding, 1, -8, X86_64::RA);
        cie.fde_address_encoding = gimli::DwEhPe(DW_EH_PE_pcrel.0 | DW_EH_PE_sdata4.0);
        cie.add_instruction(I::Cfa(X86_64::RSP, 8));
        cie.add_instruction(I::Offset(X86_64::RA, -8));
        let mut table = write::FrameTable::default();
        let cie = table.add_cie(cie);
        for function in functions {
            // The writer counts from the start of the section.
            let addr = write::Address::Constant(function.wrapping_sub(FRAMES_ADDR));
            let mut fde = write::FrameDescriptionEntry::new(addr, 64);
            for (offset, instruction) in program {
                fde.add_instruction(*offset, instruction.clone());
            }
            table.add_fde(cie, fde);
        }
        let mut frames = write::EhFrame::from(write::EndianVec::new(LittleEndian));
        table.write_eh_frame(&mut frames).unwrap();
        let mut bytes = frames.0.into_vec();
        bytes.extend([0; 4]);
        bytes
    }

    /// The index of a section, in order of its entries.
    fn index(frames: &[u8]) -> Vec<u8> {
        let tables = UnwindTables::new(&[], 0, frames, FRAMES_ADDR);
        let mut entries = vec![];
        let mut offset = 0;
        while let Some(len) = tables.entry_len(offset) {
            if let Some(fde) = tables.fde_at(offset) {
                entries.extend((fde.initial_address() as i32 - HEADER_ADDR as i32).to_le_bytes());
                let entry_addr = FRAMES_ADDR as i32 + offset as i32;
                entries.extend((entry_addr - HEADER_ADDR as i32).to_le_bytes());
            }
            offset += len as usize;
        }
        let mut header = INDEX_HEADER.to_vec();
        header.extend((FRAMES_ADDR as i32 - HEADER_ADDR as i32 - 4).to_le_bytes());
        header.extend((entries.len() as u32 / 8).to_le_bytes());
        header.extend(entries);
        header
    }

    fn prologue() -> [(u32, I); 4] {
        [
            (1, I::CfaOffset(16)),
            (1, I::Offset(X86_64::RBP, -16)),
            (4, I::CfaRegister(X86_64::RBP)),
            (60, I::Cfa(X86_64::RSP, 8)),
        ]
    }

    #[test]
    fn each_instruction_of_a_function_has_the_rule_of_its_row_with_and_without_an_index() {
        let frames = section(&[0x5000, 0x5040, 0x6000], &prologue());
        let header = index(&frames);
        assert_eq!(UnwindTables::frames_addr(&header, HEADER_ADDR), Some(FRAMES_ADDR));
        for header in [&header[..], &[]] {
            let tables = UnwindTables::new(header, HEADER_ADDR, &frames, FRAMES_ADDR);
            for start in [0x5000, 0x5040, 0x6000] {
                for offset in 0..64 {
                    let expected = match offset {
                        0 => Rule::plain(CfaBase::Sp, 8, None),
                        1..4 => Rule::plain(CfaBase::Sp, 16, Some(-16)),
                        4..60 => Some(Rule::FRAME_POINTER),
                        // The frame pointer was popped, from where it still is: below the frame.
                        _ => Some(Rule::INTERPRETED),
                    };
                    assert_eq!(Some(tables.rule(start + offset)), expected, "{offset}");
                    assert_eq!(tables.function_range(start + offset), Some(start..start + 64));
                }
            }
        }
    }

    #[test]
    fn a_gap_between_functions_belongs_to_neither() {
        let frames = section(&[0x5000, 0x6000], &prologue());
        let header = index(&frames);
        for header in [&header[..], &[]] {
            let tables = UnwindTables::new(header, HEADER_ADDR, &frames, FRAMES_ADDR);
            for addr in [0, 0x4FFF, 0x5040, 0x5FFF, 0x6040, u64::MAX] {
                assert_eq!(tables.rule(addr), Rule::UNKNOWN, "{addr:#x}");
                assert_eq!(tables.function_range(addr), None);
                let registers = Registers { pc: addr, sp: 0, fp: 0, is_exact_pc: true };
                assert_eq!(tables.step(registers, &mut |_| Some(1)), None);
            }
        }
    }

    #[test]
    fn a_function_that_saves_every_vector_register_has_a_rule() {
        let saved = (17..=32).chain([0, 1, 2, 3, 4, 5]).enumerate();
        let mut program: Vec<_> =
            saved.map(|(i, n)| (1, I::Offset(Register(n), -24 - 8 * i as i32))).collect();
        program.extend(prologue());
        let frames = section(&[0x5000], &program);
        let tables = UnwindTables::new(&[], 0, &frames, FRAMES_ADDR);
        assert_eq!(tables.rule(0x5010), Rule::FRAME_POINTER);
    }

    #[test]
    fn states_are_remembered_and_restored_and_initial_rules_come_back() {
        let program = [
            (1, I::CfaOffset(32)),
            (1, I::Offset(X86_64::RBP, -16)),
            (2, I::RememberState),
            (2, I::Restore(X86_64::RBP)),
            (2, I::CfaOffset(8)),
            (3, I::RestoreState),
        ];
        let frames = section(&[0x5000], &program);
        let tables = UnwindTables::new(&[], 0, &frames, FRAMES_ADDR);
        let saved = Rule::plain(CfaBase::Sp, 32, Some(-16)).unwrap();
        assert_eq!(tables.rule(0x5001), saved);
        assert_eq!(Some(tables.rule(0x5002)), Rule::plain(CfaBase::Sp, 8, None));
        assert_eq!(tables.rule(0x5003), saved);
    }

    #[test]
    fn a_lost_frame_pointer_is_zero_and_a_lost_return_address_is_the_end() {
        let lost = section(&[0x5000], &[(0, I::Register(X86_64::RBP, X86_64::R11))]);
        let tables = UnwindTables::new(&[], 0, &lost, FRAMES_ADDR);
        let registers = Registers { pc: 0x5001, sp: 0x7000, fp: 0x7100, is_exact_pc: false };
        assert_eq!(tables.rule(0x5000), Rule::INTERPRETED);
        let caller = Registers { pc: 0x7000 * 2, sp: 0x7008, fp: 0, is_exact_pc: false };
        assert_eq!(tables.step(registers, &mut |addr| Some(addr * 2)), Some(caller));
        assert_eq!(tables.step(registers, &mut |_| None), None);

        let outermost = section(&[0x5000], &[(0, I::Undefined(X86_64::RA))]);
        let tables = UnwindTables::new(&[], 0, &outermost, FRAMES_ADDR);
        assert_eq!(tables.rule(0x5000), Rule::OUTERMOST);
        assert_eq!(tables.step(registers, &mut |_| Some(1)), None);
    }

    #[test]
    fn hostile_sections_are_given_up_in_time() {
        // A CIE whose augmentation takes long to read, and as many functions as can refer to it.
        let mut frames = section(&[], &[]);
        frames.clear();
        let body_len = MAX_CIE_LEN as u32 - 4;
        frames.extend(body_len.to_le_bytes());
        frames.extend([0, 0, 0, 0, 1, b'z']);
        frames.extend(vec![b'S'; MAX_CIE_LEN as usize - 24]);
        frames.extend([0, 1, 0x78, 16, 0]);
        frames.resize(MAX_CIE_LEN as usize, 0);
        while frames.len() < 1 << 16 {
            frames.extend(21u32.to_le_bytes());
            frames.extend((frames.len() as u32).to_le_bytes());
            frames.extend([1; 17]);
        }
        let start = std::time::Instant::now();
        for header in [&[][..], &INDEX_HEADER] {
            let tables = UnwindTables::new(header, HEADER_ADDR, &frames, FRAMES_ADDR);
            assert_eq!(tables.rule(0x5000), Rule::UNKNOWN);
        }
        // A program that does nothing but save and restore.
        let program: Vec<_> =
            (0..60_000).map(|i| (1, [I::RememberState, I::RestoreState][i % 2].clone())).collect();
        let long = section(&[0x5000], &program);
        let tables = UnwindTables::new(&[], HEADER_ADDR, &long, FRAMES_ADDR);
        assert!(tables.rule(0x5002).is_plain());
        let longer = section(&[0x5000], &[program.clone(), program].concat());
        let tables = UnwindTables::new(&[], HEADER_ADDR, &longer, FRAMES_ADDR);
        assert_eq!(tables.rule(0x5002), Rule::UNKNOWN);
        // Some milliseconds in fact.
        assert!(start.elapsed() < std::time::Duration::from_secs(5));
    }

    proptest! {
        #[test]
        fn damaged_tables_give_an_answer_to_every_question(
            damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            len in any::<prop::sample::Index>(),
            call_addr in prop_oneof![0x4F00..0x6100_u64, any::<u64>()],
            addrs in prop_oneof![Just((HEADER_ADDR, FRAMES_ADDR)), any::<(u64, u64)>()],
        ) {
            let mut frames = section(&[0x5000, 0x5040, 0x6000], &prologue());
            let mut header = index(&frames);
            for (at, byte) in damages {
                let at = at.index(header.len() + frames.len());
                *header.iter_mut().chain(&mut frames).nth(at).unwrap() = byte;
            }
            for frames in [&frames[..], &frames[..len.index(frames.len())]] {
                for header in [&header[..], &header[..len.index(header.len())]] {
                    let tables = UnwindTables::new(header, addrs.0, frames, addrs.1);
                    let rule = tables.rule(call_addr);
                    let range = tables.function_range(call_addr);
                    prop_assert!(rule == Rule::UNKNOWN || range.is_some());
                    prop_assert!(range.is_none_or(|range| range.contains(&call_addr)));
                    let registers =
                        Registers { pc: call_addr, sp: 0x7000, fp: 0x7100, is_exact_pc: true };
                    let _ = tables.step(registers, &mut |addr| addr.checked_mul(2));
                    let _ = UnwindTables::frames_addr(header, addrs.0);
                }
            }
        }
    }
}
