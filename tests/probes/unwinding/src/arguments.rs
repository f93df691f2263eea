//! The command line.

use crate::options::numbers;

pub(crate) const USAGE: &str = "usage: unwinding --captures N --seed S [--sabotage M]";

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// Captures to compare, at least.
    pub(crate) n_captures: u64,
    /// What the paths depend on.
    pub(crate) seed: u64,
    /// Every so many answers one is spoilt.
    pub(crate) sabotage: Option<u64>,
}

impl Arguments {
    /// Reads them, or says what is wrong with them.
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let [n_captures, seed, sabotage] = numbers(["--captures", "--seed", "--sabotage"], words)?;
        let n_captures = n_captures.ok_or("--captures is missing")?;
        if n_captures == 0 || sabotage == Some(0) {
            return Err("--captures and --sabotage are positive".to_owned());
        }
        Ok(Self { n_captures, seed: seed.ok_or("--seed is missing")?, sabotage })
    }
}
