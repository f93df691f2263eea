//! Programs compiled for a test, and the truth about them, got without reading DWARF: the program
//! itself prints the addresses, and comments in its source mark the lines.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use memtrace_symbols::{ModuleFile, SymbolFrame, Symbolizer, Symbols};
use object::Object;
use tempfile::TempDir;

pub(crate) const SOURCE: &str = include_str!("program.rs");

/// A compiled program in a directory of its own.
pub(crate) struct Built {
    directory: TempDir,
    pub(crate) program: PathBuf,
}

impl Built {
    /// Compiles the source as `src/program.rs`, seen from the directory rustc runs in.
    pub(crate) fn with(args: &[&str]) -> Self {
        Built::from_path("src/program.rs".as_ref(), args)
    }

    /// Compiles the source by its absolute path, as cargo does for packages outside the workspace.
    pub(crate) fn from_absolute_path_with(args: &[&str]) -> Self {
        let built = Built { directory: TempDir::new().unwrap(), program: PathBuf::new() };
        let source = built.directory().join("src/program.rs");
        built.compiled(&source, args)
    }

    fn from_path(source: &Path, args: &[&str]) -> Self {
        let built = Built { directory: TempDir::new().unwrap(), program: PathBuf::new() };
        built.compiled(source, args)
    }

    fn compiled(mut self, source: &Path, args: &[&str]) -> Self {
        let directory = self.directory();
        fs::create_dir(directory.join("src")).unwrap();
        fs::write(directory.join("src/program.rs"), SOURCE).unwrap();
        self.program = directory.join("program");
        run(Command::new("rustc")
            .current_dir(&directory)
            // Without relocation, the addresses that the program sees are those in its file.
            .args(["--edition=2024", "-Crelocation-model=static", "-Cforce-frame-pointers=yes"])
            .args(["-Clink-arg=-Wl,--build-id=sha1", "-oprogram"])
            .args(args)
            .arg(source));
        self
    }

    /// The directory rustc ran in, without symbolic links, as rustc records it.
    pub(crate) fn directory(&self) -> PathBuf {
        self.directory.path().canonicalize().unwrap()
    }

    pub(crate) fn module(&self) -> ModuleFile {
        ModuleFile::new(&self.program)
    }

    pub(crate) fn build_id(&self) -> Vec<u8> {
        build_id(&self.program)
    }

    /// The address inside the call at the marked place, as the running program says.
    pub(crate) fn call_addr(&self, mark: &str) -> u64 {
        let printed = run(&mut Command::new(&self.program));
        let addr = printed.lines().find_map(|line| line.strip_prefix(mark)?.strip_prefix(' '));
        let returned: u64 = addr.expect("the program prints the place").parse().unwrap();
        assert_ne!(returned, 0);
        returned - 1
    }

    /// Resolves the marked place with a new symbolizer.
    pub(crate) fn resolve(&self, mark: &str) -> Symbols {
        let symbols = Symbolizer::new().resolve(&self.module(), self.call_addr(mark));
        Symbols::clone(&symbols)
    }
}

/// The build id in a file.
pub(crate) fn build_id(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    let object = object::File::parse(&*bytes).unwrap();
    object.build_id().unwrap().expect("the file has a build id").to_vec()
}

/// The line of the source that carries the mark.
pub(crate) fn line_of(mark: &str) -> u32 {
    let mark = format!("// MARK {mark}");
    let at = SOURCE.lines().position(|line| line.ends_with(&mark)).expect("the mark exists");
    u32::try_from(at).unwrap() + 1
}

/// Function, file and line of a frame, in one text.
pub(crate) fn shown(frame: &SymbolFrame) -> String {
    let function = frame.function.as_deref().unwrap_or("?");
    let file = frame.file.as_deref().unwrap_or("?");
    let line = frame.line.map_or("?".to_owned(), |line| line.to_string());
    let inlined = if frame.is_inlined { " inlined" } else { "" };
    format!("{function} {file}:{line}{inlined}")
}

/// All frames, so shown.
pub(crate) fn all_shown(symbols: &Symbols) -> Vec<String> {
    symbols.frames.iter().map(shown).collect()
}

/// Runs a command that must succeed, and returns what it printed.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed:\n{errors}");
    String::from_utf8(output.stdout).unwrap()
}
