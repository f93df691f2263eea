//! The table of live blocks as the recorder uses it while tracing is sampled: hardly any block is in it.
//!
//! What is recorded is told to [`SampledPages`](crate::sampled_pages::SampledPages), which lets most releases go before they get here.
//! Traces beside the blocks of a heap are not searched for there: with such a heap all releases get here.

use crate::live::{Detail, LiveTable, LiveTrace, NoRoom};
use crate::live_blocks::LiveBlocks;
use crate::state::sampled_pages;

pub(crate) struct LiveSamples<'a>(pub(crate) &'a LiveBlocks);

impl LiveSamples<'_> {
    /// Prepares for blocks of a sampled run. Called before tracing is on.
    pub(crate) fn prepare(&self) {
        if self.0.beside().is_some() {
            sampled_pages().mark_all();
        }
    }
}

impl LiveTable for LiveSamples<'_> {
    fn insert(&self, block_addr: u64, trace: LiveTrace) -> Result<Option<LiveTrace>, NoRoom> {
        match self.0.beside() {
            None => self.0.shadow().insert_sampled(block_addr, trace, sampled_pages()),
            Some(table) => table.insert(block_addr, trace),
        }
    }

    fn take(&self, block_addr: u64) -> Option<LiveTrace> {
        match self.0.beside() {
            None => self.0.shadow().take_sampled(block_addr, sampled_pages()),
            Some(table) => table.take(block_addr),
        }
    }

    fn set_detail(&self, block_addr: u64, detail: Detail) -> Result<(), NoRoom> {
        self.0.set_detail(block_addr, detail)
    }

    fn detail(&self, block_addr: u64) -> Detail {
        self.0.detail(block_addr)
    }

    fn get(&self, block_addr: u64) -> Option<LiveTrace> {
        self.0.get(block_addr)
    }

    fn for_each<const HAS_DETAILS: bool>(&self, visit: impl FnMut(u64, LiveTrace, Detail)) {
        self.0.for_each::<HAS_DETAILS>(visit);
    }

    fn clear(&self, forgotten: &mut dyn FnMut(LiveTrace)) {
        self.0.clear(forgotten);
    }
}
