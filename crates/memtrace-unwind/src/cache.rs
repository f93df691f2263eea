//! From the state of a thread to the site of its stack.

use crate::bounds::StackBounds;
use crate::entry::{here, read_word};
use crate::hash::StackHash;
use crate::plain;
use crate::rule::{End, Registers};
use crate::site::Sites;
use crate::table::ProcessRules;
use core::num::NonZeroU32;

/// Room for own frames, in every buffer, beside the frames that were asked for.
const N_OWN_FRAMES: usize = 8;

/// What one thread remembers of its earlier captures.
pub struct SiteCache {
    _private: (),
}

impl SiteCache {
    /// Makes an empty cache, which takes no memory before it is used.
    pub const fn new() -> Self {
        Self { _private: () }
    }

    /// Returns the site of the caller's stack, at most `limit` frames of it, from the newest that is
    /// not the tool's own ([`Sites::is_own`]).
    ///
    /// `stack` are the bounds of the current thread's own stack.
    #[inline(always)]
    pub fn site_of_caller(
        &mut self,
        stack: &StackBounds,
        limit: usize,
        sites: &impl Sites,
    ) -> Option<NonZeroU32> {
        self.site(here(), stack, limit, sites)
    }

    #[inline(never)]
    fn site(
        &mut self,
        start: Registers,
        stack: &StackBounds,
        limit: usize,
        sites: &impl Sites,
    ) -> Option<NonZeroU32> {
        let read = |addr| Some(read_word(addr));
        sites.with_buffer(limit.checked_add(N_OWN_FRAMES)?, |buffer| {
            let walk = plain::walk(start, stack, &mut ProcessRules, read, buffer);
            let frames = buffer.get(..walk.len)?;
            let is_other = |&call_addr: &u64| !sites.is_own(call_addr);
            let n_own = frames.iter().position(is_other).unwrap_or(walk.len);
            let frames = frames.get(n_own..)?;
            // The buffer may have room for more than was asked for.
            let (frames, end) = match frames.get(..limit) {
                Some(cut) if cut.len() < frames.len() => (cut, End::Limit),
                _ => (frames, walk.end),
            };
            let hash = StackHash::of(frames, end);
            sites.find(hash).or_else(|| sites.insert(hash, frames, end))
        })?
    }
}

impl Default for SiteCache {
    fn default() -> Self {
        Self::new()
    }
}
