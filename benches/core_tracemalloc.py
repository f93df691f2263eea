"""CPython's side of `cargo xtask bench core`: python3 core_tracemalloc.py DIR N_ROUNDS N_TRACING_ROUNDS.

DIR holds shape.json (modules, call sites, calls between) and plan.bin (the blocks: see `Plan::write_to`
in src/analysis/plan.rs). Modules are made of source text, each function on a line of its own, so that
traces have as many files, lines and stacks as those of the Rust program. Every block is a `bytes`.

Prints the figures as a line of JSON. The collector of cycles is off, as in `timeit`: with it, CPython is
slower. While it traces, CPython takes many minutes for cumulative statistics, so that these are timed
with tracing stopped only, as all the others are, too.
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
        lines = [f"def {name}_{i}(site, size): return {callee}(site, size)" for i in range(n_functions)]
        compiled("sites/calls.py", lines, names)
        return [names[f"{name}_{i}"] for i in range(n_functions)]

    names = {"MODULES": modules}
    n_modules, per_part, per_area = len(modules), shape["n_modules_per_part"], shape["n_modules_per_area"]
    names["PARTS"] = level("part", -(-n_modules // per_part), f"MODULES[site // {n_sites}]")
    names["AREAS"] = level("area", -(-n_modules // per_area), f"PARTS[site // {n_sites * per_part}]")
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
        with open(os.path.join(directory, "plan.bin"), "rb") as file:
            numbers.frombytes(file.read(12))
            planned = array.array("H")
            planned.frombytes(file.read())
        n_kept, n_old, n_new = numbers
        sites, sizes = planned[0::2], planned[1::2]
        bounds = {"old": (n_kept, n_kept + n_old), "new": (n_kept + n_old, n_kept + n_old + n_new)}
        self.n_blocks = n_kept + n_old
        self.call, self.sites, self.sizes = call, sites, sizes
        self.n_kept, self.bounds = n_kept, bounds
        self.kept = [None] * n_kept
        self.moving = [None] * n_old

    def build(self):
        """Makes the blocks of the old state: those that move lie among those that are kept."""
        n_moving = len(self.moving)
        order = array.array("I")
        between = self.n_kept // n_moving
        for i in range(n_moving):
            order.append(self.n_kept + i)
            order.extend(range(i * between, (i + 1) * between))
        order.extend(range(n_moving * between, self.n_kept))
        tracemalloc.start(25)
        for index in order:
            block = self.call(self.sites[index], self.sizes[index])
            if index < self.n_kept:
                self.kept[index] = block
            else:
                self.moving[index - self.n_kept] = block

    def enter_new_state(self):
        for third in range(3):
            for i in range(third, len(self.moving), 3):
                self.moving[i] = None
        begin, end = self.bounds["new"]
        for i in range(begin, end):
            self.moving[i - begin] = self.call(self.sites[i], self.sizes[i])

    def planned_bytes(self, state):
        begin, end = self.bounds[state]
        size = sum(self.sizes[: self.n_kept]) + sum(self.sizes[begin:end])
        return size + BYTES_HEADER * self.n_blocks


def timed(operation):
    start = time.perf_counter()
    result = operation()
    return result, (time.perf_counter() - start) * 1000


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def check(groups, heap):
    """Fails unless groups by line have the planned blocks of the new state."""
    of_sites = [group for group in groups if group.traceback[0].filename.startswith("sites/module_")]
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


def main():
    directory, n_rounds, n_tracing_rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with open(os.path.join(directory, "shape.json")) as file:
        shape = json.load(file)
    heap = Heap(directory, root_call(shape))
    gc.disable()
    heap.build()

    before = resident_bytes()
    old, cold_ms = timed(tracemalloc.take_snapshot)
    snapshot_bytes = resident_bytes() - before
    heap.enter_new_state()
    snapshot_ms = []
    for _ in range(max(n_rounds, 3)):
        new = None
        new, ms = timed(tracemalloc.take_snapshot)
        snapshot_ms.append(ms)

    saved = os.path.join(directory, "tracemalloc.pickle")
    new.dump(saved)
    file_bytes = os.path.getsize(saved)
    millis_tracing = measure(old, new, saved, heap, n_tracing_rounds)
    tracemalloc.stop()
    millis = measure(old, new, saved, heap, n_rounds)
    os.remove(saved)
    millis["take_snapshot"] = {"first": snapshot_ms, "again": []}
    stacks = new.statistics("traceback")
    print(
        json.dumps(
            {
                "program": "CPython " + sys.version.split()[0],
                "n_traces": len(new.traces),
                "n_stacks": len(stacks),
                "n_frames_per_stack": sum(len(group.traceback) for group in stacks) / len(stacks),
                "millis": millis,
                "millis_tracing": millis_tracing,
                "cold_snapshot_ms": cold_ms,
                "stated_bytes": None,
                "resident_bytes": snapshot_bytes,
                "file_bytes": file_bytes,
            }
        )
    )


main()
