//! A JSON document parsed into values: many small strings, maps and vectors, from deep in a library.

use serde_json::Value;

pub(super) fn run_batch(document: &[u8]) -> u64 {
    checksum(&parse(document))
}

/// **Panics**: if the document is not JSON, since there is nothing to measure then.
pub(super) fn parse(document: &[u8]) -> Value {
    let value = serde_json::from_slice(document);
    value.unwrap_or_else(|error| panic!("the document is not JSON: {error}"))
}

/// Counts values and bytes of text.
pub(super) fn checksum(value: &Value) -> u64 {
    1 + match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len() as u64,
        Value::Array(values) => values.iter().map(checksum).sum(),
        Value::Object(map) => {
            map.iter().map(|(key, value)| key.len() as u64 + checksum(value)).sum()
        }
    }
}
