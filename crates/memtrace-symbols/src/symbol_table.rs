//! The functions of a symbol table, by address.
//!
//! Mechanism: one array sorted by start, with the running maximum of the ends beside it, so that
//! the search back from an address stops where no earlier symbol can reach it.
//!
//! A symbol with a size covers exactly that. One without, as assembler code has, covers what comes
//! before the next symbol, but no further than its section.
//!
//! Invariants:
//! - I1: `symbols` is sorted by start; symbols of one start are neighbours, the preferred first.
//! - I2: `reach[i]` is the greatest end of `symbols[..=i]`.
//!
//! **Cost:** 48 bytes a symbol; building sorts, a look-up is a binary search and usually one step.

use std::cmp::Reverse;
use std::collections::HashMap;

use object::{Object, ObjectSection, ObjectSymbol, SectionIndex, SymbolKind};

use crate::function_name::FunctionName;

/// The function symbols of one file.
pub(crate) struct SymbolTable<'a> {
    symbols: Vec<Symbol<'a>>,
    reach: Vec<u64>,
    is_full: bool,
}

#[derive(Clone, Debug)]
struct Symbol<'a> {
    start: u64,
    /// One past the last address.
    end: u64,
    name: &'a [u8],
    has_size: bool,
    is_global: bool,
}

impl Symbol<'_> {
    /// Aliases in order of preference: a size before none, `malloc` before `__libc_malloc`, global
    /// before local, then by name so that the answer does not depend on the order in the file.
    fn order(&self) -> (u64, bool, usize, bool, &[u8], Reverse<u64>) {
        let n_underscores = self.name.iter().take_while(|byte| **byte == b'_').count();
        let Symbol { start, end, name, has_size, is_global } = self;
        (*start, !has_size, n_underscores, !is_global, name, Reverse(*end))
    }

    fn function_name(&self) -> FunctionName {
        FunctionName::new(&String::from_utf8_lossy(self.name))
    }
}

impl<'a> SymbolTable<'a> {
    /// Reads `.symtab`, or `.dynsym` if there is no other.
    pub(crate) fn read(object: &object::File<'a>) -> Self {
        let section_ends: HashMap<SectionIndex, u64> = object
            .sections()
            .filter_map(|section| {
                Some((section.index(), section.address().checked_add(section.size())?))
            })
            .collect();
        let mut symbols: Vec<_> =
            object.symbols().filter_map(|symbol| function(&symbol, &section_ends)).collect();
        let is_full = !symbols.is_empty();
        if !is_full {
            symbols.extend(
                object.dynamic_symbols().filter_map(|symbol| function(&symbol, &section_ends)),
            );
        }
        SymbolTable::new(symbols, is_full)
    }

    fn new(mut symbols: Vec<Symbol<'a>>, is_full: bool) -> Self {
        symbols.sort_unstable_by(|a, b| a.order().cmp(&b.order()));
        symbols.dedup_by(|a, b| a.order() == b.order());
        let mut next_start = u64::MAX;
        for at in (0..symbols.len()).rev() {
            if !symbols[at].has_size {
                symbols[at].end = symbols[at].end.min(next_start);
            }
            if at > 0 && symbols[at - 1].start < symbols[at].start {
                next_start = symbols[at].start;
            }
        }
        let reach = symbols
            .iter()
            .scan(0, |reach, symbol| {
                *reach = symbol.end.max(*reach);
                Some(*reach)
            })
            .collect();
        SymbolTable { symbols, reach, is_full }
    }

    /// Whether this is the whole `.symtab`, which names local functions too, and not `.dynsym`.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Finds the function that covers the address. Among several names for it, prefers one whose
    /// last part is `bare`.
    ///
    /// **Cost:** a binary search, and a step for each symbol that begins inside the function.
    pub(crate) fn find(&self, file_addr: u64, bare: Option<&str>) -> Option<FunctionName> {
        let n_before = self.symbols.partition_point(|symbol| symbol.start <= file_addr);
        let mut covering = (0..n_before)
            .rev()
            .take_while(|at| self.reach[*at] > file_addr)
            .map(|at| &self.symbols[at])
            .filter(|symbol| symbol.end > file_addr);
        let nearest = covering.next()?;
        let nearest = if nearest.has_size {
            nearest
        } else {
            covering.find(|s| s.has_size).unwrap_or(nearest)
        };

        let start = nearest.start;
        let first = self.symbols.partition_point(|symbol| symbol.start < start);
        let aliases = self.symbols[first..]
            .iter()
            .take_while(|symbol| symbol.start == start)
            .filter(|symbol| symbol.end > file_addr);
        let preferred = aliases.clone().next()?.function_name();
        let Some(bare) = bare.filter(|bare| !preferred.ends_in(bare)) else {
            return Some(preferred);
        };
        Some(
            aliases.map(Symbol::function_name).find(|name| name.ends_in(bare)).unwrap_or(preferred),
        )
    }
}

/// The symbol, if it is a function that the file defines.
fn function<'a>(
    symbol: &impl ObjectSymbol<'a>,
    section_ends: &HashMap<SectionIndex, u64>,
) -> Option<Symbol<'a>> {
    let is_function = match symbol.kind() {
        SymbolKind::Text => true,
        // Assembler code without types; `$x` and the like mark instruction sets, not functions.
        SymbolKind::Unknown | SymbolKind::Label => {
            !symbol.name_bytes().is_ok_and(|name| name.starts_with(b"$"))
        }
        _ => false,
    };
    if !is_function || symbol.is_undefined() {
        return None;
    }
    let name = symbol.name_bytes().ok().filter(|name| !name.is_empty())?;
    let start = symbol.address();
    let section_end = section_ends.get(&symbol.section_index()?).copied().unwrap_or(u64::MAX);
    let has_size = symbol.size() > 0;
    let end = if has_size { start.checked_add(symbol.size())? } else { section_end };
    Some(Symbol { start, end, name, has_size, is_global: symbol.is_global() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sized(start: u64, size: u64, name: &str) -> Symbol<'_> {
        let name = name.as_bytes();
        Symbol { start, end: start + size, name, has_size: true, is_global: true }
    }

    fn unsized_up_to(start: u64, section_end: u64, name: &str) -> Symbol<'_> {
        let name = name.as_bytes();
        Symbol { start, end: section_end, name, has_size: false, is_global: true }
    }

    fn found(symbols: &[Symbol<'_>], file_addr: u64) -> Option<String> {
        Some(SymbolTable::new(symbols.to_vec(), true).find(file_addr, None)?.text)
    }

    #[test]
    fn a_symbol_covers_its_size_and_no_more() {
        let symbols = [sized(0x10, 0x10, "a"), sized(0x30, 0x10, "b")];
        let expected =
            [(0xf, None), (0x10, Some("a")), (0x1f, Some("a")), (0x20, None), (0x3f, Some("b"))];
        for (file_addr, name) in expected {
            assert_eq!(found(&symbols, file_addr).as_deref(), name, "{file_addr:#x}");
        }
        assert_eq!(found(&symbols, 0x40), None);
        assert_eq!(found(&[], 0), None);
    }

    #[test]
    fn a_symbol_without_size_covers_what_comes_before_the_next_or_its_section_ends() {
        let symbols =
            [unsized_up_to(0x10, 0x40, "a"), sized(0x20, 8, "b"), unsized_up_to(0x30, 0x40, "c")];
        let expected =
            [(0x1f, Some("a")), (0x20, Some("b")), (0x28, None), (0x3f, Some("c")), (0x40, None)];
        for (file_addr, name) in expected {
            assert_eq!(found(&symbols, file_addr).as_deref(), name, "{file_addr:#x}");
        }
    }

    #[test]
    fn a_label_inside_a_function_does_not_hide_it() {
        let symbols = [sized(0x10, 0x40, "f"), unsized_up_to(0x20, 0x80, "label")];
        assert_eq!(found(&symbols, 0x28).as_deref(), Some("f"));
        assert_eq!(found(&symbols, 0x58).as_deref(), Some("label"));
    }

    #[test]
    fn of_two_nested_functions_the_inner_one_is_found() {
        let symbols = [sized(0x10, 0x40, "outer"), sized(0x20, 8, "inner")];
        assert_eq!(found(&symbols, 0x24).as_deref(), Some("inner"));
        assert_eq!(found(&symbols, 0x28).as_deref(), Some("outer"));
    }

    #[test]
    fn of_several_names_the_plainest_is_preferred_unless_another_fits_the_bare_one() {
        let symbols = [
            sized(0x10, 8, "__libc_malloc"),
            sized(0x10, 8, "malloc"),
            Symbol { is_global: false, ..sized(0x10, 8, "a_local") },
        ];
        assert_eq!(found(&symbols, 0x10).as_deref(), Some("malloc"));
        let table = SymbolTable::new(symbols.to_vec(), true);
        let by_name = |bare| table.find(0x12, Some(bare)).map(|name| name.text);
        assert_eq!(by_name("a_local").as_deref(), Some("a_local"));
        assert_eq!(by_name("unheard_of").as_deref(), Some("malloc"));
    }
}
