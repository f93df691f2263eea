//! A thread that allocated.

use std::fmt;
use std::sync::Arc;

/// A thread that allocated, as a recorder knew it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Thread {
    /// The recorder's number for it: never given to another thread of the same process.
    pub number: u32,
    /// The system's number for it, which may have been given to another thread since.
    pub os_id: u32,
    /// Its name; empty when it has none.
    pub name: Arc<str>,
}

impl Thread {
    /// Describes a thread.
    pub fn new(number: u32, os_id: u32, name: impl Into<Arc<str>>) -> Self {
        Self { number, os_id, name: name.into() }
    }

    /// What tells the thread from others, whatever it is called now.
    pub(crate) fn id(&self) -> (u32, u32) {
        (self.number, self.os_id)
    }
}

/// Writes `thread 3 "worker"`, or `thread 3` without a name.
impl fmt::Display for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "thread {}", self.number)?;
        if self.name.is_empty() { Ok(()) } else { write!(f, " \"{}\"", self.name) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_shows_its_name_if_it_has_one() {
        assert_eq!(Thread::new(3, 77, "worker").to_string(), "thread 3 \"worker\"");
        assert_eq!(Thread::new(1, 76, "").to_string(), "thread 1");
    }
}
