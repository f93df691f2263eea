//! What the service serves: orders, put as JSON, found by number or by customer, answered as JSON.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::routing::get;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const JSON: [(HeaderName, &str); 1] = [(CONTENT_TYPE, "application/json")];

/// All orders, by number.
#[derive(Debug)]
pub(super) struct Orders(Vec<Mutex<Order>>);

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Order {
    number: u32,
    customer: u32,
    address: String,
    lines: Vec<Line>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Line {
    article: String,
    n_pieces: u32,
    price_cents: u64,
    remarks: Vec<String>,
}

/// What is answered when an order was put.
#[derive(Serialize)]
struct Receipt {
    number: u32,
    n_pieces: u32,
    total: String,
}

#[derive(Deserialize)]
struct OfCustomer {
    customer: u32,
}

impl Orders {
    pub(super) const N_ORDERS: u32 = 512;
    pub(super) const N_CUSTOMERS: u32 = 64;

    pub(super) fn new() -> Self {
        Self((0..Self::N_ORDERS).map(|number| Mutex::new(Order::new(number))).collect())
    }

    /// Returns each order as it is put.
    pub(super) fn bodies(&self) -> Vec<Vec<u8>> {
        let numbers = 0..Self::N_ORDERS;
        let body = |number| serde_json::to_vec(self.find(number).as_deref()?).ok();
        numbers.map(|number| body(number).unwrap_or_default()).collect()
    }

    fn find(&self, number: u32) -> Option<MutexGuard<'_, Order>> {
        let order = self.0.get(number as usize)?;
        Some(order.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Order {
    /// The order of a number is the same each time it is put, so that answers do not depend on
    /// which request comes first.
    fn new(number: u32) -> Self {
        let line = |i: u32| Line {
            article: format!("article {}/{i}", number * 31 % 997),
            n_pieces: 1 + (number + i) % 4,
            price_cents: u64::from(199 + number * 17 + i * 250),
            remarks: (0..(number + i) % 3).map(|n| format!("remark {n} on line {i}")).collect(),
        };
        Self {
            number,
            customer: number % Orders::N_CUSTOMERS,
            address: format!("{number} Example Street, 1{:04} Town", number * 7),
            lines: (0..2 + number % 5).map(line).collect(),
        }
    }

    fn receipt(&self) -> Receipt {
        let of = |line: &Line| u64::from(line.n_pieces) * line.price_cents;
        let cents: u64 = self.lines.iter().map(of).sum();
        Receipt {
            number: self.number,
            n_pieces: self.lines.iter().map(|line| line.n_pieces).sum(),
            total: format!("{}.{:02}", cents / 100, cents % 100),
        }
    }
}

/// The endpoints of the service.
pub(super) fn router(orders: Arc<Orders>) -> Router {
    Router::new()
        .route("/orders", get(of_customer))
        .route("/orders/{number}", get(one).put(put))
        .with_state(orders)
}

type Answer = Result<([(HeaderName, &'static str); 1], Vec<u8>), StatusCode>;

async fn one(State(orders): State<Arc<Orders>>, Path(number): Path<u32>) -> Answer {
    let order = orders.find(number).ok_or(StatusCode::NOT_FOUND)?.clone();
    answer(&order)
}

async fn of_customer(State(orders): State<Arc<Orders>>, query: Query<OfCustomer>) -> Answer {
    let numbers = (query.customer..Orders::N_ORDERS).step_by(Orders::N_CUSTOMERS as usize);
    let found: Vec<Order> =
        numbers.filter_map(|number| Some(orders.find(number)?.clone())).collect();
    answer(&found)
}

async fn put(State(orders): State<Arc<Orders>>, Path(number): Path<u32>, body: Bytes) -> Answer {
    let order: Order = serde_json::from_slice(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
    let receipt = order.receipt();
    *orders.find(number).ok_or(StatusCode::NOT_FOUND)? = order;
    answer(&receipt)
}

fn answer(what: &impl Serialize) -> Answer {
    let json = serde_json::to_vec(what).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok((JSON, json))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_that_is_put_again_is_the_same() {
        let orders = Orders::new();
        let bodies = orders.bodies();
        assert_eq!(bodies.len(), 512);
        for (number, body) in (0..).zip(&bodies) {
            let order: Order = serde_json::from_slice(body).unwrap();
            assert_eq!((order.number, order.customer), (number, number % 64));
        }
        *orders.find(7).unwrap() = serde_json::from_slice(&bodies[7]).unwrap();
        assert_eq!(orders.bodies(), bodies);
    }
}
