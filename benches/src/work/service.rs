//! An HTTP service, as axum makes them, and the clients that load it.
//!
//! Two clients, each a thread with a connection over loopback, send their next request when the last
//! one is answered: as many requests are under way as the machine of the figures has CPUs. They
//! allocate next to nothing themselves, so that the allocations counted and traced are the service's:
//! bodies parsed and written, and what hyper and tokio need.

mod client;
mod orders;

use crate::measurement::Latency;
use client::Client;
use orders::Orders;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

const N_CLIENTS: u32 = 2;
/// Requests of each client in a batch.
const N_REQUESTS: u32 = 500;

/// The service, which runs until it is dropped.
#[derive(Debug)]
pub(super) struct Service {
    addr: SocketAddr,
    /// How long the requests of the last batch took, in nanoseconds.
    latencies: Mutex<Vec<u64>>,
    /// Bodies to send: one for each order.
    bodies: Vec<Vec<u8>>,
    /// Ends the service when it is dropped.
    _runtime: Runtime,
}

impl Service {
    /// Starts it on a free port of loopback.
    ///
    /// **Errors**: if there is no port or no thread for it.
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
        let addr = listener.local_addr()?;
        let orders = Arc::new(Orders::new());
        let bodies = orders.bodies();
        runtime.spawn(async move { axum::serve(listener, orders::router(orders)).await });
        Ok(Self { addr, latencies: Mutex::default(), bodies, _runtime: runtime })
    }

    /// Sends a batch of requests and returns the sum of what was answered.
    ///
    /// **Panics**: if a request fails, since there is nothing to measure then.
    pub(super) fn run_batch(&self) -> u64 {
        thread::scope(|scope| {
            let clients: Vec<_> =
                (0..N_CLIENTS).map(|client| scope.spawn(move || self.load(client))).collect();
            let mut all = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
            all.clear();
            let mut checksum = 0;
            for client in clients {
                let (sum, latencies) = client.join().expect("a client does not panic");
                checksum += sum;
                all.extend(latencies);
            }
            checksum
        })
    }

    /// Returns how long the requests of the last batch took; `None` before the first.
    pub(super) fn latency(&self) -> Option<Latency> {
        let mut all = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        all.sort_unstable();
        let at = |percent: usize| Some(*all.get(all.len() * percent / 100)? as f64);
        Some(Latency { n_requests: all.len() as u64, p50_ns: at(50)?, p99_ns: at(99)? })
    }

    fn load(&self, number: u32) -> (u64, Vec<u64>) {
        let mut latencies = Vec::with_capacity(N_REQUESTS as usize);
        let mut client = Client::connect(self.addr).expect("the service listens");
        let mut checksum = 0;
        for i in 0..N_REQUESTS {
            // Orders that only this client changes.
            let order = (i * 7 * N_CLIENTS + number) % Orders::N_ORDERS;
            let answer = match i % 10 {
                0 | 1 => client.put(order, &self.bodies[order as usize]),
                2 => client.get(format_args!("/orders?customer={}", order % Orders::N_CUSTOMERS)),
                _ => client.get(format_args!("/orders/{order}")),
            };
            let (sum, elapsed) = answer.expect("the service answers");
            checksum += sum;
            latencies.push(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX));
        }
        (checksum, latencies)
    }
}
