//! The constants of CPython's small-object heap, by version.
//!
//! # Mechanism
//! A [`Version`] is a minor release; its [`Profile`] says how large pools and arenas are, whether
//! one wholly free arena is kept, and how the map of arenas is cut. What is the same everywhere is a
//! constant. All of it is that of 64-bit builds with the interpreter's own heap (not the
//! free-threaded ones); 3.6 and 3.7 are their last maintenance releases, for early ones aligned
//! blocks to 8 bytes.
//!
//! # Invariants
//! - **F1** Pool and arena sizes are powers of two and an arena holds [`POOLS_PER_ARENA`] pools.
//! - **F2** Every class has at least seven blocks in a pool, so a pool is never emptied by the free
//!   that finds it full.

use core::error::Error;
use core::fmt;
use core::str::FromStr;

/// The step between block sizes and the alignment of blocks, in bytes.
pub const ALIGNMENT: usize = 16;

/// The largest request that is served from a pool, in bytes.
pub const THRESHOLD: usize = 512;

/// The head of each pool, in bytes, which no block takes.
pub const POOL_HEADER: usize = 48;

/// The number of size classes.
pub const N_CLASSES: usize = THRESHOLD / ALIGNMENT;

/// Pools of an arena that begins at a multiple of the pool size; any other has one less.
pub const POOLS_PER_ARENA: usize = 64;

/// A minor release of CPython.
///
/// ```
/// use memtrace_heap::python::Version;
///
/// let version: Version = "3.9".parse()?;
/// assert_eq!(version.profile().pool_size(), 4096);
/// assert!("3.14".parse::<Version>().is_err());
/// # Ok::<(), memtrace_heap::python::UnknownVersion>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each is the release of its name")]
pub enum Version {
    V3_6,
    V3_7,
    V3_8,
    V3_9,
    V3_10,
    V3_11,
    V3_12,
    V3_13,
}

impl Version {
    /// Every version, oldest first.
    pub const ALL: [Version; 8] = [
        Version::V3_6,
        Version::V3_7,
        Version::V3_8,
        Version::V3_9,
        Version::V3_10,
        Version::V3_11,
        Version::V3_12,
        Version::V3_13,
    ];

    /// The version as it is written, such as `3.11`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Version::V3_6 => "3.6",
            Version::V3_7 => "3.7",
            Version::V3_8 => "3.8",
            Version::V3_9 => "3.9",
            Version::V3_10 => "3.10",
            Version::V3_11 => "3.11",
            Version::V3_12 => "3.12",
            Version::V3_13 => "3.13",
        }
    }

    /// Its constants.
    #[must_use]
    pub const fn profile(self) -> Profile {
        let (pool_size, keeps_last_arena, map): (usize, _, _) = match self {
            Version::V3_6 | Version::V3_7 | Version::V3_8 => (4096, false, None),
            Version::V3_9 => (4096, true, None),
            Version::V3_10 => (16384, true, Some(MapShape::NARROW)),
            Version::V3_11 | Version::V3_12 | Version::V3_13 => (16384, true, Some(MapShape::WIDE)),
        };
        let arena_size = pool_size.saturating_mul(POOLS_PER_ARENA);
        Profile { version: self, pool_size, arena_size, keeps_last_arena, map }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Version {
    type Err = UnknownVersion;

    fn from_str(text: &str) -> Result<Version, UnknownVersion> {
        Version::ALL.into_iter().find(|version| version.name() == text).ok_or(UnknownVersion)
    }
}

/// A text that names none of [`Version::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownVersion;

impl fmt::Display for UnknownVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a version of Python from 3.6 to 3.13")
    }
}

impl Error for UnknownVersion {}

/// How the tree that finds arenas by address is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MapShape {
    /// One middle node for each value of an address shifted right by this.
    pub(super) middle_shift: u32,
    /// One bottom node for each value of an address shifted right by this.
    pub(super) bottom_shift: u32,
    /// The size of the root and of a middle node, in bytes.
    pub(super) interior_bytes: usize,
    /// The size of a bottom node, in bytes.
    pub(super) bottom_bytes: usize,
}

impl MapShape {
    /// The tree over 48 address bits.
    const NARROW: MapShape =
        MapShape { middle_shift: 38, bottom_shift: 28, interior_bytes: 8192, bottom_bytes: 2048 };

    /// The tree over 64 address bits.
    const WIDE: MapShape = MapShape {
        middle_shift: 49,
        bottom_shift: 34,
        interior_bytes: 262_144,
        bottom_bytes: 131_072,
    };
}

/// The constants of one version's heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    version: Version,
    pool_size: usize,
    arena_size: usize,
    keeps_last_arena: bool,
    map: Option<MapShape>,
}

impl Profile {
    /// Whose constants these are.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The size of a pool, in bytes, to which it is also aligned.
    #[must_use]
    pub const fn pool_size(&self) -> usize {
        self.pool_size
    }

    /// The size of an arena, in bytes.
    #[must_use]
    pub const fn arena_size(&self) -> usize {
        self.arena_size
    }

    /// Whether an arena that is wholly free stays if it is the last with pools to give, or goes back
    /// at once like any other.
    #[must_use]
    pub const fn keeps_last_arena(&self) -> bool {
        self.keeps_last_arena
    }

    /// The class of a request of `size` bytes; `None` if no pool serves it.
    #[must_use]
    pub const fn class_of(&self, size: usize) -> Option<usize> {
        if size == 0 || size > THRESHOLD { None } else { Some(size.wrapping_sub(1) / ALIGNMENT) }
    }

    /// The size of a block of class `class`, in bytes.
    #[must_use]
    pub const fn block_size(&self, class: usize) -> usize {
        class.saturating_add(1).saturating_mul(ALIGNMENT)
    }

    /// How many blocks of class `class` a pool has.
    #[must_use]
    pub const fn blocks_per_pool(&self, class: usize) -> usize {
        match self.pool_size.wrapping_sub(POOL_HEADER).checked_div(self.block_size(class)) {
            Some(n_blocks) => n_blocks,
            None => 0,
        }
    }

    /// What a pool of class `class` has left over at its end, in bytes.
    #[must_use]
    pub const fn tail_bytes(&self, class: usize) -> usize {
        match self.pool_size.wrapping_sub(POOL_HEADER).checked_rem(self.block_size(class)) {
            Some(tail) => tail,
            None => 0,
        }
    }

    pub(super) const fn map(&self) -> Option<MapShape> {
        self.map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_fill_pools_as_the_table_of_classes_says() {
        let (old, new) = (Version::V3_6.profile(), Version::V3_13.profile());
        for (class, blocks, tail, new_blocks, new_tail) in [
            (0, 253, 0, 1021, 0),
            (6, 36, 16, 145, 96),
            (13, 18, 16, 72, 208),
            (24, 10, 48, 40, 336),
            (31, 7, 464, 31, 464),
        ] {
            assert_eq!((old.blocks_per_pool(class), old.tail_bytes(class)), (blocks, tail));
            let of_new = (new.blocks_per_pool(class), new.tail_bytes(class));
            assert_eq!(of_new, (new_blocks, new_tail));
        }
        assert_eq!(old.arena_size(), 256 << 10);
        assert_eq!(new.arena_size(), 1 << 20);
    }

    #[test]
    fn every_version_is_parsed_from_its_name() {
        for version in Version::ALL {
            assert_eq!(version.name().parse(), Ok(version));
            let profile = version.profile();
            assert_eq!(profile.version(), version);
            assert!((0..N_CLASSES).all(|class| profile.blocks_per_pool(class) >= 7));
        }
        for text in ["", "3", "3.5", "3.14", "3.11.4", " 3.9"] {
            assert_eq!(text.parse::<Version>(), Err(UnknownVersion), "{text:?}");
        }
    }
}
