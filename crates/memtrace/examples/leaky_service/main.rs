//! A product search service that leaks, and finds its own leak over HTTP while it runs.
//!
//! ```text
//! cargo run --release --example leaky_service             # drives itself, prints the report, judges it
//! cargo run --release --example leaky_service -- --serve  # stays up: ask it with curl
//! ```
//!
//! Three things in here concern memtrace: the `#[global_allocator]` line, `memtrace::start(25)`,
//! and the `.nest("/memory", ..)` line that adds `GET /memory/snapshots?top=10`. All else is an
//! ordinary service: endpoints that allocate much and keep nothing ([`catalogue`], [`search`],
//! [`report`]), a cache that fills and then stays as it is ([`thumbnails`]), and a cache that only
//! ever grows ([`cache`]). Without arguments the program sends itself some thousand requests
//! ([`load`]), and exits with 1 unless the first row of the report is the leaking line
//! ([`verdict`]).

mod app;
mod cache;
mod catalogue;
mod client;
mod load;
mod report;
mod search;
mod thumbnails;
mod verdict;

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use axum::Router;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;

#[global_allocator]
static ALLOC: memtrace::Alloc = memtrace::Alloc::system();

/// How many frames of each calling stack are recorded.
const N_FRAMES: u16 = 25;

const USAGE: &str = "\
usage: leaky_service                  drive the service, print the report, judge it
       leaky_service --serve [ADDR]   serve until interrupted (ADDR: 127.0.0.1:3000)";

/// What the command line asks for.
enum Command {
    Drive,
    Serve(SocketAddr),
    Help,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let command = match parse_command(&arguments) {
        Ok(command) => command,
        Err(reason) => {
            eprintln!("{reason}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("leaky_service: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse_command(arguments: &[String]) -> Result<Command, String> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => Ok(Command::Drive),
        ["--help" | "-h"] => Ok(Command::Help),
        ["--serve"] => Ok(Command::Serve(SocketAddr::from((Ipv4Addr::LOCALHOST, 3000)))),
        ["--serve", addr] => addr
            .parse()
            .map(Command::Serve)
            .map_err(|_| format!("{addr:?} is not an address such as 127.0.0.1:3000")),
        ["--serve", _, extra, ..] | [extra, ..] => Err(format!("unknown argument {extra:?}")),
    }
}

fn run(command: Command) -> Result<ExitCode, Box<dyn Error>> {
    if matches!(command, Command::Help) {
        println!("{USAGE}");
        return Ok(ExitCode::SUCCESS);
    }
    if let memtrace::Started::Already { limit, .. } = memtrace::start(N_FRAMES)? {
        eprintln!("tracing was on before main, {limit} frames deep: going on with that");
    }
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        match command {
            Command::Help => Ok(ExitCode::SUCCESS),
            Command::Serve(addr) => serve(addr).await,
            Command::Drive => drive().await,
        }
    })
}

/// The whole service: the shop, and what memtrace has to say about it.
fn service() -> Router {
    app::router(app::Shop::open()).nest("/memory", memtrace_http::router(memtrace::take_snapshot))
}

/// Serves on `addr` until the process is interrupted.
async fn serve(addr: SocketAddr) -> Result<ExitCode, Box<dyn Error>> {
    let listener = TcpListener::bind(addr)
        .await
        .map_err(|error| format!("cannot listen on {addr}: {error}"))?;
    let addr = listener.local_addr()?;
    println!("http://{addr}/search?q=oak+lamp&page=1");
    println!("http://{addr}/products");
    println!("http://{addr}/products/7/thumbnail");
    println!("http://{addr}/report");
    println!("http://{addr}/memory/snapshots?top=10");
    axum::serve(listener, service()).await?;
    Ok(ExitCode::SUCCESS)
}

/// Serves on a free port of this host, sends the load, prints the report and judges it.
async fn drive() -> Result<ExitCode, Box<dyn Error>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let addr = listener.local_addr()?;
    // Requests and responses are small and wait for each other: never hold back a segment.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            eprintln!("cannot set TCP_NODELAY, going on without: {error}");
        }
    });
    tokio::spawn(async move { axum::serve(listener, service()).await });

    let body = load::run(addr).await?;
    print!("{body}");
    match verdict::judge(&body) {
        Ok(leak) => {
            println!("{leak}");
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            eprintln!("leaky_service: {error}");
            Ok(ExitCode::FAILURE)
        }
    }
}
