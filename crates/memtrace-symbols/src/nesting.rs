//! How deep inlined functions are nested in a unit, found out before the unit is parsed.
//!
//! addr2line parses nested inlined functions by recursion, one level a nesting. No compiler nests
//! more than some dozens, but a damaged file can claim a hundred thousand in as many bytes and so
//! overflow the stack, which nothing can catch. So each unit is walked once, without recursion,
//! before addr2line is asked about an address in it.
//!
//! Invariants:
//! - I1: `ranges` is sorted by begin and has every range of every unit that addr2line may find by
//!   its ranges; `reach[i]` is the greatest end of `ranges[..=i]`.
//! - I2: units without ranges, which addr2line finds by their line programs, were walked when the
//!   table was built.
//!
//! I1 holds because both read the same attributes of the root entry: `.debug_aranges`, a second
//! table of ranges that need not agree, is withheld from addr2line.
//!
//! **Cost:** 32 bytes a range; a walk skips over all entries of the unit, about what addr2line
//! does then.

use std::cell::Cell;

use gimli::{EndianSlice, RunTimeEndian, UnitHeader, UnitType};

type Bytes<'a> = EndianSlice<'a, RunTimeEndian>;

/// The deepest nesting of inlined functions that is parsed. With two unoptimized stack frames of
/// addr2line a level it takes less than half of the 2 MiB that std gives a thread.
const N_LEVELS_MAX: usize = 256;

/// The units of a file, by address, and which of them were walked.
pub(crate) struct Nesting<'a> {
    units: Vec<(UnitHeader<Bytes<'a>>, Cell<Verdict>)>,
    ranges: Vec<UnitRange>,
    reach: Vec<u64>,
}

struct UnitRange {
    begin: u64,
    end: u64,
    unit: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    NotWalked,
    Fit,
    TooDeep,
}

impl<'a> Nesting<'a> {
    /// Lists the units of a file with their address ranges.
    ///
    /// **Errors:** if a root entry cannot be read, or a unit without ranges is nested too deeply.
    pub(crate) fn read(dwarf: &gimli::Dwarf<Bytes<'a>>) -> Result<Self, String> {
        let damaged = |error: gimli::Error| error.to_string();
        let mut nesting = Nesting { units: Vec::new(), ranges: Vec::new(), reach: Vec::new() };
        let mut headers = dwarf.units();
        while let Some(header) = headers.next().map_err(damaged)? {
            if matches!(header.type_(), UnitType::Type { .. } | UnitType::SplitType { .. }) {
                continue;
            }
            // addr2line passes over units whose root it cannot read.
            let Ok(unit) = dwarf.unit(header) else { continue };
            let n_ranges = nesting.ranges.len();
            let mut ranges = dwarf.unit_ranges(&unit).map_err(damaged)?;
            while let Some(gimli::Range { begin, end }) = ranges.next().map_err(damaged)? {
                if begin < end {
                    nesting.ranges.push(UnitRange { begin, end, unit: nesting.units.len() });
                }
            }
            let mut verdict = Verdict::NotWalked;
            if nesting.ranges.len() == n_ranges {
                verdict = walked(dwarf, header);
                if verdict == Verdict::TooDeep {
                    return Err(too_deep());
                }
            }
            nesting.units.push((header, Cell::new(verdict)));
        }
        nesting.ranges.sort_unstable_by_key(|range| range.begin);
        let reach = nesting.ranges.iter().scan(0, |reach, range| {
            *reach = range.end.max(*reach);
            Some(*reach)
        });
        nesting.reach = reach.collect();
        Ok(nesting)
    }

    /// Checks the units that cover an address.
    ///
    /// **Errors:** if one of them is nested too deeply.
    pub(crate) fn check(
        &self,
        dwarf: &gimli::Dwarf<Bytes<'a>>,
        file_addr: u64,
    ) -> Result<(), String> {
        let n_before = self.ranges.partition_point(|range| range.begin <= file_addr);
        let covering = (0..n_before)
            .rev()
            .take_while(|at| self.reach[*at] > file_addr)
            .map(|at| &self.ranges[at])
            .filter(|range| range.end > file_addr);
        for range in covering {
            let (header, verdict) = &self.units[range.unit];
            if verdict.get() == Verdict::NotWalked {
                verdict.set(walked(dwarf, *header));
            }
            if verdict.get() == Verdict::TooDeep {
                return Err(too_deep());
            }
        }
        Ok(())
    }
}

fn too_deep() -> String {
    format!("inlined functions are nested more than {N_LEVELS_MAX} deep")
}

/// Walks all entries of a unit, up to the first that cannot be read: there addr2line ends too.
fn walked<'a>(dwarf: &gimli::Dwarf<Bytes<'a>>, header: UnitHeader<Bytes<'a>>) -> Verdict {
    match is_too_deep(dwarf, header) {
        Ok(true) => Verdict::TooDeep,
        Ok(false) | Err(_) => Verdict::Fit,
    }
}

fn is_too_deep<'a>(
    dwarf: &gimli::Dwarf<Bytes<'a>>,
    header: UnitHeader<Bytes<'a>>,
) -> gimli::Result<bool> {
    let unit = dwarf.unit(header)?;
    let mut entries = unit.entries_raw(None)?;
    // The depths, in the tree of entries, of the inlined functions around the current entry.
    let mut around = Vec::new();
    while !entries.is_empty() {
        let depth = entries.next_depth();
        let Some(abbreviation) = entries.read_abbreviation()? else { continue };
        entries.skip_attributes(abbreviation.attributes())?;
        while around.last().is_some_and(|outer| *outer >= depth) {
            around.pop();
        }
        if abbreviation.tag() == gimli::DW_TAG_inlined_subroutine {
            around.push(depth);
            if around.len() > N_LEVELS_MAX {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
