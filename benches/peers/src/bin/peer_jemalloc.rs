//! Configuration with jemalloc and its profiler, which `_RJEM_MALLOC_CONF` in the environment
//! switches on. If the request names a number of bytes to sample, it must be on.

use memtrace_benches::Request;
use std::error::Error;
use std::ptr;

#[global_allocator]
static ALLOC: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> Result<(), Box<dyn Error>> {
    let request = Request::from_args()?;
    let is_wanted = request.tracing.sample_bytes.is_some();
    if is_wanted != is_profiling()? {
        return Err("_RJEM_MALLOC_CONF does not say what the request says".into());
    }
    println!("{}", request.run(|| None)?);
    Ok(())
}

fn is_profiling() -> Result<bool, Box<dyn Error>> {
    let mut is_on = false;
    let mut n_bytes = size_of::<bool>();
    // SAFETY: the name ends with a zero, `opt.prof` is a C bool, and so long is what it is put into.
    let status = unsafe {
        tikv_jemalloc_sys::mallctl(
            c"opt.prof".as_ptr(),
            (&raw mut is_on).cast(),
            &raw mut n_bytes,
            ptr::null_mut(),
            0,
        )
    };
    if status == 0 { Ok(is_on) } else { Err(format!("jemalloc answered {status}").into()) }
}
