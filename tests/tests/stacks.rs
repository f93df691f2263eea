//! Every frame of every kind of call, under every build that matters: function, file and line.
//!
//! The probe says which of its lines allocates and which lines lead there; what memtrace recorded
//! must be exactly that, no frame more and none less, from the allocation out to `main` or the start
//! of the thread. All builds here have line tables; see `outside_crate.rs` for those without.

use memtrace_tests::nested_build::{Probe, Settings, stdout_of};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::Command;

/// A frame of the probe's own code.
struct Expected {
    /// The path of the function, as legacy mangling has it.
    function: &'static str,
    /// What line tables say of the function when it is inlined: DWARF then has no path, but has the
    /// generic arguments, and counts closures.
    bare: &'static str,
    /// The comment on its line.
    marker: &'static str,
    /// `None` where the compiler is free to choose.
    is_inlined: Option<bool>,
}

const fn physical(function: &'static str, marker: &'static str) -> Expected {
    Expected { function, bare: "", marker, is_inlined: Some(false) }
}

const fn inlined(function: &'static str, bare: &'static str, marker: &'static str) -> Expected {
    Expected { function, bare, marker, is_inlined: Some(true) }
}

const MAIN: Expected = physical("stacks::main", "calls: every case");

/// A case of the probe and the frames of its stack, newest first.
struct Case {
    name: &'static str,
    frames: &'static [Expected],
    needs_unwinding: bool,
}

const fn case(name: &'static str, frames: &'static [Expected]) -> Case {
    Case { name, frames, needs_unwinding: false }
}

const CASES: &[Case] = &[
    case(
        "function",
        &[
            physical("stacks::cases::calls::inner", "site: function"),
            physical("stacks::cases::calls::outer", "calls: function/1"),
            physical("stacks::cases::calls::function", "calls: function/2"),
            MAIN,
        ],
    ),
    case(
        "closure",
        &[
            physical("stacks::cases::calls::closure::{{closure}}", "site: closure"),
            physical("stacks::cases::calls::call", "calls: closure/1"),
            physical("stacks::cases::calls::closure", "calls: closure/2"),
            MAIN,
        ],
    ),
    case(
        "trait object",
        &[
            physical(
                "<stacks::cases::calls::Allocator as stacks::cases::calls::Allocate>::allocate",
                "site: trait object",
            ),
            physical("stacks::cases::calls::trait_object", "calls: trait object/1"),
            MAIN,
        ],
    ),
    case(
        "generic u16",
        &[
            physical("stacks::cases::calls::fill", "site: generic"),
            physical("stacks::cases::calls::generic_u16", "calls: generic u16/1"),
            MAIN,
        ],
    ),
    case(
        "generic triple",
        &[
            physical("stacks::cases::calls::fill", "site: generic"),
            physical("stacks::cases::calls::generic_triple", "calls: generic triple/1"),
            MAIN,
        ],
    ),
    case(
        "callback from C",
        &[
            physical("stacks::cases::calls::compare", "site: callback from C"),
            physical("stacks::cases::calls::callback_from_c", "calls: callback from C/1"),
            MAIN,
        ],
    ),
    case(
        "recursion",
        &[
            physical("stacks::cases::calls::descend", "site: recursion"),
            physical("stacks::cases::calls::descend", "calls: recursion/1"),
            physical("stacks::cases::calls::descend", "calls: recursion/1"),
            physical("stacks::cases::calls::descend", "calls: recursion/1"),
            physical("stacks::cases::calls::descend", "calls: recursion/1"),
            physical("stacks::cases::calls::recursion", "calls: recursion/2"),
            MAIN,
        ],
    ),
    case(
        "inlined",
        &[
            inlined("stacks::cases::inlined::inner", "inner", "site: inlined"),
            inlined("stacks::cases::inlined::outer", "outer", "calls: inlined/1"),
            physical("stacks::cases::inlined::run", "calls: inlined/2"),
            MAIN,
        ],
    ),
    case(
        "inlined closure",
        &[
            physical("stacks::cases::inlined::allocate", "site: inlined closure"),
            Expected {
                function: "stacks::cases::inlined::run_closure::{{closure}}",
                bare: "{closure#0}",
                marker: "calls: inlined closure/2",
                is_inlined: None,
            },
            inlined(
                "stacks::cases::inlined::apply",
                "apply<stacks::cases::inlined::run_closure::{closure_env#0}>",
                "calls: inlined closure/1",
            ),
            physical("stacks::cases::inlined::run_closure", "calls: inlined closure/2"),
            MAIN,
        ],
    ),
    case(
        "thread",
        &[
            physical("stacks::cases::threads::nested", "site: thread"),
            physical("stacks::cases::threads::work", "calls: thread/1"),
        ],
    ),
    case("boxed", &[physical("stacks::cases::library::boxed", "site: boxed"), MAIN]),
    case("zeroed", &[physical("stacks::cases::library::zeroed", "site: zeroed"), MAIN]),
    case("vec growth", &[physical("stacks::cases::library::vec_growth", "site: vec growth"), MAIN]),
    case(
        "vec shrinking",
        &[physical("stacks::cases::library::vec_shrinking", "site: vec shrinking"), MAIN],
    ),
    case("string", &[physical("stacks::cases::library::string", "site: string"), MAIN]),
    case("btree map", &[physical("stacks::cases::library::btree_map", "site: btree map"), MAIN]),
    case("arc slice", &[physical("stacks::cases::library::arc_slice", "site: arc slice"), MAIN]),
    case("iterator", &[physical("stacks::cases::library::iterator", "site: iterator"), MAIN]),
    case(
        "iterator item",
        &[
            physical("stacks::cases::library::allocate", "site: iterator item"),
            physical("stacks::cases::library::iterator_item", "calls: iterator item/1"),
            MAIN,
        ],
    ),
    Case {
        name: "catch unwind",
        frames: &[
            physical("stacks::cases::panics::inside", "site: catch unwind"),
            physical("stacks::cases::panics::inside_catch_unwind", "calls: catch unwind/1"),
            MAIN,
        ],
        needs_unwinding: true,
    },
    Case {
        name: "unwinding",
        frames: &[
            physical(
                "<stacks::cases::panics::AllocatesInDrop as core::ops::drop::Drop>::drop",
                "site: unwinding",
            ),
            physical("stacks::cases::panics::panics", "calls: unwinding/1"),
            physical("stacks::cases::panics::while_unwinding", "calls: unwinding/2"),
            MAIN,
        ],
        needs_unwinding: true,
    },
];

/// A frame as the probe printed it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    file: String,
    line: u32,
    function: String,
    is_inlined: bool,
    module: String,
}

/// A stack as the probe printed it.
#[derive(Debug, Default)]
struct Stack {
    /// `None` if it was not walked to its end.
    total_nframe: Option<usize>,
    /// Newest first.
    frames: Vec<Found>,
}

/// What the probe printed.
#[derive(Default)]
struct Output {
    /// For each case, the size of its block and how many traces have that size.
    blocks: BTreeMap<String, (u64, usize)>,
    /// By case and way.
    stacks: BTreeMap<(String, String), Stack>,
    /// Size and count by file and line.
    statistics: BTreeMap<(String, u32), (u64, u64)>,
}

impl Output {
    fn parse(text: &str) -> Self {
        let mut output = Self::default();
        for record in text.lines() {
            let fields: Vec<&str> = record.split('\t').collect();
            match fields[..] {
                ["block", case, size, n_traces] => {
                    output.blocks.insert(case.to_owned(), (number(size), number(n_traces)));
                }
                ["depth", case, way, total] => {
                    output.stack(case, way).total_nframe = (total != "-").then(|| number(total));
                }
                ["frame", case, way, file, line, function, kind, module] => {
                    let frame = Found {
                        file: file.to_owned(),
                        line: number(line),
                        function: function.to_owned(),
                        is_inlined: kind == "inlined",
                        module: module.to_owned(),
                    };
                    output.stack(case, way).frames.push(frame);
                }
                ["statistic", file, line, size, count] => {
                    let place = (file.to_owned(), number(line));
                    let earlier = output.statistics.insert(place, (number(size), number(count)));
                    assert_eq!(earlier, None, "one statistic for a line: {record}");
                }
                _ => panic!("not a record of the probe: {record:?}"),
            }
        }
        output
    }

    fn stack(&mut self, case: &str, way: &str) -> &mut Stack {
        self.stacks.entry((case.to_owned(), way.to_owned())).or_default()
    }
}

fn number<T: std::str::FromStr<Err: std::fmt::Debug>>(field: &str) -> T {
    field.parse().expect("a number")
}

/// Builds and runs the probe, and lists everything that is not as it should be.
fn check(settings: &Settings, has_unwinding: bool, has_only_line_tables: bool) {
    let probe = Probe::new("stacks");
    let programs = probe.build(env!("CARGO_TARGET_TMPDIR"), settings, &[]);
    let output = Output::parse(&stdout_of(&mut Command::new(&programs["stacks"])));
    let cases: Vec<&Case> =
        CASES.iter().filter(|case| has_unwinding || !case.needs_unwinding).collect();
    assert_eq!(output.blocks.len(), cases.len(), "each case of the probe is checked");

    let mut faults = String::new();
    // Cases that share a line share its statistic.
    let mut blamed: BTreeMap<(String, u32), (u64, u64)> = BTreeMap::new();
    for Case { name, frames, .. } in cases {
        let &(size, n_traces) = output.blocks.get(*name).expect("the probe has this case");
        if n_traces != 1 {
            let _ = writeln!(faults, "{name}: {n_traces} traces of {size} bytes");
        }
        let line = blamed.entry(probe.marked(frames[0].marker)).or_default();
        *line = (line.0 + size, line.1 + 1);

        for way in ["snapshot", "pointer"] {
            let Some(stack) = output.stacks.get(&((*name).to_owned(), way.to_owned())) else {
                // Where an `Arc` or a `BTreeMap` has its block nobody says.
                let has_no_pointer = ["arc slice", "btree map"].contains(name);
                assert!(way == "pointer" && has_no_pointer, "{name}: no stack by {way}");
                continue;
            };
            let wrong = faults_of(&probe, stack, frames, has_only_line_tables);
            if !wrong.is_empty() {
                let _ = writeln!(faults, "{name}, by {way}:\n{wrong}");
            }
        }
        if *name == "callback from C" {
            let stack = &output.stacks[&((*name).to_owned(), "snapshot".to_owned())];
            faults.push_str(&faults_of_qsort(stack));
        }
    }
    for (place, expected) in &blamed {
        let found = output.statistics.get(place);
        if found != Some(expected) {
            let _ = writeln!(
                faults,
                "statistic of {place:?}: (size, count) is {found:?}, not {expected:?}"
            );
        }
    }
    assert!(faults.is_empty(), "with {settings:?}:\n{faults}");
}

/// Compares the probe's own frames with the expected ones, and looks at both ends of the stack.
fn faults_of(
    probe: &Probe,
    stack: &Stack,
    expected: &[Expected],
    has_only_line_tables: bool,
) -> String {
    let mut faults = String::new();
    let allocator = probe.marked("the allocator");
    // What `#[global_allocator]` generates, if it was inlined into the program, has that line.
    let is_allocator = |frame: &Found| {
        (frame.file.as_str(), frame.line) == (allocator.0.as_str(), allocator.1)
            && frame.is_inlined
            && ["__rust_alloc", "__rust_alloc_zeroed", "__rust_realloc"]
                .iter()
                .any(|name| frame.function.ends_with(name))
    };
    let own: Vec<&Found> = stack
        .frames
        .iter()
        .filter(|frame| frame.file.starts_with("src/") && !is_allocator(frame))
        .collect();
    let is_as_expected = own.len() == expected.len()
        && own.iter().zip(expected).all(|(found, expected)| {
            let is_bare = has_only_line_tables && found.is_inlined;
            let function = if is_bare { expected.bare } else { expected.function };
            let (file, line) = probe.marked(expected.marker);
            found.function == function
                && (found.file.as_str(), found.line) == (file.as_str(), line)
                && expected.is_inlined.is_none_or(|is_inlined| found.is_inlined == is_inlined)
                && found.module == "stacks"
        });
    if !is_as_expected {
        for Expected { function, marker, is_inlined, .. } in expected {
            let place = probe.marked(marker);
            let _ = writeln!(faults, "  expected {function} {place:?} inlined: {is_inlined:?}");
        }
        for frame in own {
            let _ = writeln!(faults, "  found    {frame:?}");
        }
    }
    if stack.total_nframe != Some(stack.frames.len()) {
        let (total, n_frames) = (stack.total_nframe, stack.frames.len());
        let _ = writeln!(faults, "  {n_frames} frames of {total:?}: not the whole stack");
    }
    // What is inlined into the program may stay; functions of the recorder's own may not.
    let recorder = |frame: &&Found| {
        !frame.is_inlined
            && ["memtrace-alloc/src", "memtrace-unwind/src"]
                .iter()
                .any(|source| frame.file.contains(source))
    };
    for frame in stack.frames.iter().filter(recorder) {
        let _ = writeln!(faults, "  a frame of the recorder: {frame:?}");
    }
    faults
}

/// Between the callback and the call there is nothing but the C library, and it is `qsort`.
fn faults_of_qsort(stack: &Stack) -> String {
    let frames = stack.frames.iter();
    let between: Vec<&Found> = frames
        .skip_while(|frame| !frame.function.ends_with("compare"))
        .skip(1)
        .take_while(|frame| !frame.function.ends_with("callback_from_c"))
        .collect();
    let is_libc = between.iter().all(|frame| frame.module.starts_with("libc.so"));
    let has_qsort = between.iter().any(|frame| frame.function.starts_with("qsort"));
    if is_libc && has_qsort {
        String::new()
    } else {
        format!("callback from C: called through {between:#?}\n")
    }
}

#[test]
fn dev_builds_name_every_frame() {
    check(&Settings::DEV, true, false);
}

#[test]
fn release_builds_with_line_tables_name_every_frame() {
    check(&Settings::LINE_TABLES, true, true);
}

#[test]
fn release_builds_with_full_debug_information_name_every_frame() {
    check(&Settings::release("full-debug", &[("debug", "2")]), true, false);
}

#[test]
fn release_builds_with_frame_pointers_name_every_frame() {
    // Segments with gaps between them, too: then the C library does not say where the ELF header is.
    let flags: &[&str] =
        &["-Cforce-frame-pointers=yes", "-Clink-arg=-Wl,-z,max-page-size=0x200000"];
    let settings = Settings { name: "frame-pointers", rustflags: flags, ..Settings::LINE_TABLES };
    check(&settings, true, true);
}

#[test]
fn release_builds_optimized_as_a_whole_name_every_frame() {
    let whole: &[_] =
        &[("debug", "\"line-tables-only\""), ("lto", "\"fat\""), ("codegen-units", "1")];
    check(&Settings::release("lto", whole), true, true);
}

#[test]
fn release_builds_that_abort_on_panic_name_every_frame() {
    let abort: &[_] = &[("debug", "\"line-tables-only\""), ("panic", "\"abort\"")];
    check(&Settings::release("abort", abort), false, true);
}
