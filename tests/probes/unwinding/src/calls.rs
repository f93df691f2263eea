//! Every kind of call, each of which calls `next` from the middle of a frame: once, or
//! twice in [`late`].
//!
//! Functions are never inlined and do something after the call, since a last call would take the
//! place of its caller; [`tail_call`] is about those.

pub(crate) mod assembly;
pub(crate) mod c_frame;
pub(crate) mod closure;
pub(crate) mod coroutine;
pub(crate) mod generic;
pub(crate) mod late;
pub(crate) mod live_frame_pointer;
pub(crate) mod long_jump;
pub(crate) mod own_frame;
pub(crate) mod panic;
pub(crate) mod recursion;
pub(crate) mod signal;
pub(crate) mod sorting;
pub(crate) mod tail_call;
pub(crate) mod trait_object;

use crate::kind::Kind;
use crate::plan::Step;

/// The rest of the path.
pub(crate) type Next<'a> = &'a mut dyn FnMut();

/// Takes a step.
pub(crate) fn call(step: Step, next: Next<'_>) {
    match step.kind {
        Kind::Root | Kind::Interrupted => unreachable!("no step of a plan"),
        Kind::Recursion => recursion::call(step, next),
        Kind::Closure => closure::call(step, next),
        Kind::TraitObject => trait_object::call(step, next),
        Kind::Generic => generic::call(step, next),
        Kind::OwnFrame => own_frame::relay(step, next),
        Kind::TailCall => tail_call::call(step, next),
        Kind::Alloca => c_frame::alloca(step, next),
        Kind::LiveFramePointer => live_frame_pointer::call(step, next),
        Kind::VariableArray => c_frame::variable_array(step, next),
        Kind::Realigned => c_frame::realigned(step, next),
        Kind::DecoyFramePointer => assembly::decoy_frame_pointer(step, next),
        Kind::WithoutCfi => assembly::without_cfi(next),
        Kind::LongJump => long_jump::call(step, next),
        Kind::TailCallInC => tail_call::call_in_c(step, next),
        Kind::Sorting => sorting::call(step, next),
        Kind::CatchUnwind => panic::catch(step, next),
        Kind::Unwinding => panic::unwind(step, next),
        Kind::Signal => signal::raise(next),
        Kind::AlternateStack => signal::raise_on_alternate_stack(next),
        Kind::Coroutine => coroutine::resume(step, next),
        Kind::Late => late::call(step, next),
    }
}
