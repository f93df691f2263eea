//! Traces of sampled blocks, of which hardly a page has two at a time.
//!
//! They are kept so that a page goes back to having no entry as soon as its traces are gone, for all later
//! releases to see.

use super::{GRANULE, PageShadow, during};
use crate::live::{LiveTable, LiveTrace, NoRoom};
use crate::page_directory::PAGE_BITS;
use crate::page_word::{SIZE_LIMIT, Tag, live};
use crate::sampled_pages::SampledPages;
use crate::thread;
use core::sync::atomic::{Ordering::Relaxed, Ordering::SeqCst};

impl PageShadow {
    /// Records a sampled block, and tells `pages` before the block is handed out.
    pub(crate) fn insert_sampled(
        &self,
        block_addr: u64,
        trace: LiveTrace,
        pages: &SampledPages,
    ) -> Result<Option<LiveTrace>, NoRoom> {
        let replaced = if self.insert_alone(block_addr, trace)? {
            None
        } else {
            self.insert(block_addr, trace)?
        };
        pages.mark(block_addr);
        Ok(replaced)
    }

    /// Records a block in the entry of its page, whatever the block's size, if no other is there.
    fn insert_alone(&self, block_addr: u64, trace: LiveTrace) -> Result<bool, NoRoom> {
        if !block_addr.is_multiple_of(GRANULE) || trace.size >= SIZE_LIMIT {
            return Ok(false);
        }
        let page = self.directory.page_or_map(block_addr)?;
        page.mark_used()?;
        let word = live(Tag::of(block_addr), trace);
        Ok(page.entry.compare_exchange(0, word, SeqCst, Relaxed).is_ok())
    }

    /// Forgets a block that may have been sampled, and lets `pages` know what is gone.
    pub(crate) fn take_sampled(&self, block_addr: u64, pages: &SampledPages) -> Option<LiveTrace> {
        let taken = self.take(block_addr);
        // A signal handler may have interrupted who has a lock that is needed here.
        if (taken.is_some() || pages.is_marked(block_addr)) && !thread::holds_lock() {
            if let Some(entry) = self.directory.entry(block_addr) {
                during(|| self.scavenge_page(block_addr >> PAGE_BITS, entry));
            }
            pages.clear_unless(block_addr, || self.directory.has_entry_like(block_addr));
        }
        taken
    }
}
