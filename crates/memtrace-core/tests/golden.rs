//! What CPython's own `tracemalloc` answers: every case of `data/stats_seed1.jsonl`, and of any
//! other file of that form. `cargo xtask golden` makes such files.
//!
//! The first line of a file is about the file. Each other line is a case: a snapshot, perhaps an
//! older one, source files, and operations with their results. Stacks are written newest frame
//! first; frames in results are oldest first. A text that is `null` is one that CPython refuses to
//! make, for it asks for a frame of a stack that has none.

use std::collections::BTreeMap;
use std::env;
use std::fs;

use memtrace_core::{
    AnyFilter, Attribution, DomainFilter, Filter, Frame, KeyType, KeyTypeError, Snapshot,
    SnapshotBuilder, SourceCache, Statistic, StatisticDiff, Trace, Traceback, format_size,
    format_size_diff, report,
};
use serde_json::{Value, json};

const CASES: &str = include_str!("data/stats_seed1.jsonl");

/// Names a file of generated cases.
const GENERATED: &str = "MEMTRACE_GOLDEN_CASES";

#[test]
fn all_cases_agree_with_cpython() {
    let (n_cases, n_ops) = check_file(CASES);
    assert_eq!(n_cases, 400);
    let expected = [
        ("compare_to", 646),
        ("filter_traces", 782),
        ("format", 727),
        ("format_size", 1),
        ("match_filename", 1),
        ("stat_str", 1),
        ("statistics", 795),
    ];
    assert_eq!(n_ops, expected.map(|(name, n)| (name.to_owned(), n)).into());
}

#[test]
#[ignore = "`cargo xtask golden` makes the cases and runs this"]
fn all_generated_cases_agree_with_cpython() {
    let path = env::var_os(GENERATED).unwrap_or_else(|| panic!("{GENERATED} names no file"));
    let cases = fs::read_to_string(path).unwrap();
    let about: Value = serde_json::from_str(cases.lines().next().unwrap()).unwrap();
    let (n_cases, n_ops) = check_file(&cases);
    assert_eq!(n_cases, u64_of(&about["count"]), "the file is cut short");
    println!("{n_cases} cases agree: {n_ops:?}");
}

/// Checks every case; returns how many there were, and how many operations of each kind.
///
/// **Panics** at the first operation that is answered otherwise than CPython answers it.
fn check_file(cases: &str) -> (u64, BTreeMap<String, usize>) {
    let mut n_ops = BTreeMap::new();
    let mut n_cases = 0;
    for line in cases.lines().skip(1) {
        let case = Case::new(serde_json::from_str(line).unwrap());
        for (i, op) in array(&case.json["ops"]).iter().enumerate() {
            let name = text(&op["op"]);
            let (id, profile) = (&case.json["id"], text(&case.json["profile"]));
            let context = format!("case {id} ({profile}), operation {i}, {name}");
            case.check(name, op, &context);
            *n_ops.entry(name.to_owned()).or_insert(0) += 1;
        }
        n_cases += 1;
    }
    (n_cases, n_ops)
}

/// Panics, naming both values, unless they are equal. Of two lists, names the first elements that
/// differ.
#[track_caller]
fn check_equal(found: &Value, expected: &Value, context: &str) {
    if found == expected {
        return;
    }
    if let (Value::Array(found), Value::Array(expected)) = (found, expected) {
        let n_same = found.iter().zip(expected).take_while(|(a, b)| a == b).count();
        let show = |list: &[Value]| list.get(n_same).map_or("nothing".into(), Value::to_string);
        let (found, expected) = (show(found), show(expected));
        panic!("{context}: at {n_same}\n    found {found}\n  CPython {expected}");
    }
    panic!("{context}\n    found {found}\n  CPython {expected}");
}

struct Case {
    json: Value,
    new: Snapshot,
    old: Option<Snapshot>,
    /// The same two, made by one builder, so that they share their tables.
    related: Option<(Snapshot, Snapshot)>,
    sources: SourceCache,
}

impl Case {
    fn new(json: Value) -> Self {
        let mut sources = SourceCache::without_files();
        for (filename, lines) in json["sources"].as_object().unwrap() {
            let lines = array(lines).iter().map(|line| text(line).trim_end_matches('\n'));
            sources.insert(filename, lines.map(|line| format!("{line}\n")).collect::<String>());
        }
        let old = json.get("old").filter(|old| !old.is_null());
        let related = old.map(|old| {
            let mut builder = SnapshotBuilder::new(1);
            let old = fill(&mut builder, old).snapshot();
            let new = fill(&mut builder, &json["new"]).snapshot();
            let rule = Attribution::newest_frame();
            (new.with_attribution(rule.clone()), old.with_attribution(rule))
        });
        Self { new: snapshot(&json["new"]), old: old.map(snapshot), related, sources, json }
    }

    fn check(&self, name: &str, op: &Value, context: &str) {
        match name {
            "statistics" => self.check_statistics(op, context),
            "compare_to" => self.check_compare_to(op, context),
            "filter_traces" => self.check_filter_traces(op, context),
            "format" => self.check_format(op, context),
            "format_size" => check_format_size(op, context),
            "stat_str" => check_stat_str(op, context),
            "match_filename" => check_match_filename(op, context),
            _ => panic!("{context}: no such operation"),
        }
    }

    fn check_statistics(&self, op: &Value, context: &str) {
        let Some(key_type) = expected_key_type(op, context) else { return };
        let statistics = self.new.statistics(key_type);
        let rows = statistics.iter().map(|s| json!([frames(&s.traceback), s.size, s.count]));
        let expected = &op["expect"]["ok"];
        check_equal(&rows.collect(), &expected["rows"], context);
        let is_bare = |s: &Statistic| s.traceback.total_nframe().is_none();
        assert!(statistics.iter().all(is_bare), "{context}");
        check_texts(&statistics, Statistic::python_repr, expected, context);
        let top = self.new.top(key_type, statistics.len() / 2);
        assert_eq!(top, statistics[..top.len()], "{context}, the first half");
    }

    fn check_compare_to(&self, op: &Value, context: &str) {
        let Some(key_type) = expected_key_type(op, context) else { return };
        let diffs = self.new.compare_to(self.old.as_ref().unwrap(), key_type);
        let rows = diffs
            .iter()
            .map(|d| json!([frames(&d.traceback), d.size, d.size_diff, d.count, d.count_diff]));
        let expected = &op["expect"]["ok"];
        check_equal(&rows.collect(), &expected["rows"], context);
        check_texts(&diffs, StatisticDiff::python_repr, expected, context);
        let (new, old) = self.related.as_ref().unwrap();
        assert_eq!(new.compare_to(old, key_type), diffs, "{context}, of one builder");
        let top = new.top_diff(old, key_type, diffs.len() / 2);
        assert_eq!(top, diffs[..top.len()], "{context}, the first half");
        let mut text = String::new();
        report::write_top(&mut text, &diffs, 2, &self.sources).unwrap();
        check_equal(&text.into(), &joined(&expected["report"]).into(), context);
    }

    fn check_filter_traces(&self, op: &Value, context: &str) {
        let filters: Vec<AnyFilter> = array(&op["filters"]).iter().map(filter).collect();
        let all: Vec<Trace> = self.new.traces().collect();
        let kept = array(&op["expect"]["kept"]).iter();
        let expected: Vec<Trace> = kept.map(|i| all[u64_of(i) as usize].clone()).collect();
        let filtered = self.new.filter_traces(&filters);
        assert_eq!(filtered.traces().collect::<Vec<_>>(), expected, "{context}");
        assert_eq!(filtered.traceback_limit(), self.new.traceback_limit(), "{context}");
    }

    fn check_format(&self, op: &Value, context: &str) {
        let mut traceback = traceback(&op["frames"]);
        if let Some(total_nframe) = op["total_nframe"].as_u64() {
            traceback = traceback.with_total_nframe(total_nframe.try_into().unwrap());
        }
        let limit = op["limit"].as_i64().map(|limit| isize::try_from(limit).unwrap());
        let most_recent_first = op["most_recent_first"].as_bool().unwrap();
        let lines = traceback.format(limit, most_recent_first, &self.sources);
        check_equal(&json!(lines), &op["expect"], context);
        check_equal(&traceback.to_string().into(), &op["str_traceback"], context);
        if let Some(expected) = op["str_trace"].as_str() {
            let is_it = |trace: &Trace| {
                trace.traceback == traceback
                    && trace.traceback.total_nframe() == traceback.total_nframe()
                    && trace.to_string() == expected
            };
            assert!(self.new.traces().any(|trace| is_it(&trace)), "{context}: {expected}");
        }
    }
}

fn check_format_size(op: &Value, context: &str) {
    let values: Vec<u64> = array(&op["values"]).iter().map(u64_of).collect();
    let signed = || values.iter().map(|&size| i64::try_from(size).unwrap());
    let plain: Value = values.iter().map(|&size| format_size(size)).collect();
    check_equal(&plain, &op["expect"], context);
    check_equal(&signed().map(format_size_diff).collect(), &op["expect_signed"], context);
    let negative = signed().map(|size| format_size_diff(-size));
    check_equal(&negative.collect(), &op["expect_neg_signed"], context);
}

fn check_stat_str(op: &Value, context: &str) {
    let texts = array(&op["values"]).iter().map(|value| {
        let traceback = Traceback::new([Frame::new("a.py", 1)]);
        let (size, count) = (u64_of(&value[0]), u64_of(&value[1]));
        Statistic { traceback, size, count, error: None }.to_string()
    });
    check_equal(&texts.collect(), &op["expect"], context);
}

fn check_match_filename(op: &Value, context: &str) {
    for row in array(&op["rows"]) {
        let is_match = Filter::include(text(&row[0])).matches(text(&row[1]), 1);
        assert_eq!(json!(is_match), row[2], "{context}: {row}");
    }
}

/// The key type, or `None` after checking the error that is expected instead.
fn expected_key_type(op: &Value, context: &str) -> Option<KeyType> {
    let parsed = KeyType::parse(text(&op["key_type"]), op["cumulative"].as_bool().unwrap());
    let message = parsed.as_ref().err().map(KeyTypeError::to_string);
    check_equal(&json!(message), &op["expect"]["message"], context);
    parsed.ok()
}

/// Checks `str` of the first two results and `repr` of the first.
fn check_texts<T: ToString>(
    results: &[T],
    python_repr: impl Fn(&T) -> String,
    expected: &Value,
    context: &str,
) {
    let texts = results.iter().zip(array(&expected["str"])).map(|(result, expected)| {
        if expected.is_null() { Value::Null } else { result.to_string().into() }
    });
    check_equal(&texts.collect(), &expected["str"], context);
    let reprs = results.iter().take(1).map(python_repr);
    check_equal(&reprs.collect(), &expected["repr"], context);
}

fn snapshot(json: &Value) -> Snapshot {
    let mut builder = SnapshotBuilder::new(u64_of(&json["limit"]).try_into().unwrap());
    fill(&mut builder, json).snapshot().with_attribution(Attribution::newest_frame())
}

fn fill<'a>(builder: &'a mut SnapshotBuilder, json: &Value) -> &'a mut SnapshotBuilder {
    let mut stacks = Vec::new();
    for row in array(&json["tracebacks"]) {
        let ids: Vec<_> = array(&row[0]).iter().map(|place| builder.frame(frame(place))).collect();
        stacks.push(builder.stack(&ids, Some(u64_of(&row[1]).try_into().unwrap())));
    }
    for trace in array(&json["traces"]) {
        let domain = u64_of(&trace[0]).try_into().unwrap();
        builder.trace(domain, u64_of(&trace[1]), stacks[u64_of(&trace[2]) as usize]);
    }
    builder
}

fn filter(json: &Value) -> AnyFilter {
    let is_inclusive = json["inclusive"].as_bool().unwrap();
    let number = |value: &Value| value.as_u64().map(|n| u32::try_from(n).unwrap());
    let domain = number(&json["domain"]);
    if text(&json["t"]) == "domain" {
        return DomainFilter::new(is_inclusive, domain.unwrap()).into();
    }
    let mut filter = Filter::new(is_inclusive, text(&json["pattern"]));
    if let Some(lineno) = number(&json["lineno"]) {
        filter = filter.lineno(lineno);
    }
    if json["all_frames"].as_bool().unwrap() {
        filter = filter.all_frames();
    }
    if let Some(domain) = domain {
        filter = filter.domain(domain);
    }
    filter.into()
}

fn traceback(newest_first: &Value) -> Traceback {
    Traceback::new(array(newest_first).iter().rev().map(frame).collect::<Vec<_>>())
}

fn frame(json: &Value) -> Frame {
    Frame::new(text(&json[0]), u64_of(&json[1]).try_into().unwrap())
}

fn frames(traceback: &Traceback) -> Value {
    traceback.iter().map(|frame| json!([*frame.filename, frame.lineno])).collect()
}

fn joined(lines: &Value) -> String {
    array(lines).iter().map(|line| format!("{}\n", text(line))).collect()
}

fn array(json: &Value) -> &[Value] {
    json.as_array().unwrap()
}

fn text(json: &Value) -> &str {
    json.as_str().unwrap()
}

fn u64_of(json: &Value) -> u64 {
    json.as_u64().unwrap()
}
