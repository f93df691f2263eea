//! Everything a request can fail with, and the answer it gets then.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use thiserror::Error;

use crate::query::QueryError;

/// How long a request that was sent away should wait before it comes back, in seconds.
const RETRY_AFTER_S: u16 = 1;

/// Why a request gets no answer. `what` is what it asked for: a snapshot, or a ledger.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum Failure {
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error("{method} is not supported here: use GET")]
    Method { method: String },
    /// The snapshot source said no; its own words.
    #[error("{reason}")]
    NoSnapshot { reason: String },
    /// The ledger source said no; its own words.
    #[error("{reason}")]
    NoLedger { reason: String },
    #[error(
        "a {what} is being taken and other requests wait for the next one: come back in \
         {RETRY_AFTER_S} s"
    )]
    QueueFull { what: &'static str },
    #[error("taking the {what} panicked, its message is in the log of the service")]
    Panicked { what: &'static str },
    #[error("the service is shutting down, no {what} was taken")]
    ShuttingDown { what: &'static str },
}

impl Failure {
    fn status(&self) -> StatusCode {
        match self {
            Failure::Query(_) => StatusCode::BAD_REQUEST,
            Failure::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Failure::NoSnapshot { .. } => StatusCode::CONFLICT,
            Failure::QueueFull { .. } => StatusCode::TOO_MANY_REQUESTS,
            Failure::NoLedger { .. } | Failure::Panicked { .. } => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Failure::ShuttingDown { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.status(), format!("{self}\n")).into_response();
        let headers = response.headers_mut();
        match self {
            Failure::Method { .. } => {
                headers.insert(header::ALLOW, HeaderValue::from_static("GET"));
            }
            Failure::QueueFull { .. } => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
            }
            _ => {}
        }
        response
    }
}
