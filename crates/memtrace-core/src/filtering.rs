//! Which traces some filters let pass.
//!
//! Each filter answers once for each distinct place, and from that for each stack. Filters that ask
//! for no domain are so decided for each stack before any trace is looked at.

use crate::AnyFilter;
use crate::columns::TraceColumns;
use crate::stack_table::StackTable;

/// The traces that the filters let pass, in the same order.
pub(crate) fn filtered(
    table: &StackTable,
    n_hidden: &[u32],
    traces: &TraceColumns,
    filters: Vec<AnyFilter>,
) -> TraceColumns {
    let prepared = filters.into_iter().map(|filter| Prepared::new(filter, table, n_hidden));
    let (included, excluded): (Vec<_>, Vec<_>) =
        prepared.partition(|prepared| prepared.filter.is_inclusive());
    let passes = |domain: u32, stack: u32| {
        let is_hit = |prepared: &Prepared| prepared.hits(domain, stack);
        (included.is_empty() || included.iter().any(is_hit)) && !excluded.iter().any(is_hit)
    };
    if included.iter().chain(&excluded).all(|prepared| !prepared.asks_for_domain()) {
        let stack_passes: Vec<bool> =
            (0..table.n_stacks() as u32).map(|stack| passes(0, stack)).collect();
        return traces.filtered(|row| stack_passes[row.stack as usize]);
    }
    traces.filtered(|row| passes(row.domain, row.stack))
}

/// A filter with its answers for every stack.
struct Prepared {
    filter: AnyFilter,
    /// For each stack id; empty for filters by domain.
    stack_hits: Vec<bool>,
}

impl Prepared {
    fn new(filter: AnyFilter, table: &StackTable, n_hidden: &[u32]) -> Self {
        let stack_hits = match &filter {
            AnyFilter::Domain(_) => Vec::new(),
            AnyFilter::Frame(by_frame) => {
                let place_hits: Vec<bool> = table
                    .places()
                    .iter()
                    .map(|place| by_frame.matches(table.string(place.filename), place.lineno))
                    .collect();
                let is_hit = |frame: &u32| place_hits[table.place_of_frame(*frame) as usize];
                let is_stack_hit = |id: u32| {
                    let stack = table.stack(id);
                    if by_frame.has_all_frames() {
                        stack.iter().any(is_hit)
                    } else {
                        stack.get(n_hidden[id as usize] as usize).is_some_and(is_hit)
                    }
                };
                (0..table.n_stacks() as u32).map(is_stack_hit).collect()
            }
        };
        Self { filter, stack_hits }
    }

    fn asks_for_domain(&self) -> bool {
        match &self.filter {
            AnyFilter::Domain(_) => true,
            AnyFilter::Frame(filter) => filter.has_domain(),
        }
    }

    fn hits(&self, domain: u32, stack: u32) -> bool {
        match &self.filter {
            AnyFilter::Domain(filter) => filter.domain() == domain,
            AnyFilter::Frame(filter) => {
                filter.hits_domain(domain) && self.stack_hits[stack as usize]
            }
        }
    }
}
