//! Starts and stops tracing as its argument says, and prints what it is told, one line each.

use memtrace::{is_tracing, sample_period, start, stop, take_snapshot, traceback_limit};

#[global_allocator]
static ALLOC: memtrace::Alloc = memtrace::Alloc::system();

/// Size of a block that is allocated before `main`, in bytes.
const SIZE_BEFORE_MAIN: usize = 4097;

#[expect(unsafe_code, reason = "only the loader runs functions before `main`")]
// SAFETY: the section holds pointers to functions, which the loader calls once each, after the
// libraries this one needs have been set up.
#[unsafe(link_section = ".init_array")]
#[used]
static ALLOCATE_BEFORE_MAIN: extern "C" fn() = {
    extern "C" fn allocate() {
        std::hint::black_box(vec![1_u8; SIZE_BEFORE_MAIN]).leak();
    }
    allocate
};

fn main() {
    let script = std::env::args().nth(1).expect("one argument: commands with commas between");
    for command in script.split(',') {
        let (name, argument) = command.split_once('=').unwrap_or((command, ""));
        match name {
            "start" => match start(argument.parse().expect("a number of frames")) {
                Ok(started) => println!("{started:?}"),
                Err(error) => println!("error: {error}"),
            },
            "stop" => stop(),
            "state" => println!("tracing: {}, limit: {}", is_tracing(), traceback_limit()),
            "period" => println!("{:?}", sample_period()),
            "snapshot" => match take_snapshot() {
                Ok(snapshot) => {
                    let limit = snapshot.traceback_limit();
                    let is_older = |size: u64| size == SIZE_BEFORE_MAIN as u64;
                    let n_older = snapshot.traces().filter(|trace| is_older(trace.size)).count();
                    println!("limit: {limit}, blocks from before main: {n_older}");
                }
                Err(error) => println!("error: {error}"),
            },
            _ => panic!("no such command: {name:?}"),
        }
    }
}
