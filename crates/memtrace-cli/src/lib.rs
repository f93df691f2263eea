//! The memtrace program: reports and differences of saved snapshots
