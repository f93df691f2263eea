//! How many frames each stack of a table hides, remembered.

use std::sync::{Arc, Mutex, PoisonError};

use crate::Attribution;
use crate::attribution::n_hidden_by_stack;
use crate::stack_table::StackTable;

/// How many of its newest frames each stack of *one* table hides, for the attribution last asked
/// about.
///
/// **Cost.** Half a microsecond for each distinct string and a few nanoseconds for each frame of a
/// stack, once. Asked again, nothing.
#[derive(Debug, Default)]
pub(crate) struct HiddenFrames(Mutex<Option<(Attribution, Arc<[u32]>)>>);

impl HiddenFrames {
    /// By stack id. The table is always the same.
    pub(crate) fn n_hidden(&self, table: &StackTable, attribution: &Attribution) -> Arc<[u32]> {
        // A panic while it was filled leaves the cache as it was.
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*cached {
            Some((same, n_hidden)) if same == attribution => Arc::clone(n_hidden),
            _ => {
                let n_hidden = n_hidden_by_stack(attribution, table);
                *cached = Some((attribution.clone(), Arc::clone(&n_hidden)));
                n_hidden
            }
        }
    }
}
