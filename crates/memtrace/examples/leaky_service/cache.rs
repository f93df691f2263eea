//! Finished search pages, so that a query which was answered before need not be searched again.
//!
//! Here is the leak of this example, and it is the usual one. Pages are kept by request target,
//! path and query string as the client sent them. But the shop's front end appends `_=<time>` to
//! each request, as front ends do to get past the caches on the way: no two targets are ever the
//! same. So no page is ever found again, and as there is no bound either, each one stays until the
//! process ends. Every test of this file would pass.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Rendered pages by request target.
#[derive(Debug, Default)]
pub(crate) struct PageCache {
    pages: Mutex<HashMap<String, Arc<[u8]>>>,
}

impl PageCache {
    /// The page that was rendered for this request target before.
    pub(crate) fn get(&self, target: &str) -> Option<Arc<[u8]>> {
        self.pages().get(target).cloned()
    }

    /// Keeps a copy of the page rendered for this request target.
    pub(crate) fn put(&self, target: &str, page: &[u8]) {
        let mut pages = self.pages();
        pages.insert(target.to_owned(), page.into());
    }

    /// A panic elsewhere cannot leave the map half-changed: a poisoned lock is as good as any.
    fn pages(&self) -> MutexGuard<'_, HashMap<String, Arc<[u8]>>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
