//! The DWARF units of one file.
//!
//! addr2line does the work: it indexes the units by address when the file is opened and parses the
//! functions and lines of a unit when an address in it is first asked for. This module asks it,
//! after it made sure that the unit cannot overflow the stack, and turns what it says into frames
//! of our own.
//!
//! **Cost:** opening reads each unit's root entry twice; the first address in a unit reads all
//! entries of the unit twice and runs its line program; further addresses cost binary searches.

use std::fmt::Display;
use std::sync::Arc;

use addr2line::Context;
use gimli::{AttributeValue, EndianSlice, RunTimeEndian, Section, SectionId};

use crate::nesting::Nesting;
use crate::source_path::UnitOrigin;

/// The most frames for one address. An inlined chain longer than that loses frames in the middle.
pub(crate) const N_FRAMES_MAX: usize = 256;

type Bytes<'a> = EndianSlice<'a, RunTimeEndian>;

/// The indexed DWARF units.
pub(crate) struct DebugInfo<'a> {
    context: Context<Bytes<'a>>,
    dwarf: Arc<gimli::Dwarf<Bytes<'a>>>,
    nesting: Nesting<'a>,
}

/// What DWARF says about one address.
pub(crate) struct RawFrames<'a> {
    /// Innermost first; the last is the physical function. Empty if no unit covers the address.
    pub(crate) frames: Vec<RawFrame<'a>>,
    /// The unit they are from.
    pub(crate) origin: UnitOrigin,
    /// Whether the inlined functions are in a `.dwo` file, which is not read.
    pub(crate) is_split: bool,
}

/// One frame as DWARF spells it.
pub(crate) struct RawFrame<'a> {
    /// The linkage name if DWARF has it, else the bare name.
    pub(crate) function: Option<String>,
    /// Joined to the compilation directory.
    pub(crate) path: Option<&'a str>,
    pub(crate) line: Option<u32>,
}

impl<'a> DebugInfo<'a> {
    /// Indexes the units of the given sections.
    ///
    /// **Errors:** one line saying what is wrong with them.
    pub(crate) fn read(mut section: impl FnMut(SectionId) -> Bytes<'a>) -> Result<Self, Arc<str>> {
        let mut dwarf =
            gimli::Dwarf::load(|id| Ok::<_, gimli::Error>(section(id))).map_err(damaged)?;
        if dwarf.debug_info.reader().is_empty() {
            return Err("the file has no .debug_info section".into());
        }
        dwarf.populate_abbreviations_cache(gimli::AbbreviationsCacheStrategy::Duplicates);
        let dwarf = Arc::new(dwarf);
        let nesting = Nesting::read(&dwarf).map_err(damaged)?;
        let context = Context::from_arc_dwarf(Arc::clone(&dwarf)).map_err(damaged)?;
        Ok(DebugInfo { context, dwarf, nesting })
    }

    /// Finds the frames at an address, which must be less than `u64::MAX`.
    ///
    /// **Errors:** one line saying what is wrong with the unit.
    pub(crate) fn frames(&self, file_addr: u64) -> Result<RawFrames<'_>, Arc<str>> {
        self.nesting.check(&self.dwarf, file_addr).map_err(damaged)?;
        let mut found = self.context.find_frames(file_addr).skip_all_loads().map_err(damaged)?;
        let mut frames = Vec::new();
        while let Some(frame) = found.next().map_err(damaged)? {
            let function = match &frame.function {
                Some(name) => name.raw_name().ok().map(|name| name.into_owned()),
                None => None,
            };
            let (path, line) = match frame.location {
                Some(location) => (location.file, location.line.filter(|line| *line > 0)),
                None => (None, None),
            };
            if frames.len() == N_FRAMES_MAX {
                frames.pop();
            }
            frames.push(RawFrame { function, path, line });
        }
        let (origin, is_split) = self.origin(file_addr).unwrap_or_default();
        Ok(RawFrames { frames, origin, is_split })
    }

    /// Who compiled the unit at an address and where, and whether it is split.
    fn origin(&self, file_addr: u64) -> Option<(UnitOrigin, bool)> {
        let unit = self.context.find_dwarf_and_unit(file_addr).skip_all_loads()?;
        let text = |bytes: &Bytes<'_>| bytes.to_string_lossy().into_owned();
        let root = unit.entry(unit.header.root_offset()).ok()?;
        let language = root.attr_value(gimli::DW_AT_language);
        let is_rust = language == Some(AttributeValue::Language(gimli::DW_LANG_Rust));
        let is_relative = unit.name.as_ref().is_some_and(|name| !name.starts_with(b"/"));
        let directory = unit.comp_dir.as_ref().map(text);
        let origin = UnitOrigin { directory, is_workspace_crate: is_rust && is_relative };
        Some((origin, unit.dwo_id.is_some()))
    }
}

fn damaged(error: impl Display) -> Arc<str> {
    format!("debug information is damaged: {error}").into()
}
