//! Full text search by brute force: much is allocated for each query, nothing outlives it.

use serde::Serialize;

use crate::catalogue::{Catalogue, Product};

/// How many products one page shows.
const PRODUCTS_PER_PAGE: usize = 12;

/// One page of products that match a query, best first.
#[derive(Debug, Serialize)]
pub(crate) struct SearchPage<'a> {
    query: &'a str,
    page: usize,
    n_matches: usize,
    products: Vec<&'a Product>,
}

impl<'a> SearchPage<'a> {
    /// Finds the products that contain any word of `query`, ranks them by how many words they
    /// contain, and cuts out the page, which is counted from 1.
    ///
    /// **Cost.** Two short-lived strings a product.
    pub(crate) fn find(catalogue: &'a Catalogue, query: &'a str, page: usize) -> SearchPage<'a> {
        let words: Vec<String> = query.split_whitespace().map(str::to_lowercase).collect();
        let mut matches: Vec<(usize, &Product)> = catalogue
            .products()
            .iter()
            .map(|product| (score(product, &words), product))
            .filter(|(score, _)| *score > 0)
            .collect();
        matches.sort_by_key(|(score, product)| (std::cmp::Reverse(*score), product.price_cents));
        let n_skipped = page.saturating_sub(1).saturating_mul(PRODUCTS_PER_PAGE);
        SearchPage {
            query,
            page,
            n_matches: matches.len(),
            products: matches
                .into_iter()
                .skip(n_skipped)
                .take(PRODUCTS_PER_PAGE)
                .map(|(_, product)| product)
                .collect(),
        }
    }
}

/// A word counts three times in the name and once in the description.
fn score(product: &Product, words: &[String]) -> usize {
    let name = product.name.to_lowercase();
    let description = product.description.to_lowercase();
    words
        .iter()
        .map(|word| {
            3 * usize::from(name.contains(word.as_str()))
                + usize::from(description.contains(word.as_str()))
        })
        .sum()
}
