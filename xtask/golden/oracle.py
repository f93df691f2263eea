"""What CPython's own `tracemalloc` answers to the operations of a golden case.

A case is a dictionary: `new` and perhaps `old`, snapshots as plain data; `sources`, the lines of
source files; and `ops`, operations without their results. `answer` adds the results. Nothing here
computes one: every figure and text comes from a class or function of `tracemalloc`, except for the
two lines of the report, which are those of the program that the report is modelled on.

Run as a program, reads a file of cases with results and says whether this Python gives the same.
"""

import json
import linecache
import sys
import tracemalloc


def snapshot(data):
    """A `tracemalloc.Snapshot` of plain data; equal stacks are one tuple, as in a real one."""
    stacks = [(tuple(map(tuple, frames)), total) for frames, total in data["tracebacks"]]
    traces = [(domain, size, *stacks[stack]) for domain, size, stack in data["traces"]]
    return tracemalloc.Snapshot(traces, data["limit"])


def give_sources(sources, snapshots):
    """Makes these the only source files there are."""
    linecache.cache.clear()
    for data in snapshots:
        for frames, _ in data["tracebacks"]:
            for filename, _ in frames:
                linecache.cache[filename] = (0, None, [], filename)
    for filename, lines in sources.items():
        linecache.cache[filename] = (sum(map(len, lines)), None, lines, filename)


def places(traceback):
    return [[frame.filename, frame.lineno] for frame in traceback]


def text(result):
    """`str`, or `None` where it raises: a traceback without frames has none."""
    try:
        return str(result)
    except IndexError:
        return None


def report(diffs):
    lines = []
    for diff in diffs:
        lines.append(
            "%.2f new KiB, %.2f total KiB, %d new blocks, %d total blocks"
            % (diff.size_diff / 1024, diff.size / 1024, diff.count_diff, diff.count)
        )
        lines += diff.traceback.format()
        lines.append("")
    return lines


def grouped(op, new, old):
    try:
        if op["op"] == "statistics":
            results = new.statistics(op["key_type"], op["cumulative"])
        else:
            results = new.compare_to(old, op["key_type"], op["cumulative"])
    except ValueError as error:
        return {"error": "ValueError", "message": str(error)}
    ok = {"str": [text(r) for r in results[:2]], "repr": [repr(r) for r in results[:1]]}
    if op["op"] == "statistics":
        rows = [[places(r.traceback), r.size, r.count] for r in results]
        return {"ok": {"rows": rows, **ok}}
    rows = [[places(r.traceback), r.size, r.size_diff, r.count, r.count_diff] for r in results]
    return {"ok": {"rows": rows, **ok, "report": report(results[:2])}}


def a_filter(data):
    if data["t"] == "domain":
        return tracemalloc.DomainFilter(data["inclusive"], data["domain"])
    return tracemalloc.Filter(
        data["inclusive"], data["pattern"], data["lineno"], data["all_frames"], data["domain"]
    )


def kept(op, new):
    """The indices of the traces that are kept, found by giving each trace a size of its own."""
    numbered = [(t[0], number, *t[2:]) for number, t in enumerate(new.traces._traces)]
    numbered = tracemalloc.Snapshot(numbered, new.traceback_limit)
    filtered = numbered.filter_traces([a_filter(data) for data in op["filters"]])
    return [trace.size for trace in filtered.traces]


def answer_one(op, new, old):
    match op["op"]:
        case "statistics" | "compare_to":
            op["expect"] = grouped(op, new, old)
        case "filter_traces":
            op["expect"] = {"kept": kept(op, new)}
        case "format":
            traceback = tracemalloc.Traceback(tuple(map(tuple, op["frames"])), op["total_nframe"])
            op["expect"] = traceback.format(op["limit"], op["most_recent_first"])
            op["str_traceback"] = text(traceback)
            if "str_trace" in op:
                # Until it is answered, this is the index of the trace.
                op["str_trace"] = text(new.traces[op["str_trace"]])
        case "format_size":
            values = op["values"]
            op["expect"] = [tracemalloc._format_size(v, False) for v in values]
            op["expect_signed"] = [tracemalloc._format_size(v, True) for v in values]
            op["expect_neg_signed"] = [tracemalloc._format_size(-v, True) for v in values]
        case "stat_str":
            place = tracemalloc.Traceback((("a.py", 1),))
            op["expect"] = [str(tracemalloc.Statistic(place, *value)) for value in op["values"]]
        case "match_filename":
            for row in op["rows"]:
                found = tracemalloc.Filter(True, row[0])._match_frame(row[1], 1)
                row[2:] = [found]
        case name:
            raise ValueError(f"no such operation: {name}")


def answer(case):
    snapshots = [case[side] for side in ("new", "old") if case.get(side)]
    formatted = [{"tracebacks": [[op["frames"], 0]]} for op in case["ops"] if "frames" in op]
    give_sources(case["sources"], snapshots + formatted)
    new = snapshot(case["new"])
    old = snapshot(case["old"]) if case.get("old") else None
    for op in case["ops"]:
        answer_one(op, new, old)


def unanswered(case):
    """The case without its results, with the index of a fitting trace for each `str_trace`."""
    case = json.loads(json.dumps(case))
    for op in case["ops"]:
        for key in ("expect", "expect_signed", "expect_neg_signed", "str_traceback"):
            op.pop(key, None)
        if op.get("str_trace") is not None:
            new = snapshot(case["new"])
            traces = enumerate(new.traces)
            op["str_trace"] = next(i for i, trace in traces if text(trace) == op["str_trace"])
        for row in op.get("rows", ()):
            del row[2:]
    return case


def main(path):
    with open(path, encoding="utf-8") as file:
        next(file)
        for line in file:
            expected = json.loads(line)
            found = unanswered(expected)
            answer(found)
            for number, (a, b) in enumerate(zip(found["ops"], expected["ops"], strict=True)):
                if a != b:
                    sys.exit(
                        f"case {expected['id']}, operation {number}: this Python "
                        f"({sys.version.split()[0]}) answers\n{a}\nbut {path} says\n{b}"
                    )


if __name__ == "__main__":
    main(sys.argv[1])
