//! What workloads work on.

use super::service::Service;
use crate::workload::Workload;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What a workload works on.
#[derive(Debug, Default)]
pub struct Input {
    document: Vec<u8>,
    source: String,
    service: Option<Service>,
}

/// What a workload works on could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// A file could not be read.
    #[error("{} could not be read", path.display())]
    NotRead {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The service could not be started.
    #[error("the service could not be started")]
    NoService {
        /// Why.
        source: io::Error,
    },
}

impl Input {
    /// The file with the JSON document.
    const DOCUMENT: &str = "document.json";
    /// The file with the Rust source.
    const SOURCE: &str = "source.rs";

    /// Reads or starts what a workload needs, and nothing else: it would be in the resident memory
    /// of the others.
    ///
    /// **Errors**: if a file cannot be read from the folder, or the service cannot be started.
    pub fn read(workload: Workload, dir: &Path) -> Result<Self, InputError> {
        let mut input = Self::default();
        let path = |name| dir.join(name);
        match workload {
            Workload::Json => input.document = read(path(Self::DOCUMENT), |path| fs::read(path))?,
            Workload::Syn => {
                input.source = read(path(Self::SOURCE), |path| fs::read_to_string(path))?;
            }
            Workload::Service => {
                let service = Service::start();
                input.service = Some(service.map_err(|source| InputError::NoService { source })?);
            }
            _ => {}
        }
        Ok(input)
    }

    /// Takes what a workload needs from the arguments.
    #[cfg(test)]
    pub(super) fn of(workload: Workload, document: Vec<u8>, source: String) -> io::Result<Self> {
        let service = (workload == Workload::Service).then(Service::start).transpose()?;
        Ok(Self { document, source, service })
    }

    pub(super) fn document(&self) -> &[u8] {
        &self.document
    }

    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// **Panics**: if the input is of another workload.
    pub(super) fn service(&self) -> &Service {
        self.service.as_ref().expect("the input of the service has it")
    }
}

fn read<T>(path: PathBuf, how: impl FnOnce(&Path) -> io::Result<T>) -> Result<T, InputError> {
    how(&path).map_err(|source| InputError::NotRead { path, source })
}
