//! From the unwind tables of one loaded object to a [`Rule`], a step, or a function's extent.
//!
//! The tables are read where the loader mapped them: `.eh_frame_hdr` holds a sorted index of
//! functions, `.eh_frame` a small program for each, whose rows say how to unwind from each range of
//! instructions. `gimli` runs the program, over storage on the stack (about 3 KiB).
//!
//! # Cost
//!
//! A binary search and a program of some ten to fifty instructions. The rule table
//! sees to it that this is paid once for each address.

use crate::expression::{Bytes, evaluate};
use crate::rule::{CfaBase, Registers, Rule};
use core::ops::Range;
use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, EndianSlice, FrameDescriptionEntry, LittleEndian,
    ParsedEhFrameHdr, Register, RegisterRule, UnwindContext, UnwindContextStorage, UnwindSection,
    UnwindTableRow, X86_64,
};

/// Registers that one row may have rules for; the 16 general ones and the return address.
const MAX_RULES: usize = 18;
/// Rows that `DW_CFA_remember_state` may stack up, the current one included.
const MAX_ROWS: usize = 4;

/// Storage for running a frame's program, small enough for a thread's stack.
struct OnStack;

impl UnwindContextStorage<usize> for OnStack {
    type Rules = [(Register, RegisterRule<usize>); MAX_RULES];
    type Stack = [UnwindTableRow<usize, Self>; MAX_ROWS];
}

type Row = UnwindTableRow<usize, OnStack>;

/// The unwind tables of one loaded object, at the addresses where they are mapped.
#[derive(Clone, Copy)]
pub(crate) struct UnwindTables<'a> {
    /// `.eh_frame_hdr` up to the end of its segment.
    pub(crate) header: &'a [u8],
    /// `.eh_frame` up to the end of its segment.
    pub(crate) frames: &'a [u8],
    /// Address of `header`.
    pub(crate) header_addr: u64,
    /// Address of `frames`.
    pub(crate) frames_addr: u64,
}

impl<'a> UnwindTables<'a> {
    /// Reads from `.eh_frame_hdr` where `.eh_frame` is.
    pub(crate) fn frames_addr(header: &[u8], header_addr: u64) -> Option<u64> {
        let bases = BaseAddresses::default().set_eh_frame_hdr(header_addr);
        let parsed = EhFrameHdr::new(header, LittleEndian).parse(&bases, 8).ok()?;
        parsed.eh_frame_ptr().direct().ok()
    }

    /// Returns the rule for the instruction at `call_addr`.
    pub(crate) fn rule(&self, call_addr: u64) -> Rule {
        let Some(fde) = self.find(call_addr) else { return Rule::UNKNOWN };
        let bases = self.bases();
        let mut context = UnwindContext::<usize, OnStack>::new_in();
        match fde.unwind_info_for_address(&self.section(), &bases, &mut context, call_addr) {
            Ok(row) => rule_of(row, fde.is_signal_trampoline()),
            Err(_) => Rule::UNKNOWN,
        }
    }

    /// Steps out of the frame of `registers` by interpreting its row in full.
    pub(crate) fn step(
        &self,
        registers: Registers,
        read_word: &mut dyn FnMut(u64) -> Option<u64>,
    ) -> Option<Registers> {
        let call_addr = registers.call_addr();
        let fde = self.find(call_addr)?;
        let (section, bases) = (self.section(), self.bases());
        let encoding = fde.cie().encoding();
        let mut context = UnwindContext::<usize, OnStack>::new_in();
        let row = fde.unwind_info_for_address(&section, &bases, &mut context, call_addr).ok()?;

        let cfa = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                let base = match *register {
                    X86_64::RSP => registers.sp,
                    X86_64::RBP => registers.fp,
                    _ => return None,
                };
                base.wrapping_add(*offset as u64)
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
        let pc = value(row.register(X86_64::RA), None)?;
        // A frame pointer that is lost makes only those outer frames unreachable that need it: they
        // are stopped by the guard rails, since zero is below every stack.
        let fp = value(row.register(X86_64::RBP), Some(registers.fp)).unwrap_or(0);
        let sp = match row.register(X86_64::RSP) {
            // Without a rule the stack pointer before the call is the CFA, by definition.
            None => cfa,
            rule => value(rule, None)?,
        };
        Some(Registers { pc, sp, fp, is_exact_pc: fde.is_signal_trampoline() })
    }

    /// Returns the extent of the function that holds `call_addr`.
    pub(crate) fn function_range(&self, call_addr: u64) -> Option<Range<u64>> {
        let fde = self.find(call_addr)?;
        Some(fde.initial_address()..fde.end_address())
    }

    fn find(&self, call_addr: u64) -> Option<FrameDescriptionEntry<Bytes<'a>>> {
        let (section, bases) = (self.section(), self.bases());
        let header: ParsedEhFrameHdr<Bytes<'a>> =
            EhFrameHdr::new(self.header, LittleEndian).parse(&bases, 8).ok()?;
        match header.table() {
            Some(table) => {
                table.fde_for_address(&section, &bases, call_addr, EhFrame::cie_from_offset)
            }
            // Some linkers leave the index out; the section itself ends with a zero length.
            None => section.fde_for_address(&bases, call_addr, EhFrame::cie_from_offset),
        }
        .ok()
    }

    fn section(&self) -> EhFrame<Bytes<'a>> {
        EhFrame::from(EndianSlice::new(self.frames, LittleEndian))
    }

    fn bases(&self) -> BaseAddresses {
        BaseAddresses::default().set_eh_frame_hdr(self.header_addr).set_eh_frame(self.frames_addr)
    }
}

/// Packs a row into a rule, or says that it must be interpreted at each step.
fn rule_of(row: &Row, is_signal_trampoline: bool) -> Rule {
    let return_addr = row.register(X86_64::RA);
    if matches!(return_addr, Some(RegisterRule::Undefined)) {
        return Rule::OUTERMOST;
    }
    let plain = || {
        if is_signal_trampoline || row.register(X86_64::RSP).is_some() {
            return None;
        }
        if !matches!(return_addr, Some(RegisterRule::Offset(-8))) {
            return None;
        }
        let (base, cfa_offset) = match row.cfa() {
            CfaRule::RegisterAndOffset { register: X86_64::RSP, offset } => (CfaBase::Sp, *offset),
            CfaRule::RegisterAndOffset { register: X86_64::RBP, offset } => (CfaBase::Fp, *offset),
            _ => return None,
        };
        let saved_fp = match row.register(X86_64::RBP) {
            None | Some(RegisterRule::SameValue) => None,
            Some(RegisterRule::Offset(offset)) => Some(offset),
            Some(_) => return None,
        };
        Rule::plain(base, cfa_offset, saved_fp)
    };
    plain().unwrap_or(Rule::INTERPRETED)
}
