//! Programs that are run as they are, under the library.

use super::{Outcome, ProgramError, make_dir, no_file};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What must be the same.
#[derive(Clone, Copy, Debug)]
enum Same {
    /// All that is written on standard output.
    Output,
    /// How it ends.
    Status,
    /// How it ends, and the file of this path below the program's folder, byte by byte.
    File(&'static str),
}

/// A program and what it is to do.
#[derive(Debug)]
pub(super) struct Foreign {
    pub(super) name: &'static str,
    command: &'static str,
    args: Vec<String>,
    folder: PathBuf,
    same: Same,
    /// What is removed below the folder before each run.
    made: Option<&'static str>,
}

const PYTHON_WORK: &str = r#"
import collections, json, os, re, sqlite3, subprocess, threading
print(len(json.dumps([{"a": i, "b": [str(i)] * 5} for i in range(50000)])))
print(len(re.findall(r"\b\w+(?=ing)\b", "running jumping sing ring " * 20000)))
base = sqlite3.connect(":memory:")
base.execute("create table t(a, b)")
base.executemany("insert into t values(?, ?)", ((i, str(i) * (i % 50)) for i in range(100000)))
print(base.execute("select sum(length(b)), count(*) from t where a % 7 = 3").fetchall())
sums = []
def work(n):
    sums.append(sum(len(x) for x in [str(i) * 3 for i in range(n)]))
threads = [threading.Thread(target=work, args=(20000,)) for _ in range(20)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sum(sums))
print(subprocess.run(["ls", "/"], capture_output=True).returncode)
child = os.fork()
if child == 0:
    os._exit(7 if len([bytes(i) for i in range(3000)]) == 3000 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(collections.Counter(str(i % 977) for i in range(300000)).most_common(5))
"#;

const PYTHON_TESTS: [&str; 9] = [
    "test.test_json",
    "test.test_re",
    "test.test_dict",
    "test.test_list",
    "test.test_bytes",
    "test.test_thread",
    "test.test_zlib",
    "test.test_unicode",
    "test.test_fork1",
];

const SQLITE_WORK: &str = "
create table t(a integer primary key, b text, c real);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 200000)
insert into t select i, hex(i * 7919) || printf('%0*d', i % 60, i), i / 7.0 from n;
create index by_b on t(b);
select count(*), sum(length(b)), round(sum(c), 2) from t;
select b from t order by b desc limit 5;
select length(group_concat(b, ',')) from t where a % 3 = 0;
delete from t where a % 2 = 0;
vacuum;
select count(*), max(b), min(b) from t;
";

/// What a C++ compiler takes three million blocks for.
const CXX_WORK: &str = "#include <map>\n#include <regex>\n#include <string>\n#include <vector>\n\
     int main(int n, char **words) {\n  std::map<std::string, std::vector<std::regex>> by_word;\n  \
     for (int i = 0; i < n; i++) by_word[words[i]].emplace_back(words[i]);\n  \
     return std::regex_match(words[0], by_word.begin()->second[0]);\n}\n";

/// A program of two crates. The compiler has an allocator of its own; cargo, the linker and the build
/// scripts have not. which take most of the time of its build.
const BUILT: [(&str, &str); 2] = [
    (
        "Cargo.toml",
        "[package]\nname = \"built\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[dependencies]\n\
         regex = \"1\"\nserde_json = \"1\"\n\n[workspace]\n",
    ),
    (
        "src/main.rs",
        "fn main() {\n    let value: serde_json::Value = serde_json::from_str(\"[1, 2]\").unwrap();\n    \
         println!(\"{value} {}\", regex::Regex::new(\"a+b\").unwrap().is_match(\"aab\"));\n}\n",
    ),
];

impl Foreign {
    /// All of them, with their files below `dir`.
    pub(super) fn all(dir: &Path) -> Result<Vec<Foreign>, ProgramError> {
        let new = |name, command, args: &[&str], same| -> Result<Foreign, ProgramError> {
            let folder = dir.join(name);
            make_dir(&folder)?;
            let args = args.iter().map(|arg| String::from(*arg)).collect();
            Ok(Foreign { name, command, args, folder, same, made: None })
        };
        let tests = [&["-m", "unittest", "-q"][..], &PYTHON_TESTS].concat();
        let build = ["build", "--release", "--offline", "--quiet", "--target-dir", "built"];
        let cargo = new("cargo", "cargo", &build, Same::File("built/release/built"))?;
        for (path, text) in BUILT {
            let path = cargo.folder.join(path);
            make_dir(path.parent().unwrap_or(&path))?;
            fs::write(&path, text).map_err(|source| no_file(&path, source))?;
        }
        let compile = ["-O2", "-c", "work.cc", "-o", "work.o"];
        let compiler = new("compiler", "c++", &compile, Same::File("work.o"))?;
        let path = compiler.folder.join("work.cc");
        fs::write(&path, CXX_WORK).map_err(|source| no_file(&path, source))?;
        // By several threads.
        let search = ["grep", "--threads=4", "--line-number", "-e", "a.*o.*c", "HEAD"];
        let mut git = new("git", "git", &search, Same::Output)?;
        git.folder = super::Workspace::root().to_owned();
        let service = ["run", "--release", "--quiet", "--example", "leaky_service"];
        let mut service = new("service", "cargo", &service, Same::Status)?;
        service.folder = super::Workspace::root().to_owned();
        Ok(vec![
            new("sqlite", "sqlite3", &[":memory:", SQLITE_WORK], Same::Output)?,
            new("python", "python3", &["-c", PYTHON_WORK], Same::Output)?,
            new("python_tests", "python3", &tests, Same::Status)?,
            git,
            compiler,
            service,
            Foreign { made: Some("built"), ..cargo },
        ])
    }

    /// Runs the program without and with the library; returns a line of figures.
    pub(super) fn compare(&self, library: &Path, dir: &Path) -> Result<String, ProgramError> {
        let program = String::from(self.name);
        let plain = self.run(None)?;
        if !plain.0.is_success {
            let Outcome { status, messages, .. } = plain.0;
            return Err(ProgramError::PlainFails { program, status, messages });
        }
        let report = dir.join(format!("{program}.report"));
        let _ = fs::remove_file(&report);
        let with_heap = self.run(Some((library, &report)))?;
        let is_same = with_heap.0.status == plain.0.status
            && with_heap.1 == plain.1
            && (!matches!(self.same, Same::Output) || with_heap.0.output == plain.0.output);
        if !is_same {
            let Outcome { status, output, messages, .. } = with_heap.0;
            let is_file_same = with_heap.1 == plain.1;
            let difference = format!("{status}, file the same: {is_file_same}\n{output}{messages}");
            return Err(ProgramError::Differs { program, difference });
        }
        figures(&program, &report)
    }

    /// Runs it, with the library and a file for reports if they are named; returns the file that must
    /// be the same, too.
    fn run(&self, with: Option<(&Path, &Path)>) -> Result<(Outcome, Vec<u8>), ProgramError> {
        if let Some(made) = self.made {
            let _ = fs::remove_dir_all(self.folder.join(made));
        }
        let mut command = Command::new(self.command);
        // Python has pools of its own unless it is told otherwise. Flags and folders of the cargo that
        // runs this program are not for the one that is run.
        command.args(&self.args).current_dir(&self.folder).env("PYTHONMALLOC", "malloc");
        for variable in ["CARGO", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
            command.env_remove(variable);
        }
        if let Some((library, report)) = with {
            command.env("LD_PRELOAD", library).env("MEMTRACE_PRELOAD_REPORT", report);
        }
        let outcome = Outcome::of(&mut command)?;
        let file = match self.same {
            Same::File(path) if outcome.is_success => {
                let path = self.folder.join(path);
                fs::read(&path).map_err(|source| no_file(&path, source))?
            }
            _ => Vec::new(),
        };
        Ok((outcome, file))
    }
}

/// Sums the reports of all processes up.
fn figures(program: &str, report: &Path) -> Result<String, ProgramError> {
    let text = fs::read_to_string(report).map_err(|source| no_file(report, source))?;
    let (mut n_processes, mut n_blocks) = (0, 0_u64);
    for line in text.lines() {
        let mut fields = line.split('\t').skip(1);
        let n_here = fields.next().and_then(|field| field.parse::<u64>().ok());
        let rest: Vec<&str> = fields.skip(1).collect();
        // A process may end while threads are at work.
        let is_well = matches!(rest[..], ["0", "Ok(())" | "Err(Busy)"]);
        let (Some(n_here), true) = (n_here, is_well) else {
            let program = String::from(program);
            return Err(ProgramError::Unwell { program, line: String::from(line) });
        };
        n_processes += 1;
        n_blocks += n_here;
    }
    Ok(format!("{n_blocks} blocks in {n_processes} processes, no call refused"))
}
