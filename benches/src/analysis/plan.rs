//! Which blocks live, in two states that differ.
//!
//! Nineteen in twenty blocks live in both states; the others live only in the old or only in the
//! new one. The first module has blocks in the old state alone, the last in the new one alone, and
//! so 100 sites are gone and 100 new. Of the modules between, those with odd numbers do not differ.
//!
//! Sites take turns at random in bursts of one to four blocks, and half of all bursts are those of
//! one site in ten. Three sites in four ask for one size only, from 16 to 152 bytes; the others for
//! 1 to 4 times 8 bytes more than that; and one block in a thousand takes 4096 bytes.

use super::shape::{N_MODULES, N_SITES_PER_MODULE};
use crate::sequence::Sequence;
use std::io::{self, Write};

/// Call sites in all modules.
pub const N_SITES: usize = N_MODULES * N_SITES_PER_MODULE;

/// A block that is to be allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The call site, counted over all modules.
    pub site: u16,
    /// Bytes to ask for.
    pub size: u16,
}

/// Which of the blocks that come and go are live, beside those that stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Those of the older snapshot.
    Old,
    /// Those of the newer snapshot.
    New,
}

/// How much is live of one call site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Bytes.
    pub size: u64,
    /// Blocks.
    pub count: u64,
}

/// All blocks of both states, in the order in which they are allocated.
#[derive(Clone, Debug)]
pub struct Plan {
    kept: Vec<Planned>,
    old: Vec<Planned>,
    new: Vec<Planned>,
}

const SIZES: [u16; 10] = [16, 24, 32, 40, 48, 56, 64, 96, 112, 152];
const LARGE_SIZE: u16 = 4096;

impl Plan {
    /// Plans for this many live blocks in each state.
    pub fn new(n_blocks: usize) -> Self {
        let mut sequence = Sequence::new();
        let n_moving = n_blocks / 20;
        let kept = blocks(&mut sequence, n_blocks - n_moving, |sequence| {
            1 + sequence.below(N_MODULES - 2)
        });
        let mut moving = |own_module| {
            blocks(&mut sequence, n_moving, |sequence| match sequence.below(8) {
                0 => own_module,
                // Modules 2, 4 … 98.
                _ => 2 + 2 * sequence.below(N_MODULES / 2 - 1),
            })
        };
        let (old, new) = (moving(0), moving(N_MODULES - 1));
        Self { kept, old, new }
    }

    /// Blocks that live in both states.
    pub fn kept(&self) -> &[Planned] {
        &self.kept
    }

    /// Blocks that live in one state only.
    pub fn moving(&self, state: State) -> &[Planned] {
        match state {
            State::Old => &self.old,
            State::New => &self.new,
        }
    }

    /// Live blocks in each state.
    pub fn n_blocks(&self) -> usize {
        self.kept.len() + self.old.len()
    }

    /// What lives of each site in a state.
    pub fn sums(&self, state: State) -> Vec<Sum> {
        let mut sums = vec![Sum::default(); N_SITES];
        for planned in self.kept.iter().chain(self.moving(state)) {
            let sum = &mut sums[usize::from(planned.site)];
            sum.size += u64::from(planned.size);
            sum.count += 1;
        }
        sums
    }

    /// Writes the plan for a program in another language, in little-endian numbers: how many blocks
    /// are kept, only old, only new (4 bytes each); then site and size (2 bytes each) of all of
    /// them.
    ///
    /// **Errors**: if the writer fails.
    pub fn write_to(&self, writer: &mut impl Write) -> io::Result<()> {
        let parts = [&self.kept, &self.old, &self.new];
        for part in parts {
            let n_blocks = u32::try_from(part.len()).map_err(io::Error::other)?;
            writer.write_all(&n_blocks.to_le_bytes())?;
        }
        for planned in parts.into_iter().flatten() {
            writer.write_all(&planned.site.to_le_bytes())?;
            writer.write_all(&planned.size.to_le_bytes())?;
        }
        Ok(())
    }
}

/// Plans blocks of sites in the modules that `module` chooses.
fn blocks(
    sequence: &mut Sequence,
    n_blocks: usize,
    module: impl Fn(&mut Sequence) -> usize,
) -> Vec<Planned> {
    let mut blocks = Vec::with_capacity(n_blocks);
    while blocks.len() < n_blocks {
        // The first ten of a module's hundred sites are the busy ones.
        let n_busy = N_SITES_PER_MODULE / 10;
        let n_sites = if sequence.below(2) == 0 { n_busy } else { N_SITES_PER_MODULE };
        let site = module(sequence) * N_SITES_PER_MODULE + sequence.below(n_sites);
        let n_burst = (1 + sequence.below(4)).min(n_blocks - blocks.len());
        for _ in 0..n_burst {
            let size = size(sequence, site);
            blocks.push(Planned { site: site as u16, size });
        }
    }
    blocks
}

fn size(sequence: &mut Sequence, site: usize) -> u16 {
    if sequence.below(1000) == 0 {
        return LARGE_SIZE;
    }
    let more = if site % 4 == 3 { 8 * (1 + sequence.below(4)) } else { 0 };
    // Neighbouring sites differ.
    SIZES[site * 7 / 3 % SIZES.len()] + more as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_come_go_grow_and_stay_between_the_two_states() {
        let plan = Plan::new(1_000_000);
        assert_eq!(plan.n_blocks(), 1_000_000);
        let (old, new) = (plan.sums(State::Old), plan.sums(State::New));
        let n_sites = |sums: &[Sum]| sums.iter().filter(|sum| sum.count > 0).count();
        assert_eq!((n_sites(&old), n_sites(&new)), (10_000, 10_000));
        let n_where = |is: fn(Sum, Sum) -> bool| {
            old.iter().zip(&new).filter(|&(&old, &new)| is(old, new)).count()
        };
        assert_eq!(n_where(|old, new| old.count > 0 && new.count == 0), 100);
        assert_eq!(n_where(|old, new| old.count == 0 && new.count > 0), 100);
        assert!(n_where(|old, new| old == new) >= 5000);
        assert!(n_where(|old, new| 0 < old.count && old.count < new.count) > 1000);
        assert!(n_where(|old, new| 0 < new.count && new.count < old.count) > 1000);
    }

    #[test]
    fn blocks_take_64_bytes_or_so_and_each_site_its_own_sizes() {
        let sums = Plan::new(100_000).sums(State::New);
        let (size, count) =
            sums.iter().fold((0, 0), |(size, count), sum| (size + sum.size, count + sum.count));
        assert!((60..80).contains(&(size / count)), "{size} / {count}");
        let plan = Plan::new(100_000);
        let mut sizes_of_site = vec![Vec::new(); N_SITES];
        for planned in plan.kept().iter().filter(|planned| planned.size != LARGE_SIZE) {
            let sizes = &mut sizes_of_site[usize::from(planned.site)];
            if !sizes.contains(&planned.size) {
                sizes.push(planned.size);
            }
        }
        let n_of_many_sizes = |is_of_many: fn(usize) -> bool| {
            let sites = (0..N_SITES).filter(|&site| is_of_many(site));
            sites.filter(|&site| sizes_of_site[site].len() > 1).count()
        };
        assert_eq!(n_of_many_sizes(|site| site % 4 != 3), 0);
        assert!(n_of_many_sizes(|site| site % 4 == 3) > 1000);
    }

    #[test]
    fn the_file_has_all_blocks_after_their_numbers() {
        let plan = Plan::new(2000);
        let mut file = Vec::new();
        plan.write_to(&mut file).unwrap();
        assert_eq!(file.len(), 12 + 4 * (1900 + 100 + 100));
        assert_eq!(file[..12], [0x6c, 7, 0, 0, 100, 0, 0, 0, 100, 0, 0, 0]);
        let Planned { site, size } = plan.kept()[0];
        assert_eq!(file[12..16], [site.to_le_bytes(), size.to_le_bytes()].concat());
    }
}
