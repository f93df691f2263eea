//! The chart of the slowdowns.

use super::chart::{Chart, Group};
use super::configuration::Configuration;
use super::results::Results;
use memtrace_benches::{Kind, Workload};

/// Who is in the chart, and under which name.
const SERIES: [(Configuration, &str); 7] = [
    (Configuration::Full25, "memtrace"),
    (Configuration::Sampled, "memtrace, sampled"),
    (Configuration::Heapscope, "heapscope"),
    (Configuration::HeapscopeSampled, "heapscope, sampled"),
    (Configuration::Heaptrack, "heaptrack"),
    (Configuration::Dhat, "dhat"),
    (Configuration::JemallocEvery, "jemalloc's profiler"),
];

/// Makes the chart.
pub(super) fn of(results: &Results, n_rounds: u16) -> Chart {
    let is_there = |configuration| results.configurations().any(|there| there == configuration);
    let series: Vec<_> = SERIES.into_iter().filter(|(c, _)| is_there(*c)).collect();
    let group = |workload: Workload| Group {
        name: workload.to_string(),
        values: series.iter().map(|(c, _)| Some(results.ratio(workload, *c)?.median)).collect(),
    };
    let shown = results.workloads().filter(|workload| workload.kind() != Kind::Reference);
    Chart {
        title: String::from("What tracing costs"),
        subtitle: format!(
            "Time as a multiple of the untraced run, logarithmic; 25 frames of each stack; sampled: \
             every 512 KiB; medians, rounds: {n_rounds}"
        ),
        groups: shown.map(group).collect(),
        series: series.into_iter().map(|(_, name)| name.to_owned()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::three_rounds;
    use super::*;

    #[test]
    fn the_chart_has_a_group_for_each_workload_but_references_and_a_bar_for_each_tool_there_is() {
        let chart = of(&three_rounds(&[Workload::Json, Workload::OneThread]), 3);
        assert_eq!(chart.series, ["memtrace", "dhat"]);
        assert_eq!(chart.groups.len(), 1);
        assert_eq!(chart.groups[0].values, [Some(2.0), Some(151.0)]);
    }
}
