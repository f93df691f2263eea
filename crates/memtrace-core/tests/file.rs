//! The snapshot file: what it keeps, and what it makes of damage.

use std::error::Error;
use std::fs;
use std::io::{self, Read, Write};

use memtrace_core::{
    Attribution, FileError, Frame, KeyType, MissingSource, Snapshot, SnapshotBuilder,
};

/// A little of everything.
fn small() -> Snapshot {
    let mut builder = SnapshotBuilder::new(7);
    let full =
        Frame::new("src/é.rs", 3).with_function("a::f").with_directory("/src").with_inlined(true);
    let full = builder.frame(full);
    let missing = Frame::new("<a::g>", 0).with_missing(MissingSource::NotUnwound);
    let missing = builder.frame(missing);
    let known = builder.stack(&[full, missing, full], Some(u16::MAX));
    let cut = builder.stack(&[missing], None);
    let empty = builder.stack(&[], Some(0));
    builder.trace(0, 64, known);
    builder.trace(u32::MAX, u64::MAX, cut);
    builder.trace(0, 0, empty);
    builder.trace(0, 64, known);
    let attribution = Attribution::default().hide_files("*[x]").hide_crate("c").only_workspace();
    builder.finish().with_attribution(attribution)
}

fn bytes_of(snapshot: &Snapshot) -> Vec<u8> {
    let mut bytes = Vec::new();
    snapshot.write_to(&mut bytes).unwrap();
    bytes
}

fn load(bytes: &[u8]) -> Result<Snapshot, FileError> {
    Snapshot::read_from(bytes)
}

/// Everything a snapshot holds, including what equality of frames leaves out.
fn everything(snapshot: &Snapshot) -> String {
    let traces: Vec<_> = snapshot.traces().collect();
    format!("{} {:?} {traces:#?}", snapshot.traceback_limit(), snapshot.attribution())
}

/// Replaces bytes of the body and makes the checksum right again.
fn forged(at: usize, new: &[u8]) -> Vec<u8> {
    let mut bytes = bytes_of(&small());
    bytes[at..at + new.len()].copy_from_slice(new);
    with_checksum(bytes)
}

fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let at = bytes.len() - 4;
    let checksum = crc32fast::hash(&bytes[..at]);
    bytes[at..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn malformed(bytes: &[u8]) -> (u64, String) {
    match load(bytes) {
        Err(FileError::Malformed { offset, reason }) => (offset, reason),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_round_trip_keeps_everything() {
    let snapshot = small();
    let loaded = load(&bytes_of(&snapshot)).unwrap();
    assert_eq!(everything(&loaded), everything(&snapshot));
    assert_eq!(bytes_of(&loaded), bytes_of(&snapshot));
    let empty = SnapshotBuilder::new(1).finish();
    assert_eq!(everything(&load(&bytes_of(&empty)).unwrap()), everything(&empty));
}

#[test]
fn every_truncation_is_an_error_with_its_offset() {
    let bytes = bytes_of(&small());
    for len in 0..bytes.len() {
        match load(&bytes[..len]) {
            Err(FileError::Truncated { offset, expected_len }) => {
                assert_eq!(offset, len as u64);
                let whole = if len < 20 { 24 } else { bytes.len() as u64 };
                assert_eq!(expected_len, whole);
            }
            other => panic!("{len} bytes: {other:?}"),
        }
    }
}

#[test]
fn every_flipped_bit_is_an_error() {
    let bytes = bytes_of(&small());
    for bit in 0..8 * bytes.len() {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let error = load(&damaged).expect_err(&format!("bit {bit}"));
        let is_expected = match bit / 8 {
            0..8 => matches!(error, FileError::NotASnapshot { .. }),
            8..12 => matches!(error, FileError::UnsupportedVersion { supported: 1, .. }),
            12..20 => {
                matches!(error, FileError::Truncated { .. } | FileError::TrailingBytes { .. })
            }
            _ => matches!(error, FileError::Checksum { .. }),
        };
        assert!(is_expected, "bit {bit}: {error}");
    }
}

/// With the checksum put right, damage may yield another snapshot, but never a panic.
#[test]
fn every_forged_byte_is_an_error_or_a_snapshot() {
    let bytes = bytes_of(&small());
    let mut n_errors = 0;
    for at in 20..bytes.len() - 4 {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            match load(&forged(at, &[value])) {
                Ok(snapshot) => {
                    for key_type in [KeyType::Lineno, KeyType::Traceback] {
                        assert!(snapshot.statistics(key_type).len() <= snapshot.n_traces());
                    }
                }
                Err(FileError::Malformed { offset, .. }) => {
                    assert!((20..=bytes.len() as u64 - 4).contains(&offset));
                    n_errors += 1;
                }
                Err(error) => panic!("byte {at}: {error}"),
            }
        }
    }
    assert!(n_errors > bytes.len(), "{n_errors} errors");
}

#[test]
fn a_forged_file_is_refused_with_the_place_of_the_fault() {
    // The body starts at 20 with the limit, then the flag at 22, then the number of patterns.
    let (offset, reason) = malformed(&forged(22, &[2]));
    assert_eq!((offset, &*reason), (22, "workspace only is 2, not 0 or 1"));
    let (offset, reason) = malformed(&forged(23, &u32::MAX.to_le_bytes()));
    assert_eq!(offset, 27);
    assert!(reason.starts_with("4294967295 file patterns cannot be in the "), "{reason}");
    // The first pattern starts at 31.
    let (offset, reason) = malformed(&forged(33, &[0xff]));
    assert_eq!((offset, &*reason), (33, "a text of file patterns is not UTF-8"));
    // The last four bytes before the checksum are the stack of the last trace.
    let at = bytes_of(&small()).len() - 8;
    let (offset, reason) = malformed(&forged(at, &[3]));
    assert_eq!((offset, &*reason), (at as u64, "stack is number 3, but there are 3"));
    // The number of traces stands before four rows of 16 bytes.
    let (_, reason) = malformed(&forged(at + 4 - 64 - 8, &u64::MAX.to_le_bytes()));
    assert_eq!(reason, "18446744073709551615 traces cannot be in the 64 bytes left");
}

#[test]
fn bytes_in_the_body_after_the_last_trace_are_refused() {
    let mut bytes = bytes_of(&small());
    bytes.push(0);
    let body_len = bytes.len() as u64 - 24;
    bytes[12..20].copy_from_slice(&body_len.to_le_bytes());
    let (offset, reason) = malformed(&with_checksum(bytes));
    assert_eq!(offset, 20 + body_len - 1);
    assert_eq!(reason, "1 bytes follow after the last trace");
}

#[test]
fn bytes_after_the_end_are_refused() {
    let mut bytes = bytes_of(&small());
    bytes.push(0);
    let error = load(&bytes).unwrap_err();
    let end = bytes.len() - 1;
    assert_eq!(
        error.to_string(),
        format!("the snapshot ends at offset {end}, but more bytes follow")
    );
}

#[test]
fn a_promised_length_reserves_nothing() {
    let mut bytes = bytes_of(&small());
    bytes[12..20].copy_from_slice(&u64::MAX.to_le_bytes());
    let error = load(&bytes).unwrap_err();
    assert!(matches!(error, FileError::Truncated { expected_len: u64::MAX, .. }), "{error}");
}

#[test]
fn foreign_files_are_named_as_such() {
    let error = load(b"\x7fELF\x02\x01\x01\x00 and so on").unwrap_err();
    assert_eq!(
        error.to_string(),
        "not a memtrace snapshot: it starts with \"\\x7fELF\\x02\\x01\\x01\\x00\", not \"MEMTRACE\""
    );
    let error = load(&forged(8, &[9])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "snapshot format version 9 is not supported; this program reads version 1"
    );
}

#[test]
fn a_dumped_file_replaces_the_old_one_and_leaves_nothing_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.memtrace");
    fs::write(&path, "old").unwrap();
    small().dump(&path).unwrap();
    assert_eq!(everything(&Snapshot::load(&path).unwrap()), everything(&small()));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_dump_that_fails_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let taken = directory.path().join("taken");
    fs::create_dir_all(taken.join("full")).unwrap();
    let error = small().dump(&taken).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot save {}", taken.display()));
    assert!(error.source().is_some());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    assert!(small().dump(directory.path().join("no/such/place")).is_err());
    assert!(small().dump("/").is_err());
}

#[test]
fn a_missing_file_is_named() {
    let error = Snapshot::load("/no/such/file").unwrap_err();
    assert_eq!(error.to_string(), "cannot open /no/such/file");
    assert!(error.source().unwrap().is::<io::Error>());
}

/// Fails after a number of bytes, in either direction.
struct Failing(usize);

impl Write for Failing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n_bytes = bytes.len().min(self.0);
        self.0 -= n_bytes;
        if n_bytes == 0 { Err(io::Error::other("full")) } else { Ok(n_bytes) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Failing {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let n_bytes = bytes.len().min(self.0);
        self.0 -= n_bytes;
        bytes[..n_bytes].copy_from_slice(&b"MEMTRACE\x01\0\0\0\xff\0\0\0\0\0\0\0"[..n_bytes]);
        if n_bytes == 0 { Err(io::Error::other("gone")) } else { Ok(n_bytes) }
    }
}

#[test]
fn failing_writers_and_readers_are_reported() {
    for n_bytes in [0, 4, 30, 100] {
        let error = small().write_to(Failing(n_bytes)).unwrap_err();
        assert!(matches!(error, FileError::Write { .. }), "{n_bytes}: {error}");
    }
    for n_bytes in [0, 4, 20] {
        let error = Snapshot::read_from(Failing(n_bytes)).unwrap_err();
        assert!(matches!(error, FileError::Read { .. }), "{n_bytes}: {error}");
    }
}
