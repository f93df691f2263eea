//! tracemalloc for Rust: which lines of your code hold memory, and what has grown, while the program runs
