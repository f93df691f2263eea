//! Views of a memtrace snapshot for other tools
