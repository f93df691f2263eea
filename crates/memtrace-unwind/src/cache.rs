//! From the state of a thread to the site of its stack.

use crate::bounds::StackBounds;
use crate::entry::{here, read_word};
use crate::hash::StackHash;
use crate::plain;
use crate::rule::Registers;
use crate::site::Sites;
use crate::table::ProcessRules;
use core::num::NonZeroU32;

/// What one thread remembers of its earlier captures.
pub struct SiteCache {
    _private: (),
}

impl SiteCache {
    /// Makes an empty cache, which takes no memory before it is used.
    pub const fn new() -> Self {
        Self { _private: () }
    }

    /// Returns the site of the caller's stack, at most `limit` frames of it.
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
        sites.with_buffer(limit, |buffer| {
            let buffer = buffer.get_mut(..limit)?;
            let walk = plain::walk(start, stack, &mut ProcessRules::new(), read, buffer);
            let stack = buffer.get(..walk.len)?;
            let hash = StackHash::of(stack, walk.end);
            sites.find(hash).or_else(|| sites.insert(hash, stack, walk.end))
        })?
    }
}

impl Default for SiteCache {
    fn default() -> Self {
        Self::new()
    }
}
