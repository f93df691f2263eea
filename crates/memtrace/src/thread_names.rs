//! The names of threads that have allocated.
//!
//! The recorder knows the name that a thread had when it first allocated, which may still have been its
//! creator's. Here the system is asked for the name of each thread that is alive, and the last answer is
//! kept for when it is not.

use hashbrown::HashMap;
use memtrace_alloc::ThreadInfo;
use std::fs;
use std::sync::Arc;

/// The last known name of each thread, by the recorder's number.
#[derive(Debug, Default)]
pub(crate) struct ThreadNames {
    names: HashMap<u32, Arc<str>>,
    /// The latest of the threads that the system gave a number to. The system gives numbers again: of
    /// all threads with one, only the latest can be alive.
    latest: HashMap<u32, u32>,
}

impl ThreadNames {
    /// Looks at the list of threads anew; called before a round of questions.
    ///
    /// **Cost**: a few nanoseconds for each thread that ever allocated.
    pub(crate) fn refresh(&mut self) {
        let threads = (1..=memtrace_alloc::n_threads()).filter_map(memtrace_alloc::thread_info);
        self.latest = threads.map(|thread| (thread.os_id, thread.number)).collect();
    }

    /// Returns the thread's name, as far as it is known.
    ///
    /// **Cost**: reads a file of the system's if the thread may be alive, about 10 µs.
    pub(crate) fn name_of(&mut self, thread: &ThreadInfo) -> Arc<str> {
        if self.latest.get(&thread.os_id) == Some(&thread.number)
            && let Ok(name) = fs::read(format!("/proc/self/task/{}/comm", thread.os_id))
        {
            let name = String::from_utf8_lossy(name.trim_ascii_end()).into();
            self.names.insert(thread.number, name);
        }
        let first_name = || {
            let end = thread.name.iter().position(|&byte| byte == 0).unwrap_or(thread.name.len());
            String::from_utf8_lossy(&thread.name[..end]).into()
        };
        Arc::clone(self.names.entry(thread.number).or_insert_with(first_name))
    }
}
