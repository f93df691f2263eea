//! Real code whose time goes into memory.

use crate::random::Random;
use crate::workload::{Effort, Outcome};
use memtrace_benches::stopwatch::Stopwatch;
use serde_json::Value;
use std::collections::HashMap;
use std::fmt::Write;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::hint::black_box;

const N_ORDERS: usize = 4_000;
const N_CUSTOMERS: usize = 20_000;

/// Hashed alike in every run: std's own choice of keys is random.
type Index = HashMap<String, Vec<String>, BuildHasherDefault<DefaultHasher>>;

/// Parses a document of a megabyte and drops what it says; one operation is one document.
pub(crate) fn json(effort: Effort) -> Outcome {
    let text = document();
    let stopwatch = Stopwatch::start();
    let mut checksum = 0;
    for _ in 0..effort.n_operations {
        let value: Value =
            serde_json::from_str(black_box(&text)).expect("the document is written right");
        checksum += value["orders"][N_ORDERS / 2]["id"].as_u64().unwrap_or(0);
        drop(black_box(value));
    }
    let elapsed = stopwatch.lap().elapsed;
    let value: Value = serde_json::from_str(&text).expect("as above");
    let written = value.to_string();
    assert_eq!(written.len(), text.len(), "what was parsed is not what was written");
    Outcome { elapsed, checksum, n_operations: effort.n_operations }
}

fn document() -> String {
    let mut random = Random(5);
    let mut text = String::from("{\"orders\":[");
    for i in 0..N_ORDERS {
        let comma = if i == 0 { "" } else { "," };
        let (customer, place) = (random.below(N_CUSTOMERS), random.below(400));
        write!(
            text,
            "{comma}{{\"id\":{i},\"customer\":\"customer {customer}\",\"address\":{{\"street\":\
             \"street no. {place} of the town\",\"place\":\"{place}\"}},\"lines\":["
        )
        .expect("a string takes all that is written");
        for j in 0..1 + random.below(4) {
            let comma = if j == 0 { "" } else { "," };
            let article = random.below(100_000);
            write!(
                text,
                "{comma}{{\"article\":\"article {article}\",\"n\":{j},\"tags\":[\"new\",\"heavy, {j} kg\"]}}"
            )
            .expect("as above");
        }
        text += "]}";
    }
    text += "]}";
    text
}

/// Keeps an index of customers and their orders; one operation is one order that comes.
///
/// Keys come back after many others, so that vectors grow apart from each other; of every four
/// orders one also removes a customer with all orders.
pub(crate) fn index(effort: Effort) -> Outcome {
    let mut random = Random(6);
    let mut index = Index::default();
    let stopwatch = Stopwatch::start();
    for i in 0..effort.n_operations {
        let customer = random.below(N_CUSTOMERS);
        index.entry(format!("customer/{customer}")).or_default().push(format!("order number {i}"));
        if i % 4 == 0 {
            let customer = random.below(N_CUSTOMERS);
            index.remove(format!("customer/{customer}").as_str());
        }
    }
    let elapsed = stopwatch.lap().elapsed;
    let mut checksum = 0;
    for (customer, orders) in &index {
        assert!(customer.starts_with("customer/"), "a key lost its contents");
        for order in orders {
            let number = order.strip_prefix("order number ").and_then(|n| n.parse::<u64>().ok());
            checksum += number.expect("an order keeps its contents") + customer.len() as u64;
        }
    }
    Outcome { elapsed, checksum, n_operations: effort.n_operations }
}
