//! A JSON document parsed into values: many small strings, maps and vectors, from deep in a library.

use serde_json::Value;
use std::fs;
use std::io;
use std::path::Path;

/// What workloads work on.
#[derive(Debug, Default)]
pub struct Input {
    document: Vec<u8>,
}

impl Input {
    /// Takes a JSON document.
    pub fn from_document(document: Vec<u8>) -> Self {
        Self { document }
    }

    /// Reads a JSON document.
    ///
    /// **Errors**: if the file cannot be read.
    pub fn read(path: &Path) -> io::Result<Self> {
        fs::read(path).map(Self::from_document)
    }
}

/// **Panics**: if the document is not JSON, since there is nothing to measure then.
pub(super) fn run_batch(input: &Input) -> u64 {
    let value = serde_json::from_slice(&input.document);
    let value: Value = value.unwrap_or_else(|error| panic!("the document is not JSON: {error}"));
    checksum(&value)
}

/// Counts values and bytes of text.
fn checksum(value: &Value) -> u64 {
    1 + match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len() as u64,
        Value::Array(values) => values.iter().map(checksum).sum(),
        Value::Object(map) => {
            map.iter().map(|(key, value)| key.len() as u64 + checksum(value)).sum()
        }
    }
}
