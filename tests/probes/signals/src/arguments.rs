//! The command line.

use crate::options::numbers;

pub(crate) const USAGE: &str =
    "usage: signals --milliseconds N --seed S [--frames F] [--every E] [--sabotage M]";

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// How long signals interrupt.
    pub(crate) milliseconds: u64,
    /// What the work depends on.
    pub(crate) seed: u64,
    /// Frames that are recorded of a stack.
    pub(crate) n_frames: u16,
    /// Every so many allocations a stack is compared.
    pub(crate) every: u64,
    /// Every so many answers one is spoilt; 0 for none.
    pub(crate) sabotage: u64,
}

impl Arguments {
    /// Reads them, or says what is wrong with them.
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let names = ["--milliseconds", "--seed", "--frames", "--every", "--sabotage"];
        let [milliseconds, seed, n_frames, every, sabotage] = numbers(names, words)?;
        let n_frames = u16::try_from(n_frames.unwrap_or(25));
        let every = every.unwrap_or(64);
        if every == 0 || sabotage == Some(0) {
            return Err("--every and --sabotage are positive".to_owned());
        }
        Ok(Self {
            milliseconds: milliseconds.ok_or("--milliseconds is missing")?,
            seed: seed.ok_or("--seed is missing")?,
            n_frames: n_frames.map_err(|error| format!("--frames: {error}"))?,
            every,
            sabotage: sabotage.unwrap_or(0),
        })
    }
}
