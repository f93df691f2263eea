//! The command line.

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
        let (mut n_captures, mut seed, mut sabotage) = (None, None, None);
        let mut words = words;
        while let Some(name) = words.next() {
            let place = match name.as_str() {
                "--captures" => &mut n_captures,
                "--seed" => &mut seed,
                "--sabotage" => &mut sabotage,
                _ => return Err(format!("there is no option {name:?}")),
            };
            let value = words.next().ok_or_else(|| format!("{name} needs a number"))?;
            let number: u64 =
                value.parse().map_err(|error| format!("{name} {value:?}: {error}"))?;
            if place.replace(number).is_some() {
                return Err(format!("{name} was given twice"));
            }
        }
        let n_captures = n_captures.ok_or("--captures is missing")?;
        if n_captures == 0 || sabotage == Some(0) {
            return Err("--captures and --sabotage are positive".to_owned());
        }
        Ok(Self { n_captures, seed: seed.ok_or("--seed is missing")?, sabotage })
    }
}
