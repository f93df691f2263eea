//! The stock report as plain text: built from scratch for each request, nothing is kept.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::catalogue::{Catalogue, Product};

/// Lists the products by category, the most valuable stock first, with a sum for each category.
pub(crate) fn stock_report(catalogue: &Catalogue) -> String {
    let mut by_category: BTreeMap<&str, Vec<&Product>> = BTreeMap::new();
    for product in catalogue.products() {
        by_category.entry(product.category).or_default().push(product);
    }

    let mut text = String::new();
    for (category, mut products) in by_category {
        products.sort_by_key(|product| std::cmp::Reverse(stock_value_cents(product)));
        let sum_cents: u64 = products.iter().copied().map(stock_value_cents).sum();
        let mut lines = vec![format!("{category}: {}", euros(sum_cents))];
        lines.extend(products.iter().map(|product| {
            let value = euros(stock_value_cents(product));
            format!("  {:>4} x {:<36} {value:>14}", product.n_in_stock, product.name)
        }));
        let _infallible = writeln!(text, "{}\n", lines.join("\n"));
    }
    text
}

fn stock_value_cents(product: &Product) -> u64 {
    product.price_cents * product.n_in_stock
}

fn euros(cents: u64) -> String {
    format!("{}.{:02} EUR", cents / 100, cents % 100)
}
