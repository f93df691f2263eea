//! What tracing is started with.

/// What to record of each allocation; begins with 25 frames of its stack and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    pub(crate) n_frames: u16,
    pub(crate) threads: bool,
    pub(crate) generations: bool,
}

impl Options {
    /// Records 25 frames for each allocation.
    pub const fn new() -> Self {
        Self { n_frames: 25, threads: false, generations: false }
    }

    /// Sets the number of frames captured for each allocation, 1 to 65535.
    pub const fn frames(mut self, n_frames: u16) -> Self {
        self.n_frames = n_frames;
        self
    }

    /// Sets whether the thread is recorded that allocated, or last resized, each block.
    ///
    /// **Cost**: two instructions an allocation, and the column of details: 8 bytes for each 16 bytes
    /// of heap, shared with [`Self::generations`]. Nothing while both are off.
    pub const fn threads(mut self, is_on: bool) -> Self {
        self.threads = is_on;
        self
    }

    /// Sets whether the generation is recorded in which each block was allocated or last resized, see
    /// [`crate::advance_generation`].
    ///
    /// **Cost**: as [`Self::threads`].
    pub const fn generations(mut self, is_on: bool) -> Self {
        self.generations = is_on;
        self
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}
