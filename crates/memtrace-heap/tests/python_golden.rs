//! What eight interpreters did with 51 scripts: every figure of `sys._debugmallocstats()` at every
//! checkpoint, and the place of every block.

use memtrace_heap::python::{PythonHeap, PythonStats, Version};
use memtrace_heap::{NoMemory, PAGE_SIZE};
use serde_json::{Value, json};

const CASES: &str = include_str!("data/python_heap.jsonl");

/// The random numbers that the scripts shuffle with.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// A heap and what a script has done with it so far.
struct Run {
    heap: PythonHeap,
    /// Blocks by handle; `None` once freed.
    handles: Vec<Option<usize>>,
    fingerprint: u64,
    placements: Vec<Value>,
    checkpoints: Vec<Value>,
}

impl Run {
    fn new(version: Version, is_aligned: bool) -> Run {
        let pages = NoMemory::misaligned_by(if is_aligned { 0 } else { PAGE_SIZE });
        let heap = PythonHeap::new(version.profile(), pages);
        let (handles, placements, checkpoints) = (Vec::new(), Vec::new(), Vec::new());
        Run { heap, handles, fingerprint: 0xcbf2_9ce4_8422_2325, placements, checkpoints }
    }

    /// Adds a block of `size` requested bytes to fingerprint and placements.
    fn note(&mut self, addr: usize, size: usize) {
        let place = self.heap.place_of(addr);
        let triple = match place {
            Some(place) => [place.arena as u32, place.pool as u32, place.offset as u32],
            None => [u32::MAX, size as u32, 0],
        };
        for byte in triple.into_iter().flat_map(u32::to_le_bytes) {
            self.fingerprint = (self.fingerprint ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        self.placements.push(match place {
            Some(place) => json!([place.arena, place.pool, place.offset]),
            None => json!([-1, 0, 0]),
        });
    }

    fn allocate(&mut self, size: usize) {
        let addr = self.heap.allocate(size).unwrap();
        self.note(addr, size);
        self.handles.push(Some(addr));
    }

    fn resize(&mut self, handle: usize, size: usize) {
        let Some(old) = self.handles[handle] else { return };
        let addr = self.heap.resize(old, size).unwrap().unwrap();
        self.note(addr, size);
        self.handles[handle] = Some(addr);
    }

    fn release(&mut self, handle: usize) {
        if let Some(addr) = self.handles[handle].take() {
            self.heap.release(addr).unwrap();
        }
    }

    fn run(&mut self, token: &str) {
        let (kind, rest) = token.split_at(1);
        let number = |text: &str| text.parse::<usize>().unwrap();
        match kind {
            "A" | "Z" => {
                let (size, count) = rest.split_once('*').unwrap();
                (0..number(count)).for_each(|_| self.allocate(number(size)));
            }
            "F" => {
                let (range, step) = rest.split_once('/').unwrap();
                let (first, last) = range.split_once('-').unwrap();
                let (first, last, step) = (number(first), number(last), number(step));
                for index in 0..=first.abs_diff(last) / step {
                    let distance = index * step;
                    let is_rising = first <= last;
                    self.release(if is_rising { first + distance } else { first - distance });
                }
            }
            "X" => {
                let (seed, range) = rest.split_once(':').unwrap();
                let (first, last) = range.split_once('-').unwrap();
                let mut handles: Vec<usize> = (number(first)..=number(last)).collect();
                let mut random = SplitMix64(seed.parse().unwrap());
                for index in (1..handles.len()).rev() {
                    handles.swap(index, (random.next() % (index as u64 + 1)) as usize);
                }
                handles.into_iter().for_each(|handle| self.release(handle));
            }
            "R" => {
                let (handle, size) = rest.split_once(',').unwrap();
                self.resize(number(handle), number(size));
            }
            "C" => {
                assert_eq!(self.heap.verify(), Ok(()));
                self.checkpoints.push(checkpoint(&self.heap.stats(), self.fingerprint));
            }
            _ => panic!("unknown token {token}"),
        }
    }
}

fn checkpoint(stats: &PythonStats, fingerprint: u64) -> Value {
    let classes = stats.classes.iter().enumerate().filter(|(_, class)| class.n_pools > 0);
    let parts = stats.parts();
    json!({
        "fingerprint": format!("{fingerprint:016x}"),
        "allocated_blocks": stats.allocated_blocks(),
        "classes": classes
            .map(|(index, class)| json!([
                index, class.n_pools, class.n_blocks_used, class.n_blocks_free
            ]))
            .collect::<Vec<_>>(),
        "arenas_total": stats.n_arenas_total,
        "arenas_reclaimed": stats.n_arenas_reclaimed(),
        "arenas_highwater": stats.n_arenas_high_water,
        "arenas_current": stats.n_arenas,
        "allocated_bytes": parts.allocated_bytes,
        "available_bytes": parts.available_bytes,
        "unused_pools": stats.n_pools_unused,
        "pool_header_bytes": parts.pool_header_bytes,
        "quantization": parts.quantization_bytes,
        "arena_alignment": parts.alignment_bytes,
        "total_bytes": parts.total_bytes(),
    })
}

#[test]
fn every_script_ends_in_the_figures_and_places_of_the_interpreters() {
    let (mut n_runs, mut n_checkpoints, mut n_placements) = (0, 0, 0);
    for case in CASES.lines().skip(1) {
        let case: Value = serde_json::from_str(case).unwrap();
        let script = case["script"].as_str().unwrap();
        for result in case["results"].as_array().unwrap() {
            for version in result["versions"].as_array().unwrap() {
                let version: Version = version.as_str().unwrap().parse().unwrap();
                let mut run = Run::new(version, case["arena_pool_aligned"] == true);
                script.split_whitespace().for_each(|token| run.run(token));
                let expected = &result["expect"];
                let name = &case["name"];
                let checkpoints = expected["checkpoints"].as_array().unwrap();
                assert_eq!(run.checkpoints.len(), checkpoints.len());
                for (index, (actual, expected)) in
                    run.checkpoints.iter().zip(checkpoints).enumerate()
                {
                    assert_eq!(actual, expected, "{name}, {version}, checkpoint {index}");
                }
                if let Some(placements) = expected["placements"].as_array() {
                    assert_eq!(&run.placements, placements, "{name}, {version}");
                    n_placements += placements.len();
                }
                n_checkpoints += checkpoints.len();
                n_runs += 1;
            }
        }
    }
    assert_eq!((n_runs, n_checkpoints, n_placements), (51 * 8, 1744, 992));
}
