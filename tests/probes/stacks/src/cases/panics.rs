//! Allocations around panics.

use crate::kept::Kept;
use std::hint::black_box;
use std::panic::catch_unwind;
use std::sync::Mutex;

#[inline(never)]
pub fn inside_catch_unwind() -> Kept {
    let block = catch_unwind(inside); // calls: catch unwind/1
    Kept::vec(black_box(block).expect("no panic"))
}

#[inline(never)]
fn inside() -> Vec<u8> {
    let block = vec![14; black_box(3001)]; // site: catch unwind
    black_box(block)
}

static FROM_DROP: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct AllocatesInDrop;

impl Drop for AllocatesInDrop {
    #[inline(never)]
    fn drop(&mut self) {
        let block = vec![15; black_box(3003)]; // site: unwinding
        *FROM_DROP.lock().expect("not poisoned") = black_box(block);
    }
}

#[inline(never)]
pub fn while_unwinding() -> Kept {
    let outcome = catch_unwind(panics); // calls: unwinding/2
    assert!(black_box(outcome).is_err());
    Kept::vec(std::mem::take(&mut *FROM_DROP.lock().expect("not poisoned")))
}

#[inline(never)]
fn panics() {
    let _guard = AllocatesInDrop;
    panic!("as it should");
} // calls: unwinding/1
