//! Loom's atomics under the names and with the constructors of the language's.
//!
//! Loom's own cannot be made in a constant; these make theirs at the first access, which must come
//! before there are threads.
//!
//! Loom tries another order of two accesses of one atomic only if no third came between them, where
//! a load counts that the second thread made itself: one that loads and then exchanges is never tried
//! before an earlier load of another thread. So each access here first changes a companion, relaxed;
//! then all accesses of one atomic depend on each other, and every order is tried.

pub mod atomic {
    use std::cell::{Cell, OnceCell};

    use loom::sync::atomic as explored;
    pub use loom::sync::atomic::Ordering;

    // A hint only, see the crate's documentation; and figures that are not looked at.
    pub use std::sync::atomic::{AtomicU8, AtomicU16, AtomicUsize};

    /// What is wrong with the orderings.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub enum Orders {
        AsWritten,
        /// No order among `SeqCst` accesses.
        NoSeqCst,
        AllRelaxed,
    }

    thread_local! {
        // All threads of a model run on one thread of the system.
        static ORDERS: Cell<Orders> = const { Cell::new(Orders::AsWritten) };
    }

    /// Sets that for all models on this thread.
    pub fn set_orders(orders: Orders) {
        ORDERS.set(orders);
    }

    fn has_fence(order: Ordering) -> bool {
        order == Ordering::SeqCst && ORDERS.get() == Orders::AsWritten
    }

    /// A read: with what is written before a `SeqCst` one in place.
    fn reading<R>(order: Ordering, access: impl FnOnce(Ordering) -> R) -> R {
        if has_fence(order) {
            explored::fence(Ordering::SeqCst);
        }
        access(match order {
            _ if ORDERS.get() == Orders::AllRelaxed => Ordering::Relaxed,
            Ordering::SeqCst => Ordering::Acquire,
            other => other,
        })
    }

    /// A write, or a read and a write: a `SeqCst` one comes before what is read then.
    fn writing<R>(order: Ordering, is_store: bool, access: impl FnOnce(Ordering) -> R) -> R {
        let result = access(match order {
            _ if ORDERS.get() == Orders::AllRelaxed => Ordering::Relaxed,
            Ordering::SeqCst if is_store => Ordering::Release,
            Ordering::SeqCst => Ordering::AcqRel,
            other => other,
        });
        if has_fence(order) {
            explored::fence(Ordering::SeqCst);
        }
        result
    }

    macro_rules! atomic {
        ($name:ident $(<$t:ident>)?, $value:ty) => {
            #[derive(Debug)]
            pub struct $name $(<$t>)? {
                initial: $value,
                explored: OnceCell<(explored::$name $(<$t>)?, explored::AtomicBool)>,
            }

            #[expect(unsafe_code, reason = "loom runs one thread at a time")]
            // SAFETY: the threads of a model take turns on one thread of the system.
            unsafe impl $(<$t>)? Sync for $name $(<$t>)? {}

            impl $(<$t>)? $name $(<$t>)? {
                pub const fn new(initial: $value) -> Self {
                    Self { initial, explored: OnceCell::new() }
                }

                fn explored(&self) -> &explored::$name $(<$t>)? {
                    let (explored, companion) = self.explored.get_or_init(|| {
                        (explored::$name::new(self.initial), explored::AtomicBool::new(false))
                    });
                    companion.swap(true, Ordering::Relaxed);
                    explored
                }

                pub fn load(&self, order: Ordering) -> $value {
                    reading(order, |order| self.explored().load(order))
                }

                pub fn store(&self, value: $value, order: Ordering) {
                    writing(order, true, |order| self.explored().store(value, order));
                }

                pub fn swap(&self, value: $value, order: Ordering) -> $value {
                    writing(order, false, |order| self.explored().swap(value, order))
                }

                pub fn compare_exchange(
                    &self,
                    current: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    writing(success, false, |success| {
                        self.explored().compare_exchange(current, new, success, failure)
                    })
                }

                // Without its own failures: they only run the loop around it once more.
                pub fn compare_exchange_weak(
                    &self,
                    current: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    self.compare_exchange(current, new, success, failure)
                }
            }
        };
    }

    atomic!(AtomicBool, bool);
    atomic!(AtomicU32, u32);
    atomic!(AtomicU64, u64);
    atomic!(AtomicPtr<T>, *mut T);

    impl AtomicU64 {
        pub fn fetch_or(&self, value: u64, order: Ordering) -> u64 {
            writing(order, false, |order| self.explored().fetch_or(value, order))
        }
    }

    impl Default for AtomicU32 {
        fn default() -> Self {
            Self::new(0)
        }
    }

    impl Default for AtomicU64 {
        fn default() -> Self {
            Self::new(0)
        }
    }

    impl<T> Default for AtomicPtr<T> {
        fn default() -> Self {
            Self::new(std::ptr::null_mut())
        }
    }
}
