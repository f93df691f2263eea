//! The process's own resident memory, as the kernel counts it.

use std::fs;
use std::io;

/// Returns the most bytes this process has had resident since its program was started.
///
/// Not `getrusage`: its figure begins with that of the process that forked this one.
///
/// **Errors**: if `/proc/self/status` cannot be read or does not tell.
pub fn peak_resident_bytes() -> io::Result<u64> {
    read("VmHWM")
}

/// Returns how many bytes this process has resident.
///
/// **Errors**: if `/proc/self/status` cannot be read or does not tell.
pub fn resident_bytes() -> io::Result<u64> {
    read("VmRSS")
}

fn read(name: &str) -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    bytes_of(&status, name).ok_or_else(|| {
        let message = format!("/proc/self/status has no {name} in kB");
        io::Error::new(io::ErrorKind::InvalidData, message)
    })
}

fn bytes_of(status: &str, name: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_read_from_the_line_of_its_name() {
        let status = "VmPeak:\t  9 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n";
        assert_eq!(bytes_of(status, "VmHWM"), Some(2 << 20));
        assert_eq!(bytes_of(status, "VmRSS"), Some(1024));
        assert_eq!(bytes_of("VmPeak:\t  9 kB\n", "VmHWM"), None);
    }

    #[test]
    fn a_block_that_is_written_raises_the_peak() {
        let before = peak_resident_bytes().unwrap();
        let block = std::hint::black_box(vec![1u8; 64 << 20]);
        let after = peak_resident_bytes().unwrap();
        assert!(after >= before + (32 << 20), "{before} {after} {}", block.len());
    }
}
