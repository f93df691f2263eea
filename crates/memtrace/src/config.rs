//! What tracing is started with.

use memtrace_alloc::{StartError, Started, start};

/// How to trace; begins with the defaults.
///
/// ```
/// let config = memtrace::Config::new().frames(50);
/// # let _ = config;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    n_frames: u16,
}

impl Config {
    /// The defaults: 25 frames for each allocation.
    pub const fn new() -> Self {
        Self { n_frames: 25 }
    }

    /// Sets the number of frames captured for each allocation, 1 to 65535.
    pub const fn frames(mut self, n_frames: u16) -> Self {
        self.n_frames = n_frames;
        self
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

/// Starts to trace all allocations as a [`Config`] says.
///
/// **Errors**: as [`start`].
pub fn start_with(config: Config) -> Result<Started, StartError> {
    start(config.n_frames)
}
