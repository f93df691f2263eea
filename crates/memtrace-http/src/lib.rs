//! An axum router that serves what grew between two memtrace snapshots
