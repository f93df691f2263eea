//! The route, and the headers that every answer has.

use std::fmt::Display;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, Method, Uri, header};
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::get;
use memtrace_core::Snapshot;

use crate::failure::Failure;
use crate::growth::Growth;
use crate::query::GrowthQuery;
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
    let route = get(snapshots)
        // Without this a HEAD request would be served as a GET request: take a snapshot, make it
        // the baseline perhaps, and throw the answer away.
        .head(method_not_allowed)
        .fallback(method_not_allowed)
        .layer(map_response(with_headers));
    Router::new().route("/snapshots", route).with_state(Queue::new(growth))
}

async fn snapshots(State(queue): State<Queue<Growth>>, uri: Uri) -> Result<String, Failure> {
    let query = GrowthQuery::from_uri(&uri)?;
    queue.run(move |growth| growth.report(query)).await
}

async fn method_not_allowed(method: Method) -> Failure {
    Failure::Method { method: method.to_string() }
}

/// Names in the answer come from the source of the program: no browser shall take them for a page,
/// and nothing on the way shall keep them.
async fn with_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
