//! The routes, and the headers that every answer has.

use std::fmt::Display;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, Method, Uri, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use memtrace_core::{Ledger, Snapshot};

use crate::failure::Failure;
use crate::growth::Growth;
use crate::ledgers::Ledgers;
use crate::query::{Format, GrowthQuery, LedgerQuery};
use crate::queue::Queue;

/// A router with one route, `GET /snapshots`, that shows what has grown since its first request.
///
/// `take_snapshot` is called for each request that is accepted, on a thread for blocking work and
/// never twice at the same time. Two routers have two baselines.
///
/// **Cost.** See the [crate documentation](crate#cost).
///
/// **Panics.** Never. A panic of `take_snapshot` is answered with status 500, provided that panics
/// unwind.
///
/// ```
/// # fn take_snapshot() -> Result<memtrace_core::Snapshot, String> { Err("off".into()) }
/// let app: axum::Router =
///     axum::Router::new().nest("/memory", memtrace_http::router(take_snapshot));
/// // GET /memory/snapshots?top=10&group_by=lineno
/// ```
pub fn router<F, E>(take_snapshot: F) -> Router
where
    F: Fn() -> Result<Snapshot, E> + Send + Sync + 'static,
    E: Display,
{
    let growth = Growth::new(move || take_snapshot().map_err(|error| error.to_string()));
    let route = only_get(get(snapshots));
    Router::new().route("/snapshots", route).with_state(Queue::new("snapshot", growth))
}

/// A router with one route, `GET /ledger`, that shows where the memory of the process is.
///
/// `take_ledger` is called for each request that is accepted, on a thread for blocking work and never
/// twice at the same time.
///
/// **Cost.** What `take_ledger` costs; the first ledger is kept, some hundred bytes.
///
/// **Panics.** Never. A panic of `take_ledger` is answered with status 500, provided that panics
/// unwind.
///
/// ```
/// # fn take_snapshot() -> Result<memtrace_core::Snapshot, String> { Err("off".into()) }
/// # fn ledger() -> Result<memtrace_core::Ledger, String> { Err("off".into()) }
/// let memory = memtrace_http::router(take_snapshot).merge(memtrace_http::ledger_router(ledger));
/// let app: axum::Router = axum::Router::new().nest("/memory", memory);
/// // GET /memory/ledger?since=first
/// ```
pub fn ledger_router<F, E>(take_ledger: F) -> Router
where
    F: Fn() -> Result<Ledger, E> + Send + Sync + 'static,
    E: Display,
{
    let ledgers = Ledgers::new(move || take_ledger().map_err(|error| error.to_string()));
    let route = only_get(get(ledger));
    Router::new().route("/ledger", route).with_state(Queue::new("ledger", ledgers))
}

fn only_get<S: Clone + Send + Sync + 'static>(route: MethodRouter<S>) -> MethodRouter<S> {
    route
        // Without this a HEAD request would be served as a GET request: take a snapshot, make it
        // the baseline perhaps, and throw the answer away.
        .head(method_not_allowed)
        .fallback(method_not_allowed)
        .layer(map_response(with_headers))
}

async fn snapshots(State(queue): State<Queue<Growth>>, uri: Uri) -> Result<String, Failure> {
    let query = GrowthQuery::from_uri(&uri)?;
    queue.run(move |growth| growth.report(query)).await
}

async fn ledger(
    State(queue): State<Queue<Ledgers>>,
    uri: Uri,
) -> Result<impl IntoResponse, Failure> {
    let query = LedgerQuery::from_uri(&uri)?;
    let body = queue.run(move |ledgers| ledgers.report(query)).await?;
    let content_type = match query.format {
        Format::Text => TEXT,
        Format::Json => "application/json",
    };
    Ok(([(header::CONTENT_TYPE, content_type)], body))
}

async fn method_not_allowed(method: Method) -> Failure {
    Failure::Method { method: method.to_string() }
}

const TEXT: &str = "text/plain; charset=utf-8";

/// Names in the answer come from the source of the program: no browser shall take them for a page,
/// and nothing on the way shall keep them.
async fn with_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static(TEXT));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
