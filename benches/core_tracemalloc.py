"""CPython's side of `cargo xtask bench core`: python3 FILE DIR N_ROUNDS N_TRACING_ROUNDS.

DIR holds shape.json (modules, call sites, calls between) and plan.bin (the blocks; `Plan::write_to`
in src/analysis/plan.rs says how). Modules are made of source text, each function on a line of its
own, so that traces have as many files, lines and stacks as those of the Rust program. Every block
is a `bytes`.

Prints the figures as a line of JSON: with tracing stopped for the analysis; the same without the
collector of cycles, which looks at a million tuples now and then; and with tracing left on. In the
last case CPython takes many minutes for cumulative statistics, so that these are left out.
"""

import array
import gc
import json
import os
import sys
import time
import tracemalloc

KEYS = [
    ("filename", False),
    ("lineno", False),
    ("traceback", False),
    ("filename", True),
    ("lineno", True),
]
BYTES_HEADER = sys.getsizeof(b"")


def compiled(filename, lines, names):
    exec(compile("\n".join(lines) + "\n", filename, "exec"), names)


def root_call(shape):
    """Returns the function at the root of all calls: (site, size) -> bytes."""
    n_sites = shape["n_sites_per_module"]
    modules = []
    for module, n_calls in enumerate(shape["n_calls"]):
        lines = [""]
        for i in range(n_calls):
            last = f"SITES[site % {n_sites}](size)"
            callee = f"call_{i + 1}(site, size)" if i + 1 < n_calls else last
            lines.append(f"def call_{i}(site, size): return {callee}")
        lines += [f"def site_{i}(size): return bytes(size)" for i in range(n_sites)]
        names = {}
        compiled(f"sites/module_{module:03}.py", lines, names)
        names["SITES"] = [names[f"site_{i}"] for i in range(n_sites)]
        modules.append(names["call_0"])

    def level(name, n_functions, callee):
        numbers = range(n_functions)
        lines = [f"def {name}_{i}(site, size): return {callee}(site, size)" for i in numbers]
        compiled("sites/calls.py", lines, names)
        return [names[f"{name}_{i}"] for i in numbers]

    names = {"MODULES": modules}
    per_part, per_area = shape["n_modules_per_part"], shape["n_modules_per_area"]
    n_parts, n_areas = (-(-len(modules) // per) for per in (per_part, per_area))
    names["PARTS"] = level("part", n_parts, f"MODULES[site // {n_sites}]")
    names["AREAS"] = level("area", n_areas, f"PARTS[site // {n_sites * per_part}]")
    # As many calls above these as a Rust program has: run time, thread, main.
    outer = [f"def outer_0(site, size): return AREAS[site // {n_sites * per_area}](site, size)"]
    for i in range(1, shape["n_outer_calls"]):
        outer.append(f"def outer_{i}(site, size): return outer_{i - 1}(site, size)")
    compiled("sites/outer.py", outer, names)
    return names[f"outer_{shape['n_outer_calls'] - 1}"]


class Heap:
    """The live blocks. What holds them is allocated before tracing starts."""

    def __init__(self, directory, call):
        numbers = array.array("I")
        planned = array.array("H")
        with open(os.path.join(directory, "plan.bin"), "rb") as file:
            numbers.frombytes(file.read(12))
            planned.frombytes(file.read())
        n_kept, n_old, n_new = numbers
        self.n_blocks, self.n_kept = n_kept + n_old, n_kept
        self.call, self.sites, self.sizes = call, planned[0::2], planned[1::2]
        # At first the blocks that move lie among those that are kept; later there are no others.
        between = n_kept // n_old
        old = array.array("I")
        for i in range(n_old):
            old.append(n_kept + i)
            old.extend(range(i * between, (i + 1) * between))
        old.extend(range(n_old * between, n_kept))
        self.orders = {"old": old, "new": range(n_kept + n_old, n_kept + n_old + n_new)}
        self.firsts = {"old": n_kept, "new": n_kept + n_old}
        self.kept = [None] * n_kept
        self.moving = [None] * n_old

    def enter(self, state):
        """Gives back the blocks that move, and allocates those of the state."""
        # Every third, three times: not in the order in which they were allocated.
        for third in range(3):
            for i in range(third, len(self.moving), 3):
                self.moving[i] = None
        first, call, sites, sizes = self.firsts[state], self.call, self.sites, self.sizes
        for i in self.orders[state]:
            block = call(sites[i], sizes[i])
            if i < self.n_kept:
                self.kept[i] = block
            else:
                self.moving[i - first] = block

    def planned_bytes(self, state):
        first = self.firsts[state]
        size = sum(self.sizes[: self.n_kept]) + sum(self.sizes[first : first + len(self.moving)])
        return size + BYTES_HEADER * self.n_blocks


waited_ms = 0.0


def waited_ns():
    """For how long this thread has waited for a CPU; 0 if the kernel does not tell."""
    try:
        with open("/proc/thread-self/schedstat") as file:
            return int(file.read().split()[1])
    except (OSError, IndexError):
        return 0


def timed(operation):
    """Returns the result and the time in milliseconds, less what was spent waiting for a CPU."""
    global waited_ms
    began = time.perf_counter()
    before = waited_ns()
    start = time.perf_counter()
    result = operation()
    passed = (time.perf_counter() - start) * 1000
    waited = (waited_ns() - before) / 1e6
    # It may have waited between two readings; then it did between the outer two.
    if waited:
        passed = (time.perf_counter() - began) * 1000
    waited_ms += waited
    return result, passed - waited


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def check(groups, heap):
    """Fails unless groups by line have the planned blocks of the new state."""
    is_site = lambda group: group.traceback[0].filename.startswith("sites/module_")
    of_sites = [group for group in groups if is_site(group)]
    assert len(of_sites) == 10_000, len(of_sites)
    assert sum(group.count for group in of_sites) == heap.n_blocks
    assert sum(group.size for group in of_sites) == heap.planned_bytes("new")


def operations(old, new, file, is_tracing):
    yield "dump", lambda: new.dump(file)
    yield "load", lambda: tracemalloc.Snapshot.load(file)
    for key, cumulative in KEYS:
        if is_tracing and cumulative:
            continue
        name = "cumulative-" + key if cumulative else key
        yield f"statistics {name}", lambda: new.statistics(key, cumulative)
        yield f"compare_to {name}", lambda: new.compare_to(old, key, cumulative)


def measure(old, new, file, heap, n_rounds):
    millis = {}
    is_tracing = tracemalloc.is_tracing()
    for _ in range(n_rounds):
        for name, operation in operations(old, new, file, is_tracing):
            result, ms = timed(operation)
            millis.setdefault(name, {"first": [], "again": []})["first"].append(ms)
            if name == "statistics lineno":
                check(result, heap)
            del result
    return millis


def snapshot_times(n_rounds):
    first = []
    for _ in range(max(n_rounds, 3)):
        snapshot, ms = timed(tracemalloc.take_snapshot)
        first.append(ms)
        del snapshot
    return {"first": first, "again": []}


def main():
    directory, n_rounds, n_tracing_rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with open(os.path.join(directory, "shape.json")) as file:
        shape = json.load(file)
    heap = Heap(directory, root_call(shape))
    tracemalloc.start(25)
    snapshots, cold_ms, snapshot_bytes = [], None, None
    # One line for both, so that each call site has one stack.
    for state in ["old", "new"]:
        heap.enter(state)
        before = resident_bytes()
        snapshot, ms = timed(tracemalloc.take_snapshot)
        cold_ms = cold_ms or ms
        snapshot_bytes = snapshot_bytes or resident_bytes() - before
        snapshots.append(snapshot)
    old, new = snapshots
    saved = os.path.join(directory, "tracemalloc.pickle")
    new.dump(saved)
    file_bytes = os.path.getsize(saved)

    millis_of_snapshots = snapshot_times(n_rounds)
    millis_tracing = measure(old, new, saved, heap, n_tracing_rounds)
    gc.disable()
    uncollected_millis_of_snapshots = snapshot_times(n_rounds)
    tracemalloc.stop()
    millis_uncollected = measure(old, new, saved, heap, n_rounds)
    gc.enable()
    millis = measure(old, new, saved, heap, n_rounds)
    millis["take_snapshot"] = millis_of_snapshots
    millis_uncollected["take_snapshot"] = uncollected_millis_of_snapshots
    os.remove(saved)

    stacks = new.statistics("traceback")
    n_frames_per_stack = sum(len(group.traceback) for group in stacks) / len(stacks)
    figures = {
        "program": "CPython " + sys.version.split()[0],
        "n_traces": len(new.traces),
        "n_stacks": len(stacks),
        "n_frames_per_stack": n_frames_per_stack,
        "n_calls_per_stack": n_frames_per_stack,
        "millis": millis,
        "millis_tracing": millis_tracing,
        "millis_uncollected": millis_uncollected,
        "cold_snapshot_ms": cold_ms,
        "waited_ms": waited_ms,
        "stated_bytes": None,
        "resident_bytes": snapshot_bytes,
        "file_bytes": file_bytes,
    }
    print(json.dumps(figures))


main()
