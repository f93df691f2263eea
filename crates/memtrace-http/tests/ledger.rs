//! The ledger's route through the public API: exact texts, every error.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode};
use memtrace_core::{Ledger, LedgerKind, LedgerLine, Snapshot};
use tower::ServiceExt;

const MIB: u64 = 1 << 20;

/// Status, content type and body of an answer.
type Answer = (StatusCode, String, String);

async fn request(router: &Router, method: Method, target: &str) -> Answer {
    let request = Request::builder().method(method).uri(target).body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let header = |name: &str| parts.headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert_eq!(header("cache-control"), "no-store");
    let body = to_bytes(body, usize::MAX).await.unwrap();
    (parts.status, header("content-type"), String::from_utf8(body.to_vec()).unwrap())
}

async fn ask(router: &Router, target: &str) -> Answer {
    request(router, Method::GET, target).await
}

/// A source of ledgers of 100 MiB in which 10 MiB more of the live blocks are freed each time.
fn shrinking_service() -> Router {
    let n_calls = AtomicU64::new(0);
    memtrace_http::ledger_router(move || {
        let n_freed = 10 * n_calls.fetch_add(1, Ordering::Relaxed);
        let live = LedgerLine::resident(LedgerKind::Live, "live", (80 - n_freed) * MIB);
        let free = LedgerLine::resident(LedgerKind::Free, "free in pools", (10 + n_freed) * MIB);
        Ok::<_, String>(Ledger::new(100 * MIB).line(live).line(free))
    })
}

#[tokio::test]
async fn the_ledger_is_a_table_and_its_difference_another() {
    let router = shrinking_service();
    let text = "\
resident           100.00 MiB
  live              80.00 MiB   80.0 %
  free in pools     10.00 MiB   10.0 %
  unaccounted       10.00 MiB   10.0 %
";
    let content_type = "text/plain; charset=utf-8".to_owned();
    let expected = (StatusCode::OK, content_type.clone(), text.to_owned());
    assert_eq!(ask(&router, "/ledger").await, expected);
    let text = "\
resident           100.00 MiB      +0.00 MiB
  live              70.00 MiB     -10.00 MiB
  free in pools     20.00 MiB     +10.00 MiB
  unaccounted       10.00 MiB      +0.00 MiB
live blocks -10.00 MiB, allocator's slack +10.00 MiB, everything else +0.00 MiB
";
    let expected = (StatusCode::OK, content_type, text.to_owned());
    assert_eq!(ask(&router, "/ledger?since=first").await, expected);
}

#[tokio::test]
async fn both_are_to_be_had_as_json() {
    let router = shrinking_service();
    let (status, content_type, body) = ask(&router, "/ledger?format=json").await;
    assert_eq!((status, &*content_type), (StatusCode::OK, "application/json"));
    assert!(
        body.starts_with("{\"schema\":\"memtrace.ledger/1\",\"resident_bytes\":104857600,"),
        "{body}"
    );
    let (status, content_type, body) = ask(&router, "/ledger?format=json&since=first").await;
    assert_eq!((status, &*content_type), (StatusCode::OK, "application/json"));
    assert!(body.starts_with("{\"schema\":\"memtrace.ledger-diff/1\","), "{body}");
    assert!(body.contains("\"bytes_diff\":-10485760"), "{body}");
}

#[tokio::test]
async fn a_refused_request_takes_no_ledger() {
    let router =
        memtrace_http::ledger_router(|| -> Result<Ledger, String> { panic!("not to be called") });
    for (query, sentence) in [
        ("format=yaml", r#"format="yaml" is unknown: use text or json"#),
        ("since=yesterday", r#"since="yesterday" is unknown: use first, or leave it out"#),
        ("group_by=lineno", r#"unknown parameter "group_by": use format or since"#),
        ("format=json&format=json", "parameter format is given more than once: give it once"),
    ] {
        let (status, content_type, body) = ask(&router, &format!("/ledger?{query}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(content_type, "text/plain; charset=utf-8");
        assert_eq!(body, format!("{sentence}\n"));
    }
    for method in [Method::POST, Method::HEAD] {
        let (status, _, body) = request(&router, method.clone(), "/ledger").await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
        assert!(
            method == Method::HEAD || body == "POST is not supported here: use GET\n",
            "{body}"
        );
    }
}

#[tokio::test]
async fn what_goes_wrong_is_told_and_takes_no_baseline_away() {
    let n_calls = AtomicU64::new(0);
    let router =
        memtrace_http::ledger_router(move || match n_calls.fetch_add(1, Ordering::Relaxed) {
            0 => Err("cannot read /proc/self/status"),
            1 => std::panic::panic_any("before the first ledger"),
            n => Ok(Ledger::new(n * MIB)),
        });
    let (status, _, body) = ask(&router, "/ledger?format=json").await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(body, "cannot read /proc/self/status\n");
    let (status, _, body) = ask(&router, "/ledger").await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(body, "taking the ledger panicked, its message is in the log of the service\n");
    assert_eq!(ask(&router, "/ledger?since=first").await.0, StatusCode::OK);
    let (_, _, body) = ask(&router, "/ledger?since=first").await;
    assert!(body.starts_with("resident           3.00 MiB      +1.00 MiB\n"), "{body}");
}

#[tokio::test]
async fn both_routers_go_under_one_path() {
    let snapshots = memtrace_http::router(|| Err::<Snapshot, _>("tracing is off"));
    let app = Router::new().nest("/memory", snapshots.merge(shrinking_service()));
    assert_eq!(ask(&app, "/memory/ledger").await.0, StatusCode::OK);
    let (status, _, body) = ask(&app, "/memory/snapshots").await;
    assert_eq!((status, &*body), (StatusCode::CONFLICT, "tracing is off\n"));
}
