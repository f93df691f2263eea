//! The figures and the map as JSON.
#![cfg(feature = "serde")]

use std::alloc::Layout;

use memtrace_heap::python::{PythonHeap, Version};
use memtrace_heap::{Config, Model, NoMemory, Purge};
use serde_json::Value;

/// A heap with something of each kind.
fn model() -> Model {
    let model = Model::new(Config::new().purge(Purge::Never));
    for size in (1..3000).chain([100_000, 5_000_000, 50_000_000]) {
        model.allocate(Layout::from_size_align(size, 8).unwrap()).unwrap();
    }
    let layout = Layout::from_size_align(200_000, 8).unwrap();
    model.release(model.allocate(layout).unwrap(), layout);
    model
}

fn sum<'v>(values: impl IntoIterator<Item = &'v Value>, field: &str) -> u64 {
    values.into_iter().map(|value| value[field].as_u64().unwrap()).sum()
}

#[test]
fn the_figures_have_all_fields_and_the_right_sums() {
    let stats = model().stats();
    let json = serde_json::to_value(stats).unwrap();
    let fields: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "arenas",
        "big_arenas",
        "classes",
        "invalid_frees",
        "is_fork_safe",
        "mappings",
        "metadata_bytes",
        "n_owners",
        "n_owners_lost",
        "runs",
    ];
    assert_eq!(fields, expected);
    let classes = json["classes"].as_array().unwrap();
    assert_eq!(classes.len(), memtrace_heap::N_CLASSES);
    assert_eq!(classes[0]["block_size"], 16);
    assert_eq!(sum(classes, "n_blocks_used"), 2999);
    assert_eq!(sum(classes, "requested_bytes"), 2999 * 3000 / 2);
    let parts = [&json["runs"], &json["mappings"]];
    assert_eq!(sum(parts, "n_current"), 3);
    let requested = sum(classes, "requested_bytes") + sum(parts, "requested_bytes");
    assert_eq!(requested, stats.requested_bytes() as u64);
    assert_eq!(json["arenas"]["n_units_unused_dirty"], 4);
    assert_eq!(json["invalid_frees"]["n_double"], 0);
}

#[test]
fn the_map_is_a_sequence_of_arenas_that_adds_up_to_the_figures() {
    let model = model();
    let json = serde_json::to_value(model.map()).unwrap();
    let arenas = json.as_array().unwrap();
    assert_eq!(arenas.len(), model.map().arenas().count());
    let spans = || arenas.iter().flat_map(|arena| arena["spans"].as_array().unwrap());
    let of_kind = |kind: &'static str| spans().filter(move |span| span["kind"] == kind);
    for arena in arenas {
        assert_eq!(sum(arena["spans"].as_array().unwrap(), "n_units"), 64);
        assert_eq!(arena["n_units"], 64);
        assert!(arena["base_addr"].as_u64().unwrap() >= 1 << 32);
    }
    assert_eq!(sum(of_kind("pool"), "n_blocks_used"), 2999);
    assert_eq!(sum(of_kind("run"), "requested_bytes"), 5_100_000);
    assert_eq!(sum(of_kind("unused").filter(|span| span["is_dirty"] == true), "n_units"), 4);
    assert!(of_kind("pool").all(|span| span["owner"].is_u64()));
    assert!(of_kind("run").all(|span| span["owner"].is_null() && span["class"].is_null()));
    let first = arenas[0].as_object().unwrap();
    let fields: Vec<&str> = first.keys().map(String::as_str).collect();
    assert_eq!(fields, ["base_addr", "n_units", "number", "spans", "unit_size"]);
}

#[test]
fn pythons_heap_has_the_same_form() {
    let mut heap = PythonHeap::new(Version::V3_8.profile(), NoMemory::new());
    for size in 1..513 {
        heap.allocate(size).unwrap();
    }
    let stats = serde_json::to_value(heap.stats()).unwrap();
    assert_eq!(stats["version"], "3.8");
    assert_eq!(sum(stats["classes"].as_array().unwrap(), "n_blocks_used"), 512);
    let map = serde_json::to_value(heap.map()).unwrap();
    let spans = map[0]["spans"].as_array().unwrap();
    assert_eq!(sum(spans, "n_blocks_used"), 512);
    assert_eq!(sum(spans, "n_units"), 64);
}
