//! Tests through the public API, one process for each allocator set-up
