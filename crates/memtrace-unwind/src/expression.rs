//! A machine for the DWARF expressions that occur in unwind tables.
//!
//! They are few: PLT entries (arithmetic on the program counter), signal trampolines and realigned
//! frames (a register plus an offset, perhaps dereferenced). Anything that needs a register other
//! than the three that a walk carries has no answer here.

use crate::rule::Registers;
use gimli::{Encoding, EndianSlice, Expression, LittleEndian, Operation, X86_64};

const STACK_SLOTS: usize = 16;
/// Operations after which an expression is given up: a branch may loop.
const MAX_OPERATIONS: usize = 256;

pub(crate) type Bytes<'a> = EndianSlice<'a, LittleEndian>;

/// Returns the value of an expression, `initial` being on its stack at the start.
///
/// `None` if the expression is malformed, uses what is not known here, or reads out of reach.
pub(crate) fn evaluate(
    expression: Expression<Bytes<'_>>,
    encoding: Encoding,
    initial: Option<u64>,
    registers: Registers,
    read_word: &mut dyn FnMut(u64) -> Option<u64>,
) -> Option<u64> {
    let mut stack = Stack { slots: [0; STACK_SLOTS], len: 0 };
    if let Some(value) = initial {
        stack.push(value)?;
    }
    let start = expression.0;
    let mut input = start;
    let mut n_operations = 0usize;
    while !input.is_empty() {
        n_operations = n_operations.saturating_add(1);
        if n_operations > MAX_OPERATIONS {
            return None;
        }
        match Operation::parse(&mut input, encoding).ok()? {
            Operation::Deref { size: 8, space: false, .. } => {
                let addr = stack.pop()?;
                stack.push(read_word(addr)?)?;
            }
            Operation::Drop => {
                stack.pop()?;
            }
            Operation::Pick { index } => {
                let value = stack.peek(index as usize)?;
                stack.push(value)?;
            }
            Operation::Swap => {
                let (b, a) = (stack.pop()?, stack.pop()?);
                stack.push(b)?;
                stack.push(a)?;
            }
            Operation::UnsignedConstant { value } => stack.push(value)?,
            Operation::SignedConstant { value } => stack.push(value as u64)?,
            Operation::RegisterOffset { register, offset, .. } => {
                let base = match register {
                    X86_64::RSP => registers.sp,
                    X86_64::RBP => registers.fp,
                    X86_64::RA => registers.pc,
                    _ => return None,
                };
                stack.push(base.wrapping_add(offset as u64))?;
            }
            Operation::PlusConstant { value } => stack.unary(|a| a.wrapping_add(value))?,
            Operation::Neg => stack.unary(u64::wrapping_neg)?,
            Operation::Not => stack.unary(|a| !a)?,
            Operation::Plus => stack.binary(u64::wrapping_add)?,
            Operation::Minus => stack.binary(u64::wrapping_sub)?,
            Operation::Mul => stack.binary(u64::wrapping_mul)?,
            Operation::And => stack.binary(|a, b| a & b)?,
            Operation::Or => stack.binary(|a, b| a | b)?,
            Operation::Xor => stack.binary(|a, b| a ^ b)?,
            Operation::Shl => stack.binary(|a, b| shift(b).map_or(0, |n| a.wrapping_shl(n)))?,
            Operation::Shr => stack.binary(|a, b| shift(b).map_or(0, |n| a.wrapping_shr(n)))?,
            Operation::Eq => stack.compare(|a, b| a == b)?,
            Operation::Ne => stack.compare(|a, b| a != b)?,
            Operation::Ge => stack.compare(|a, b| a >= b)?,
            Operation::Gt => stack.compare(|a, b| a > b)?,
            Operation::Le => stack.compare(|a, b| a <= b)?,
            Operation::Lt => stack.compare(|a, b| a < b)?,
            Operation::Nop => {}
            Operation::Bra { target } => {
                if stack.pop()? != 0 {
                    input = jump(start, input, target)?;
                }
            }
            Operation::Skip { target } => input = jump(start, input, target)?,
            _ => return None,
        }
    }
    stack.pop()
}

/// Returns a shift distance if it is one that leaves anything.
fn shift(distance: u64) -> Option<u32> {
    u32::try_from(distance).ok().filter(|&n| n < 64)
}

/// Returns the rest of the expression at `target` bytes from the start of `rest`.
fn jump<'a>(start: Bytes<'a>, rest: Bytes<'a>, target: i16) -> Option<Bytes<'a>> {
    let here = start.len().checked_sub(rest.len())?;
    let there = here.checked_add_signed(isize::from(target))?;
    Some(EndianSlice::new(start.slice().get(there..)?, LittleEndian))
}

struct Stack {
    slots: [u64; STACK_SLOTS],
    len: usize,
}

impl Stack {
    fn push(&mut self, value: u64) -> Option<()> {
        *self.slots.get_mut(self.len)? = value;
        self.len = self.len.checked_add(1)?;
        Some(())
    }

    fn pop(&mut self) -> Option<u64> {
        self.len = self.len.checked_sub(1)?;
        self.slots.get(self.len).copied()
    }

    fn peek(&self, depth: usize) -> Option<u64> {
        self.slots.get(self.len.checked_sub(1)?.checked_sub(depth)?).copied()
    }

    fn unary(&mut self, f: impl FnOnce(u64) -> u64) -> Option<()> {
        let a = self.pop()?;
        self.push(f(a))
    }

    fn binary(&mut self, f: impl FnOnce(u64, u64) -> u64) -> Option<()> {
        let (b, a) = (self.pop()?, self.pop()?);
        self.push(f(a, b))
    }

    /// Comparisons of DWARF are signed.
    fn compare(&mut self, f: impl FnOnce(i64, i64) -> bool) -> Option<()> {
        self.binary(|a, b| f(a as i64, b as i64).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gimli::{Format, constants as c};
    use proptest::prelude::*;

    const ENCODING: Encoding = Encoding { address_size: 8, format: Format::Dwarf32, version: 4 };
    const REGISTERS: Registers =
        Registers { pc: 0x1018, sp: 0x7000, fp: 0x7100, is_exact_pc: true };

    fn eval(bytes: &[u8], initial: Option<u64>) -> Option<u64> {
        let expression = Expression(EndianSlice::new(bytes, LittleEndian));
        evaluate(expression, ENCODING, initial, REGISTERS, &mut |addr| addr.checked_mul(2))
    }

    #[test]
    fn the_expression_of_a_plt_entry_depends_on_the_place_within_it() {
        // CFA = sp + 8 + ((pc & 15) >= 11) << 3, as linkers write it.
        let plt = [
            c::DW_OP_breg7.0,
            8,
            c::DW_OP_breg16.0,
            0,
            c::DW_OP_lit15.0,
            c::DW_OP_and.0,
            c::DW_OP_lit11.0,
            c::DW_OP_ge.0,
            c::DW_OP_lit3.0,
            c::DW_OP_shl.0,
            c::DW_OP_plus.0,
        ];
        assert_eq!(eval(&plt, None), Some(0x7008), "pc & 15 = 8");
        let mut later = plt;
        later[3] = 4;
        assert_eq!(eval(&later, None), Some(0x7010), "pc & 15 = 12");
    }

    #[test]
    fn a_realigned_frame_is_dereferenced() {
        let bytes = [c::DW_OP_breg6.0, 0x78, c::DW_OP_deref.0];
        assert_eq!(eval(&bytes, None), Some((0x7100 - 8) * 2));
    }

    #[test]
    fn an_endless_loop_ends() {
        assert_eq!(eval(&[c::DW_OP_skip.0, 0xFD, 0xFF], None), None);
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer_or_none(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = eval(&bytes, Some(0));
        }
    }
}
