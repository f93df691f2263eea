//! What a configuration's program is asked to do, and doing it.

use crate::measurement::Measurement;
use crate::resident::peak_resident_bytes;
use crate::workload::{Input, UnknownWorkload, Workload};
use std::env;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// One run of a configuration's program.
///
/// On the command line: `WORKLOAD BUDGET_MS DOCUMENT [N_FRAMES]`.
#[derive(Debug)]
pub struct Request {
    /// What to time.
    pub workload: Workload,
    /// About how long to time it. At least one batch is timed, however long it takes.
    pub budget: Duration,
    /// The path of the JSON document.
    pub document: PathBuf,
    /// The number of frames to trace; `None` to leave the tracer off.
    pub n_frames: Option<u16>,
}

/// Why a request was not understood, or could not be carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// There are too few or too many arguments.
    #[error("{n_args} arguments, not 3 or 4: WORKLOAD BUDGET_MS DOCUMENT [N_FRAMES]")]
    WrongNumberOfArguments {
        /// How many there are.
        n_args: usize,
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
    /// The document could not be read.
    #[error("the document {} could not be read", path.display())]
    DocumentNotRead {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel did not tell how much memory the process uses.
    #[error("the peak of resident memory could not be read")]
    PeakNotRead {
        /// Why.
        source: io::Error,
    },
    /// Two batches of the workload computed different things.
    #[error("{workload} computed {second} and not {first} again: its result cannot be trusted")]
    ChecksumChanged {
        /// The workload.
        workload: Workload,
        /// The checksum of the first batch.
        first: u64,
        /// The other one.
        second: u64,
    },
}

impl Request {
    /// Reads the arguments of this process.
    ///
    /// **Errors**: if they are not as [`Request`] says.
    pub fn from_args() -> Result<Self, RequestError> {
        Self::parse(env::args_os().skip(1).collect())
    }

    fn parse(args: Vec<OsString>) -> Result<Self, RequestError> {
        let (workload, budget, document, n_frames) = match args.as_slice() {
            [workload, budget, document] => (workload, budget, document, None),
            [workload, budget, document, n_frames] => (workload, budget, document, Some(n_frames)),
            _ => return Err(RequestError::WrongNumberOfArguments { n_args: args.len() }),
        };
        let budget_ms: u32 = number(budget, "BUDGET_MS", "milliseconds, 0 to 4294967295")?;
        Ok(Self {
            workload: workload.to_string_lossy().parse()?,
            budget: Duration::from_millis(budget_ms.into()),
            document: document.into(),
            n_frames: n_frames
                .map(|n_frames| number(n_frames, "N_FRAMES", "frames, 0 to 65535"))
                .transpose()?,
        })
    }

    /// Returns the arguments that [`Self::from_args`] reads this request from.
    pub fn to_args(&self) -> Vec<OsString> {
        let mut args = vec![
            self.workload.name().into(),
            self.budget.as_millis().to_string().into(),
            self.document.clone().into_os_string(),
        ];
        args.extend(self.n_frames.map(|n_frames| n_frames.to_string().into()));
        args
    }

    /// Reads what the workload works on.
    ///
    /// **Errors**: if the document cannot be read.
    pub fn input(&self) -> Result<Input, RequestError> {
        // Not read for the others: it would be in their resident memory.
        if self.workload != Workload::Json {
            return Ok(Input::default());
        }
        Input::read(&self.document)
            .map_err(|source| RequestError::DocumentNotRead { path: self.document.clone(), source })
    }

    /// Warms the workload up with a tenth of the budget, then times batches until it is used up.
    ///
    /// The fastest batch counts. All do the same work, so what another took longer is the machine's
    /// doing: other processes, interrupts, the clock.
    ///
    /// The allocator must be as it is to be measured: the tracer, if wanted, on.
    ///
    /// **Errors**: if the document or the peak of resident memory cannot be read, or if a batch does
    /// not compute what the first one did.
    pub fn measure(&self) -> Result<Measurement, RequestError> {
        let input = self.input()?;
        let checksum = self.workload.run_batch(&input);
        let time_batch = || {
            let began = Instant::now();
            let second = self.workload.run_batch(&input);
            let elapsed = began.elapsed();
            if second == checksum {
                Ok(elapsed)
            } else {
                let workload = self.workload;
                Err(RequestError::ChecksumChanged { workload, first: checksum, second })
            }
        };
        let warm_up = Instant::now();
        while warm_up.elapsed() < self.budget / 10 {
            time_batch()?;
        }
        let measuring = Instant::now();
        let mut fastest = time_batch()?;
        let mut n_batches = 1;
        while measuring.elapsed() < self.budget {
            fastest = fastest.min(time_batch()?);
            n_batches += 1;
        }
        Ok(Measurement {
            checksum,
            n_batches,
            ns_per_batch: fastest.as_secs_f64() * 1e9,
            peak_resident_bytes: peak_resident_bytes()
                .map_err(|source| RequestError::PeakNotRead { source })?,
            tracer: None,
        })
    }
}

fn number<T: std::str::FromStr>(
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

    fn parse(args: &[&str]) -> Result<Request, RequestError> {
        Request::parse(args.iter().map(OsString::from).collect())
    }

    #[test]
    fn a_request_is_read_from_the_arguments_it_is_written_to() {
        for args in [&["json", "300", "a document.json", "25"][..], &["kept-blocks", "0", "x"]] {
            assert_eq!(parse(args).unwrap().to_args(), args);
        }
    }

    #[test]
    fn wrong_arguments_are_answered_with_what_would_be_right() {
        let message = |args: &[&str]| parse(args).unwrap_err().to_string();
        assert!(message(&["json"]).starts_with("1 arguments, not 3 or 4: WORKLOAD"));
        assert!(message(&["tightpair", "300", "x"]).contains("there are tight-pair, json"));
        assert!(message(&["json", "soon", "x"]).contains("BUDGET_MS must be milliseconds"));
        assert!(message(&["json", "1", "x", "70000"]).contains("not \"70000\""));
    }

    #[test]
    fn a_measurement_times_at_least_one_batch_and_returns_its_checksum() {
        let request = parse(&["growing-vectors", "0", "no such file"]).unwrap();
        let measurement = request.measure().unwrap();
        assert_eq!(measurement.checksum, request.workload.run_batch(&Input::default()));
        assert!(measurement.n_batches == 1 && measurement.ns_per_batch > 0.0);
    }

    #[test]
    fn a_document_that_is_not_there_is_named() {
        let request = parse(&["json", "0", "/no/such/document.json"]).unwrap();
        let error = request.measure().unwrap_err().to_string();
        assert_eq!(error, "the document /no/such/document.json could not be read");
    }
}
