//! Whatever bytes are loaded as a snapshot: no panic, no endless work, no waste of memory.
//!
//! Mutations mostly change what is in the sections of a file, and put lengths and checksums right
//! after it, so that they reach what lies behind these. One in eight changes the bytes as they are.

#![no_main]

mod sections;

use libfuzzer_sys::{Corpus, fuzz_mutator, fuzz_target, fuzzer_mutate};
use memtrace_core::{KeyType, Snapshot};
use sections::Section;

/// Bytes that a mutation may add to a section.
const MAX_GROWTH: usize = 64;

fuzz_target!(|file: &[u8]| -> Corpus {
    let Ok(snapshot) = Snapshot::read_from(file) else {
        // Refused: worth keeping if it reaches new code.
        return Corpus::Keep;
    };
    let mut written = Vec::new();
    snapshot.write_to(&mut written).expect("a vector takes everything");
    let again = Snapshot::read_from(&written[..]).expect("what was written can be read");
    let mut written_again = Vec::new();
    again.write_to(&mut written_again).expect("a vector takes everything");
    assert_eq!(written, written_again);
    assert_eq!(snapshot.traces().len(), snapshot.n_traces());
    for key_type in [KeyType::Lineno, KeyType::Thread] {
        assert!(snapshot.statistics(key_type).len() <= snapshot.n_traces());
    }
    Corpus::Keep
});

fuzz_mutator!(|file: &mut [u8], len: usize, max_len: usize, seed: u32| {
    let seed = seed as usize;
    let sections = if seed.is_multiple_of(8) { None } else { sections::split(&file[..len]) };
    let Some(mut sections) = sections else { return fuzzer_mutate(file, len, max_len) };
    let (chosen, other) = (seed / 8 % sections.len(), seed / 256 % sections.len());
    if seed.is_multiple_of(61) {
        // A section in the place of another, or once more.
        sections[chosen] = sections[other].clone();
    } else {
        let Section { contents, .. } = &mut sections[chosen];
        let len = contents.len();
        contents.resize(len + MAX_GROWTH, 0);
        let new_len = fuzzer_mutate(contents, len, len + MAX_GROWTH);
        contents.truncate(new_len);
    }
    let forged = sections::join(&sections);
    if forged.len() > max_len {
        return fuzzer_mutate(file, len, max_len);
    }
    file[..forged.len()].copy_from_slice(&forged);
    forged.len()
});
