//! Where requests wait for their turn: one is served, a handful wait, the rest are sent away.
//!
//! Mechanism: a request first takes one of [`N_PLACES`] places or fails at once, then locks the
//! value that all requests share, in the order of arrival. Both go with the work onto a thread for
//! blocking work.
//!
//! - I1: at most one piece of work runs at a time, also when the client of a request has gone away
//!   while its work ran: the place and the lock belong to the work, not to the waiting future.
//! - I2: a piece of work that panics gives back its place and the lock, and poisons nothing.
//!
//! Cost: nothing while nobody asks.

use std::sync::Arc;

use tokio::sync::{Mutex, Semaphore};

use crate::failure::Failure;

/// How many requests wait for the one that is served, at most.
const N_WAITING: usize = 4;

/// The one that is served, and those that wait.
const N_PLACES: usize = 1 + N_WAITING;

/// A value that one request at a time may work on.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    /// What is taken when it is a request's turn.
    what: &'static str,
    places: Arc<Semaphore>,
    value: Arc<Mutex<T>>,
}

// Derived, it would ask for `T: Clone`.
impl<T> Clone for Queue<T> {
    fn clone(&self) -> Queue<T> {
        let Queue { what, places, value } = self;
        Queue { what, places: Arc::clone(places), value: Arc::clone(value) }
    }
}

impl<T: Send + 'static> Queue<T> {
    /// An empty queue before `value`, which takes what is called `what`.
    pub(crate) fn new(what: &'static str, value: T) -> Queue<T> {
        let places = Arc::new(Semaphore::new(N_PLACES));
        Queue { what, places, value: Arc::new(Mutex::new(value)) }
    }

    /// Runs `work` on a thread for blocking work when its turn comes.
    ///
    /// **Errors.** [`Failure::QueueFull`] at once if too many wait already, what `work` returns,
    /// [`Failure::Panicked`] if it panics, [`Failure::ShuttingDown`] if it could not run because
    /// the runtime stops.
    pub(crate) async fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut T) -> Result<R, Failure> + Send + 'static,
    ) -> Result<R, Failure> {
        let what = self.what;
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| Failure::QueueFull { what })?;
        let mut value = Arc::clone(&self.value).lock_owned().await;
        let task = tokio::task::spawn_blocking(move || {
            let result = work(&mut value);
            drop((value, place));
            result
        });
        match task.await {
            Ok(result) => result,
            Err(error) if error.is_panic() => Err(Failure::Panicked { what }),
            Err(_) => Err(Failure::ShuttingDown { what }),
        }
    }
}
