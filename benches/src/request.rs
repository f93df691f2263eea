//! What a configuration's program is asked to do.

use crate::shape::{Shape, UnknownShape};
use crate::workload::{UnknownWorkload, Workload};
use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

/// One run of a configuration's program.
///
/// On the command line: `VERB WHAT NUMBER INPUTS [N_FRAMES [SAMPLE_BYTES|site-totals|threads]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub task: Task,
    /// The folder in which the files are that workloads work on.
    pub inputs: PathBuf,
    /// How to trace.
    pub tracing: Tracing,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// `time WORKLOAD BUDGET_MS`: time batches for about so long, but a few at least.
    Time(Workload, u32),
    /// `repeat WORKLOAD N_BATCHES`: do so many batches and nothing else.
    Repeat(Workload, u32),
    /// `keep SHAPE N_UNITS`: keep so many blocks, documents or maps, look at the memory, drop them.
    Keep(Shape, u32),
}

/// How to trace, for tools that can be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tracing {
    /// The number of frames of a stack; `None` to leave memtrace off, or a peer as it comes.
    pub n_frames: Option<u16>,
    /// The mean number of bytes from one sample to the next; `None` to trace every allocation.
    pub sample_bytes: Option<u64>,
    /// What memtrace records of every allocation beside its size and its stack.
    pub more: Option<More>,
}

/// What is recorded, or counted, beside sizes and stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// `site-totals`: what each site has allocated and given back.
    SiteTotals,
    /// `threads`: which thread a block is of.
    Threads,
}

impl More {
    const ALL: [Self; 2] = [Self::SiteTotals, Self::Threads];

    /// Returns its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SiteTotals => "site-totals",
            Self::Threads => "threads",
        }
    }
}

/// Why a request was not understood.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// There are too few or too many arguments.
    #[error(
        "{n_args} arguments, not 4 to 6: VERB WHAT NUMBER INPUTS [N_FRAMES \
         [SAMPLE_BYTES|site-totals|threads]]"
    )]
    WrongNumberOfArguments {
        /// How many there are.
        n_args: usize,
    },
    /// The first argument is no verb.
    #[error("no verb is {verb:?}; there are time, repeat, keep")]
    UnknownVerb {
        /// What was given.
        verb: OsString,
    },
    /// An argument that should be a number in range is not.
    #[error("{name} must be {wanted}, not {given:?}")]
    NotANumber {
        /// The argument's name.
        name: &'static str,
        /// What would be right.
        wanted: &'static str,
        /// What was given.
        given: OsString,
    },
    /// There is no such workload.
    #[error(transparent)]
    UnknownWorkload(#[from] UnknownWorkload),
    /// There is no such shape.
    #[error(transparent)]
    UnknownShape(#[from] UnknownShape),
}

impl Request {
    /// Reads the arguments of this process.
    ///
    /// **Errors**: if they are not as [`Request`] says.
    pub fn from_args() -> Result<Self, RequestError> {
        Self::parse(&env::args_os().skip(1).collect::<Vec<_>>())
    }

    fn parse(args: &[OsString]) -> Result<Self, RequestError> {
        let [verb, what, given, inputs, tracing @ ..] = args else {
            return Err(RequestError::WrongNumberOfArguments { n_args: args.len() });
        };
        if tracing.len() > 2 {
            return Err(RequestError::WrongNumberOfArguments { n_args: args.len() });
        }
        let what = what.to_string_lossy();
        let task = match verb.to_str() {
            Some("time") => {
                let wanted = "milliseconds, 0 to 4294967295";
                Task::Time(what.parse()?, number(given, "BUDGET_MS", wanted)?)
            }
            Some("repeat") => {
                let wanted = "batches, 0 to 4294967295";
                Task::Repeat(what.parse()?, number(given, "N_BATCHES", wanted)?)
            }
            Some("keep") => {
                let wanted = "blocks, documents or maps, 0 to 4294967295";
                Task::Keep(what.parse()?, number(given, "N_UNITS", wanted)?)
            }
            _ => return Err(RequestError::UnknownVerb { verb: verb.clone() }),
        };
        let n_frames = tracing.first();
        let last = tracing.get(1);
        let more = More::ALL.into_iter().find(|more| last.is_some_and(|last| last == more.name()));
        let sample_bytes = last.filter(|_| more.is_none());
        let wanted = "a number of bytes, site-totals or threads";
        let tracing = Tracing {
            n_frames: n_frames.map(|n| number(n, "N_FRAMES", "frames, 0 to 65535")).transpose()?,
            sample_bytes: sample_bytes.map(|n| number(n, "SAMPLE_BYTES", wanted)).transpose()?,
            more,
        };
        Ok(Self { task, inputs: inputs.into(), tracing })
    }

    /// Returns the arguments that [`Self::from_args`] reads this request from.
    ///
    /// What is more than a number of frames cannot be written without one, nor both a mean number of bytes and what is
    /// recorded beside sizes and stacks: of these the latter is left out.
    pub fn to_args(&self) -> Vec<OsString> {
        let (verb, what, number) = match self.task {
            Task::Time(workload, budget_ms) => ("time", workload.name(), budget_ms),
            Task::Repeat(workload, n_batches) => ("repeat", workload.name(), n_batches),
            Task::Keep(shape, n_units) => ("keep", shape.name(), n_units),
        };
        let mut args = vec![verb.into(), what.into(), number.to_string().into()];
        args.push(self.inputs.clone().into_os_string());
        if let Some(n_frames) = self.tracing.n_frames {
            args.push(n_frames.to_string().into());
            let sample_bytes = self.tracing.sample_bytes.map(|n_bytes| n_bytes.to_string());
            let more = || self.tracing.more.map(|more| more.name().to_owned());
            args.extend(sample_bytes.or_else(more).map(OsString::from));
        }
        args
    }
}

fn number<T: FromStr>(
    given: &OsString,
    name: &'static str,
    wanted: &'static str,
) -> Result<T, RequestError> {
    let parsed = given.to_str().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| RequestError::NotANumber { name, wanted, given: given.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &str) -> Result<Request, RequestError> {
        Request::parse(&args.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn a_request_is_read_from_the_arguments_it_is_written_to() {
        for args in [
            "time json 300 inputs 25",
            "time kept-blocks 0 x",
            "repeat tight-pair-25 3 x",
            "keep blocks-64 1000 x 25 524288",
            "time json 300 x 25 site-totals",
            "time json 300 x 25 threads",
        ] {
            let written: Vec<_> = parse(args).unwrap().to_args();
            assert_eq!(written.join(" ".as_ref()), args);
        }
    }

    #[test]
    fn wrong_arguments_are_answered_with_what_would_be_right() {
        let message = |args: &str| parse(args).unwrap_err().to_string();
        assert!(message("json").starts_with("1 arguments, not 4 to 6: VERB WHAT"));
        assert!(message("time json 1 x 2 3 4").starts_with("7 arguments, not 4 to 6"));
        assert!(message("tune json 1 x").contains("there are time, repeat, keep"));
        assert!(message("time tightpair 300 x").contains("there are tight-pair-5, "));
        assert!(message("keep tight-pair-5 300 x").contains("there are blocks-32, "));
        assert!(message("time json soon x").contains("BUDGET_MS must be milliseconds"));
        assert!(message("time json 1 x 70000").contains("not \"70000\""));
        assert!(message("time json 1 x 25 -1").contains("SAMPLE_BYTES must be a number of bytes"));
    }
}
