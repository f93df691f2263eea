//! The site of a stack that nothing is remembered of: by a walk of all of it, hashed as it goes.

use crate::bounds::StackBounds;
use crate::hash::{StackHash, Sum};
use crate::native::world::World;
use crate::rule::{End, Registers};
use crate::site::Sites;
use crate::walker::{Place, Visitor, visit, walk};
use core::num::NonZeroU32;

/// Hashes the frames of a walk, those of the tool's own at its beginning left out.
struct Hashed<O> {
    limit: usize,
    is_own: O,
    is_in_own: bool,
    n_own: usize,
    sum: Sum,
}

impl<O: Fn(u64) -> bool> Visitor for Hashed<O> {
    #[inline(always)]
    fn frame(&mut self, place: Place) -> Option<Place> {
        if self.is_in_own {
            self.is_in_own = (self.is_own)(place.call_addr());
            if self.is_in_own {
                self.n_own = self.n_own.wrapping_add(1);
                return Some(place);
            }
        }
        if self.sum.len() == self.limit {
            return None;
        }
        self.sum.push(place.call_addr());
        Some(place)
    }
}

/// Walks the whole stack and looks its hash up.
///
/// A function of its own, so that its loop has all registers to itself.
#[inline(never)]
pub(super) fn site_without_cache(
    world: &impl World,
    start: &Registers,
    stack: &StackBounds,
    limit: usize,
    last: u32,
    sites: &impl Sites,
) -> Option<NonZeroU32> {
    let mut hashed = Hashed {
        limit,
        is_own: |addr| sites.is_own(addr),
        is_in_own: true,
        n_own: 0,
        sum: Sum::new(),
    };
    let before = world.generation();
    let read = |addr: u64| Some(world.read_word(addr));
    let ended = visit(*start, stack, &mut world.rules(), read, &mut hashed);
    if world.generation() != before {
        // A library was found to be another than before, perhaps beyond frames that its old rules led
        // to.
        return insert_by_walk(world, start, stack, limit, hashed.n_own, sites);
    }
    let end = ended.map_or(End::Limit, |(end, _)| end);
    let hash = hashed.sum.finish(end);
    if hashed.sum.len() != 0
        && let Some(site) = sites.find_after(last, hash)
    {
        return Some(site);
    }
    insert_by_walk(world, start, stack, limit, hashed.n_own, sites)
}

/// Walks the stack once more, to give it a number.
#[cold]
#[inline(never)]
fn insert_by_walk(
    world: &impl World,
    start: &Registers,
    stack: &StackBounds,
    limit: usize,
    n_own: usize,
    sites: &impl Sites,
) -> Option<NonZeroU32> {
    let len = limit.saturating_add(n_own);
    sites.with_buffer(len, |buffer| {
        let buffer = buffer.get_mut(..len)?;
        let read = |addr: u64| Some(world.read_word(addr));
        let walk = walk(*start, stack, &mut world.rules(), read, buffer);
        let walked = buffer.get(..walk.len)?;
        // A stack that ends inside the tool was cut there: better those frames than none.
        let n_own = if n_own == walk.len { 0 } else { n_own };
        let mut stack = walked.get(n_own..)?;
        let mut end = walk.end;
        if stack.len() > limit {
            stack = stack.get(..limit)?;
            end = End::Limit;
        }
        let hash = StackHash::of(stack, end);
        sites.find(hash).or_else(|| sites.insert(hash, stack, end))
    })?
}
