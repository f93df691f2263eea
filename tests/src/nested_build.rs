//! Probes: programs that a test builds as a user would, in a cargo of their own.
//!
//! # Mechanism
//!
//! Each folder below `probes` is a package outside of this workspace, with a lock file of its own.
//! A test names the probe and the [`Settings`] to build it with; all probes with the same settings
//! share one target directory, so that the crates of memtrace are compiled once for each settings,
//! and stay there for the next run.
//!
//! The outer cargo leaves its traces in the environment (flags, profile overrides, the target
//! directory, the package under test); the inner one must see none of them. What says how to reach
//! the registry stays.
//!
//! # Invariants
//!
//! - **I1** What is built depends on the sources, the lock file and the [`Settings`] alone.
//! - **I2** A build writes below its target directory only: lock files stay as committed.

use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How to build a probe.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Name of the target directory; distinct for distinct settings.
    pub name: &'static str,
    /// `true` for the release profile, `false` for dev.
    pub is_release: bool,
    /// Keys of that profile and their values, as TOML.
    pub profile: &'static [(&'static str, &'static str)],
    /// Flags for every rustc; with a target, only for what is built for it.
    pub rustflags: &'static [&'static str],
    /// What to build for, if it must be named: then build scripts are built without the flags.
    pub target: Option<&'static str>,
    /// Packages that are compiled without optimization, if the probe depends on them.
    pub unoptimized: &'static [&'static str],
}

impl Settings {
    /// What `cargo build` does.
    pub const DEV: Self = Self { is_release: false, unoptimized: &[], ..Self::release("dev", &[]) };

    /// What `cargo build --release` does: no debug information.
    pub const RELEASE: Self = Self { unoptimized: &[], ..Self::release("release", &[]) };

    /// The release profile as memtrace's documentation recommends it, but for what is `UNOPTIMIZED`.
    pub const LINE_TABLES: Self =
        Self::release("line-tables", &[("debug", "\"line-tables-only\"")]);

    /// The release profile with these keys changed, but for what is `UNOPTIMIZED`.
    pub const fn release(
        name: &'static str,
        profile: &'static [(&'static str, &'static str)],
    ) -> Self {
        let unoptimized = UNOPTIMIZED;
        Self { name, is_release: true, profile, rustflags: &[], target: None, unoptimized }
    }
}

/// Packages that have no part in recording: what is made of records, and what names addresses. Without optimization
/// a probe is built in 40 % less time.
const UNOPTIMIZED: &[&str] =
    &["addr2line", "memtrace-core", "memtrace-symbols", "miniz_oxide", "object", "ruzstd"];

/// A program below `tests/probes`.
#[derive(Clone, Debug)]
pub struct Probe {
    name: &'static str,
    root: PathBuf,
}

impl Probe {
    /// The probe in the folder of this name.
    pub fn new(name: &'static str) -> Self {
        Self { name, root: Path::new(env!("CARGO_MANIFEST_DIR")).join("probes").join(name) }
    }

    /// Builds the probe below `tmp_dir`, a test's `CARGO_TARGET_TMPDIR`, and returns the programs
    /// by name. `args` choose what is built, such as `["--bin", "system"]`.
    ///
    /// **Cost**: some seconds to half a minute the first time; then a fraction of a second.
    ///
    /// **Panics** with cargo's messages if it fails.
    pub fn build(
        &self,
        tmp_dir: &str,
        settings: &Settings,
        args: &[&str],
    ) -> BTreeMap<String, PathBuf> {
        let messages = self.messages(tmp_dir, settings, args);
        let programs: BTreeMap<_, _> = messages.lines().filter_map(executable).collect();
        assert!(!programs.is_empty(), "cargo named no program of the probe {}", self.name);
        programs
    }

    /// Builds a probe that is a library for C, as [`build`](Self::build) does, and returns its path.
    ///
    /// **Panics** with cargo's messages if it fails.
    pub fn build_library(&self, tmp_dir: &str, settings: &Settings) -> PathBuf {
        let messages = self.messages(tmp_dir, settings, &["--lib"]);
        let library = messages.lines().filter_map(shared_library).next_back();
        library.unwrap_or_else(|| panic!("cargo named no library of the probe {}", self.name))
    }

    /// Builds the probe and returns cargo's messages.
    fn messages(&self, tmp_dir: &str, settings: &Settings, args: &[&str]) -> String {
        let output = self
            .cargo(Path::new(tmp_dir), settings)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .expect("cargo runs");
        let Self { name, root } = self;
        assert!(
            output.status.success(),
            "the probe {name} does not build with {settings:?} ({}):\n{}\nIf its lock file is behind \
             the crates it depends on: cargo update --workspace --manifest-path {}",
            output.status,
            String::from_utf8_lossy(&output.stderr),
            root.join("Cargo.toml").display()
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn cargo(&self, tmp_dir: &Path, settings: &Settings) -> Command {
        let program = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        let mut cargo = Command::new(program);
        for (key, _) in std::env::vars_os() {
            if key.to_str().is_some_and(is_of_outer_cargo) {
                cargo.env_remove(key);
            }
        }
        cargo
            .current_dir(&self.root)
            .args(["build", "--locked", "--message-format=json-render-diagnostics"])
            .arg("--target-dir")
            .arg(tmp_dir.join("nested").join(settings.name))
            // Set even if empty: it comes before flags in any configuration file.
            .env("CARGO_ENCODED_RUSTFLAGS", settings.rustflags.join("\u{1f}"))
            .env("CARGO_INCREMENTAL", "0");
        let profile = if settings.is_release { "release" } else { "dev" };
        cargo.args(["--profile", profile]);
        if let Some(target) = settings.target {
            cargo.args(["--target", target]);
        }
        for (key, value) in settings.profile {
            cargo.arg("--config").arg(format!("profile.{profile}.{key}={value}"));
        }
        for package in settings.unoptimized {
            cargo.arg("--config").arg(format!("profile.{profile}.package.{package}.opt-level=0"));
        }
        cargo
    }

    /// Finds the one line of the probe's sources that ends in the comment `// {marker}`, and
    /// returns its file, relative to the probe, and its number.
    ///
    /// **Panics** if there is no such line or more than one.
    pub fn marked(&self, marker: &str) -> (String, u32) {
        let comment = format!("// {marker}");
        let mut found = Vec::new();
        for file in rust_files(&self.root.join("src")) {
            let text = fs::read_to_string(&file).expect("a source file is readable");
            for (line, number) in text.lines().zip(1..) {
                if line.trim_end().ends_with(&comment) {
                    let relative = file.strip_prefix(&self.root).expect("found below the root");
                    found.push((relative.display().to_string(), number));
                }
            }
        }
        assert_eq!(found.len(), 1, "lines of {} marked {comment:?}: {found:?}", self.name);
        found.remove(0)
    }
}

/// Whether the outer cargo set this variable for its own build, or the user for it.
fn is_of_outer_cargo(key: &str) -> bool {
    const NAMES: [&str; 9] = [
        "CARGO",
        "CARGO_CRATE_NAME",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_INCREMENTAL",
        "CARGO_PRIMARY_PACKAGE",
        "CARGO_TARGET_DIR",
        "CARGO_TARGET_TMPDIR",
        "RUSTFLAGS",
        "MEMTRACE",
    ];
    const PREFIXES: [&str; 6] = [
        "CARGO_BIN_",
        "CARGO_BUILD_",
        "CARGO_MANIFEST_",
        "CARGO_PKG_",
        "CARGO_PROFILE_",
        "CARGO_UNSTABLE_",
    ];
    NAMES.contains(&key) || PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

/// Name and path of the program that one of cargo's messages announces.
fn executable(message: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let path = message.get("executable")?.as_str()?;
    let name = message.get("target")?.get("name")?.as_str()?;
    Some((name.to_owned(), PathBuf::from(path)))
}

/// Path of the library for C that one of cargo's messages announces.
fn shared_library(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let kinds = message.get("target")?.get("crate_types")?.as_array()?;
    let path = message.get("filenames")?.get(0)?.as_str()?;
    kinds.iter().any(|kind| kind == "cdylib").then(|| PathBuf::from(path))
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("a source folder is readable") {
        let path = entry.expect("a source folder is readable").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// Runs a program to its end and returns what it wrote on standard output.
///
/// **Panics** with what it wrote on both if it fails.
pub fn stdout_of(program: &mut Command) -> String {
    // Otherwise std symbolizes in the program itself when it panics, and keeps caches.
    program.env_remove("RUST_BACKTRACE").env_remove("MEMTRACE").stdin(Stdio::null());
    let output = program.output().expect("the program runs");
    let stdout = String::from_utf8(output.stdout).expect("the program writes UTF-8");
    assert!(
        output.status.success(),
        "{program:?} failed ({}):\n{stdout}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    stdout
}
