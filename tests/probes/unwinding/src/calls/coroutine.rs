//! Coroutines: four on each thread, each suspended in the middle of a path of its own and resumed
//! from wherever the thread is.

use super::Next;
use crate::comparison::check;
use crate::descent::descend;
use crate::kind::Kind;
use crate::plan::{Place, Plans, Step};
use corosensei::{Coroutine, CoroutineResult};
use std::cell::RefCell;

const N_COROUTINES: u64 = 4;

type Suspended = Coroutine<(), (), ()>;

thread_local! {
    /// `None` while it runs.
    static COROUTINES: RefCell<Vec<Option<Suspended>>> = const { RefCell::new(Vec::new()) };
}

/// Makes the coroutines of the current thread.
pub(crate) fn begin(seed: u64) {
    let coroutines = (1..=N_COROUTINES).map(|n| Some(coroutine(seed ^ n << 32))).collect();
    COROUTINES.set(coroutines);
}

/// Ends them.
pub(crate) fn end() {
    for mut coroutine in COROUTINES.take().into_iter().flatten() {
        // SAFETY: what the frames hold may be leaked: memory that nothing refers to.
        unsafe { coroutine.force_reset() };
    }
}

fn coroutine(seed: u64) -> Suspended {
    Coroutine::new(move |yielder, ()| {
        let mut suspended = Plans::new(Place::SuspendedCoroutine, seed);
        let mut plans = Plans::new(Place::Coroutine, !seed);
        loop {
            descend(&suspended.next(), Kind::Coroutine, &mut || {
                yielder.suspend(());
                check(Kind::Coroutine);
                // Resumed from elsewhere, with the same frames of its own.
                yielder.suspend(());
            });
            descend(&plans.next(), Kind::Coroutine, &mut || {});
        }
    })
}

/// Resumes a coroutine until it is suspended, then goes on.
#[inline(never)]
pub(crate) fn resume(step: Step, next: Next<'_>) {
    let place = step.below(N_COROUTINES) as usize;
    let taken = COROUTINES.with_borrow_mut(|all| all.get_mut(place).and_then(Option::take));
    // It may be this path's own, farther out.
    if let Some(mut coroutine) = taken {
        let result = coroutine.resume(());
        assert!(matches!(result, CoroutineResult::Yield(())));
        COROUTINES.with_borrow_mut(|all| all[place] = Some(coroutine));
    }
    next();
}
