//! The traffic: a warm-up, a first look at the memory, the load, and a second look.

use std::io;
use std::net::SocketAddr;

use crate::app::N_PRODUCTS;
use crate::client::Client;
use crate::thumbnails::N_KEPT;

/// How many clients send at the same time, each over a connection of its own.
const N_CLIENTS: u32 = 4;

/// How many requests each of them sends after the first look at the memory.
const REQUESTS_PER_CLIENT: u32 = 3_000;

/// How many requests each of them sends before it.
const WARM_UP_PER_CLIENT: u32 = 100;

/// Where the service answers with what has grown.
const SNAPSHOTS: &str = "/memory/snapshots?top=10";

/// What customers look for.
const QUERIES: [&str; 6] = ["oak+lamp", "rug", "folding+chair", "brass", "nordic+shelf", "mirror"];

/// The time at which the front end sends its first request, in milliseconds.
const FIRST_REQUEST_MS: u64 = 1_767_225_600_000;

/// Sends all the traffic and returns the report on what has grown since the warm-up.
///
/// **Errors.** The first request that fails or is answered with anything but 200.
pub(crate) async fn run(addr: SocketAddr) -> io::Result<String> {
    // After this everything that is made once is there, and the thumbnail cache is full.
    let mut client = Client::connect(addr).await?;
    for product_id in 0..N_KEPT {
        client.get(&format!("/products/{product_id}/thumbnail")).await?;
    }
    send_from_all_clients(addr, 0..WARM_UP_PER_CLIENT).await?;

    client.get(SNAPSHOTS).await?;
    send_from_all_clients(addr, WARM_UP_PER_CLIENT..WARM_UP_PER_CLIENT + REQUESTS_PER_CLIENT)
        .await?;
    let body = client.get(SNAPSHOTS).await?;
    String::from_utf8(body).map_err(io::Error::other)
}

/// Sends the requests with these numbers from each client, all clients at once.
async fn send_from_all_clients(addr: SocketAddr, numbers: std::ops::Range<u32>) -> io::Result<()> {
    let clients: Vec<_> = (0..N_CLIENTS)
        .map(|client_id| tokio::spawn(send(addr, client_id, numbers.clone())))
        .collect();
    for client in clients {
        client.await.map_err(io::Error::other)??;
    }
    Ok(())
}

async fn send(addr: SocketAddr, client_id: u32, numbers: std::ops::Range<u32>) -> io::Result<()> {
    let mut client = Client::connect(addr).await?;
    for number in numbers {
        client.get(&target(number * N_CLIENTS + client_id)).await?;
    }
    Ok(())
}

/// What the request with this number asks for: mostly searches and thumbnails, and now and then
/// the whole catalogue or the report.
fn target(number: u32) -> String {
    match number % 10 {
        0 => "/products".to_owned(),
        1 => "/report".to_owned(),
        2..=4 => format!("/products/{}/thumbnail", number * 7 % N_PRODUCTS),
        _ => {
            let query = QUERIES[number as usize % QUERIES.len()];
            let page = 1 + number % 4;
            // What jQuery's `cache: false` does: a time that each request counts up.
            format!("/search?q={query}&page={page}&_={}", FIRST_REQUEST_MS + u64::from(number))
        }
    }
}
