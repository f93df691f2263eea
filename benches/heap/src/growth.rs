//! Vectors and strings that grow beside each other, and zeroed blocks of which little is touched.

use crate::block::Contents;
use crate::random::Random;
use crate::workload::{Effort, Outcome};
use memtrace_benches::stopwatch::Stopwatch;
use std::hint::black_box;

/// Words that a vector grows by before it is the next one's turn.
const N_AT_ONCE: usize = 8;
const N_STRINGS: usize = 64;
const ZEROED_SIZE: usize = 1 << 20;
const N_ZEROED: usize = 32;
const ZEROED_STEP: usize = 128 << 10;

/// Grows so many vectors from nothing to so many bytes; one operation is one vector.
pub(crate) fn vectors<const N_BYTES: usize, const N_VECTORS: usize>(effort: Effort) -> Outcome {
    let n_words = N_BYTES / size_of::<u64>();
    let stopwatch = Stopwatch::start();
    let mut checksum = 0_u64;
    let n_rounds = effort.n_operations.div_ceil(N_VECTORS as u64);
    for round in 0..n_rounds {
        let mut vectors: Vec<Vec<u64>> = (0..N_VECTORS).map(|_| Vec::new()).collect();
        for at in (0..n_words).step_by(N_AT_ONCE) {
            for (i, vector) in vectors.iter_mut().enumerate() {
                for j in at..at + N_AT_ONCE {
                    vector.push(word(round, i, j));
                }
            }
        }
        for (i, vector) in black_box(&vectors).iter().enumerate() {
            // All that was moved is compared; else one word of each page.
            let step = if effort.contents == Contents::Whole { 1 } else { 512 };
            for j in (0..n_words).step_by(step) {
                assert_eq!(vector[j], word(round, i, j), "a vector lost a word");
            }
            checksum = checksum.wrapping_add(vector[n_words - 1]);
        }
    }
    let n_operations = n_rounds * N_VECTORS as u64;
    Outcome { elapsed: stopwatch.lap().elapsed, checksum, n_operations }
}

fn word(round: u64, vector: usize, at: usize) -> u64 {
    round << 48 | (vector as u64) << 32 | at as u64
}

/// Builds strings of words, many at a time; one operation is one string of 20 to 2,000 bytes.
pub(crate) fn strings(effort: Effort) -> Outcome {
    let mut random = Random(4);
    let stopwatch = Stopwatch::start();
    let mut checksum = 0;
    let n_rounds = effort.n_operations.div_ceil(N_STRINGS as u64);
    for _ in 0..n_rounds {
        let mut strings: Vec<(String, usize)> =
            (0..N_STRINGS).map(|_| (String::new(), 20 << random.below(7))).collect();
        loop {
            let mut has_grown = false;
            for (string, target) in strings.iter_mut() {
                if string.len() < *target {
                    string.push_str(next_word(string));
                    has_grown = true;
                }
            }
            if !has_grown {
                break;
            }
        }
        for (string, target) in black_box(&strings) {
            assert!(string.len() >= *target && is_right(string, effort.contents), "{string:?}");
            checksum += string.len() as u64;
        }
    }
    let n_operations = n_rounds * N_STRINGS as u64;
    Outcome { elapsed: stopwatch.lap().elapsed, checksum, n_operations }
}

/// The word that follows in a string, which only its length decides.
fn next_word(string: &str) -> &'static str {
    const WORDS: [&str; 7] =
        ["a ", "block ", "of memory ", "is ", "what ", "one allocation ", "returns "];
    WORDS[string.len() % WORDS.len()]
}

/// Whether a string is made of the right words: all, or the first.
fn is_right(string: &str, contents: Contents) -> bool {
    let mut at = 0;
    while at < string.len() && (at == 0 || contents == Contents::Whole) {
        let word = next_word(&string[..at]);
        if !string[at..].starts_with(word) {
            return false;
        }
        at += word.len();
    }
    true
}

/// Replaces zeroed blocks of 1 MiB of which every 32nd page is written.
pub(crate) fn zeroed(effort: Effort) -> Outcome {
    let mut blocks: Vec<Vec<u8>> = (0..N_ZEROED).map(|_| Vec::new()).collect();
    let stopwatch = Stopwatch::start();
    let mut checksum = 0;
    for round in 0..effort.n_operations as usize {
        let mut block = vec![0_u8; black_box(ZEROED_SIZE)];
        let step = if effort.contents == Contents::Whole { 1 } else { ZEROED_STEP };
        let is_zero = block.iter().step_by(step).all(|&byte| byte == 0);
        assert!(is_zero, "a zeroed block is not");
        for at in (0..ZEROED_SIZE).step_by(ZEROED_STEP) {
            block[at] = round as u8 | 1;
        }
        let old = &mut blocks[round % N_ZEROED];
        checksum += old.iter().step_by(ZEROED_STEP).map(|&byte| u64::from(byte)).sum::<u64>();
        *old = black_box(block);
    }
    let n_operations = effort.n_operations;
    Outcome { elapsed: stopwatch.lap().elapsed, checksum, n_operations }
}
