//! One space of ids for the strings and places of two tables.
//!
//! Ids of the first table stay as they are. Ids of the second become those of equal strings and
//! places in the first, or new ones after them. Two tables of one lineage need no translation.

use hashbrown::HashMap;

use crate::stack_table::{Place, StackTable};

/// How ids of one table are spelt in the joint space.
#[derive(Debug)]
pub(crate) enum Spelling {
    Unchanged,
    Translated { strings: Vec<u32>, places: Vec<u32> },
}

impl Spelling {
    /// Spells the ids of `old` in the space of `new`.
    ///
    /// **Cost.** Nothing for tables of one lineage; else a hash of each string and each place.
    pub(crate) fn of(old: &StackTable, new: &StackTable) -> Self {
        if old.shares_ids_with(new) {
            return Self::Unchanged;
        }
        let ids: HashMap<&str, u32> =
            (0..).zip(new.strings()).map(|(id, text)| (&**text, id)).collect();
        let mut next = new.strings().len() as u32..;
        let strings: Vec<u32> = old
            .strings()
            .iter()
            .map(|text| ids.get(&**text).copied().or_else(|| next.next()).unwrap_or(u32::MAX))
            .collect();
        let ids: HashMap<Place, u32> = (0..).zip(new.places()).map(|(id, &p)| (p, id)).collect();
        let mut next = new.places().len() as u32..;
        let places = old
            .places()
            .iter()
            .map(|place| Place { filename: strings[place.filename as usize], ..*place })
            .map(|place| ids.get(&place).copied().or_else(|| next.next()).unwrap_or(u32::MAX))
            .collect();
        Self::Translated { strings, places }
    }

    pub(crate) fn string(&self, id: u32) -> u32 {
        match self {
            Self::Unchanged => id,
            Self::Translated { strings, .. } => strings[id as usize],
        }
    }

    pub(crate) fn place(&self, id: u32) -> u32 {
        match self {
            Self::Unchanged => id,
            Self::Translated { places, .. } => places[id as usize],
        }
    }
}
