//! The process's own resident memory, as the kernel counts it.

use std::fs;
use std::io;

/// Returns the most bytes this process has had resident since its program was started.
///
/// Not `getrusage`: its figure begins with that of the process that forked this one.
///
/// **Errors**: if `/proc/self/status` cannot be read or does not tell.
pub(crate) fn peak_resident_bytes() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    peak_of(&status).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "/proc/self/status has no VmHWM in kB")
    })
}

fn peak_of(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read_from_the_line_of_its_name() {
        assert_eq!(peak_of("VmPeak:\t  9 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n"), Some(2 << 20));
        assert_eq!(peak_of("VmPeak:\t  9 kB\n"), None);
    }

    #[test]
    fn a_block_that_is_written_raises_the_peak() {
        let before = peak_resident_bytes().unwrap();
        let block = std::hint::black_box(vec![1u8; 64 << 20]);
        let after = peak_resident_bytes().unwrap();
        assert!(after >= before + (32 << 20), "{before} {after} {}", block.len());
    }
}
