//! The rules of CPython's heap told plainly: vectors, searched from end to end, no addresses.

use memtrace_heap::python::Version;

const HEADER: usize = 48;

struct Pool {
    block_size: usize,
    /// Free blocks by offset, the last freed at the end.
    free: Vec<usize>,
    /// The offset of the next block never used.
    next_virgin: usize,
    n_used: usize,
}

struct Arena {
    serial: usize,
    pools: Vec<Pool>,
    /// Emptied pools by number, the last emptied at the end.
    emptied: Vec<usize>,
    n_pools: usize,
}

impl Arena {
    fn n_unused(&self) -> usize {
        self.emptied.len() + self.n_pools - self.pools.len()
    }
}

/// Where a block is: the arena's serial number, the pool's number, the offset.
type Place = (usize, usize, usize);

/// The heap of one version.
pub(crate) struct Oracle {
    pool_size: usize,
    n_pools: usize,
    keeps_last: bool,
    arenas: Vec<Arena>,
    /// Serial numbers of arenas with unused pools, fullest first.
    usable: Vec<usize>,
    /// Pools partly used, by class: (serial number, number of the pool), first to take from first.
    partial: Vec<Vec<(usize, usize)>>,
    /// Every block ever: its place, or `None` outside of the pools.
    blocks: Vec<Option<Place>>,
    n_total: usize,
    n_high_water: usize,
}

impl Oracle {
    pub(crate) fn new(version: Version, is_aligned: bool) -> Oracle {
        let is_new = version >= Version::V3_10;
        Oracle {
            pool_size: if is_new { 16384 } else { 4096 },
            n_pools: if is_new && !is_aligned { 63 } else { 64 },
            keeps_last: version >= Version::V3_9,
            arenas: Vec::new(),
            usable: Vec::new(),
            partial: vec![Vec::new(); 32],
            blocks: Vec::new(),
            n_total: 0,
            n_high_water: 0,
        }
    }

    pub(crate) fn place(&self, handle: usize) -> Option<Place> {
        self.blocks[handle]
    }

    pub(crate) fn arena_counts(&self) -> (usize, usize, usize) {
        (self.n_total, self.n_high_water, self.arenas.len())
    }

    pub(crate) fn n_pools_unused(&self) -> usize {
        self.arenas.iter().map(Arena::n_unused).sum()
    }

    /// Pools with a block in use, and blocks in use.
    pub(crate) fn class_counts(&self, class: usize) -> (usize, usize) {
        let pools = self.arenas.iter().flat_map(|arena| &arena.pools);
        let of_class = pools.filter(|pool| pool.block_size == (class + 1) * 16 && pool.n_used > 0);
        of_class.fold((0, 0), |(pools, used), pool| (pools + 1, used + pool.n_used))
    }

    pub(crate) fn allocate(&mut self, size: usize) -> usize {
        let place = (1..=512).contains(&size).then(|| self.place_block(size.div_ceil(16) * 16));
        self.blocks.push(place);
        self.blocks.len() - 1
    }

    pub(crate) fn resize(&mut self, handle: usize, size: usize) -> usize {
        let Some((serial, number, _)) = self.blocks[handle] else { return handle };
        let block_size = self.arena(serial).pools[number].block_size;
        if size <= block_size && 4 * size > 3 * block_size {
            return handle;
        }
        let moved = self.allocate(size);
        self.release(handle);
        moved
    }

    pub(crate) fn release(&mut self, handle: usize) {
        let Some((serial, number, offset)) = self.blocks[handle] else { return };
        let pool = &mut self.arena(serial).pools[number];
        let was_full = pool.free.is_empty();
        pool.free.push(offset);
        pool.n_used -= 1;
        let is_empty = pool.n_used == 0;
        let class = pool.block_size / 16 - 1;
        if was_full {
            self.partial[class].insert(0, (serial, number));
        } else if is_empty {
            self.partial[class].retain(|&pool| pool != (serial, number));
            self.empty_pool(serial, number);
        }
    }

    fn empty_pool(&mut self, serial: usize, number: usize) {
        let arena = self.arena(serial);
        arena.emptied.push(number);
        let (n_unused, is_free) = (arena.n_unused(), arena.n_unused() == arena.n_pools);
        let was_last = self.usable.last() == Some(&serial);
        self.usable.retain(|&other| other != serial);
        if is_free && !(self.keeps_last && was_last) {
            self.arenas.retain(|arena| arena.serial != serial);
            return;
        }
        let as_many = |&other: &usize| {
            self.arenas.iter().any(|arena| arena.serial == other && arena.n_unused() >= n_unused)
        };
        let position = self.usable.iter().position(as_many).unwrap_or(self.usable.len());
        self.usable.insert(position, serial);
    }

    fn arena(&mut self, serial: usize) -> &mut Arena {
        self.arenas.iter_mut().find(|arena| arena.serial == serial).unwrap()
    }

    fn place_block(&mut self, block_size: usize) -> Place {
        let class = block_size / 16 - 1;
        if self.partial[class].is_empty() {
            let pool = self.open_pool(block_size);
            self.partial[class].push(pool);
        }
        let (serial, number) = self.partial[class][0];
        let pool_size = self.pool_size;
        let pool = &mut self.arena(serial).pools[number];
        let offset = pool.free.pop().unwrap();
        pool.n_used += 1;
        if pool.free.is_empty() && pool.next_virgin + block_size <= pool_size {
            pool.free.push(pool.next_virgin);
            pool.next_virgin += block_size;
        }
        if pool.free.is_empty() {
            self.partial[class].remove(0);
        }
        (serial, number, offset)
    }

    fn open_pool(&mut self, block_size: usize) -> (usize, usize) {
        if self.usable.is_empty() {
            let (serial, n_pools) = (self.n_total, self.n_pools);
            self.arenas.push(Arena { serial, pools: Vec::new(), emptied: Vec::new(), n_pools });
            self.usable.push(serial);
            self.n_total += 1;
            self.n_high_water = self.n_high_water.max(self.arenas.len());
        }
        let serial = self.usable[0];
        let arena = self.arena(serial);
        let fresh =
            Pool { block_size, free: vec![HEADER], next_virgin: HEADER + block_size, n_used: 0 };
        let number = match arena.emptied.pop() {
            Some(number) if arena.pools[number].block_size == block_size => number,
            Some(number) => {
                arena.pools[number] = fresh;
                number
            }
            None => {
                arena.pools.push(fresh);
                arena.pools.len() - 1
            }
        };
        if arena.n_unused() == 0 {
            self.usable.remove(0);
        }
        (serial, number)
    }
}
