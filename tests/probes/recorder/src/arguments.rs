//! The command line.

use crate::options::numbers;

pub(crate) const USAGE: &str = "usage: recorder --milliseconds N --seed S [--threads T] \
     [--miss-frees M | --drop-records M | --drop-canaries M]";

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arguments {
    /// How long the load lasts.
    pub(crate) milliseconds: u64,
    /// What the load depends on.
    pub(crate) seed: u64,
    /// Threads that allocate all the time.
    pub(crate) n_threads: usize,
    pub(crate) sabotage: Sabotage,
}

/// What is broken on purpose; each is a period, 0 for never.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sabotage {
    /// Of so many releases the truth misses one.
    pub(crate) miss_frees: u64,
    /// Of so many blocks the record of one is dropped.
    pub(crate) drop_records: u64,
    /// In every so manieth round the record of a block that stays is dropped.
    pub(crate) drop_canaries: u64,
}

impl Arguments {
    /// Reads them, or says what is wrong with them.
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let names = [
            "--milliseconds",
            "--seed",
            "--threads",
            "--miss-frees",
            "--drop-records",
            "--drop-canaries",
        ];
        let [milliseconds, seed, n_threads, miss_frees, drop_records, drop_canaries] =
            numbers(names, words)?;
        let n_threads = n_threads.unwrap_or(8);
        if !(1..=1000).contains(&n_threads) {
            return Err(format!("--threads is 1 to 1000, not {n_threads}"));
        }
        let [miss_frees, drop_records, drop_canaries] =
            [miss_frees, drop_records, drop_canaries].map(Option::unwrap_or_default);
        Ok(Self {
            milliseconds: milliseconds.ok_or("--milliseconds is missing")?,
            seed: seed.ok_or("--seed is missing")?,
            n_threads: n_threads as usize,
            sabotage: Sabotage { miss_frees, drop_records, drop_canaries },
        })
    }
}
