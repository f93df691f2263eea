//! What a walk works with: registers, the rule that leads from one frame to the next, and the
//! result.
//!
//! A [`Rule`] is what remains of a row of `.eh_frame` when only return addresses are wanted: where
//! the *canonical frame address* (CFA, the stack pointer before the call) is, and where the frame
//! pointer was saved. Nearly every row of every x86_64 program fits 32 bits, so a rule is stored,
//! compared and published as one word.
//!
//! Layout of a rule that [`Rule::is_plain`]:
//!
//! | bits | meaning |
//! | --- | --- |
//! | 0 | CFA is counted from the frame pointer, not the stack pointer |
//! | 1 | the frame pointer was saved |
//! | 2 | 1 |
//! | 3..16 | CFA offset in bytes, a multiple of 8 below 64 KiB |
//! | 16..32 | where the frame pointer was saved: signed words from the CFA; −1, the place of the return address, if it was not |
//!
//! With bit 2 clear, bits 3..6 hold the kind of a rare rule; the word of zeros is an unknown one.

/// The three registers that decide a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    /// Program counter: a return address, or the interrupted instruction if `is_exact_pc`.
    pub pc: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer register, whether or not the code uses it as one.
    pub fp: u64,
    /// Whether `pc` is the address of an instruction about to run rather than a return address.
    pub is_exact_pc: bool,
}

impl Registers {
    /// Returns an address inside the instruction that is being executed: the one to look up.
    ///
    /// A return address may be the first byte of the next function, when the call does not return.
    pub const fn call_addr(&self) -> u64 {
        if self.is_exact_pc { self.pc } else { self.pc.wrapping_sub(1) }
    }
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At the outermost frame: the stack is complete.
    Outermost,
    /// At the length of the buffer, with at least one more frame beyond it.
    Limit,
    /// At a frame that could not be left: no unwind tables, or a guard rail.
    Truncated,
}

/// The result of a walk: how many call addresses were written, newest first, and how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Number of call addresses written.
    pub len: usize,
    /// Why there are not more.
    pub end: End,
}

/// The register that the CFA is counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CfaBase {
    /// Stack pointer.
    Sp,
    /// Frame pointer.
    Fp,
}

/// How to step from a frame to its caller's, packed into 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rule(u32);

const PLAIN: u32 = 1 << 2;

impl Rule {
    /// No caller: the return address is undefined, as in `_start`.
    pub const OUTERMOST: Self = Self(1 << 3);
    /// No unwind tables for this address.
    pub const UNKNOWN: Self = Self(0);
    /// The tables of this address must be interpreted at each step.
    pub const INTERPRETED: Self = Self(2 << 3);
    /// The frame that a function with a frame pointer has between prologue and epilogue:
    /// `CFA = fp + 16`, frame pointer saved at `CFA − 16`.
    pub const FRAME_POINTER: Self = Self(1 | 2 | PLAIN | 16 | 0xFFFE << 16);

    /// Packs a plain rule, the return address being at `CFA − 8`.
    ///
    /// `saved_fp` is the offset from the CFA, in bytes, at which the frame pointer was saved; `None`
    /// if it was not touched. Returns `None` where the numbers do not fit, and where a frame that is
    /// counted from the stack pointer has saved it outside of itself.
    pub const fn plain(base: CfaBase, cfa_offset: i64, saved_fp: Option<i64>) -> Option<Self> {
        if cfa_offset < 8 || cfa_offset > 0xFFF8 || cfa_offset % 8 != 0 {
            return None;
        }
        let low = match base {
            CfaBase::Sp => 0,
            CfaBase::Fp => 1,
        } | PLAIN
            | cfa_offset as u32;
        match saved_fp {
            None => Some(Self(low | 0xFFFF << 16)),
            Some(offset) => {
                let words = offset / 8;
                if offset % 8 != 0 || words < i16::MIN as i64 || words > i16::MAX as i64 {
                    return None;
                }
                if matches!(base, CfaBase::Sp)
                    && (offset >= 0 || offset.wrapping_add(cfa_offset) < 0)
                {
                    return None;
                }
                Some(Self(low | 2 | (words as i16 as u16 as u32) << 16))
            }
        }
    }

    /// Whether a step by this rule is two loads and an addition.
    pub const fn is_plain(self) -> bool {
        self.0 & PLAIN != 0
    }

    /// Whether the rule is plain and the CFA counted from the stack pointer.
    #[inline(always)]
    pub(crate) const fn is_plain_by_sp(self) -> bool {
        self.0 & (PLAIN | 1) == PLAIN
    }

    /// Returns the register that the CFA is counted from; meaningful for plain rules.
    pub const fn base(self) -> CfaBase {
        if self.0 & 1 == 0 { CfaBase::Sp } else { CfaBase::Fp }
    }

    /// Returns the CFA's offset from its base register in bytes; meaningful for plain rules.
    pub const fn cfa_offset(self) -> u64 {
        (self.0 & 0xFFF8) as u64
    }

    /// Returns the offset from the CFA at which the frame pointer was saved, in bytes (as a
    /// wrapping addend), if it was; meaningful for plain rules.
    pub const fn saved_fp(self) -> Option<u64> {
        if self.saves_fp() { Some(self.fp_offset()) } else { None }
    }

    /// Returns whether the frame pointer was saved; meaningful for plain rules.
    pub(crate) const fn saves_fp(self) -> bool {
        self.0 & 2 != 0
    }

    /// Returns the offset from the CFA at which the frame pointer was saved, and where there is a word
    /// in any case, in bytes as a wrapping addend.
    pub(crate) const fn fp_offset(self) -> u64 {
        ((self.0 as i32 >> 16) as i64 as u64) << 3
    }

    /// Returns the word that a table stores.
    pub(crate) const fn to_word(self) -> u32 {
        self.0
    }

    /// Restores what [`Self::to_word`] returned.
    pub(crate) const fn from_word(word: u32) -> Self {
        Self(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_rule_gives_back_what_was_packed() {
        for base in [CfaBase::Sp, CfaBase::Fp] {
            for cfa_offset in [8, 16, 4096, 0xFFF8] {
                for saved_fp in [None, Some(-16), Some(-8 * 32768), Some(8 * 32767), Some(0)] {
                    let is_inside = |offset: i64| offset < 0 && -offset <= cfa_offset;
                    if base == CfaBase::Sp && !saved_fp.is_none_or(is_inside) {
                        assert_eq!(Rule::plain(base, cfa_offset, saved_fp), None);
                        continue;
                    }
                    let rule = Rule::plain(base, cfa_offset, saved_fp).unwrap();
                    assert!(rule.is_plain());
                    assert_eq!(rule.base(), base);
                    assert_eq!(rule.cfa_offset(), cfa_offset as u64);
                    assert_eq!(rule.saved_fp(), saved_fp.map(|offset| offset as u64));
                    assert_eq!(Rule::from_word(rule.to_word()), rule);
                }
            }
        }
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused_rather_than_cut_off() {
        for cfa_offset in [i64::MIN, -8, 0, 12, 0x1_0000, i64::MAX] {
            assert_eq!(Rule::plain(CfaBase::Sp, cfa_offset, None), None, "{cfa_offset}");
        }
        for saved in [-12, 8 * 32768, -8 * 32769] {
            assert_eq!(Rule::plain(CfaBase::Sp, 16, Some(saved)), None, "{saved}");
        }
    }

    #[test]
    fn the_frame_pointer_rule_is_the_plain_rule_it_claims_to_be() {
        assert_eq!(Rule::plain(CfaBase::Fp, 16, Some(-16)), Some(Rule::FRAME_POINTER));
    }

    #[test]
    fn rare_rules_are_distinct_and_not_plain() {
        let rare = [Rule::OUTERMOST, Rule::UNKNOWN, Rule::INTERPRETED];
        for (i, a) in rare.iter().enumerate() {
            assert!(!a.is_plain());
            assert!(rare.iter().skip(i + 1).all(|b| a != b));
        }
    }
}
