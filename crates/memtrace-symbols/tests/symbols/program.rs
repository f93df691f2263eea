//! The program that the tests compile. It prints, for each place marked below, its name and the
//! address that the call there returns to.

use std::hint::black_box;

mod cache {
    use std::hint::black_box;

    #[inline(never)]
    pub fn insert() -> usize {
        black_box(crate::return_addr(1)) // MARK insert
    }

    #[inline(never)]
    pub fn outer() -> usize {
        black_box(middle()) // MARK outer
    }

    #[inline(always)]
    fn middle() -> usize {
        black_box(innermost()) // MARK middle
    }

    #[inline(always)]
    fn innermost() -> usize {
        black_box(crate::return_addr(2)) // MARK innermost
    }

    pub struct Table<K>(pub K);

    impl<K> Table<K> {
        #[inline(never)]
        pub fn put(&mut self) -> usize {
            black_box(crate::return_addr(3)) // MARK generic
        }
    }
}

#[inline(never)]
fn through_the_library(flag: Option<u8>) -> usize {
    let returned = flag.map(|_| black_box(crate::return_addr(4))); // MARK library
    black_box(returned).unwrap_or(0)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn plain_name() -> usize {
    black_box(return_addr(5)) // MARK plain
}

/// The address that this function returns to. The frame pointer leads to it. Each caller passes a
/// number of its own: the compiler makes one function of two that have the same code.
#[inline(never)]
fn return_addr(caller: u32) -> usize {
    black_box(caller);
    let addr: usize;
    // SAFETY: the program is compiled with frame pointers, so the word above the saved one is the
    // return address.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        std::arch::asm!("mov {}, [rbp + 8]", out(reg) addr);
        #[cfg(target_arch = "aarch64")]
        std::arch::asm!("ldr {}, [x29, #8]", out(reg) addr);
    }
    addr
}

fn main() {
    println!("insert {}", cache::insert());
    println!("outer {}", cache::outer());
    println!("generic {}", cache::Table(7_u32).put());
    println!("library {}", through_the_library(black_box(Some(1))));
    println!("plain {}", plain_name());
}
