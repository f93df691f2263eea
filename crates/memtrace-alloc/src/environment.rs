//! The `MEMTRACE` environment variable: starts tracing at the first allocation, before `main`.
//!
//! `MEMTRACE=25` records every block with 25 frames; `MEMTRACE=25,sample_every=512K` samples, as
//! [`Options::sample_every`] does. `K`, `M` and `G` are 1024, 1024² and 1024³ bytes. 0 frames, or an empty
//! value, is off.

use crate::options::Options;
use core::ffi::CStr;

const NAME: &CStr = c"MEMTRACE";

/// Returns the options that `MEMTRACE` asks for, if it asks for tracing.
///
/// A malformed value is reported on standard error, once, and ignored.
pub(crate) fn options_wanted() -> Option<Options> {
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
        Ok(options) => options,
        Err(Malformed) => {
            complain(&[
                b"memtrace: MEMTRACE=\"",
                value.get(..value.len().min(80)).unwrap_or_default(),
                b"\" is not a number of frames (1 to 65535, or 0 for off), nor one with \
                  \",sample_every=\" and bytes behind it: tracing stays off\n",
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
/// it they are not. What is not in PYTHONTRACEMALLOC comes after a comma.
fn parse(value: &[u8]) -> Result<Option<Options>, Malformed> {
    let value = value.trim_ascii_start();
    if value.is_empty() {
        return Ok(None);
    }
    let (frames, others) = match value.iter().position(|&byte| byte == b',') {
        Some(comma) => value.split_at_checked(comma).ok_or(Malformed)?,
        None => (value, [].as_slice()),
    };
    let n_frames = u16::try_from(number(frames)?).map_err(|_| Malformed)?;
    let mut options = Options::new().frames(n_frames);
    if !others.is_empty() {
        let bytes = others.strip_prefix(b",sample_every=").ok_or(Malformed)?;
        options = options.sample_every(size(bytes)?);
    }
    Ok((n_frames != 0).then_some(options))
}

fn number(digits: &[u8]) -> Result<u64, Malformed> {
    if digits.is_empty() {
        return Err(Malformed);
    }
    digits.iter().try_fold(0u64, |number, digit| {
        let digit =
            if digit.is_ascii_digit() { digit.wrapping_sub(b'0') } else { return Err(Malformed) };
        number.checked_mul(10).and_then(|tens| tens.checked_add(digit.into())).ok_or(Malformed)
    })
}

/// Reads a number of bytes, which may end in a letter that stands for many.
fn size(value: &[u8]) -> Result<u64, Malformed> {
    let (digits, unit) = match value.split_last() {
        Some((b'K', digits)) => (digits, 1 << 10),
        Some((b'M', digits)) => (digits, 1 << 20),
        Some((b'G', digits)) => (digits, 1 << 30),
        _ => (value, 1),
    };
    number(digits)?.checked_mul(unit).ok_or(Malformed)
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

    fn traced(n_frames: u16, sample_every: u64) -> Result<Option<Options>, Malformed> {
        Ok(Some(Options::new().frames(n_frames).sample_every(sample_every)))
    }

    #[test]
    fn numbers_are_read_as_pythons_variable_is() {
        let cases: [(&[u8], _); 12] = [
            (b"", Ok(None)),
            (b"0", Ok(None)),
            (b"000", Ok(None)),
            (b"  ", Ok(None)),
            (b"1", traced(1, 0)),
            (b"  25", traced(25, 0)),
            (b"65535", traced(65535, 0)),
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

    #[test]
    fn samples_are_asked_for_after_a_comma() {
        let cases: [(&[u8], _); 14] = [
            (b"25,sample_every=524288", traced(25, 512 << 10)),
            (b" 25,sample_every=512K", traced(25, 512 << 10)),
            (b"1,sample_every=2M", traced(1, 2 << 20)),
            (b"1,sample_every=1G", traced(1, 1 << 30)),
            (b"1,sample_every=0", traced(1, 0)),
            (b"0,sample_every=512K", Ok(None)),
            (b"0,sample_every=", Err(Malformed)),
            (b"25,sample_every=K", Err(Malformed)),
            (b"25,sample_every=512k", Err(Malformed)),
            (b"25,sample_every=17179869184G", Err(Malformed)),
            (b"25,", Err(Malformed)),
            (b"25,512K", Err(Malformed)),
            (b",sample_every=512K", Err(Malformed)),
            (b"25,sample_every=512K,sample_every=1K", Err(Malformed)),
        ];
        for (value, expected) in cases {
            assert_eq!(parse(value), expected, "{value:?}");
        }
    }
}
