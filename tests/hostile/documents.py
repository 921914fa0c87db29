"""Documents that mean harm: YAML that unfolds, numbers without end, words that are options of something else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from hostile.corpus import INPUT, TAKEN, USAGE, Entry, Place

MOST = 2**20


def _aliases(key: str, levels: int = 25) -> str:
    """Each list holds the one before it nine times."""
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels))]
    return "\n".join([*lines, f"{key}: *a{levels - 1}", ""])


def _maps(levels: int = 25) -> str:
    lines = ["a0: &a0 {x: 1}"]
    for n in range(1, levels):
        lines.append(f"a{n}: &a{n} {{{', '.join(f'k{k}: *a{n - 1}' for k in range(9))}}}")
    return "\n".join([*lines, f"distill: *a{levels - 1}", ""])


def _merged(levels: int = 25) -> str:
    """Each mapping merges the one before it nine times."""
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, levels)]
    return "\n".join([*lines, ""])


DOCUMENTS: dict[str, str | bytes] = {
    "lists of aliases": _aliases("seed"),
    "an alias in a section": _aliases("distill"),
    "mappings of aliases": _maps(),
    "merged mappings": _merged(),
    "a list that holds itself": "a: &a [*a]\n",
    "a mapping that is its own key": "&a {*a : 1}\n",
    "a tag of Python": "!!python/object/apply:os.system ['touch {canary}']\n",
    "a tag of Python within": "seed: !!python/object/new:os.system ['touch {canary}']\n",
    "a tag that is nobody's": "seed: !someone/thing 1\n",
    "a key twice": "seed: 1\nseed: 2\n",
    "a number of 10,000 digits": f"seed: {'9' * 10_000}\n",
    "a hexadecimal number of 10,000 digits": f"seed: 0x{'f' * 10_000}\n",
    "a number in base 60": f"seed: {':'.join(['59'] * 5_000)}\n",
    "a number above all": "seed: 1e400\n",
    "infinity": "limits: {max_latency_ms: .inf}\n",
    "no number": "limits: {max_latency_ms: .nan}\n",
    "brackets": "[" * 100_000,
    "braces": "{a: " * 50_000,
    "dashes": "- " * 50_000,
    "thirty thousand keys": "".join(f"k{k}: 1\n" for k in range(30_000)),
    "two megabytes": "# " + "x" * 2 * MOST,
    "a word of a megabyte": "seed: " + "x" * (MOST - 100),
    "control characters": b"seed: \x00\x01\x1b[31m\n",
    "escapes in a text": 'seed: "\\e[31m\\0\\n::error::x\\u202e"\n',
    "a key with escapes": '"\\e[31m\\n::error::x\\u202e": 1\n',
    "half a letter": 'student: {spec: "\\uD800"}\n',
    "a key that is no text": "? [a, b]\n: 1\n",
    "a date that is none": "seed: 2001-99-99\n",
    "bytes": "seed: !!binary aGVsbG8=\n",
    "a set": "seed: !!set {a, b}\n",
    "an integer of letters": "seed: !!int abc\n",
    "another encoding": b"\xff\xfes\x00e\x00e\x00d\x00",
    "no encoding": bytes(range(128, 256)) * 10,
    "two documents": "seed: 1\n---\nseed: 2\n",
    "a text instead of a mapping": "seed\n",
}
EVERYWHERE = (
    *("lists of aliases", "mappings of aliases", "merged mappings", "a list that holds itself", "a tag of Python"),
    *("a key twice", "a hexadecimal number of 10,000 digits", "brackets", "half a letter", "two megabytes"),
    *("escapes in a text", "a key that is no text", "no encoding", "a date that is none"),
)
# What a path may not be, and what a board may not be called.
SETTINGS: dict[str, str] = {
    "a path with a NUL": 'teacher: {file: "a\\0b"}\nsamples: {folder: x}\n',
    "a path of 5,000 letters": f"teacher: {{file: {'x' * 5_000}}}\nsamples: {{folder: x}}\n",
    "a target with a NUL": 'teacher: {file: x}\nsamples: {folder: x}\ntarget: "./a\\0b.yaml"\n',
    "a board with options": "teacher: {file: %t}\nsamples: {folder: %s}\nboard: -oProxyCommand=touch {canary}\n",
    "a negative seed": "teacher: {file: %t}\nsamples: {folder: %s}\nseed: -1\n",
    "a size of 2^70": "teacher: {file: %t, input_size: 1180591620717411303424}\nsamples: {folder: %s}\n",
    "an option that doubles": "a: &a [x, x]\nteacher: {file: %t}\nsamples: {folder: %s}\ndistill: {options: {x: *a}}\n",
    "a time without end": "teacher: {file: %t}\nsamples: {folder: %s}\nbudget: 999999999999999999999999h\n",
}


def _document(name: str, content: str | bytes) -> Callable[[Place], Path]:
    def write(place: Place) -> Path:
        path = place.given / name
        if isinstance(content, str):
            text = content.replace("{canary}", str(place.canary))
            text = text.replace("%t", f"{place.good}/t.pt").replace("%s", f"{place.good}/few")
            path.write_text(text)
        else:
            path.write_bytes(content)
        return path

    return write


def _fifo(place: Place) -> Path:
    os.mkfifo(place.given / "x.yaml")
    return place.given / "x.yaml"


def _loop(place: Place) -> Path:
    (place.given / "x.yaml").symlink_to("x.yaml")
    return place.given / "x.yaml"


NO_FILES: dict[str, Callable[[Place], Path | str]] = {
    "a FIFO": _fifo,
    "a link to itself": _loop,
    "a device": lambda _: "/dev/zero",
    "a folder": lambda place: place.given,
    "a name of 5,000 letters": lambda _: "/" + "x" * 5_000 + ".yaml",
}


def _profile(**changes: object) -> str:
    return json.dumps({"extends": "t4", "name": "mine", **changes})


PROFILES: dict[str, tuple[str, tuple[int, ...]]] = {
    "a negative memory": (_profile(memory_gib=-1), USAGE),
    "a memory of 1e308": (_profile(memory_gib=1e308), USAGE),
    "a speed of 1e308": (_profile(memory_bandwidth_gb_s=1e308), USAGE),
    "a speed of 1e-308": (_profile(memory_bandwidth_gb_s=1e-308), USAGE),
    "no clock": (_profile(power_modes=[{"name": "x", "gpu_mhz": 0}]), USAGE),
    "a figure that is no number": (_profile().replace("}", ', "memory_gib": .nan}'), USAGE),
    "a version without end": (_profile(tensorrt={"min": "9" * 10_000, "max": "9" * 10_000}), USAGE),
    "an opset of 2^70": (_profile(opset_ceiling=2**70), USAGE),
    "a multiple of 2^70": (_profile(channel_multiple=2**70), USAGE),
    "a workspace of 2^70": (_profile(workspace_mib=2**70), USAGE),
    "a name that is a path": (_profile(name="../../x"), USAGE),
    "a name of another device": (_profile(name="jetson-orin-nano-super"), USAGE),
    "a title with escapes": (_profile(title="\x1b[31m$(touch x)\n::error::x\u202e"), USAGE),
    "a title of a million letters": (_profile(title="x" * 1_000_000), USAGE),
    "it extends itself": (_profile(extends="./x.yaml"), USAGE),
    "it extends a device": (_profile(extends="/dev/zero.yaml"), USAGE),
    "it extends a number": (_profile(extends=5), USAGE),
    "lists in place of mappings": (_profile(peaks=[[]], tensorrt=[], sources=[1], aliases={"a": 1}), USAGE),
    "a thousand wrong keys": (_profile(**{f"k{k}": 1 for k in range(1_000)}), USAGE),
}
GATES: dict[str, str] = {
    "a limit of 10,000 digits": f"agreement:min={'9' * 10_000}",
    "a limit of 1e999": "agreement:min=1e999",
    "a limit that is no number": "agreement:min=nan",
    "a negative limit": "latency_p50_ms:max=-1",
    "a metric with escapes": "\x1b[31m\n::error::x\u202e:min=1",
    "a metric of a million letters": "x" * 1_000_000 + ":min=1",
    "commas": "agreement:" + "," * 100_000,
}
BOARDS = {
    "an option": "-oProxyCommand=touch canary",
    "a user with an option": "user@-oProxyCommand=touch",
    "a host with a space": "a b",
    "a line break": "a\nProxyCommand touch x",
    "a command": "a;touch x",
    "a substitution": "$(touch x)",
    "a port of 99999": "a:99999",
    "a port of a million digits": "a:" + "9" * 1_000_000,
    "escapes": "\x1b[31mhost",
    "an empty user": "@host",
    "a percent sign": "%h",
}
OPTIONS = {
    "a date that is none": "student_steps=2001-99-99",
    "brackets": "student_steps=" + "[" * 10_000,
    "a number of 10,000 digits": "student_steps=" + "9" * 10_000,
    "a hexadecimal number of 10,000 digits": "student_steps=0x" + "f" * 10_000,
    "infinity": "student_steps=.inf",
    "a tag": "student_steps=!!python/object/apply:os.system ['touch x']",
    "a name with escapes": "\x1b[31m\n::error::x=1",
}
CLASS_NAMES: dict[str, tuple[str | bytes, tuple[int, ...]]] = {
    "markup": ("<script>alert(1)</script>\n`$(touch x)`\n[x](javascript:x)\n{{7*7}}\n", TAKEN),
    "control characters": ("\x1b[31ma\n\x07b\n\u202ec\n\x00d\n", TAKEN),
    "a million letters": ("x" * 1_000_000 + "\nb\nc\nd\n", TAKEN),
    "too many": ("\n".join(f"c{k}" for k in range(100_000)), INPUT),
    "two megabytes": ("x" * 2 * MOST, INPUT),
    "no encoding": (b"\xff\xfe\n" * 4, INPUT),
    "one name four times": ("a\na\na\na\n", INPUT),
}


def _entries() -> list[Entry]:
    made = []
    for name, content in DOCUMENTS.items():
        made.append(Entry(f"configuration: {name}", "YAML", "--config", USAGE, _document("x.yaml", content)))
        if name not in EVERYWHERE:  # the reader is the same
            continue
        made += [
            Entry(f"card: {name}", "YAML", "--card", INPUT, _document("x.yaml", content)),
            Entry(f"gates: {name}", "YAML", "--gates", USAGE, _document("x.yaml", content)),
            Entry(f"profile: {name}", "YAML", "--target", USAGE, _document("x.yaml", content)),
        ]
    for name, text in SETTINGS.items():
        codes = (2, 4)
        made.append(Entry(f"configuration: {name}", "settings", "--config", codes, _document("x.yaml", text)))
    for name, no_file in NO_FILES.items():
        for given, codes in (
            ("--config", (2,)),
            ("--card", (2, 4)),
            ("--gates", (2,)),
            ("--target", (2,)),
            ("--baseline", (2,)),
            ("--class-names", (2, 4)),
            ("report.json", (2,)),
            ("--samples", (2, 4)),
            ("--eval", (2, 4)),
            ("--pool", (2, 4)),
            ("profile", (2, 4)),
            ("--from", (2, 4)),
        ):
            if not (name == "a folder" and given == "report.json"):
                made.append(Entry(f"{given} is {name}", "what is no file", given, codes, no_file))
    made += [
        Entry(f"profile: {name}", "a device", "--target", codes, _document("x.yaml", text))
        for name, (text, codes) in PROFILES.items()
    ]
    made += [
        Entry(f"gate: {name}", "a gate", "--gate", USAGE, lambda _, text=text: text) for name, text in GATES.items()
    ]
    made += [
        Entry(f"board: {name}", "options of ssh", "--board", USAGE, lambda _, text=text: text)
        for name, text in BOARDS.items()
    ]
    made += [
        Entry(f"option: {name}", "YAML", "--option", USAGE, lambda _, text=text: text) for name, text in OPTIONS.items()
    ]
    made += [
        Entry(f"class names: {name}", "names", "--class-names", codes, _document("names.txt", content))
        for name, (content, codes) in CLASS_NAMES.items()
    ]
    return made


ENTRIES = tuple(_entries())
