//! The router through its public API: exact texts, every error, and many requests at once.

use std::num::NonZeroU64;
use std::panic::panic_any;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::routing::get;
use memtrace_core::{Frame, MissingSource, Snapshot, SnapshotBuilder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;

const FIRST_NOTE: &str =
    "note: first snapshot, kept as the baseline: growth shows from the next request on\n";

/// What one request was answered with.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a header of ours is ASCII"))
    }
}

async fn request(router: &Router, method: Method, target: &str) -> Answer {
    let request = Request::builder().method(method).uri(target).body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

async fn ask(router: &Router, target: &str) -> Answer {
    let answer = request(router, Method::GET, target).await;
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"), "{answer:?}");
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
    answer
}

async fn body_of(router: &Router, target: &str) -> String {
    let answer = ask(router, target).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.body
}

/// Blocks of one stack: its (file, line) pairs, newest first, the bytes of each block, their number.
type Blocks<'a> = (&'a [(&'a str, u32)], u64, usize);

fn snapshot_of(stacks: &[Blocks<'_>]) -> Snapshot {
    let mut builder = SnapshotBuilder::new(25);
    for (frames, n_bytes, n_blocks) in stacks {
        let frames: Vec<_> =
            frames.iter().map(|(file, line)| builder.frame(Frame::new(*file, *line))).collect();
        let stack = builder.stack(&frames, None);
        for _ in 0..*n_blocks {
            builder.trace(0, *n_bytes, stack);
        }
    }
    builder.finish()
}

/// The memory of a service after `n_requests`: a cache that leaks one 1 KiB block by either of two
/// paths for each, a table that stays, and a pool that shrinks by half with the first request.
fn service_after(n_requests: usize) -> Snapshot {
    let pool_bytes = if n_requests == 0 { 4096 } else { 2048 };
    snapshot_of(&[
        (&[("src/cache.rs", 42), ("src/search.rs", 7)], 1024, n_requests.div_ceil(2)),
        (&[("src/cache.rs", 42), ("src/browse.rs", 9)], 1024, n_requests / 2),
        (&[("src/cache.rs", 50)], 512, 1),
        (&[("src/catalogue.rs", 17), ("src/main.rs", 3)], 256, 8),
        (&[("src/pool.rs", 5)], pool_bytes, 1),
    ])
}

/// A source that gives the snapshots 0, 1, 2, .. of [`service_after`] times four.
fn busy_service() -> Router {
    let n_calls = AtomicUsize::new(0);
    memtrace_http::router(move || {
        Ok::<_, String>(service_after(4 * n_calls.fetch_add(1, Ordering::Relaxed)))
    })
}

#[tokio::test]
async fn the_first_request_sets_the_baseline_and_says_so() {
    let expected = "\
0.00 new KiB, 4.00 total KiB, 0 new blocks, 1 total blocks
  File \"src/pool.rs\", line 5

0.00 new KiB, 2.00 total KiB, 0 new blocks, 8 total blocks
  File \"src/catalogue.rs\", line 17

0.00 new KiB, 0.50 total KiB, 0 new blocks, 1 total blocks
  File \"src/cache.rs\", line 50

note: first snapshot, kept as the baseline: growth shows from the next request on
";
    assert_eq!(body_of(&busy_service(), "/snapshots").await, expected);
}

#[tokio::test]
async fn what_a_sampled_service_holds_is_told_as_an_estimate() {
    let router = memtrace_http::router(|| {
        let mut builder = SnapshotBuilder::new(1);
        builder.set_sample_period(NonZeroU64::new(4096));
        let frame = builder.frame(Frame::new("src/cache.rs", 42));
        let stack = builder.stack(&[frame], None);
        builder.trace(0, 1024, stack);
        Ok::<_, String>(builder.finish())
    });
    let expected = "\
≈0.00 ±11.06 new KiB, ≈4.52 ±7.82 total KiB, ≈0 ±12 new blocks, ≈5 ±8 total blocks
  File \"src/cache.rs\", line 42

note: sampled, one block in 4096 B: figures are estimates, and ± is half the width of their 95 % intervals
";
    body_of(&router, "/snapshots").await;
    assert_eq!(body_of(&router, "/snapshots").await, expected);
}

#[tokio::test]
async fn later_requests_show_what_changed_most_since_the_first() {
    let router = busy_service();
    body_of(&router, "/snapshots").await;
    let expected = "\
4.00 new KiB, 4.00 total KiB, 4 new blocks, 4 total blocks
  File \"src/cache.rs\", line 42

-2.00 new KiB, 2.00 total KiB, 0 new blocks, 1 total blocks
  File \"src/pool.rs\", line 5

0.00 new KiB, 2.00 total KiB, 0 new blocks, 8 total blocks
  File \"src/catalogue.rs\", line 17

0.00 new KiB, 0.50 total KiB, 0 new blocks, 1 total blocks
  File \"src/cache.rs\", line 50

";
    assert_eq!(body_of(&router, "/snapshots").await, expected);

    let expected = "\
8.00 new KiB, 8.00 total KiB, 8 new blocks, 8 total blocks
  File \"src/cache.rs\", line 42

";
    assert_eq!(body_of(&router, "/snapshots?top=1").await, expected, "the baseline is the first");
}

#[tokio::test]
async fn rows_are_grouped_as_asked_for() {
    let router = busy_service();
    body_of(&router, "/snapshots?group_by=traceback").await;
    let expected = "\
4.00 new KiB, 4.50 total KiB, 4 new blocks, 5 total blocks
  File \"src/cache.rs\", line 0

";
    assert_eq!(body_of(&router, "/snapshots?group_by=filename&top=1").await, expected);

    let expected = "\
4.00 new KiB, 4.00 total KiB, 4 new blocks, 4 total blocks
  File \"src/search.rs\", line 7
  File \"src/cache.rs\", line 42

4.00 new KiB, 4.00 total KiB, 4 new blocks, 4 total blocks
  File \"src/browse.rs\", line 9
  File \"src/cache.rs\", line 42

";
    assert_eq!(body_of(&router, "/snapshots?top=2&group_by=traceback").await, expected);
}

#[tokio::test]
async fn source_lines_stand_below_places_whose_source_is_there() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/lib.rs");
    let last_line = concat!("pub use router", "::{ledger_router, router};");
    let text = std::fs::read_to_string(file).unwrap();
    let lineno = text.lines().zip(1..).find(|(line, _)| *line == last_line).unwrap().1;
    let router = memtrace_http::router(move || {
        Ok::<_, String>(snapshot_of(&[(&[(file, lineno)], 3072, 2), (&[(file, 1_000_000)], 1, 1)]))
    });
    let expected = format!(
        "\
0.00 new KiB, 6.00 total KiB, 0 new blocks, 2 total blocks
  File \"{file}\", line {lineno}
    {last_line}

0.00 new KiB, 0.00 total KiB, 0 new blocks, 1 total blocks
  File \"{file}\", line 1000000

{FIRST_NOTE}"
    );
    assert_eq!(body_of(&router, "/snapshots").await, expected);
}

#[tokio::test]
async fn notes_tell_why_source_lines_are_missing_and_that_nothing_is_traced() {
    let missing = MissingSource::NoDebugInfo;
    let router = memtrace_http::router(move || {
        let mut builder = SnapshotBuilder::new(25);
        let frame = builder.frame(Frame::new("<shop::cache::put>", 0).with_missing(missing));
        let stack = builder.stack(&[frame], None);
        builder.trace(0, 2048, stack);
        Ok::<_, String>(builder.finish())
    });
    let rows = "\
0.00 new KiB, 2.00 total KiB, 0 new blocks, 1 total blocks
  File \"<shop::cache::put>\", line 0

";
    let note = format!("note: {missing}\n");
    assert!(note.contains(r#"debug = "line-tables-only""#), "{note}");
    assert_eq!(body_of(&router, "/snapshots").await, format!("{rows}{note}{FIRST_NOTE}"));
    assert_eq!(body_of(&router, "/snapshots").await, format!("{rows}{note}"));

    let router = memtrace_http::router(|| Ok::<_, String>(snapshot_of(&[])));
    let note = "note: no block is traced, neither now nor in the baseline\n";
    assert_eq!(body_of(&router, "/snapshots").await, format!("{note}{FIRST_NOTE}"));
    assert_eq!(body_of(&router, "/snapshots").await, note);
}

#[tokio::test]
async fn a_refused_query_takes_no_snapshot() {
    let router = memtrace_http::router(|| -> Result<Snapshot, String> {
        panic!("a refused query must not get here")
    });
    for (query, sentence) in [
        ("top=banana", r#"top="banana" is not a number: use 1 to 10000"#),
        ("top=999999999", r#"top="999999999" is out of range: use 1 to 10000"#),
        ("top=0", r#"top="0" is out of range: use 1 to 10000"#),
        (
            "group_by=size",
            "group_by=\"size\" is unknown: use filename, lineno, traceback, cumulative-filename, \
             cumulative-lineno, inclusive-filename, inclusive-lineno, function, inclusive-function, \
             module, thread, domain",
        ),
        ("limit=10", r#"unknown parameter "limit": use top or group_by"#),
        ("top=1&top=1", "parameter top is given more than once: give it once"),
    ] {
        let answer = ask(&router, &format!("/snapshots?{query}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
        assert_eq!(answer.body, format!("{sentence}\n"));
    }
}

#[tokio::test]
async fn only_get_is_served() {
    let router = memtrace_http::router(|| -> Result<Snapshot, String> {
        panic!("another method must not get here")
    });
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::HEAD, Method::OPTIONS] {
        let answer = request(&router, method.clone(), "/snapshots").await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{answer:?}");
        assert_eq!(answer.header("allow"), Some("GET"), "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
        // An answer to HEAD has no body, whatever its status.
        let is_head = method == Method::HEAD;
        let sentence = format!("{method} is not supported here: use GET\n");
        assert_eq!(answer.body, if is_head { "" } else { &sentence });
    }
}

#[tokio::test]
async fn the_source_says_in_its_own_words_why_there_is_no_snapshot() {
    let router = memtrace_http::router(|| Err::<Snapshot, _>("tracing is off: call start first"));
    let answer = ask(&router, "/snapshots").await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert_eq!(answer.body, "tracing is off: call start first\n");
}

#[tokio::test]
async fn no_error_takes_the_baseline_away() {
    let n_calls = AtomicUsize::new(0);
    let router = memtrace_http::router(move || match n_calls.fetch_add(1, Ordering::Relaxed) {
        0 => Err("not yet"),
        1 => panic_any("before the first snapshot"),
        2 => Ok(service_after(10)),
        3 => Err("for a moment"),
        4 => panic_any("between two snapshots"),
        _ => Ok(service_after(13)),
    });
    for status in [StatusCode::CONFLICT, StatusCode::INTERNAL_SERVER_ERROR] {
        assert_eq!(ask(&router, "/snapshots").await.status, status);
    }
    assert!(body_of(&router, "/snapshots?top=1").await.ends_with(FIRST_NOTE));

    assert_eq!(ask(&router, "/snapshots?top=-1").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(ask(&router, "/snapshots").await.status, StatusCode::CONFLICT);
    let answer = ask(&router, "/snapshots").await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(
        answer.body,
        "taking the snapshot panicked, its message is in the log of the service\n"
    );

    let expected = "\
3.00 new KiB, 13.00 total KiB, 3 new blocks, 13 total blocks
  File \"src/cache.rs\", line 42

";
    assert_eq!(body_of(&router, "/snapshots?top=1").await, expected);
}

/// A door that a snapshot source waits at, and a count of those who do.
#[derive(Default)]
struct Door {
    state: Mutex<DoorState>,
    changed: Condvar,
}

#[derive(Default)]
struct DoorState {
    is_open: bool,
    n_inside: usize,
    max_inside: usize,
    n_entered: usize,
}

impl Door {
    /// Counts the caller in, waits until the door is open, counts it out.
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.n_inside += 1;
        state.n_entered += 1;
        state.max_inside = state.max_inside.max(state.n_inside);
        self.changed.notify_all();
        let mut state = self.changed.wait_while(state, |state| !state.is_open).unwrap();
        state.n_inside -= 1;
    }

    fn open(&self) {
        self.state.lock().unwrap().is_open = true;
        self.changed.notify_all();
    }

    fn read<T>(&self, field: impl Fn(&DoorState) -> T) -> T {
        field(&self.state.lock().unwrap())
    }

    /// Waits until `n_entered` callers have come, without blocking the thread.
    async fn until_entered(&self, n_entered: usize) {
        let all_in = async {
            while self.read(|state| state.n_entered) < n_entered {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        within_seconds(all_in).await;
    }
}

async fn within_seconds<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it hangs")
}

fn behind(door: &Arc<Door>) -> Router {
    let door = Arc::clone(door);
    memtrace_http::router(move || {
        door.pass();
        Ok::<_, String>(service_after(1))
    })
}

fn spawn_ask(router: &Router) -> tokio::task::JoinHandle<Answer> {
    let router = router.clone();
    tokio::spawn(async move { ask(&router, "/snapshots?top=1").await })
}

// One thread serves everything: a snapshot that ran on it would let no other request through.
#[tokio::test(flavor = "current_thread")]
async fn a_slow_snapshot_blocks_no_other_request() {
    let door = Arc::new(Door::default());
    let router = behind(&door).route("/health", get(|| async { "well" }));
    let slow = spawn_ask(&router);
    door.until_entered(1).await;

    let health = within_seconds(request(&router, Method::GET, "/health")).await;
    assert_eq!(health.body, "well");
    let refused = within_seconds(ask(&router, "/snapshots?top=x")).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "a wrong query waits for no turn");

    door.open();
    assert_eq!(within_seconds(slow).await.unwrap().status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_snapshot_at_a_time_a_handful_wait_and_the_rest_are_sent_away() {
    let door = Arc::new(Door::default());
    let router = behind(&door);
    let mut asking = vec![spawn_ask(&router)];
    door.until_entered(1).await;

    // One is served, four have room to wait; 15 of these 19 are turned away at once.
    asking.extend((1..20).map(|_| spawn_ask(&router)));
    let sent_away = async {
        while asking.iter().filter(|task| task.is_finished()).count() < 15 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within_seconds(sent_away).await;
    assert_eq!(door.read(|state| (state.n_inside, state.n_entered)), (1, 1));
    door.open();

    let (mut n_served, mut n_first, mut n_sent_away) = (0, 0, 0);
    for task in asking {
        let answer = within_seconds(task).await.unwrap();
        match answer.status {
            StatusCode::OK => {
                n_served += 1;
                n_first += usize::from(answer.body.ends_with(FIRST_NOTE));
            }
            status => {
                n_sent_away += 1;
                assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
                assert_eq!(answer.header("retry-after"), Some("1"));
                assert_eq!(
                    answer.body,
                    "a snapshot is being taken and other requests wait for the next one: come \
                     back in 1 s\n"
                );
            }
        }
    }
    assert_eq!((n_served, n_first, n_sent_away), (5, 1, 15));
    assert_eq!(door.read(|state| state.max_inside), 1);
    assert_eq!(
        ask(&router, "/snapshots").await.status,
        StatusCode::OK,
        "the places are free again"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_lets_no_second_snapshot_start() {
    let door = Arc::new(Door::default());
    let router = behind(&door);
    let gone = spawn_ask(&router);
    door.until_entered(1).await;
    gone.abort();
    assert!(within_seconds(gone).await.unwrap_err().is_cancelled());

    // The work of the request that went away goes on: the next one waits behind it.
    let next = spawn_ask(&router);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(door.read(|state| (state.n_inside, state.n_entered)), (1, 1));
    door.open();
    let answer = within_seconds(next).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert!(!answer.body.contains(FIRST_NOTE), "the abandoned snapshot became the baseline");
    assert_eq!(door.read(|state| (state.max_inside, state.n_entered)), (1, 2));
}

#[tokio::test]
async fn nested_in_a_service_it_answers_over_tcp() {
    #[derive(Clone)]
    struct AppState(&'static str);

    let app: Router = Router::<AppState>::new()
        .route("/name", get(|state: axum::extract::State<AppState>| async move { state.0.0 }))
        .with_state(AppState("shop"))
        .nest("/memory", busy_service());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, app).await });

    let exchange = async |request: &str| {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    };
    let get = "GET /memory/snapshots?top=1 HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n";
    let first = within_seconds(exchange(get)).await;
    assert!(first.starts_with("HTTP/1.1 200 OK\r\n") && first.ends_with(FIRST_NOTE), "{first}");

    let second = within_seconds(exchange(get)).await;
    let (head, body) = second.split_once("\r\n\r\n").unwrap();
    for line in [
        "content-type: text/plain; charset=utf-8",
        "x-content-type-options: nosniff",
        "cache-control: no-store",
        &format!("content-length: {}", body.len()),
    ] {
        assert!(head.lines().any(|other| other == line), "{line} is missing in {head}");
    }
    assert!(body.starts_with("4.00 new KiB, 4.00 total KiB, 4 new blocks, 4 total"), "{body}");

    let head = get.replace("GET", "HEAD");
    let refused = within_seconds(exchange(&head)).await;
    assert!(refused.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{refused}");
    server.abort();
}
