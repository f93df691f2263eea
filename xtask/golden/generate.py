"""Fresh golden cases of the analysis half, for any seed.

Writes JSON Lines: one about the file, then one for each case, with what this Python's own
`tracemalloc` answers. A case depends on the seed, its number and this program only, so each can
be made again by itself.

Inputs are chosen where implementations go wrong: ties in every sort key, names that are almost
the same, patterns full of brackets, sizes at the edges of units, of 32 bits and of doubles.
Every sum stays below 2^63.
"""

import argparse
import json
import platform
import random
import sys
import unicodedata

from oracle import answer

KEYS = [("filename", False), ("lineno", False), ("traceback", False)]
KEYS += [("filename", True), ("lineno", True)]
UNITS = [1024**power for power in range(1, 5)]
U32_END = 1 << 32
I63_END = 1 << 63

PLAIN = [
    "a.py", "b.py", "pkg/c.py", "/usr/lib/x/d.py", "src/main.rs", "src/lib.rs", "<unknown>",
    "<frozen importlib._bootstrap>", "<string>", "C:\\w\\f.py", "été.py", "日本.py", "😀.rs",
    "/home/u/.cargo/registry/src/serde-1.0/src/de.rs", "\uffff.rs", "a b.py", "x.py", "a",
]  # fmt: skip
NEAR = [
    "", "a", "A", "a.py", "A.py", "a.PY", "a.pyc", "a.pyC", "a.PYC", "a.pycc", "a.pyo", ".pyc",
    ".py", "pyc", "c", "a.py ", " a.py", "a.py/", "/a.py", "./a.py", "a//a.py", "a\\a.py", "aa",
    "a.", "a\u0301", "á", "\u00e1", "ａ", "a\0", "a\n", "a\u2028", "a\U000e0001", "it's", 'q"q',
    "b's\"", "\\", "\t", "\x7f", "\x85", "\xa0", "\xad", "\u200b", "\ufeff", "\ue000", "\U0010ffff",
]  # fmt: skip
GLOBBY = [
    "[x].py", "[", "]", "[]", "[!]", "[!", "-", "!", "^", "*", "?", "[*]", "a-c", "[a-c]", "**",
    "a[b]c", "[[]", "]]", "\\*", "{a,b}", "a&&b", "a||b", "a~~b", "a--b", "[a&&b]", "(a)", "a+",
    "a.c", "$", "a|b", "b", "d", "e", "z",
]  # fmt: skip
SET_CHARACTERS = "abcdez!!--]]^^[\\&|~*?./ 0é日😀\n"
LINE_EDGES = "\t\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2003\u2009\u202f\u205f\u3000"
LINE_NEAR_EDGES = "\u200b\u180e\u2060\ufeff\x00\x08\x0e\x1b\x7f"


def is_settled(code):
    """Whether Python versions agree on what kind of character this is."""
    if 0xD800 <= code <= 0xDFFF:
        return False
    is_noncharacter = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    return is_noncharacter or unicodedata.category(chr(code)) != "Cn"


def a_character(rng):
    while True:
        end = rng.choice([0x80, 0x100, 0x3000, 0x10000, 0x20000, 0x110000])
        code = rng.randrange(end)
        if is_settled(code):
            return chr(code)


def a_word(rng, characters=None, longest=6):
    length = rng.randint(0, longest)
    if characters is None:
        return "".join(a_character(rng) for _ in range(length))
    return "".join(rng.choice(characters) for _ in range(length))


def some_names(rng):
    kind = rng.choice(["plain", "near", "globby", "unicode", "short", "mixed", "one"])
    if kind == "plain":
        return rng.sample(PLAIN, rng.randint(1, 12))
    if kind == "near":
        return rng.sample(NEAR, rng.randint(2, 20))
    if kind == "globby":
        return rng.sample(GLOBBY, rng.randint(2, 15))
    if kind == "unicode":
        return [a_word(rng) for _ in range(rng.randint(1, 8))]
    if kind == "short":
        return [a_word(rng, "aAb", 3) for _ in range(rng.randint(2, 10))]
    if kind == "one":
        return [rng.choice(PLAIN + NEAR + GLOBBY)]
    return rng.sample(PLAIN + NEAR + GLOBBY, 10) + [a_word(rng), a_word(rng)]


def a_pattern(rng, names):
    """A pattern that has a fair chance to match one of the names, by the kind of it or by luck."""
    name = rng.choice(names)
    kind = rng.randrange(10)
    if kind == 0:
        return rng.choice(["*", "**", "?", "*?", "", "*.py", "*.pyc", "*.rs", "<*>", "[!a]*"])
    if kind == 1:
        return name
    if kind == 2:
        return name.swapcase()
    if kind == 3 and name.endswith(".py"):
        return name + "c"
    if kind <= 5:
        return "".join(
            rng.choice(["*", "?", f"[{c}]", f"[!{c}]", f"[{c}-{c}]", "[" + a_set(rng, c) + "]"])
            if rng.random() < 0.4
            else c
            for c in name
        )
    if kind == 6:
        at = rng.randint(0, len(name))
        return name[:at] + rng.choice(["*", "*?", "[", "]", "[!", "[]", "[^"]) + name[at:]
    if kind == 7:
        return "".join(rng.choice("ab*?[]!-") for _ in range(rng.randint(0, 10)))
    if kind == 8:
        return "*" + name[rng.randint(0, len(name)) :]
    return rng.choice(["", "*", "a"]) + "[" + a_set(rng, "a") + rng.choice(["]", "]*", "", "]]"])


def a_set(rng, wanted):
    """What stands between brackets: ranges forwards and backwards, dashes at both ends, `!`."""
    pieces = []
    for _ in range(rng.randint(0, 5)):
        first, last = rng.choice(SET_CHARACTERS), rng.choice(SET_CHARACTERS)
        pieces.append(rng.choice([first, f"{first}-{last}", f"{last}-", f"-{first}", wanted, "-"]))
    return "".join(pieces)


def near(rng, value, spread=2):
    return max(0, value + rng.randint(-spread, spread))


def an_edge_size(rng):
    """A size at which its text changes unit, number of decimals, or rounds a half."""
    unit = rng.choice(UNITS)
    kind = rng.randrange(6)
    if kind == 0:
        return near(rng, unit * rng.choice([1, 10, 99, 100, 1023, 1024, 10239, 10240]))
    if kind == 1:
        return near(rng, unit * (2 * rng.randrange(2000) + 1) // 20)
    if kind == 2:
        return near(rng, unit * (2 * rng.randrange(20000) + 1) // 2)
    if kind == 3:
        return rng.choice([0, 1, 9, 10, 99, 100, 101, 1023, 1024, 10239, 10240, 10241])
    if kind == 4:
        return near(rng, 1 << rng.randrange(62))
    return rng.randrange(1 << rng.randint(1, 62))


def a_size(rng, sizes, largest):
    if sizes == "ties":
        return min(largest, 8)
    if sizes == "zero":
        return min(largest, rng.choice([0, 0, 0, 1]))
    if sizes == "small":
        return min(largest, rng.choice([0, 1, 8, 16, 64, 512, 513, 4096, rng.randrange(20_000)]))
    if sizes == "edges":
        return min(largest, an_edge_size(rng))
    if sizes == "32 bits":
        return min(largest, near(rng, U32_END - 1) if rng.random() < 0.3 else rng.randrange(99))
    if sizes == "one wide":
        return min(largest, rng.choice([0, 7, U32_END - 1]))
    return largest - rng.randrange(max(1, min(largest, 1 << rng.randint(1, 62))))


def a_domain(rng, domains):
    if domains == "none":
        return 0
    if domains == "one":
        return 389047
    if domains == "few":
        return rng.choice([0, 0, 0, 1, 389047])
    if domains == "edges":
        return rng.choice([0, 1, 2, (1 << 31) - 1, 1 << 31, U32_END - 2, U32_END - 1])
    return rng.randrange(40) if rng.random() < 0.8 else rng.randrange(U32_END)


def some_frames(rng, names, linenos, depth):
    shape = rng.randrange(4)
    if shape == 0:
        return [[rng.choice(names), rng.choice(linenos)] for _ in range(depth)]
    if shape == 1:
        return [[rng.choice(names), rng.choice(linenos)]] * depth
    if shape == 2:
        few = [[rng.choice(names), rng.choice(linenos)] for _ in range(2)]
        return [few[i % 2] for i in range(depth)]
    name = rng.choice(names)
    return [[name, rng.choice(linenos)] for _ in range(depth)]


def some_tracebacks(rng, names, linenos, profile):
    count = {"single": 1, "wide": rng.randint(200, 1200)}.get(profile, rng.randint(1, 24))
    deepest = {"deep": 300, "single": 1, "wide": 4}.get(profile, rng.choice([1, 2, 3, 5, 12, 25]))
    if profile == "deep":
        count = rng.randint(1, 5)
    stacks = []
    for _ in range(count):
        related = rng.choice(stacks)[0] if stacks and rng.random() < 0.5 else []
        change = rng.randrange(6)
        if not related:
            frames = some_frames(rng, names, linenos, rng.randint(1, deepest))
        elif change == 0:
            frames = related
        elif change == 1:
            frames = related[1:] or related
        elif change == 2:
            frames = related[:-1] or related
        elif change == 3:
            frames = related[::-1]
        elif change == 4:
            frames = related + [[rng.choice(names), rng.choice(linenos)]]
        else:
            frames = list(related)
            at = rng.randrange(len(frames))
            frames[at] = [rng.choice(names), frames[at][1]]
        if profile == "no frames" and rng.random() < 0.3:
            frames = []
        total = rng.choice([len(frames), len(frames), len(frames) + 1, 65535, rng.randrange(65536)])
        stacks.append([frames, total])
    return stacks


def a_snapshot(rng, profile, tracebacks, sizes, domains, n_traces):
    n_frames = max(1, max((len(frames) for frames, _ in tracebacks), default=1))
    largest = (I63_END - 1) // (n_frames * max(1, n_traces))
    traces = []
    for _ in range(n_traces):
        stack = rng.randrange(len(tracebacks))
        traces.append([a_domain(rng, domains), a_size(rng, sizes, largest), stack])
    if profile == "one odd" and traces:
        # Everything that is stored in narrow columns meets one trace that does not fit them.
        place = rng.choice([0, len(traces) // 2, len(traces) - 1])
        traces[place][0] = rng.choice([0, 1, U32_END - 1])
        traces[place][1] = min(largest, rng.choice([U32_END, U32_END - 1, U32_END + 1, largest]))
    return {
        "limit": rng.choice([1, n_frames, min(65535, n_frames), 25, 65535]),
        "tracebacks": tracebacks,
        "traces": traces,
    }


def an_older(rng, new, fresh):
    """A snapshot that the new one could have come from, or one that has little to do with it."""
    kind = rng.randrange(6)
    if kind == 0:
        return new
    if kind == 1:
        return {**new, "traces": []}
    if kind == 2:
        return fresh()
    if kind == 3:
        return {**new, "limit": 1, "traces": rng.sample(new["traces"], len(new["traces"]))}
    traces = []
    for domain, size, stack in new["traces"]:
        change = rng.randrange(8)
        if change == 0:
            continue
        if change == 1:
            traces.append([domain, size, stack])
        if change == 2:
            size = size // 2
        if change == 3:
            stack = rng.randrange(len(new["tracebacks"]))
        traces.append([domain, size, stack])
    largest = (I63_END - 1) // max(1, *(len(frames) for frames, _ in new["tracebacks"]))
    return {**new, "traces": traces} if sum(t[1] for t in traces) <= largest else new


def some_sources(rng, names, linenos):
    sources = {}
    for name in names:
        if rng.random() < 0.5:
            lines = []
            for _ in range(rng.randint(0, min(30, max(linenos) + 1))):
                edges = LINE_EDGES if rng.random() < 0.8 else LINE_EDGES + LINE_NEAR_EDGES
                body = rng.choice(["", "x = 1", "f(a,  b)", a_word(rng)])
                line = a_word(rng, edges, 3) + body + a_word(rng, edges, 3)
                lines.append(line.replace("\n", "") + "\n")
            sources[name] = lines
    return sources


def a_key_type(rng):
    word = rng.choice(["filename", "lineno", "traceback"])
    kind = rng.randrange(6)
    if kind == 0:
        return a_word(rng)
    if kind == 1:
        return rng.choice(NEAR)
    if kind == 2:
        return a_word(rng, "'\"\\\n\r\t\0\x7f\xa0 %{}", 8)
    if kind == 3:
        return rng.choice([word.upper(), word + " ", word[:-1], word + "s", f"'{word}'", ""])
    if kind == 4:
        return rng.choice(["function", "domain", "thread", "module", "size", "cumulative-lineno"])
    return word + a_character(rng)


def some_filters(rng, case, names, linenos, all_frames_only):
    domains = [trace[0] for trace in case["new"]["traces"]] or [0]
    a_number = lambda: rng.choice([None, None, 0, rng.choice(domains)])  # noqa: E731
    filters = []
    for _ in range(rng.choice([0, 1, 1, 2, 2, 3, 5])):
        if rng.random() < 0.2:
            domain = rng.choice(domains + [0, U32_END - 1])
            filters.append({"t": "domain", "inclusive": rng.random() < 0.5, "domain": domain})
            continue
        filters.append(
            {
                "t": "filter",
                "inclusive": rng.random() < 0.5,
                "pattern": a_pattern(rng, names),
                "lineno": rng.choice([None, None, 0, rng.choice(linenos)]),
                "all_frames": all_frames_only or rng.random() < 0.5,
                "domain": a_number(),
            }
        )
    return {"op": "filter_traces", "filters": filters}


def a_format(rng, case, names, linenos):
    traces = case["new"]["traces"]
    op = {"op": "format"}
    if traces and rng.random() < 0.6:
        index = rng.randrange(len(traces))
        frames, total = case["new"]["tracebacks"][traces[index][2]]
        op["str_trace"] = index
    else:
        frames = some_frames(rng, names, linenos, rng.randint(1, 12))
        total = rng.choice([None, len(frames), 65535])
    if not frames:
        op.pop("str_trace", None)
        frames = some_frames(rng, names, linenos, 1)
        total = 1
    n = len(frames)
    limits = [None, 0, 1, -1, n, -n, n - 1, 1 - n, n + 1, -n - 1, n // 2, -(n // 2)]
    limits += [I63_END - 1, -I63_END, 1 - I63_END, U32_END, -U32_END, 1 << 31, -1 << 31]
    op["frames"] = frames
    op["limit"] = rng.choice(limits)
    op["most_recent_first"] = rng.random() < 0.5
    op["total_nframe"] = total
    return op


def a_general_case(rng, profile):
    names = some_names(rng)
    linenos = rng.choice([[0], [1], [0, 1], [0, 1, 9, 10, 100], list(range(25))])
    if rng.random() < 0.1:
        linenos = linenos + [U32_END - 1, (1 << 31) - 1, 1 << 31]
    sizes = ["ties", "zero", "small", "small", "edges", "32 bits", "one wide", "huge"]
    sizes = {"one odd": "small", "no frames": "small"}.get(profile, rng.choice(sizes))
    domains = rng.choice(["none", "none", "one", "few", "edges", "many"])

    def fresh():
        tracebacks = some_tracebacks(rng, names, linenos, profile)
        n_traces = rng.choice([0, 1, 2, 5, 10, 30, 60])
        if profile == "wide":
            n_traces = rng.randint(200, 1500)
        return a_snapshot(rng, profile, tracebacks, sizes, domains, n_traces)

    case = {"new": fresh()}
    case["old"] = an_older(rng, case["new"], fresh)
    case["sources"] = some_sources(rng, names, linenos)
    # Of stacks without frames, CPython refuses what asks for their newest frame.
    keys = [key for key in KEYS if profile != "no frames" or key != ("filename", False)]
    ops = []
    for key_type, is_cumulative in rng.sample(keys, 2):
        ops.append({"op": "statistics", "key_type": key_type, "cumulative": is_cumulative})
    for key_type, is_cumulative in rng.sample(keys, 2):
        ops.append({"op": "compare_to", "key_type": key_type, "cumulative": is_cumulative})
    if rng.random() < 0.3:
        op = rng.choice(["statistics", "compare_to"])
        bad = a_key_type(rng)
        if bad in ("filename", "lineno", "traceback"):
            bad = "traceback"
        cumulative = bad == "traceback" or rng.random() < 0.5
        ops.append({"op": op, "key_type": bad, "cumulative": cumulative})
    for _ in range(rng.randint(1, 3)):
        ops.append(some_filters(rng, case, names, linenos, profile == "no frames"))
    for _ in range(rng.randint(1, 3)):
        ops.append(a_format(rng, case, names, linenos))
    case["ops"] = ops
    return case


def a_case_of_texts(rng, op):
    return {"new": {"limit": 1, "tracebacks": [], "traces": []}, "sources": {}, "ops": [op]}


def match_filename(rng):
    names = some_names(rng) + [a_word(rng, SET_CHARACTERS, 5) for _ in range(5)]
    patterns = [a_pattern(rng, names) for _ in range(30)]
    rows = [[pattern, rng.choice(names)] for pattern in patterns for _ in range(4)]
    # One character against one set tells most about the set.
    for _ in range(30):
        rows.append(["[" + a_set(rng, "a") + "]", rng.choice(SET_CHARACTERS)])
    return a_case_of_texts(rng, {"op": "match_filename", "rows": rows})


def format_size(rng):
    values = [an_edge_size(rng) for _ in range(100)] + [0, I63_END - 1]
    return a_case_of_texts(rng, {"op": "format_size", "values": values})


def stat_str(rng):
    values = []
    for _ in range(100):
        count = rng.choice([0, 1, 2, 3, 7, 10, 1000, 4096, rng.randrange(1 << rng.randint(1, 62))])
        kind = rng.randrange(4)
        if kind == 0:
            size = an_edge_size(rng)
        elif kind == 1:
            # An average at an edge, or so close below or above that a double cannot tell.
            size = near(rng, an_edge_size(rng) * count)
        elif kind == 2:
            # Half of something.
            size = (2 * rng.randrange(1 << rng.randint(1, 15)) + 1) * count // 2
        else:
            size = rng.randrange(I63_END)
        values.append([min(size, I63_END - 1), count])
    return a_case_of_texts(rng, {"op": "stat_str", "values": values})


def all_characters(rng):
    """Every settled character of a stretch, in the text of an error."""
    start = rng.choice([0, 0, 0xE0000]) + rng.randrange(0, 0x2FC00, 0x100)
    ops = []
    for first in range(start, start + 0x400, 0x40):
        text = "".join(chr(c) for c in range(first, first + 0x40) if is_settled(c))
        ops.append({"op": "statistics", "key_type": text, "cumulative": False})
    return {**a_case_of_texts(rng, None), "ops": ops}


PROFILES = (
    ["random"] * 12
    + ["single", "wide", "deep", "deep", "no frames", "no frames", "one odd", "one odd"]
    + [match_filename, match_filename, format_size, stat_str, all_characters]
)


def a_case(seed, number):
    rng = random.Random(f"stats {seed} {number}")
    profile = PROFILES[number % len(PROFILES)]
    is_general = isinstance(profile, str)
    case = a_general_case(rng, profile) if is_general else profile(rng)
    case = {"id": number, "profile": profile if is_general else profile.__name__, **case}
    answer(case)
    return case


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--cases", type=int, required=True)
    args = parser.parse_args()
    about = {"meta": 1, "schema": 1, "python": platform.python_version(), "seed": args.seed}
    about |= {"count": args.cases, "os": sys.platform}
    out = open(sys.stdout.fileno(), "w", encoding="utf-8", newline="\n")
    print(json.dumps(about), file=out)
    for number in range(args.cases):
        print(json.dumps(a_case(args.seed, number), ensure_ascii=False), file=out)
    out.flush()


if __name__ == "__main__":
    main()
