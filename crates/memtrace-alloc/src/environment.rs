//! The `MEMTRACE` environment variable: starts tracing at the first allocation, before `main`.

use core::ffi::CStr;

const NAME: &CStr = c"MEMTRACE";

/// Returns the number of frames that `MEMTRACE` asks for, if it asks for tracing.
///
/// A malformed value is reported on standard error, once, and ignored.
pub(crate) fn frames_wanted() -> Option<u16> {
    #[expect(unsafe_code, reason = "reads the environment without allocating")]
    // SAFETY: the name is terminated. Called once, at the first Rust allocation of the process: in a
    // Rust program, before `main`, when there are no other threads. (A threaded C program that loads a
    // Rust library and changes its environment at that moment breaks the contract of `setenv`.)
    let value = unsafe { libc::getenv(NAME.as_ptr()) };
    if value.is_null() {
        return None;
    }
    #[expect(unsafe_code, reason = "reads the environment without allocating")]
    // SAFETY: `getenv` returned a terminated string of the environment, used before it can change.
    let value = unsafe { CStr::from_ptr(value) }.to_bytes();
    match parse(value) {
        Ok(n_frames) => n_frames,
        Err(Malformed) => {
            complain(&[
                b"memtrace: MEMTRACE=\"",
                value.get(..value.len().min(80)).unwrap_or_default(),
                b"\" is not a number of frames (1 to 65535, or 0 for off): tracing stays off\n",
            ]);
            None
        }
    }
}

/// Reports that tracing could not be started.
pub(crate) fn report_failed_start(reason: &str) {
    complain(&[
        b"memtrace: tracing asked for by MEMTRACE could not start: ",
        reason.as_bytes(),
        b"\n",
    ]);
}

#[derive(Debug, PartialEq, Eq)]
struct Malformed;

/// Reads a decimal number as CPython reads PYTHONTRACEMALLOC: blanks before it are allowed, behind
/// it they are not.
fn parse(value: &[u8]) -> Result<Option<u16>, Malformed> {
    let digits = value.trim_ascii_start();
    if digits.is_empty() {
        return Ok(None);
    }
    let mut n_frames = 0u16;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return Err(Malformed);
        }
        let digit = u16::from(digit.wrapping_sub(b'0'));
        n_frames =
            n_frames.checked_mul(10).and_then(|tens| tens.checked_add(digit)).ok_or(Malformed)?;
    }
    Ok((n_frames != 0).then_some(n_frames))
}

fn complain(parts: &[&[u8]]) {
    for part in parts {
        #[expect(unsafe_code, reason = "a system call, where formatting would allocate")]
        // SAFETY: the bytes are readable. If they cannot be written there is nobody to tell.
        unsafe {
            libc::write(2, part.as_ptr().cast(), part.len())
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_pythons_variable_is() {
        let cases: [(&[u8], _); 12] = [
            (b"", Ok(None)),
            (b"0", Ok(None)),
            (b"000", Ok(None)),
            (b"  ", Ok(None)),
            (b"1", Ok(Some(1))),
            (b"  25", Ok(Some(25))),
            (b"65535", Ok(Some(65535))),
            (b"65536", Err(Malformed)),
            (b"25 ", Err(Malformed)),
            (b"-1", Err(Malformed)),
            (b"banana", Err(Malformed)),
            (b"99999999999999999999", Err(Malformed)),
        ];
        for (value, expected) in cases {
            assert_eq!(parse(value), expected, "{value:?}");
        }
    }
}
