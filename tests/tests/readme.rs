//! What the README says is what happens: its commands are run, its paths exist.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The commands of a document's `console` blocks, in order.
fn commands(document: &str) -> Vec<String> {
    let blocks = document.split("```console\n").skip(1);
    let lines = blocks.flat_map(|block| block.split("```").next().unwrap().lines());
    lines.map(|line| line.split(" #").next().unwrap().trim().to_owned()).collect()
}

#[test]
fn the_first_command_names_the_leaking_file_and_line_first() {
    let command = commands(&read("README.md")).remove(0);
    let mut words = command.split_whitespace();
    assert_eq!(words.next(), Some("cargo"), "{command}");
    // As a user would run it: the flags of this test's own build are not the command's.
    let output = Command::new(env!("CARGO"))
        .args(words)
        .current_dir(root())
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("MEMTRACE")
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{stdout}\n{}", String::from_utf8_lossy(&output.stderr));

    let cache = "crates/memtrace/examples/leaky_service/cache.rs";
    let source = read(cache);
    let leak = source.lines().position(|line| line.contains("pages.insert(")).unwrap() + 1;
    let lines: Vec<&str> = stdout.lines().collect();
    assert!(lines[0].ends_with(" total blocks") && !lines[0].starts_with("0.00 new"), "{stdout}");
    assert_eq!(lines[1], format!("  File \"{cache}\", line {leak}"), "{stdout}");
    let verdict = lines.last().unwrap();
    assert!(verdict.starts_with(&format!("leak: {cache}:{leak} holds ")), "{stdout}");
    // The sample in the README is of this program as it is now.
    let readme = read("README.md");
    assert!(
        readme.contains(&format!("{}\n{}\n", lines[1], lines[2])),
        "the README's sample is old"
    );
    assert!(readme.contains(&format!("leak: {cache}:{leak} holds ")), "the README's sample is old");
}

#[test]
fn the_second_command_is_what_continuous_integration_runs() {
    let command = commands(&read("README.md")).remove(1);
    assert_eq!(command, "cargo test --workspace");
    assert!(read(".ci/run").lines().any(|line| line == command));
}

#[test]
fn paths_that_the_documents_name_exist() {
    let mut n_paths = 0;
    for document in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        let text = read(document);
        for quoted in text.split('`').skip(1).step_by(2) {
            let is_path = ["crates/", "tests/", "benches/", "xtask/", ".ci/"]
                .iter()
                .any(|start| quoted.starts_with(start));
            if is_path && !quoted.contains(char::is_whitespace) {
                n_paths += 1;
                assert!(root().join(quoted).exists(), "{document} names {quoted}");
            }
        }
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if !link.contains("://") {
                assert!(root().join(link).exists(), "{document} links to {link}");
            }
        }
    }
    assert!(n_paths > 20, "{n_paths}");
}

/// Whether a crate has this name, or one of the packages beside the crates.
fn is_package(name: &str) -> bool {
    let line = format!("name = \"{name}\"");
    let has_name = |dir: &str| read(&format!("{dir}/Cargo.toml")).lines().any(|it| it == line);
    root().join("crates").join(name).is_dir()
        || ["tests", "benches", "xtask"].iter().any(|dir| has_name(dir))
}

#[test]
fn packages_and_examples_that_the_documents_name_exist() {
    for document in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let text = read(document);
        let mut words = text.split(|c: char| c.is_whitespace() || c == '`').peekable();
        let mut package = None;
        while let Some(word) = words.next() {
            match (word, words.peek()) {
                ("-p", Some(&name)) => {
                    assert!(is_package(name), "{document} names {name}");
                    package = Some(name);
                }
                ("--example", Some(&name)) => {
                    let package = package.take().unwrap_or("memtrace");
                    let examples = root().join("crates").join(package).join("examples");
                    let exists = examples.join(name).join("main.rs").exists()
                        || examples.join(name).with_extension("rs").exists();
                    assert!(exists, "{document} names example {name} of {package}");
                }
                _ => {}
            }
        }
    }
}
