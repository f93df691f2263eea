//! The walk that captures take: the same steps as [`plain`](crate::plain), made short.
//!
//! What a frame costs is the chain of loads from one return address to the next: address → rule →
//! canonical frame address → address. Everything else (the hash, the guard rails, the buffer) runs
//! beside that chain. Where the rule is that of a standard frame-pointer frame, the next address is
//! loaded through the frame pointer before the rule is known: the rule then only confirms what a
//! predicted branch has guessed, and the chain is from frame pointer to frame pointer.
//!
//! What is done with each frame is the business of a [`Visitor`]: write it to a buffer, hash it, look
//! for it among the frames of an earlier walk.
//!
//! # Invariants
//!
//! - **I1** Words are read under the guard rails of [`Reach`](crate::reach) only.
//! - **I2** The stack pointer strictly rises, except across a signal frame; a visitor that takes `n`
//!   frames at most ends every walk.
//! - **I3** Visitors that take all frames see those of [`plain::walk`](crate::plain::walk).

use crate::bounds::StackBounds;
use crate::plain::Rules;
use crate::reach::Reach;
use crate::rule::{End, Registers, Rule, Walk};

/// Where a walk is: in the frame that executes the call at `key - 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// One more than the call address: the return address, but in a frame interrupted by a signal.
    pub(crate) key: u64,
    pub(crate) sp: u64,
    pub(crate) fp: u64,
}

impl Place {
    #[inline(always)]
    pub(crate) const fn of(registers: Registers) -> Self {
        Self { key: registers.call_addr().wrapping_add(1), sp: registers.sp, fp: registers.fp }
    }

    #[inline(always)]
    pub(crate) const fn call_addr(&self) -> u64 {
        self.key.wrapping_sub(1)
    }
}

/// How a step was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Whether the frame pointer decided where the next frame is.
    pub(crate) used_fp: bool,
    /// Where the frame pointer was loaded from; 0 if it was not.
    pub(crate) fp_slot: u64,
}

/// What becomes of the frames of a walk.
///
/// Places are handed over by value: the compiler then keeps them in registers, and the chain from frame
/// to frame does not lead through memory.
pub(crate) trait Visitor {
    /// Takes a frame and returns where the walk goes on: there, or at another place that is known to
    /// be on its way. `None` ends the walk before the frame is left.
    fn frame(&mut self, place: Place) -> Option<Place>;

    /// Is told how the last frame is about to be left, by a plain rule.
    #[inline(always)]
    fn leaves(&mut self, step: Step) {
        let _ = step;
    }

    /// Is told that the last frame is about to be left in another way; `false` ends the walk.
    #[inline(always)]
    fn leaves_otherwise(&mut self) -> bool {
        true
    }
}

/// Follows the stack outward from `start`; `None` if the visitor ended it.
///
/// The second value is where the zero word was found at which the stack ends, if one was.
#[inline(always)]
pub(crate) fn visit(
    start: Registers,
    stack: &StackBounds,
    rules: &mut impl Rules,
    mut read_word: impl FnMut(u64) -> Option<u64>,
    visitor: &mut impl Visitor,
) -> Option<(End, u64)> {
    let mut place = Place::of(start);
    // Where the last frame is whose program counter is exact: so the hot loop has nothing to note.
    let mut exact_sp = if start.is_exact_pc { Some(place.sp) } else { None };
    let mut reach = Reach::at(place.sp, stack);
    loop {
        place = visitor.frame(place)?;
        let rule = rules.rule(place.call_addr());
        if rule == Rule::FRAME_POINTER {
            // Nothing here waits for the rule.
            let slot = place.fp.wrapping_add(8);
            visitor.leaves(Step { used_fp: true, fp_slot: place.fp });
            if !reach.contains(place.fp) || !reach.contains(slot) {
                return Some((End::Truncated, 0));
            }
            let (Some(key), Some(fp)) = (read_word(slot), read_word(place.fp)) else {
                return Some((End::Truncated, 0));
            };
            let sp = slot.wrapping_add(8);
            // In this order: where a walk is cut depends on addresses alone.
            if sp <= place.sp {
                return Some((End::Truncated, 0));
            }
            if key == 0 {
                return Some((End::Outermost, slot));
            }
            place = Place { key, sp, fp };
        } else if rule.is_plain_by_sp() {
            let sp = place.sp.wrapping_add(rule.cfa_offset());
            let slot = sp.wrapping_sub(8);
            // Without a branch: what was not saved is read where the return address is, and ignored.
            // Either place lies between here and the return address.
            let saves_fp = rule.saves_fp();
            let fp_slot = sp.wrapping_add(rule.fp_offset());
            visitor.leaves(Step { used_fp: false, fp_slot: if saves_fp { fp_slot } else { 0 } });
            if !reach.contains(slot) {
                return Some((End::Truncated, 0));
            }
            let (Some(key), Some(saved)) = (read_word(slot), read_word(fp_slot)) else {
                return Some((End::Truncated, 0));
            };
            if key == 0 {
                return Some((End::Outermost, slot));
            }
            place = Place { key, sp, fp: if saves_fp { saved } else { place.fp } };
        } else {
            if rule.is_plain() {
                let sp = place.fp.wrapping_add(rule.cfa_offset());
                let fp_slot = rule.saved_fp().map_or(0, |offset| sp.wrapping_add(offset));
                visitor.leaves(Step { used_fp: true, fp_slot });
            } else if rule == Rule::INTERPRETED && !visitor.leaves_otherwise() {
                return None;
            }
            let is_exact_pc = exact_sp == Some(place.sp);
            let pc = if is_exact_pc { place.call_addr() } else { place.key };
            let registers = Registers { pc, sp: place.sp, fp: place.fp, is_exact_pc };
            match step_seldom(registers, rule, reach, rules, &mut read_word) {
                Ok(registers) => {
                    if registers.is_exact_pc {
                        reach = Reach::at(registers.sp, stack);
                    }
                    place = Place::of(registers);
                    exact_sp = if registers.is_exact_pc { Some(place.sp) } else { None };
                }
                Err(end) => return Some(end),
            }
        }
    }
}

/// Steps by a rule of the less common kinds, or says how and where the stack ends.
#[cold]
#[inline(never)]
fn step_seldom(
    registers: Registers,
    rule: Rule,
    reach: Reach,
    rules: &mut impl Rules,
    read_word: &mut dyn FnMut(u64) -> Option<u64>,
) -> Result<Registers, (End, u64)> {
    let mut read = |addr: u64| if reach.contains(addr) { read_word(addr) } else { None };
    let mut step = || {
        if !rule.is_plain() {
            return rules.interpret(registers, &mut read);
        }
        let sp = registers.fp.wrapping_add(rule.cfa_offset());
        let pc = read(sp.wrapping_sub(8))?;
        let fp = match rule.saved_fp() {
            Some(offset) => read(sp.wrapping_add(offset))?,
            None => registers.fp,
        };
        Some(Registers { pc, sp, fp, is_exact_pc: false })
    };
    let next = match rule {
        Rule::OUTERMOST => return Err((End::Outermost, 0)),
        Rule::UNKNOWN => return Err((End::Truncated, 0)),
        _ => step().ok_or((End::Truncated, 0))?,
    };
    if !next.is_exact_pc && next.sp <= registers.sp {
        return Err((End::Truncated, 0));
    }
    if next.pc == 0 {
        let zero_slot = if rule.is_plain() { next.sp.wrapping_sub(8) } else { 0 };
        return Err((End::Outermost, zero_slot));
    }
    Ok(next)
}

/// Writes call addresses to a buffer.
struct Frames<'a> {
    out: &'a mut [u64],
    len: usize,
}

impl Visitor for Frames<'_> {
    #[inline(always)]
    fn frame(&mut self, place: Place) -> Option<Place> {
        // Where there is no slot, the step before this led to a frame: there is one more than fits.
        *self.out.get_mut(self.len)? = place.call_addr();
        self.len = self.len.wrapping_add(1);
        Some(place)
    }
}

/// Follows the stack outward from `start` and writes call addresses to `out`, newest first.
///
/// Parameters and result are those of [`plain::walk`](crate::plain::walk), and so is what is promised
/// of the addresses that `read_word` is asked for.
///
/// **Cost**: a table look-up and two or three loads a frame, 3 to 5 ns for addresses seen before.
#[inline(always)]
pub fn walk(
    start: Registers,
    stack: &StackBounds,
    rules: &mut impl Rules,
    read_word: impl FnMut(u64) -> Option<u64>,
    out: &mut [u64],
) -> Walk {
    let mut frames = Frames { out, len: 0 };
    let end = visit(start, stack, rules, read_word, &mut frames);
    Walk { len: frames.len, end: end.map_or(End::Limit, |(end, _)| end) }
}
