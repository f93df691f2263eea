//! What has grown in a running service, over HTTP: one line in an [axum] router.
//!
//! ```
//! use axum::Router;
//! # mod memtrace {
//! #     pub fn take_snapshot() -> Result<memtrace_core::Snapshot, String> { Err("off".into()) }
//! # }
//!
//! let app: Router =
//!     Router::new().nest("/memory", memtrace_http::router(memtrace::take_snapshot));
//! ```
//!
//! ```text
//! $ curl 'http://127.0.0.1:3000/memory/snapshots?top=2'
//! 7213.45 new KiB, 7350.02 total KiB, 14400 new blocks, 14880 total blocks
//!   File "src/cache.rs", line 42
//!     pages.insert(target.to_owned(), page.into());
//!
//! 0.00 new KiB, 264.03 total KiB, 0 new blocks, 18 total blocks
//!   File "src/catalogue.rs", line 17
//!     Catalogue { products: (0..n_products).map(Product::generate).collect() }
//!
//! ```
//!
//! The first request takes a snapshot that is kept as the baseline. Each request after it takes
//! another one, compares it with the baseline, and shows the places that changed most. The baseline
//! stays as long as the router, also when tracing is stopped and started again. So: let the
//! service warm up, ask once, let it work, ask again.
//!
//! # `GET /snapshots`
//!
//! | parameter | values | default |
//! |---|---|---|
//! | `top` | how many rows, `1` to `10000` | `10` |
//! | `group_by` | the name of a [`KeyType`](memtrace_core::KeyType), such as `filename`, `traceback` or `function` | `lineno` |
//!
//! Below a place stands its source line, if the source is still where it was compiled. After the
//! rows stand notes, each on one line that begins with `note: `: that no block is traced, that a
//! good part of the memory has no known place and what to do about it, or that this snapshot is
//! the baseline.
//!
//! Whatever goes wrong is answered with one sentence of plain text, and leaves the baseline as it
//! is:
//!
//! | status | when |
//! |---|---|
//! | 400 | a parameter is unknown, given twice, or has no meaning |
//! | 405 | the method is not GET; HEAD counts as such, because it would cost a snapshot |
//! | 409 | no snapshot can be taken, because tracing is off for example; the text says why |
//! | 429 | a snapshot is being taken and four other requests already wait for their turn |
//! | 500 | the snapshot source panicked |
//! | 503 | the service is shutting down |
//!
//! # `GET /ledger`
//!
//! A router of its own, [`ledger_router`], shows where the memory of the process is: in live blocks, in
//! what the allocator holds beyond them, in the tracer, in files.
//!
//! ```
//! # fn take_snapshot() -> Result<memtrace_core::Snapshot, String> { Err("off".into()) }
//! # mod memtrace {
//! #     pub fn ledger() -> Result<memtrace_core::Ledger, String> { Err("off".into()) }
//! # }
//! let memory = memtrace_http::router(take_snapshot)
//!     .merge(memtrace_http::ledger_router(memtrace::ledger));
//! let app: axum::Router = axum::Router::new().nest("/memory", memory);
//! ```
//!
//! | parameter | values | default |
//! |---|---|---|
//! | `format` | `text`, or `json`: see `memtrace_export::ledger` | `text` |
//! | `since` | `first`: what has changed since the first request | the ledger itself |
//!
//! Errors are those of `/snapshots`, but for 409: if there is no ledger the status is 500, and the text
//! says why.
//!
//! # Cost
//!
//! A request takes a snapshot and compares it, which may take a second or more of one core for
//! millions of blocks. It runs on a thread for blocking work, so no other request waits for it,
//! and never two at a time. The router keeps one snapshot, the baseline, for as long as it lives;
//! while a request is served there is a second one.
//!
//! # Security
//!
//! The answer discloses names and paths from the source of the program, and how it uses memory;
//! and whoever may ask can make the service work. **Mount it on an internal listener**, one that
//! only operators reach, or behind the authentication that the service has for them. The router
//! does no authentication, reads no file that a request names, and has one parameter that matters
//! for cost, `top`, which is bounded. On a loopback listener of a desktop machine mind that web
//! pages can send requests there too: they cannot read the answer, unless the service also answers
//! to foreign host names.
//!
//! # Routers with state
//!
//! The router has no state that axum would have to provide: nest it after `with_state`.
//!
//! ```
//! # #[derive(Clone)] struct AppState;
//! # fn take_snapshot() -> Result<memtrace_core::Snapshot, String> { Err("off".into()) }
//! let app: axum::Router = axum::Router::<AppState>::new()
//!     .with_state(AppState)
//!     .nest("/memory", memtrace_http::router(take_snapshot));
//! ```

#![forbid(unsafe_code)]

mod failure;
mod growth;
mod ledgers;
mod query;
mod queue;
mod router;

pub use router::{ledger_router, router};
