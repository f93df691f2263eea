//! Reading what callgrind writes: the calls that one function makes.
//!
//! The file has a part for each function, which begins with `fn=`, its name. A call in it is `cfn=` with
//! the name of the one called, `calls=` with their number, and a line with a position and the
//! instructions of all these calls, all that they call included. Names are taken to be written in
//! full each time, which callgrind does if it is told not to compress them.

/// Calls and what they took together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Calls {
    pub(super) n_calls: u64,
    pub(super) n_instructions: u64,
}

/// The calls of a function that allocates and frees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Profile {
    pub(super) allocations: Calls,
    pub(super) releases: Calls,
}

impl Profile {
    /// Finds the calls that a function makes, by part of its name.
    pub(super) fn read(text: &str, caller: &str) -> Self {
        let mut profile = Self::default();
        let mut is_caller = false;
        let mut callee = "";
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(name) = line.strip_prefix("fn=") {
                is_caller = name.contains(caller);
            } else if let Some(name) = line.strip_prefix("cfn=") {
                callee = name;
            } else if let Some(calls) = line.strip_prefix("calls=") {
                let n_calls = number(calls, 0);
                let n_instructions = lines.next().and_then(|cost| number(cost, 1));
                if is_caller && let Some(total) = profile.of(callee) {
                    total.n_calls += n_calls.unwrap_or(0);
                    total.n_instructions += n_instructions.unwrap_or(0);
                }
            }
        }
        profile
    }

    /// Where calls of a function count, by its name. The compiler calls the empty function
    /// `__rust_no_alloc_shim_is_unstable` with each allocation.
    fn of(&mut self, callee: &str) -> Option<&mut Calls> {
        let has = |parts: &[&str]| parts.iter().any(|part| callee.contains(part));
        if has(&["dealloc", "free"]) {
            Some(&mut self.releases)
        } else if has(&["alloc"]) && !has(&["no_alloc_shim"]) {
            Some(&mut self.allocations)
        } else {
            None
        }
    }
}

/// The number at a place of a line.
fn number(line: &str, place: usize) -> Option<u64> {
    line.split_ascii_whitespace().nth(place)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
version: 1
positions: line
events: Ir

fn=main
12 5
cfn=malloc
calls=9 0
13 900

fl=benches/src/work/tight_pair.rs
fn=memtrace_benches::work::tight_pair::frame_01
20 1000
cob=/usr/lib/libc.so.6
cfi=malloc.c
cfn=malloc
calls=40 3000
21 2400
cfn=__rustc::__rust_dealloc
calls=39 0
22 1170
cfn=malloc'2
calls=1 0
21 600
cfn=core::panicking::panic
calls=1 0
23 7
cfn=__rustc::__rust_no_alloc_shim_is_unstable_v2
calls=40 0
24 40
";

    #[test]
    fn calls_of_the_function_are_added_up_by_what_they_do() {
        assert_eq!(
            Profile::read(TEXT, "tight_pair::frame_01"),
            Profile {
                allocations: Calls { n_calls: 41, n_instructions: 3000 },
                releases: Calls { n_calls: 39, n_instructions: 1170 },
            }
        );
    }

    #[test]
    fn a_function_that_is_not_there_makes_no_calls() {
        assert_eq!(Profile::read(TEXT, "frame_77"), Profile::default());
        assert_eq!(Profile::read("fn=frame\ncfn=malloc\ncalls=", "frame"), Profile::default());
    }
}
