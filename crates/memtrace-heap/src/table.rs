//! A hash table from addresses to values, in mapped memory.
//!
//! # Mechanism
//! Open addressing with linear probing over a power of two of entries, at most half of them taken;
//! keys are multiplied by the golden ratio. Removal shifts the entries behind the hole back, so
//! there are no tombstones and the table never degrades.
//!
//! # Invariants
//! - **T1** An entry's key is zero exactly if the entry is vacant.
//! - **T2** Between an entry's home position and its position no entry is vacant.
//! - **T3** At most half of the entries are taken, so every probe ends.
//!
//! # Cost
//! About one and a half probes for a hit and two and a half for a miss. Growing maps and
//! rehashes, constant a key in the long run.

use core::mem;

use crate::mapped::{Array, Source};
use crate::pages::{PAGE_SIZE, PageSource};

#[derive(Debug, Default)]
struct Entry<V> {
    key: usize,
    value: V,
}

/// Values by the address they belong to, which is never zero.
#[derive(Debug)]
pub(crate) struct AddressTable<V> {
    entries: Array<Entry<V>>,
    n_taken: usize,
}

impl<V> Default for AddressTable<V> {
    fn default() -> AddressTable<V> {
        AddressTable { entries: Array::default(), n_taken: 0 }
    }
}

impl<V: Default> AddressTable<V> {
    /// Makes room for one more key; `false`, with nothing changed, if the pages are not to be had.
    pub(crate) fn reserve(&mut self, source: Source<'_, impl PageSource>) -> bool {
        if self.has_room() {
            return true;
        }
        let at_least = PAGE_SIZE.checked_div(size_of::<Entry<V>>()).unwrap_or(1).max(2);
        let wanted = self.entries.len().saturating_mul(2).max(at_least);
        let Some(entries) =
            wanted.checked_next_power_of_two().and_then(|len| Array::new(source, len))
        else {
            return false;
        };
        let old = mem::replace(self, AddressTable { entries, n_taken: 0 });
        let mut entries = old.entries;
        for entry in entries.iter_mut().filter(|entry| entry.key != 0) {
            let Entry { key, value } = mem::take(entry);
            self.insert(key, value);
        }
        entries.unmap(source);
        true
    }

    /// Adds `key` with `value`; `false` if there is no room or the key is there already.
    pub(crate) fn insert(&mut self, key: usize, value: V) -> bool {
        if key == 0 || !self.has_room() {
            return false;
        }
        let mut position = self.home(key);
        while let Some(entry) = self.entries.get_mut(position) {
            if entry.key == 0 {
                *entry = Entry { key, value };
                self.n_taken = self.n_taken.wrapping_add(1);
                return true;
            }
            if entry.key == key {
                return false;
            }
            position = self.after(position);
        }
        false
    }

    /// Takes `key` out.
    pub(crate) fn remove(&mut self, key: usize) -> Option<V> {
        let mut hole = self.find(key)?;
        let removed = mem::take(self.entries.get_mut(hole)?);
        self.n_taken = self.n_taken.wrapping_sub(1);
        let mask = self.mask();
        let mut next = self.after(hole);
        while let Some(entry) = self.entries.get(next).filter(|entry| entry.key != 0) {
            // T2: an entry may move back to the hole unless its home lies behind the hole.
            let from_home = next.wrapping_sub(self.home(entry.key)) & mask;
            let from_hole = next.wrapping_sub(hole) & mask;
            if from_home >= from_hole {
                let moved = mem::take(self.entries.get_mut(next)?);
                *self.entries.get_mut(hole)? = moved;
                hole = next;
            }
            next = self.after(next);
        }
        Some(removed.value)
    }
}

impl<V> AddressTable<V> {
    /// The value of `key`.
    pub(crate) fn get(&self, key: usize) -> Option<&V> {
        let position = self.find(key)?;
        self.entries.get(position).map(|entry| &entry.value)
    }

    /// The value of `key`, to change.
    pub(crate) fn get_mut(&mut self, key: usize) -> Option<&mut V> {
        let position = self.find(key)?;
        self.entries.get_mut(position).map(|entry| &mut entry.value)
    }

    /// Every key with its value, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &V)> {
        self.entries.iter().filter(|entry| entry.key != 0).map(|entry| (entry.key, &entry.value))
    }

    /// Every value, to change, in no order.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.entries.iter_mut().filter(|entry| entry.key != 0).map(|entry| &mut entry.value)
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.n_taken
    }

    /// The mapped size, in bytes.
    pub(crate) fn n_bytes(&self) -> usize {
        self.entries.n_bytes()
    }

    /// Gives the memory back, handing each value to `release` first.
    pub(crate) fn unmap(mut self, source: Source<'_, impl PageSource>, mut release: impl FnMut(V))
    where
        V: Default,
    {
        for entry in self.entries.iter_mut().filter(|entry| entry.key != 0) {
            release(mem::take(entry).value);
        }
        self.entries.unmap(source);
    }

    fn has_room(&self) -> bool {
        self.n_taken < self.entries.len() / 2
    }

    fn mask(&self) -> usize {
        self.entries.len().wrapping_sub(1)
    }

    fn after(&self, position: usize) -> usize {
        position.wrapping_add(1) & self.mask()
    }

    fn home(&self, key: usize) -> usize {
        let page = (key / PAGE_SIZE) as u64;
        let hash = page.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // The top half, which depends on every bit of the page number.
        (hash >> 32) as usize & self.mask()
    }

    fn find(&self, key: usize) -> Option<usize> {
        if key == 0 {
            return None;
        }
        let mut position = self.home(key);
        loop {
            match self.entries.get(position)?.key {
                0 => return None,
                found if found == key => return Some(position),
                _ => position = self.after(position),
            }
        }
    }
}

#[cfg(test)]
#[expect(unsafe_code, reason = "vouches for the page source")]
mod tests {
    extern crate std;

    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::pages::SystemPages;

    proptest! {
        #[test]
        fn it_agrees_with_a_map_from_the_standard_library(
            steps in proptest::collection::vec((0usize..400, any::<bool>()), 1..600),
        ) {
            // SAFETY: the only source in this test.
            let source = unsafe { Source::new(&SystemPages) };
            let mut table = AddressTable::<usize>::default();
            let mut oracle = BTreeMap::new();
            for (step, (page, is_insert)) in steps.into_iter().enumerate() {
                let key = (page + 1) * PAGE_SIZE;
                if is_insert {
                    prop_assert!(table.reserve(source));
                    let is_new = !oracle.contains_key(&key);
                    prop_assert_eq!(table.insert(key, step), is_new);
                    oracle.entry(key).or_insert(step);
                } else {
                    prop_assert_eq!(table.remove(key), oracle.remove(&key));
                }
                prop_assert_eq!(table.len(), oracle.len());
                prop_assert_eq!(table.get(key), oracle.get(&key));
            }
            for (key, value) in &oracle {
                prop_assert_eq!(table.get(*key), Some(value));
            }
            let listed: BTreeMap<_, _> = table.iter().map(|(key, &value)| (key, value)).collect();
            prop_assert_eq!(listed, oracle);
            table.unmap(source, drop);
        }
    }

    #[test]
    fn an_empty_table_has_no_mapping_and_finds_nothing() {
        let mut table = AddressTable::<usize>::default();
        assert_eq!(table.n_bytes(), 0);
        assert_eq!(table.get(PAGE_SIZE), None);
        assert_eq!(table.remove(PAGE_SIZE), None);
        assert!(!table.insert(PAGE_SIZE, 1));
    }
}
