//! One ELF file in memory, with the tables that are read from it.
//!
//! An [`ElfFile`] is the bytes of the file and what borrows from them, in one value: the object
//! headers, the symbol table (built on first use) and the DWARF units. Debug sections that are
//! compressed are unpacked once, when the file is opened; all others are used where they lie.
//!
//! **Cost:** opening reads the root entry of each compilation unit and all of `.debug_abbrev`. It
//! unpacks compressed debug sections whole, the only case where a file's debug information is held
//! on the heap.

use std::cell::OnceCell;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use gimli::{EndianSlice, RunTimeEndian, SectionId};
use object::{
    BinaryFormat, CompressedFileRange, CompressionFormat, Object, ObjectSection, ObjectSegment,
    SegmentFlags,
};
use self_cell::self_cell;

use crate::bytes::FileBytes;
use crate::debug_info::DebugInfo;
use crate::symbol_table::SymbolTable;

/// The sections that names, files and lines are read from. Not `.debug_aranges`: it repeats what
/// `.debug_info` says, and the check of the units' nesting relies on there being one truth.
const SECTIONS_USED: [SectionId; 9] = [
    SectionId::DebugAbbrev,
    SectionId::DebugAddr,
    SectionId::DebugInfo,
    SectionId::DebugLine,
    SectionId::DebugLineStr,
    SectionId::DebugRanges,
    SectionId::DebugRngLists,
    SectionId::DebugStr,
    SectionId::DebugStrOffsets,
];

/// The most bytes that one compressed byte may claim to unpack to: what deflate can do at best.
/// Larger claims are taken for a damaged file, before memory is allocated for them.
const UNPACKED_RATIO_MAX: u64 = 1032;

/// The bytes of a file and its unpacked sections.
pub(crate) struct ElfBytes {
    file: FileBytes,
    unpacked: Vec<(SectionId, Vec<u8>)>,
}

/// What borrows from [`ElfBytes`].
pub(crate) struct ElfTables<'a> {
    object: object::File<'a>,
    symbols: OnceCell<SymbolTable<'a>>,
    debug_info: Result<DebugInfo<'a>, Arc<str>>,
}

self_cell!(
    struct ElfCell {
        owner: ElfBytes,
        #[not_covariant]
        dependent: ElfTables,
    }
);

/// An opened ELF file.
pub(crate) struct ElfFile(ElfCell);

impl ElfFile {
    /// Opens and parses the file.
    ///
    /// **Errors:** one line saying why the file cannot be used. Damaged debug information is no
    /// error; [`Self::with_debug_info`] tells it.
    pub(crate) fn open(path: &Path) -> Result<Self, Arc<str>> {
        let file = FileBytes::open(path).map_err(|error| error.to_string())?;
        let object = parsed(&file)?;
        let unpacked = unpacked_sections(&object);
        drop(object);
        let (unpacked, damage) = match unpacked {
            Ok(unpacked) => (unpacked, None),
            Err(damage) => (Vec::new(), Some(damage)),
        };
        let cell = ElfCell::try_new(ElfBytes { file, unpacked }, |bytes| {
            let object = parsed(&bytes.file)?;
            let debug_info = match damage {
                Some(damage) => Err(damage),
                None => bytes.debug_info(&object),
            };
            Ok::<_, Arc<str>>(ElfTables { object, symbols: OnceCell::new(), debug_info })
        })?;
        Ok(ElfFile(cell))
    }

    /// The GNU build id note of the file.
    pub(crate) fn build_id(&self) -> Option<&[u8]> {
        self.0.with_dependent(|_, tables| tables.object.build_id().ok().flatten())
    }

    /// The name and the checksum of the separate debug file, as `.gnu_debuglink` gives them.
    pub(crate) fn debug_link(&self) -> Option<(&[u8], u32)> {
        self.0.with_dependent(|_, tables| tables.object.gnu_debuglink().ok().flatten())
    }

    /// The checksum that a `.gnu_debuglink` to this file carries.
    ///
    /// **Cost:** reads the whole file.
    pub(crate) fn checksum(&self) -> u32 {
        crc32fast::hash(&self.0.borrow_owner().file)
    }

    /// Whether the file has DWARF units, readable or not.
    pub(crate) fn has_debug_info(&self) -> bool {
        self.0.with_dependent(|_, tables| {
            tables
                .object
                .section_by_name(SectionId::DebugInfo.name())
                .is_some_and(|section| section.file_range().is_some_and(|(_, size)| size > 0))
        })
    }

    /// The address ranges of the executable segments. No range is empty or reaches `u64::MAX`.
    pub(crate) fn code_ranges(&self) -> Vec<Range<u64>> {
        self.0.with_dependent(|_, tables| {
            let is_executable = |flags| match flags {
                SegmentFlags::Elf { p_flags, p_type, .. } => {
                    p_type == object::elf::PT_LOAD && p_flags.contains(object::elf::PF_X)
                }
                _ => false,
            };
            tables
                .object
                .segments()
                .filter(|segment| is_executable(segment.flags()))
                .filter_map(|segment| {
                    let end = segment.address().checked_add(segment.size())?;
                    Some(segment.address()..end)
                })
                .filter(|range| !range.is_empty())
                .collect()
        })
    }

    /// Gives the debug information, or the reason why there is none, to `look`.
    pub(crate) fn with_debug_info<T>(
        &self,
        look: impl FnOnce(Result<&DebugInfo<'_>, &Arc<str>>) -> T,
    ) -> T {
        self.0.with_dependent(|_, tables| look(tables.debug_info.as_ref()))
    }

    /// Gives the symbol table to `look`.
    pub(crate) fn with_symbols<T>(&self, look: impl FnOnce(&SymbolTable<'_>) -> T) -> T {
        self.0.with_dependent(|_, tables| {
            look(tables.symbols.get_or_init(|| SymbolTable::read(&tables.object)))
        })
    }
}

impl ElfBytes {
    fn debug_info<'a>(&'a self, object: &object::File<'a>) -> Result<DebugInfo<'a>, Arc<str>> {
        let endian =
            if object.is_little_endian() { RunTimeEndian::Little } else { RunTimeEndian::Big };
        let section = |id: SectionId| -> &'a [u8] {
            if !SECTIONS_USED.contains(&id) {
                return &[];
            }
            if let Some((_, unpacked)) = self.unpacked.iter().find(|(unpacked, _)| *unpacked == id)
            {
                return unpacked;
            }
            object
                .section_by_name(id.name())
                .and_then(|section| section.data().ok())
                .unwrap_or_default()
        };
        DebugInfo::read(|id| EndianSlice::new(section(id), endian))
    }
}

fn parsed(file: &FileBytes) -> Result<object::File<'_>, Arc<str>> {
    match object::File::parse(&**file) {
        Ok(object) if object.format() == BinaryFormat::Elf => Ok(object),
        Ok(object) => Err(format!("not an ELF file but {:?}", object.format()).into()),
        Err(error) => Err(format!("not an ELF file: {error}").into()),
    }
}

/// Unpacks those of the used sections that are compressed.
fn unpacked_sections(object: &object::File<'_>) -> Result<Vec<(SectionId, Vec<u8>)>, Arc<str>> {
    let mut unpacked = Vec::new();
    for id in SECTIONS_USED {
        let Some(section) = object.section_by_name(id.name()) else { continue };
        let damaged = |error: String| format!("section {} is damaged: {error}", id.name());
        let CompressedFileRange { format, compressed_size, uncompressed_size, .. } =
            section.compressed_file_range().map_err(|error| damaged(error.to_string()))?;
        if format == CompressionFormat::None {
            continue;
        }
        if uncompressed_size > compressed_size.saturating_mul(UNPACKED_RATIO_MAX) {
            return Err(damaged(format!("it claims {uncompressed_size} bytes unpacked")).into());
        }
        let data = section.uncompressed_data().map_err(|error| damaged(error.to_string()))?;
        unpacked.push((id, data.into_owned()));
    }
    Ok(unpacked)
}
