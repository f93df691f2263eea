//! A line of an array of traces: the words in which the trace of a block may stand.
//!
//! Where in its line a trace stands, no branch predictor can know. So all words are compared at once, and
//! the place is found by counting bits.
//!
//! # Cost
//!
//! One cache line; some 15 instructions where the processor compares four numbers at once.
#![cfg_attr(
    all(target_arch = "x86_64", not(loom)),
    expect(unsafe_code, reason = "loads words by vectors while others write to them")
)]

use crate::page_word::{LINE_WORDS, Tag};
use core::sync::atomic::AtomicU64;

pub(crate) type Line = [AtomicU64; LINE_WORDS];

/// What the words of a line were at some time during the look, each a bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// Words that are zero.
    pub(crate) vacant: u32,
    /// The live trace of the tag that was looked for.
    pub(crate) live: u32,
    /// Words that tell that traces are being moved.
    pub(crate) moving: u32,
}

/// The first of the words whose bits are set; `None` if none is.
#[inline(always)]
pub(crate) fn first(line: &Line, bits: u32) -> Option<&AtomicU64> {
    line.get(bits.trailing_zeros() as usize)
}

/// Looks at all words of a line.
#[cfg(all(target_arch = "x86_64", not(loom)))]
#[inline(always)]
pub(crate) fn look(line: &Line, tag: Tag) -> Look {
    // SAFETY: every x86_64 processor has SSE2.
    unsafe { look_at_four(line, tag) }
}

/// The same by vectors of four lower halves of words, which tell all that is asked.
#[cfg(all(target_arch = "x86_64", not(loom)))]
#[target_feature(enable = "sse2")]
#[inline]
fn look_at_four(line: &Line, tag: Tag) -> Look {
    use crate::page_word::{KEY_MASK, MOVING_BIT, live_key};
    use core::arch::x86_64::{
        __m128, _mm_and_si128, _mm_castps_si128, _mm_castsi128_ps, _mm_cmpeq_epi32,
        _mm_movemask_ps, _mm_set1_epi32, _mm_setzero_si128, _mm_slli_epi32,
    };

    let (mut low, mut high): (__m128, __m128);
    // SAFETY: reads the line's 64 bytes, aligned to as many. In assembly, because other threads may write to
    // them: each half of a word is read at once.
    unsafe {
        core::arch::asm!(
            "movaps {low}, xmmword ptr [{line}]",
            "shufps {low}, xmmword ptr [{line} + 16], 0x88",
            "movaps {high}, xmmword ptr [{line} + 32]",
            "shufps {high}, xmmword ptr [{line} + 48], 0x88",
            line = in(reg) line.as_ptr(),
            low = out(xmm_reg) low,
            high = out(xmm_reg) high,
            options(readonly, nostack, preserves_flags),
        );
    }
    let mask = |bits: [_; 2]| {
        let [low, high] = bits.map(|bits| _mm_movemask_ps(_mm_castsi128_ps(bits)) as u32);
        low | high << 4
    };
    let words = [low, high].map(|words| _mm_castps_si128(words));
    let key_mask = _mm_set1_epi32(KEY_MASK as i32);
    let key = _mm_set1_epi32(live_key(tag) as i32);
    Look {
        vacant: mask(words.map(|words| _mm_cmpeq_epi32(words, _mm_setzero_si128()))),
        live: mask(words.map(|words| _mm_cmpeq_epi32(_mm_and_si128(words, key_mask), key))),
        // The sign is what a mask is made of.
        moving: mask(
            words.map(|words| _mm_slli_epi32::<{ 31 - MOVING_BIT.trailing_zeros() as i32 }>(words)),
        ),
    }
}

#[cfg(any(loom, not(target_arch = "x86_64")))]
#[inline(always)]
pub(crate) fn look(line: &Line, tag: Tag) -> Look {
    look_at_each(line, tag)
}

/// The same, word by word.
#[cfg(any(test, loom, not(target_arch = "x86_64")))]
fn look_at_each(line: &Line, tag: Tag) -> Look {
    use crate::page_word::{MOVING_BIT, is_live_of};
    use core::sync::atomic::Ordering::Relaxed;

    let mut look = Look { vacant: 0, live: 0, moving: 0 };
    for (i, word) in line.iter().enumerate() {
        let word = word.load(Relaxed);
        look.vacant |= u32::from(word == 0) << i;
        look.live |= u32::from(is_live_of(word, tag)) << i;
        look.moving |= u32::from(word & MOVING_BIT != 0) << i;
    }
    look
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::page_word::{SEALED, copy, gone, live};
    use crate::{live::LiveTrace, site::SiteId};
    use proptest::prelude::*;

    #[repr(align(64))]
    struct Aligned(Line);

    fn words() -> impl Strategy<Value = u64> {
        // Few tags, so that they meet.
        let live = (0..4u64, 0..1u64 << 24, 0..1u32 << 30).prop_map(|(at, size, site)| {
            live(Tag::of(at * 16), LiveTrace { size, site: SiteId(site) })
        });
        prop_oneof![
            4 => live.clone(), 1 => live.clone().prop_map(gone), 1 => live.prop_map(copy),
            2 => Just(0), 1 => Just(SEALED),
        ]
    }

    proptest! {
        #[test]
        fn looking_at_all_words_at_once_sees_what_looking_at_each_does(
            words in prop::array::uniform8(words()), at in 0..4u64,
        ) {
            let line = Aligned(words.map(AtomicU64::new));
            let tag = Tag::of(at * 16);
            let look = look(&line.0, tag);
            prop_assert_eq!(look, look_at_each(&line.0, tag));
            let found = first(&line.0, look.live).map(|word| word.as_ptr().addr());
            let index = words.iter().position(|&word| crate::page_word::is_live_of(word, tag));
            prop_assert_eq!(found, index.map(|index| line.0[index].as_ptr().addr()));
        }
    }
}
