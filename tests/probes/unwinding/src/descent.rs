//! Takes the steps of a plan, one inside the other, and captures at each node.

use crate::calls::{self, Next};
use crate::comparison::check;
use crate::kind::Kind;
use crate::plan::Step;

/// Captures, takes the steps, and captures again on the way back; at the end of the path `leaf` is
/// called. `kind` is that of the step that led here.
pub(crate) fn descend(steps: &[Step], kind: Kind, leaf: Next<'_>) {
    check(kind);
    match steps.split_first() {
        Some((&step, rest)) => calls::call(step, &mut || descend(rest, step.kind, leaf)),
        None => leaf(),
    }
    check(kind);
}
