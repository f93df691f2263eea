//! Picking workloads by part of their name.

use memtrace_benches::Workload;

/// Something that has a name.
pub(super) trait Named {
    fn name(&self) -> &str;
}

impl Named for String {
    fn name(&self) -> &str {
        self
    }
}

impl Named for Workload {
    fn name(&self) -> &str {
        (*self).name()
    }
}

/// No workload's name contains what was asked for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no workload's name contains {filter:?}; there are {}", names.join(", "))]
pub(super) struct NoWorkload {
    filter: String,
    names: Vec<String>,
}

/// Returns those whose name contains the filter; all if there is none.
///
/// **Errors**: if there is no such workload.
pub(super) fn pick<W: Named>(all: Vec<W>, filter: Option<&str>) -> Result<Vec<W>, NoWorkload> {
    let filter = filter.unwrap_or("");
    let (found, others): (Vec<W>, Vec<W>) =
        all.into_iter().partition(|workload| workload.name().contains(filter));
    if found.is_empty() {
        let names = others.iter().map(|workload| workload.name().to_owned()).collect();
        return Err(NoWorkload { filter: filter.to_owned(), names });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_are_picked_by_part_of_their_name() {
        let names = || vec![String::from("same 25/25"), String::from("syn")];
        assert_eq!(pick(names(), None).unwrap(), names());
        assert_eq!(pick(names(), Some("25/")).unwrap(), ["same 25/25"]);
        assert_eq!(pick(Workload::ALL.to_vec(), Some("vec")).unwrap(), [Workload::GrowingVectors]);
    }

    #[test]
    fn a_filter_that_picks_nothing_is_answered_with_the_names() {
        let error = pick(Workload::ALL.to_vec(), Some("yaml")).unwrap_err().to_string();
        assert!(error.contains("\"yaml\"; there are tight-pair-5, tight-pair-25,"), "{error}");
    }
}
