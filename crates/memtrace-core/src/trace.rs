//! One live block.

use std::fmt;

use crate::{Traceback, format_size};

/// A live block: who asked for it and how large it is.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The address space that the block lies in; 0 is the program's own heap.
    pub domain: u32,
    /// The size in bytes, as requested.
    pub size: u64,
    /// The stack that asked for the block.
    pub traceback: Traceback,
}

impl Trace {
    /// The text that Python's `repr` gives: `<Trace domain=0 size=10.0 KiB, traceback=…>`.
    pub fn python_repr(&self) -> String {
        format!(
            "<Trace domain={} size={}, traceback={}>",
            self.domain,
            format_size(self.size),
            self.traceback.python_repr()
        )
    }
}

/// Unlike tracebacks, traces are equal only if their real depths are.
impl PartialEq for Trace {
    fn eq(&self, other: &Self) -> bool {
        self.domain == other.domain
            && self.size == other.size
            && self.traceback == other.traceback
            && self.traceback.depth() == other.traceback.depth()
    }
}

impl Eq for Trace {}

/// Writes `filename:lineno: size`, with the *oldest* frame.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.traceback, format_size(self.size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Frame;

    #[test]
    fn traces_of_different_depth_differ() {
        let traceback = Traceback::new([Frame::new("a", 1)]);
        let trace = Trace { domain: 0, size: 10_240, traceback };
        let mut deeper = trace.clone();
        deeper.traceback = deeper.traceback.with_total_nframe(2);
        assert_eq!(trace, trace.clone());
        assert_ne!(trace, deeper);
        assert_eq!(trace.to_string(), "a:1: 10.0 KiB");
        assert_eq!(
            trace.python_repr(),
            "<Trace domain=0 size=10.0 KiB, traceback=<Traceback (<Frame filename='a' \
             lineno=1>,)>>"
        );
    }
}
