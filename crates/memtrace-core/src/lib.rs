//! Snapshots of live memory: statistics, comparison, filters and text, with the semantics of tracemalloc
