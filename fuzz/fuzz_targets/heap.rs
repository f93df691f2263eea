//! Whatever is asked of heaps, by whichever thread: blocks are aligned, overlap nothing, and keep their
//! contents; what is no block in use is refused and counted; and the figures are those of a plain map.
//!
//! An input is a byte of options, then steps: a byte that says what, the heap in its highest bit, and
//! the bytes of its arguments. Threads take turns, so that each owns pools of the heaps: the fuzzer's
//! own, two that stay, and some that end with their turn.

#![no_main]

mod recycled;

use std::alloc::{GlobalAlloc, Layout};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::slice;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use libfuzzer_sys::fuzz_target;
use memtrace_heap::{Config, Heap, Purge, SizeClass};
use recycled::Recycled;

const N_HEAPS: usize = 2;
/// Blocks that an input may take, in all.
const MAX_BLOCKS: usize = 1000;
/// Turns of an input that may go to another thread: a change of threads takes as long as some hundred
/// steps.
const MAX_TURNS: usize = 8;
/// Of these, turns of threads that are started for them and end with them, which take longer still.
const MAX_STARTED: usize = 2;
/// How much is written and checked at both ends of a block, in bytes.
const EDGE: usize = 64;

/// A block in use.
#[derive(Clone, Copy)]
struct Live {
    layout: Layout,
    fill: u8,
}

/// A heap and what should be in it.
struct Checked {
    heap: Heap<Recycled>,
    live: BTreeMap<usize, Live>,
    /// Places of blocks that were given back, latest last.
    ended: Vec<(usize, Layout)>,
    requested_bytes: usize,
    n_refused: u64,
}

/// An input under way.
struct Run {
    heaps: [Checked; N_HEAPS],
    steps: Vec<u8>,
    at: usize,
    n_taken: usize,
    n_turns: usize,
    n_started: usize,
    /// Whether turns go to other threads, which is slow: in one input of eight.
    has_turns: bool,
}

/// Who has the next turn.
type Turn = u8;
/// A run when a turn has ended.
type Ended = (Run, Option<Turn>);

impl Run {
    fn new(input: &[u8]) -> Option<Run> {
        let (options, steps) = input.split_first()?;
        let has_turns = options % 8 == 0;
        let purge = [Purge::Slack, Purge::Immediate, Purge::Never][usize::from(options / 8 % 3)];
        let config = Config::new().purge(purge).block_words(*options >= 224);
        let heaps = [(); N_HEAPS].map(|()| Checked {
            heap: Heap::with_pages(config, Recycled),
            live: BTreeMap::new(),
            ended: Vec::new(),
            requested_bytes: 0,
            n_refused: 0,
        });
        Some(Run {
            heaps,
            steps: steps.to_vec(),
            at: 0,
            n_taken: 0,
            n_turns: 0,
            n_started: 0,
            has_turns,
        })
    }

    fn byte(&mut self) -> u8 {
        let byte = self.steps.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        byte
    }

    fn number(&mut self) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()]))
    }

    /// Sizes of every range, most of them small.
    fn size(&mut self) -> usize {
        let number = self.number();
        let (range, rest) = (number % 64, number / 64);
        match range {
            0..28 => 1 + rest % 512,
            28..44 => 1 + rest * 8,
            44..54 => 1 + rest * 64,
            54..58 => 65_536 - 64 + rest % 128,
            58..62 => 65_537 + rest * 256,
            62 => 300_000 + rest * 2048,
            _ => 2_000_000 + rest * 32_768,
        }
    }

    fn layout(&mut self) -> Layout {
        let (size, align) = (self.size(), self.byte());
        let shift = if align < 192 { align % 5 } else { align % 23 };
        Layout::from_size_align(size, 1 << shift).expect("far from the limits")
    }

    /// Does steps until the turn goes to another thread; `None` when there are no more.
    fn go_on(&mut self) -> Option<Turn> {
        while self.at < self.steps.len() {
            let step = self.byte();
            let heap = usize::from(step >> 7);
            match step % 16 {
                0..3 => {
                    let layout = self.layout();
                    self.take(heap, layout, false);
                }
                3 => {
                    let layout = self.layout();
                    self.take(heap, layout, true);
                }
                4..7 => {
                    let which = self.number();
                    self.heaps[heap].give_back(which);
                }
                7 | 8 => {
                    let (which, size) = (self.number(), self.size());
                    self.heaps[heap].resize(which, size);
                }
                9 => {
                    let (which, how) = (self.number(), self.byte());
                    self.heaps[heap].misuse(which, how);
                }
                10 => {
                    let _ = self.heaps[heap].heap.purge();
                }
                11 => self.heaps[heap].check(),
                12 => {
                    let (layout, n) = (self.layout(), self.byte());
                    // Many large ones, or many that are mapped for their alignment, are only slow.
                    let n = match layout.size() {
                        _ if layout.align() >= 65_536 => n % 8,
                        ..2_000 => n,
                        2_000..20_000 => n % 32,
                        _ => n % 8,
                    };
                    (0..n).for_each(|_| self.take(heap, layout, false));
                }
                13 => {
                    let (which, n) = (self.number(), self.byte());
                    (0..n).for_each(|_| self.heaps[heap].give_back(which));
                }
                _ => {
                    let turn = self.byte();
                    if self.has_turns && self.n_turns < MAX_TURNS {
                        self.n_turns += 1;
                        return Some(turn);
                    }
                }
            }
        }
        None
    }

    fn take(&mut self, heap: usize, layout: Layout, is_zeroed: bool) {
        if self.n_taken < MAX_BLOCKS {
            self.n_taken += 1;
            self.heaps[heap].take(layout, is_zeroed);
        }
    }
}

/// The first and the last bytes of a block.
fn edges<'a>(addr: usize, size: usize) -> [&'a mut [u8]; 2] {
    let ptr = std::ptr::with_exposed_provenance_mut::<u8>(addr);
    let (head, tail) = if size <= 2 * EDGE { (size, 0) } else { (EDGE, EDGE) };
    // SAFETY: a block in use of this size, whose edges do not overlap, and which only this thread uses.
    unsafe {
        [
            slice::from_raw_parts_mut(ptr, head),
            slice::from_raw_parts_mut(ptr.add(size - tail), tail),
        ]
    }
}

impl Checked {
    fn nth(&self, which: usize) -> Option<(usize, Live)> {
        let index = which.checked_rem(self.live.len())?;
        // From the end that is nearer.
        let found = if index < self.live.len() / 2 {
            self.live.iter().nth(index)
        } else {
            self.live.iter().nth_back(self.live.len() - 1 - index)
        };
        found.map(|(addr, live)| (*addr, *live))
    }

    fn take(&mut self, layout: Layout, is_zeroed: bool) {
        // SAFETY: no size is zero.
        let ptr = unsafe {
            if is_zeroed { self.heap.alloc_zeroed(layout) } else { self.heap.alloc(layout) }
        };
        assert!(!ptr.is_null(), "{layout:?}");
        let addr = ptr.expose_provenance();
        if is_zeroed {
            assert!(
                edges(addr, layout.size()).iter().all(|edge| edge.iter().all(|byte| *byte == 0))
            );
        }
        self.adopt(addr, layout);
    }

    /// Records a block, which must be aligned and overlap no other.
    fn adopt(&mut self, addr: usize, layout: Layout) {
        assert_eq!(addr % layout.align().max(16), 0, "{layout:?}");
        if let Some((below, live)) = self.live.range(..=addr).next_back() {
            assert!(below + live.layout.size() <= addr, "{layout:?} overlaps the block below");
        }
        if let Some((above, _)) = self.live.range(addr..).next() {
            assert!(addr + layout.size() <= *above, "{layout:?} overlaps the block above");
        }
        let fill = (self.live.len() as u8).wrapping_mul(37) | 1;
        edges(addr, layout.size()).into_iter().for_each(|edge| edge.fill(fill));
        self.live.insert(addr, Live { layout, fill });
        self.requested_bytes += layout.size();
    }

    fn end(&mut self, addr: usize, live: Live) {
        self.live.remove(&addr);
        self.requested_bytes -= live.layout.size();
        self.ended.push((addr, live.layout));
    }

    fn is_filled(addr: usize, live: Live) -> bool {
        edges(addr, live.layout.size())
            .iter()
            .all(|edge| edge.iter().all(|byte| *byte == live.fill))
    }

    fn give_back(&mut self, which: usize) {
        let Some((addr, live)) = self.nth(which) else { return };
        assert!(Self::is_filled(addr, live), "someone else wrote to a block of {:?}", live.layout);
        self.end(addr, live);
        // SAFETY: a block in use with its layout.
        unsafe { self.heap.dealloc(std::ptr::with_exposed_provenance_mut(addr), live.layout) };
    }

    fn resize(&mut self, which: usize, new_size: usize) {
        let Some((addr, live)) = self.nth(which) else { return };
        assert!(Self::is_filled(addr, live), "someone else wrote to a block of {:?}", live.layout);
        let ptr = std::ptr::with_exposed_provenance_mut(addr);
        self.end(addr, live);
        // SAFETY: a block in use with its layout; the new size is not zero.
        let moved = unsafe { self.heap.realloc(ptr, live.layout, new_size) };
        assert!(!moved.is_null(), "{:?} to {new_size}", live.layout);
        let moved = moved.expose_provenance();
        let kept = live.layout.size().min(new_size).min(EDGE);
        let [head, _] = edges(moved, kept);
        assert!(head.iter().all(|byte| *byte == live.fill), "{:?} to {new_size}", live.layout);
        let layout = Layout::from_size_align(new_size, live.layout.align());
        self.adopt(moved, layout.expect("far from the limits"));
    }

    /// Gives back, or resizes, what is no block in use.
    fn misuse(&mut self, which: usize, how: u8) {
        let ended = self.ended.iter().rev().nth(which % 64).copied();
        let live = self.nth(which).map(|(addr, live)| (addr, live.layout));
        let small = Layout::new::<u64>();
        let inside = |layout: Layout| 1 + which * 16 % layout.size();
        let wrong = match how % 6 {
            // Once more.
            0 | 1 => ended,
            // From inside of a block.
            2 => live.map(|(addr, layout)| (addr + inside(layout), layout)),
            3 => live.map(|(addr, layout)| (addr + inside(layout), small)),
            // With another size.
            4 => live.and_then(|(addr, layout)| {
                let other = Layout::from_size_align(layout.size() * 2 + 1, layout.align()).ok()?;
                Some((addr, other))
            }),
            _ => Some((which * 8, small)),
        };
        let Some((addr, layout)) = wrong else { return };
        if let Some(live) = self.live.get(&addr) {
            // A block stands there now: only one of another class is refused.
            let (here, named) = (SizeClass::of(live.layout), SizeClass::of(layout));
            if here == named && (here.is_some() || live.layout.size() == layout.size()) {
                return;
            }
        }
        self.n_refused += 1;
        let ptr = std::ptr::with_exposed_provenance_mut(addr);
        if how & 128 == 0 {
            // SAFETY: not a valid call by GlobalAlloc's contract; this heap defines it.
            unsafe { self.heap.dealloc(ptr, layout) };
        } else {
            // SAFETY: as above.
            let moved = unsafe { self.heap.realloc(ptr, layout, 1 + which) };
            assert!(moved.is_null(), "what was refused was resized");
        }
        // Whether it was counted is seen at the next check: figures are slow.
    }

    fn check(&self) {
        assert_eq!(self.heap.verify(), Ok(()));
        let stats = self.heap.stats();
        assert_eq!(stats.n_blocks_used(), self.live.len());
        assert_eq!(stats.requested_bytes(), self.requested_bytes);
        assert_eq!(stats.invalid_frees.n_total(), self.n_refused);
        assert!(stats.identities_hold());
    }

    fn finish(&mut self) {
        self.check();
        while !self.live.is_empty() {
            self.give_back(0);
        }
        let _ = self.heap.purge();
        self.check();
    }
}

/// Threads that stay, each with where to send a run and where it comes back.
struct Others(Vec<(Sender<Run>, Receiver<Ended>)>);

impl Others {
    fn new() -> Others {
        let start = |_| {
            let (to, inbox) = channel::<Run>();
            let (outbox, from) = channel();
            thread::spawn(move || {
                for mut run in inbox {
                    let turn = run.go_on();
                    if outbox.send((run, turn)).is_err() {
                        break;
                    }
                }
            });
            (to, from)
        };
        Others((0..2).map(start).collect())
    }
}

thread_local!(static OTHERS: RefCell<Option<Others>> = const { RefCell::new(None) });

fuzz_target!(|input: &[u8]| {
    let Some(mut run) = Run::new(input) else { return };
    let mut turn = run.go_on();
    while let Some(whose) = turn {
        (run, turn) = match whose % 64 {
            0..30 => {
                let turn = run.go_on();
                (run, turn)
            }
            63 if run.n_started < MAX_STARTED => {
                run.n_started += 1;
                let body = move || {
                    let turn = run.go_on();
                    (run, turn)
                };
                thread::spawn(body).join().expect("a failure ends the process")
            }
            index => OTHERS.with_borrow_mut(|others| {
                let others = others.get_or_insert_with(Others::new);
                let (to, from) = &others.0[usize::from(index % 2)];
                to.send(run).expect("the thread stays");
                from.recv().expect("the thread stays")
            }),
        };
    }
    run.heaps.iter_mut().for_each(Checked::finish);
});
