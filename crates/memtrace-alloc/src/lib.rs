//! The global-allocator hook of memtrace and the recorder behind it
