//! The live blocks, as planned.
//!
//! A thread of its own makes and drops them, at one place, so that each call site has one stack. It
//! is not to be traced otherwise: what holds the blocks is allocated before tracing starts.

use crate::sites::{Block, allocate};
use memtrace_benches::analysis::{Plan, State};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// Blocks of a plan, in one of its two states. They live as long as the program.
pub(crate) struct Heap {
    plan: Arc<Plan>,
    wanted: SyncSender<State>,
    entered: Receiver<()>,
}

impl Heap {
    /// Starts to trace, without blocks.
    pub(crate) fn start(plan: Plan) -> Result<Self, memtrace::StartError> {
        let plan = Arc::new(plan);
        let (wanted, states) = sync_channel(1);
        let (done, entered) = sync_channel(1);
        let mut blocks = Blocks::new(Arc::clone(&plan));
        thread::spawn(move || {
            for state in states {
                blocks.enter(state);
                if done.send(()).is_err() {
                    break;
                }
            }
        });
        memtrace::start(25)?;
        Ok(Self { plan, wanted, entered })
    }

    /// Gives back the blocks of the other state and allocates those of this one.
    ///
    /// **Panics**: if the thread has panicked.
    pub(crate) fn enter(&self, state: State) {
        self.wanted.send(state).expect("the thread waits for states");
        self.entered.recv().expect("the thread answers");
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }
}

struct Blocks {
    plan: Arc<Plan>,
    kept: Vec<Block>,
    moving: Vec<Block>,
    state: Option<State>,
}

impl Blocks {
    fn new(plan: Arc<Plan>) -> Self {
        let kept = Vec::with_capacity(plan.kept().len());
        let moving = Vec::with_capacity(plan.moving(State::Old).len());
        Self { plan, kept, moving, state: None }
    }

    fn enter(&mut self, state: State) {
        if self.state == Some(state) {
            return;
        }
        // Every third, three times: not in the order in which they were allocated.
        for third in 0..3 {
            for block in self.moving.iter_mut().skip(third).step_by(3) {
                *block = Block::new();
            }
        }
        self.moving.clear();
        let (kept, moving) = (self.plan.kept(), self.plan.moving(state));
        let mut to_keep = kept[self.kept.len()..].iter();
        let mut to_move = moving.iter();
        // At first the blocks that move lie among those that are kept; later there are no others.
        let n_kept_between = to_keep.len() / moving.len().max(1);
        for i in 0.. {
            let is_moving = to_keep.len() == 0 || i % (n_kept_between + 1) == 0;
            let moving = if is_moving { to_move.next() } else { None };
            let Some(&planned) = moving.or_else(|| to_keep.next()) else { break };
            let block = allocate(planned);
            let blocks = if moving.is_some() { &mut self.moving } else { &mut self.kept };
            blocks.push(block);
        }
        self.state = Some(state);
    }
}
