//! Programs that allocate as real ones do.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

/// Frames of a stack that are taken.
pub(crate) const LIMIT: usize = 25;

/// Does all of a program's work on its input, and returns a checksum.
type Run = fn(&[String]) -> u64;

/// A program that runs again and again on the same input.
pub(crate) struct Program {
    run: Run,
    input: Vec<String>,
    /// Whether each run makes the same allocations from the same places.
    pub(crate) is_deterministic: bool,
}

const ALL: [(&str, Run); 5] = [
    ("serde_json", serde_json),
    ("maps", maps),
    ("regex", regex),
    ("syn", syn),
    ("channels", channels),
];

/// Crates of this repository whose source is parsed.
const PARSED_CRATES: [&str; 1] = ["memtrace-symbols"];

impl Program {
    /// Slots of the table of stacks: a third is filled by the program that has most of them.
    pub(crate) const N_SLOTS: usize = 1 << 20;

    /// Returns the names of all.
    pub(crate) fn names() -> impl Iterator<Item = String> {
        ALL.into_iter().map(|(name, _)| name.to_owned())
    }

    /// Makes the one of that name, with its input.
    pub(crate) fn find(name: &str) -> Result<Option<Self>, Box<dyn Error>> {
        let Some((_, run)) = ALL.into_iter().find(|(known, _)| *known == name) else {
            return Ok(None);
        };
        let input = match name {
            "serde_json" => vec![document()],
            "syn" => sources()?,
            _ => Vec::new(),
        };
        Ok(Some(Self { run, input, is_deterministic: name != "channels" }))
    }

    /// Runs it once and returns a checksum.
    #[inline(never)]
    pub(crate) fn run(&self) -> u64 {
        (self.run)(&self.input)
    }
}

/// Parses a document, clones it, and prints the clone.
fn serde_json(input: &[String]) -> u64 {
    let value: serde_json::Value = serde_json::from_str(&input[0]).expect("is JSON");
    let clone = value.clone();
    let text = clone.to_string();
    let pretty = serde_json::to_string_pretty(&value).expect("can be printed");
    (text.len() + pretty.len()) as u64
}

fn document() -> String {
    let mut text = String::from("[");
    for i in 0..400 {
        let comma = if i == 0 { "" } else { "," };
        write!(
            text,
            r#"{comma}{{"id":{i},"name":"user {i}","tags":["a","b{i}","a\nc"],"nested":{{"x":[1,2,{{"y":[true,null,"deep {i}"]}}],"z":{{"k":{{"v":{{"w":"end"}}}}}}}}}}"#
        )
        .expect("memory can be written to");
    }
    text + "]"
}

/// Builds a map of lists of strings, and sorts what is printed of it.
fn maps(_: &[String]) -> u64 {
    let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for i in 0..4000u32 {
        let key = format!("key {}", i.wrapping_mul(2_654_435_761) % 1500);
        map.entry(key).or_default().push(i.to_string());
    }
    let mut lines: Vec<String> =
        map.into_iter().map(|(key, values)| format!("{key}: {}", values.join(","))).collect();
    lines.sort();
    lines.iter().map(|line| line.len() as u64).sum()
}

/// Compiles several patterns, and finds what matches them.
fn regex(_: &[String]) -> u64 {
    const PATTERNS: [&str; 6] = [
        r"(?i)(foo|bar0|[a-z]{2,3}\d+)(?:x|y|z)*(\w+)@(\w+)\.com",
        r"(\d{4})-(\d{2})-(\d{2})T(\d{2}):(\d{2})",
        r"^\s*(?:pub )?fn\s+(\w+)\s*\(([^)]*)\)",
        r"[\p{Lu}][\p{Ll}]+(?:\s[\p{Lu}][\p{Ll}]+)+",
        r"(a|b|ab)*c{3,9}",
        r"\b(?:https?|ftp)://[^\s/]+(/[^\s?]*)?(\?\S*)?",
    ];
    const TEXT: &str = "hello foo12xyzbob@example.com abc1zq@w.com on 2026-01-02T03:04, \
        pub fn main(args: &str) by Ada Lovelace; ababccc at https://example.org/a/b?c=d";
    let of = |pattern: &str| {
        let regex = regex::Regex::new(pattern).expect("is a pattern");
        let found = regex.captures_iter(TEXT).map(|captures| captures[0].len() as u64 + 1);
        found.sum::<u64>() + regex.replace_all(TEXT, "<$0>").len() as u64
    };
    PATTERNS.iter().map(|pattern| of(pattern)).sum()
}

/// Parses sources into syntax trees, and clones these.
fn syn(input: &[String]) -> u64 {
    let of = |source: &String| {
        let file = syn::parse_file(source).expect("is Rust");
        let clone = file.clone();
        clone.items.len() as u64
    };
    input.iter().map(of).sum()
}

/// Sources of this repository, in the order of their paths.
fn sources() -> Result<Vec<String>, Box<dyn Error>> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates");
    let mut paths = Vec::new();
    for name in PARSED_CRATES {
        list(&crates.join(name).join("src"), &mut paths)?;
    }
    paths.sort();
    paths
        .iter()
        .map(|path| Ok(fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?))
        .collect()
}

fn list(dir: &Path, paths: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, paths)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
    Ok(())
}

/// Two threads send strings to a third.
fn channels(_: &[String]) -> u64 {
    let (sender, receiver) = mpsc::channel::<String>();
    thread::scope(|scope| {
        for id in 0..2 {
            let sender = sender.clone();
            scope.spawn(move || {
                for i in 0..24_000 {
                    sender.send(format!("{id}: {i}")).expect("the receiver waits");
                }
            });
        }
        drop(sender);
        receiver.iter().map(|text| text.len() as u64).sum()
    })
}
