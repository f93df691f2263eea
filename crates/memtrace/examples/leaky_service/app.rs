//! The shop and its endpoints.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;

use crate::cache::PageCache;
use crate::catalogue::Catalogue;
use crate::report::stock_report;
use crate::search::SearchPage;
use crate::thumbnails::Thumbnails;

/// How many products the shop has.
pub(crate) const N_PRODUCTS: u32 = 600;

const JSON: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "application/json")];
const TEXT: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
const PPM: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "image/x-portable-pixmap")];

/// Everything that lives as long as the service.
#[derive(Debug)]
pub(crate) struct Shop {
    catalogue: Catalogue,
    pages: PageCache,
    thumbnails: Thumbnails,
}

impl Shop {
    /// A shop with its catalogue on display and its caches empty.
    pub(crate) fn open() -> Arc<Shop> {
        Arc::new(Shop {
            catalogue: Catalogue::generate(N_PRODUCTS),
            pages: PageCache::default(),
            thumbnails: Thumbnails::default(),
        })
    }
}

/// The endpoints of the shop.
pub(crate) fn router(shop: Arc<Shop>) -> Router {
    Router::new()
        .route("/search", get(search))
        .route("/products", get(products))
        .route("/products/{id}/thumbnail", get(thumbnail))
        .route("/report", get(report))
        .with_state(shop)
}

/// The query string of `/search`. What else a client sends, such as `_=<time>`, is ignored.
#[derive(Debug, Deserialize)]
struct SearchQuery {
    q: String,
    #[serde(default = "first_page")]
    page: usize,
}

fn first_page() -> usize {
    1
}

async fn search(
    State(shop): State<Arc<Shop>>,
    uri: Uri,
    Query(query): Query<SearchQuery>,
) -> Result<Response, StatusCode> {
    let target = uri.to_string();
    if let Some(page) = shop.pages.get(&target) {
        return Ok((JSON, Bytes::from_owner(page)).into_response());
    }
    let page = SearchPage::find(&shop.catalogue, &query.q, query.page);
    let page = serde_json::to_vec(&page).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    shop.pages.put(&target, &page);
    Ok((JSON, page).into_response())
}

async fn products(State(shop): State<Arc<Shop>>) -> Result<Response, StatusCode> {
    let json = shop.catalogue.to_json().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok((JSON, json).into_response())
}

async fn thumbnail(State(shop): State<Arc<Shop>>, Path(id): Path<u32>) -> Response {
    match shop.catalogue.product(id) {
        Some(product) => (PPM, Bytes::from_owner(shop.thumbnails.get(product.id))).into_response(),
        None => (StatusCode::NOT_FOUND, TEXT, format!("no product {id}\n")).into_response(),
    }
}

async fn report(State(shop): State<Arc<Shop>>) -> Response {
    (TEXT, stock_report(&shop.catalogue)).into_response()
}
