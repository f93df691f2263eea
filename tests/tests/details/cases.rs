//! Threads and generations of blocks, through the real hook.

use libtest_mimic::{Arguments, Trial};
use memtrace_alloc::{LiveBlock, Options, Started, ThreadInfo, TrackedTrace};
use memtrace_tests::rng::Rng;
use std::alloc::{Layout, alloc, dealloc, realloc};
use std::collections::HashMap;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, mpsc};
use std::thread;

const BOTH: Options = Options::new().threads(true).generations(true);

fn start(options: Options) {
    memtrace_alloc::stop();
    assert_eq!(memtrace_alloc::start_with(options), Ok(Started::Now));
}

/// A block that no other part of the program knows.
struct Block {
    addr: usize,
    layout: Layout,
}

impl Block {
    fn new(size: usize) -> Self {
        let layout = Layout::from_size_align(size, 16).unwrap();
        // SAFETY: the size is not zero.
        let block = black_box(unsafe { alloc(layout) });
        assert!(!block.is_null());
        Self { addr: block.expose_provenance(), layout }
    }

    fn resize(&mut self, size: usize) {
        let block = std::ptr::with_exposed_provenance_mut(self.addr);
        // SAFETY: the live block, with its layout.
        let block = black_box(unsafe { realloc(block, self.layout, size) });
        assert!(!block.is_null());
        self.addr = block.expose_provenance();
        self.layout = Layout::from_size_align(size, 16).unwrap();
    }

    /// What `trace_at` and a scan say, which must be the same.
    fn record(&self) -> LiveBlock {
        memtrace_alloc::untraced(|| {
            let mut found = Vec::new();
            memtrace_alloc::for_each_block(|block| {
                if block.block_addr == self.addr as u64 {
                    found.push(block);
                }
            });
            assert_eq!(found, [memtrace_alloc::trace_at(self.addr as u64).unwrap()]);
            assert_eq!(found[0].size, self.layout.size() as u64);
            found[0]
        })
    }

    fn thread(&self) -> u32 {
        self.record().thread
    }

    fn birth(&self) -> u32 {
        self.record().birth
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let block = std::ptr::with_exposed_provenance_mut(self.addr);
        // SAFETY: the live block, with its layout.
        unsafe { dealloc(block, self.layout) };
    }
}

fn tracked() -> Vec<TrackedTrace> {
    memtrace_alloc::untraced(|| {
        let mut all = vec![TrackedTrace::EMPTY; 10];
        let n = memtrace_alloc::copy_tracked(&mut all);
        all.truncate(n);
        all
    })
}

fn name_of(info: &ThreadInfo) -> &[u8] {
    info.name.split(|&byte| byte == 0).next().unwrap()
}

fn os_id() -> u32 {
    // SAFETY: takes no arguments and touches no memory.
    let id = unsafe { libc::gettid() };
    id.try_into().unwrap()
}

fn a_block_belongs_to_the_thread_that_allocated_or_last_resized_it() {
    start(BOTH);
    let mine = Block::new(1000);
    let me = mine.thread();
    let info = memtrace_alloc::thread_info(me).unwrap();
    assert_eq!((info.number, info.os_id), (me, os_id()));
    let (sender, receiver) = mpsc::channel();
    let mut moved = Block::new(50);
    let helper = thread::Builder::new().name("helper".into()).spawn(move || {
        let own = Block::new(70);
        moved.resize(5000);
        memtrace_alloc::track(9, 1, 10).unwrap();
        sender.send((own, moved, os_id())).unwrap();
    });
    let (own, mut moved, helper_os_id) = receiver.recv().unwrap();
    helper.unwrap().join().unwrap();
    let number = own.thread();
    assert_ne!(number, me);
    assert_eq!(moved.thread(), number);
    let of_helper = tracked().into_iter().find(|trace| trace.domain == 9).unwrap();
    assert_eq!((of_helper.thread, of_helper.size), (number, 10));
    // Known after it has ended, too.
    let info = memtrace_alloc::thread_info(number).unwrap();
    assert_eq!(info.os_id, helper_os_id);
    assert!(info.number <= memtrace_alloc::n_threads());
    moved.resize(20);
    assert_eq!((moved.thread(), mine.thread(), own.thread()), (me, me, number));
    memtrace_alloc::untrack(9, 1).unwrap();
}

fn a_thread_is_known_by_the_name_it_had_when_it_first_allocated() {
    start(Options::new().threads(true));
    let (sender, receiver) = mpsc::channel::<Block>();
    // A thread of the system, which allocates nothing before its name is set.
    extern "C" fn run(sender: *mut libc::c_void) -> *mut libc::c_void {
        // SAFETY: a terminated string.
        unsafe { libc::prctl(libc::PR_SET_NAME, c"fifteen letters".as_ptr()) };
        // SAFETY: the creator's box, given to this thread.
        let sender = unsafe { Box::from_raw(sender.cast::<mpsc::Sender<Block>>()) };
        sender.send(Block::new(10)).unwrap();
        std::ptr::null_mut()
    }
    let mut handle = 0;
    let sender = Box::into_raw(Box::new(sender)).cast();
    // SAFETY: the function takes the box.
    let result = unsafe { libc::pthread_create(&mut handle, std::ptr::null(), run, sender) };
    assert_eq!(result, 0);
    let info = memtrace_alloc::thread_info(receiver.recv().unwrap().thread()).unwrap();
    assert_eq!(name_of(&info), b"fifteen letters");
    // SAFETY: a thread that was created and not yet joined.
    unsafe { libc::pthread_join(handle, std::ptr::null_mut()) };
}

fn a_block_is_born_when_it_is_allocated_and_anew_when_it_is_resized() {
    start(BOTH);
    let first = memtrace_alloc::generation();
    let (old, mut grown) = (Block::new(100), Block::new(100));
    memtrace_alloc::track(5, 5, 5).unwrap();
    assert_eq!((old.birth(), grown.birth()), (first, first));
    assert_eq!(memtrace_alloc::advance_generation(), first);
    let young = Block::new(100);
    grown.resize(200);
    assert_eq!((old.birth(), grown.birth(), young.birth()), (first, first + 1, first + 1));
    assert_eq!(memtrace_alloc::advance_generation(), first + 1);
    memtrace_alloc::untraced(|| grown.resize(10_000));
    assert_eq!((grown.birth(), grown.thread()), (first + 2, young.thread()));
    assert_eq!(tracked()[0].birth, first);
    memtrace_alloc::track(5, 5, 6).unwrap();
    assert_eq!((tracked()[0].birth, tracked()[0].size), (first + 2, 6));
    // Clearing forgets blocks and not the time.
    memtrace_alloc::clear_traces();
    assert_eq!(memtrace_alloc::generation(), first + 2);
    grown.resize(300);
    assert_eq!(grown.birth(), first + 2);
}

fn what_is_switched_off_is_not_told_even_where_it_was_stored_before() {
    start(BOTH);
    let layout = Block::new(400);
    let (addr, thread) = (layout.addr, layout.thread());
    assert!(thread != 0 && layout.birth() != 0);
    drop(layout);
    for (threads, generations) in [(false, false), (true, false), (false, true), (true, true)] {
        start(Options::new().threads(threads).generations(generations));
        memtrace_alloc::track(1, 2, 3).unwrap();
        let tracked = tracked()[0];
        // The allocator gives the same address again, most of the time.
        let blocks: Vec<Block> = (0..20).map(|_| Block::new(400)).collect();
        assert!(blocks.iter().any(|block| block.addr == addr));
        for block in &blocks {
            let record = block.record();
            assert_eq!(record.thread, if threads { thread } else { 0 });
            assert_eq!(record.birth, if generations { memtrace_alloc::generation() } else { 0 });
            assert_eq!((tracked.thread, tracked.birth), (record.thread, record.birth));
        }
    }
}

fn details_take_memory_only_while_they_are_switched_on() {
    // A process of its own begins with no details at all; here, earlier cases have mapped some.
    start(Options::new());
    let live_table = || memtrace_alloc::tracer_memory().live_table;
    let n_threads = memtrace_alloc::n_threads();
    let blocks: Vec<Block> = (0..50_000).map(|_| Block::new(64)).collect();
    thread::spawn(|| drop(black_box(vec![1u8; 100]))).join().unwrap();
    assert_eq!(memtrace_alloc::n_threads(), n_threads);
    let without = live_table();
    drop(blocks);
    start(BOTH);
    let blocks: Vec<Block> = (0..50_000).map(|_| Block::new(64)).collect();
    // 8 bytes for each 16 bytes of heap, once without and once with details.
    let grown = live_table() - without;
    assert!(grown >= 50_000 * 80 / 16 * 8 / 2, "{grown} bytes more than {without}");
    drop(blocks);
    assert_eq!(memtrace_alloc::losses(), Default::default());
}

fn each_run_has_an_identity_and_generations_of_its_own() {
    let mut runs = Vec::new();
    let mut last = memtrace_alloc::generation();
    for _ in 0..20 {
        start(BOTH);
        assert!(memtrace_alloc::generation() > last);
        last = memtrace_alloc::advance_generation() + 1;
        runs.push(memtrace_alloc::run_id());
        memtrace_alloc::clear_traces();
        memtrace_alloc::start_with(Options::new()).unwrap();
        assert_eq!(runs.last(), Some(&memtrace_alloc::run_id()), "the same run goes on");
        memtrace_alloc::stop();
        assert_eq!(runs.last(), Some(&memtrace_alloc::run_id()), "until the next one begins");
    }
    runs.sort_unstable();
    runs.dedup();
    assert_eq!(runs.len(), 20);
    assert!(!runs.contains(&0));
}

fn a_forked_child_keeps_details_and_has_a_run_of_its_own() {
    start(BOTH);
    let block = Block::new(123);
    let record = block.record();
    let run_id = memtrace_alloc::run_id();
    let mut ids = Vec::new();
    for _ in 0..3 {
        let mut pipe = [0; 2];
        // SAFETY: room for two descriptors.
        assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
        // SAFETY: the child uses memory, which the system's allocator allows after a fork, and ends
        // without unwinding.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let young = Block::new(77);
            let me = memtrace_alloc::thread_info(record.thread);
            let is_right = block.record() == record
                && young.thread() == record.thread
                && young.birth() == memtrace_alloc::generation()
                && me.is_some_and(|me| me.os_id == os_id());
            let id = if is_right { memtrace_alloc::run_id() } else { 0 };
            // SAFETY: writes eight bytes that are there.
            unsafe { libc::write(pipe[1], (&raw const id).cast(), 8) };
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(0) };
        }
        let mut id = 0u64;
        // SAFETY: reads eight bytes into their place.
        assert_eq!(unsafe { libc::read(pipe[0], (&raw mut id).cast(), 8) }, 8);
        // SAFETY: waits for this process's child.
        assert_eq!(unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) }, pid);
        ids.push(id);
    }
    assert_eq!((block.record(), memtrace_alloc::run_id()), (record, run_id));
    ids.push(run_id);
    ids.sort_unstable();
    ids.dedup();
    assert!(ids.len() == 4 && ids[0] != 0, "{ids:x?}");
}

/// Each thread's blocks have sizes that tell whose they are, while blocks wander between threads.
fn scans_among_threads_at_work_find_every_block_with_its_own_details() {
    start(BOTH);
    const N: usize = 4;
    let is_done = AtomicBool::new(false);
    let numbers = Mutex::new(HashMap::new());
    // With room for all: a vector that grew would be a block of a size in question, of any thread.
    let slots = [(); N].map(|()| Mutex::new(Vec::with_capacity(1000)));
    let is_of = |size: u64| (5000..9000).contains(&size).then(|| (size - 5000) as usize % N);
    let work = |t: usize| {
        let mut rng = Rng::new(t as u64 + 1);
        let mut blocks = Vec::with_capacity(1000);
        let size = |rng: &mut Rng| 5000 + t + N * (1 + rng.below(900));
        blocks.push(Block::new(size(&mut rng)));
        let number = blocks[0].thread();
        memtrace_alloc::untraced(|| numbers.lock().unwrap().insert(t, number));
        while !is_done.load(Relaxed) {
            for _ in 0..50 {
                let size = size(&mut rng);
                match rng.below(4) {
                    0..=1 if blocks.len() < 900 => blocks.push(Block::new(size)),
                    2 if !blocks.is_empty() => {
                        // Another thread's block becomes this one's.
                        let i = rng.below(blocks.len());
                        blocks[i].resize(size);
                    }
                    _ => drop(blocks.pop()),
                }
            }
            let mut slot = slots[rng.below(N)].lock().unwrap();
            memtrace_alloc::untraced(|| std::mem::swap(&mut *slot, &mut blocks));
        }
    };
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..N).map(|t| scope.spawn(move || work(t))).collect();
        let (mut n_seen, mut wrong) = (0u64, Vec::with_capacity(100));
        while n_seen < 30_000 && wrong.is_empty() {
            let numbers = memtrace_alloc::untraced(|| numbers.lock().unwrap().clone());
            let end = memtrace_alloc::generation();
            memtrace_alloc::for_each_block(|block| {
                if let Some(number) = is_of(block.size).and_then(|t| numbers.get(&t)) {
                    n_seen += 1;
                    let is_right = block.thread == *number && (1..=end).contains(&block.birth);
                    if !is_right && wrong.len() < wrong.capacity() {
                        wrong.push((block, *number, end));
                    }
                }
            });
            memtrace_alloc::advance_generation();
            memtrace_alloc::untraced(|| drop(numbers));
        }
        is_done.store(true, Relaxed);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(wrong.is_empty(), "{wrong:?}");
    });
}

pub(crate) fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One after another on the main thread: each starts and stops the tracing of the process.
    arguments.test_threads = Some(1);
    macro_rules! trials {
        ($($case:ident),* $(,)?) => {
            vec![$(Trial::test(stringify!($case), || { $case(); Ok(()) })),*]
        };
    }
    let trials = trials![
        a_block_belongs_to_the_thread_that_allocated_or_last_resized_it,
        a_thread_is_known_by_the_name_it_had_when_it_first_allocated,
        a_block_is_born_when_it_is_allocated_and_anew_when_it_is_resized,
        what_is_switched_off_is_not_told_even_where_it_was_stored_before,
        details_take_memory_only_while_they_are_switched_on,
        each_run_has_an_identity_and_generations_of_its_own,
        a_forked_child_keeps_details_and_has_a_run_of_its_own,
        scans_among_threads_at_work_find_every_block_with_its_own_details,
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}
