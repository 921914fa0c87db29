"""Files whose code runs by the user's word, and do it badly; and configurations that would say that word themselves.

What such code does is the user's risk. How the command ends is ours: with a documented exit code and three sentences.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from hostile.corpus import INPUT, TAKEN, USAGE, Entry, Place
from hostile.teachers import Calls, _nested, _raw, _saved, _tensor, _touch, _weights
from torch import nn

NET = """
import pathlib
from torch import nn

pathlib.Path({canary!r}).touch()

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(192, 4)

    def forward(self, x):
        return self.fc(x.flatten(1))
"""


def _of_nan(place: Place) -> dict[str, Any]:
    weights = {k: v * torch.nan if v.is_floating_point() else v for k, v in _weights(place).items()}
    return {"state_dict": weights, "opt": Calls(os.system, _touch(place))}


def _payloads() -> dict[str, tuple[tuple[int, ...], Callable[[Place], object]]]:
    """By name: the exit codes that are right, and what is pickled."""
    return {
        "runs a command beside its weights": (
            TAKEN,
            lambda place: {"state_dict": _weights(place), "opt": Calls(os.system, _touch(place))},
        ),
        "runs a command in place of weights": (INPUT, lambda place: Calls(os.system, _touch(place))),
        "exits": (INPUT, lambda _: Calls(sys.exit, 3)),
        "exits with a text": (INPUT, lambda _: {"state_dict": Calls(sys.exit, "error: \x1b[31m")}),
        "raises with escapes": (INPUT, lambda _: Calls(eval, "{}['\\x1b[31m\\n::error::' * 9999]")),
        "recurses without end": (INPUT, lambda _: Calls(exec, "def f(): return f()\nglobals()['f'] = f\nf()")),
        "asks for all memory": (INPUT, lambda _: Calls(eval, "bytearray(2**44)")),
        "is a function": (INPUT, lambda _: os.system),
        "is a network of no architecture": (INPUT, lambda _: nn.Linear(3, 3)),
        "has weights of NaN": (INPUT, _of_nan),
        "is a network without weights": (INPUT, lambda _: nn.ReLU()),
        "has a network of which half is gone": (INPUT, lambda _: {"model": Calls(nn.Module.__new__, nn.Linear)}),
    }


def _pickles() -> list[Entry]:
    made = [
        Entry(f"trusted: {name}", "code that may run", "--trust-pickle", codes, _saved(make))
        for name, (codes, make) in _payloads().items()
    ]
    by_hand: dict[str, Callable[[Place], Any]] = {
        "names a module that is nowhere": _raw(lambda _: b"\x80\x02cmodule_that_is_nowhere\nNet\n)R."),
        "names what a module lacks": _raw(lambda _: b"\x80\x02ctorch\nno_such_thing\n)R."),
        "is cut off": _raw(lambda _: b"\x80\x02cposix\nsystem\n(V"),
        "is in tuples": _raw(lambda _: b"\x80\x02)" + b"\x85" * 20_000 + b"."),
        "is in lists": _raw(_nested(b"]", b"a")),
        "holds itself": _raw(lambda _: b"\x80\x02cposix\ngetpid\n0}q\x00X\x01\x00\x00\x00ah\x00s."),
        "has a tensor beyond its storage": _tensor([4], [1], offset=2**40),
        "has a tensor of terabytes": _tensor([2**20, 2**20], [0, 0]),
    }
    return made + [
        Entry(f"trusted: {name}", "code that may run", "--trust-pickle", INPUT, make) for name, make in by_hand.items()
    ]


def _configuration(teacher: Mapping[str, object], file: str = "evil_net.py") -> Callable[[Place], str]:
    """A configuration beside a network that sings when it is imported."""

    def write(place: Place) -> str:
        (place.given / file).write_text(NET.format(canary=str(place.canary)))
        settings = {"file": f"{place.good}/weights.pt", "input_size": [8, 8], **teacher}
        (place.given / "run.yaml").write_text(
            json.dumps({"teacher": settings, "samples": {"folder": f"{place.good}/few"}})
        )
        return f"{place.given}/run.yaml"

    return write


CONFIGURATIONS = (
    Entry(
        "configuration: a network of its own",
        "code in a configuration",
        "--config",
        USAGE,
        _configuration({"architecture": "evil_net:Net"}),
        says="The configuration file says that code may run",
    ),
    Entry(
        "configuration: a network of its own and its file",
        "code in a configuration",
        "--config",
        USAGE,
        _configuration({"architecture": "evil_net:Net", "code": "evil_net.py"}),
    ),
    Entry(
        "configuration: a network and a file that calls itself a flag",
        "code in a configuration",
        "--config",
        USAGE,
        _configuration({"architecture": "a.b.c.d.e.f.g.h.i.j.k.l.m:Net", "code": "--arch.py"}, "--arch.py"),
    ),
    Entry(
        "configuration: trust in a pickle",
        "code in a configuration",
        "--config",
        USAGE,
        _configuration({"trust_pickle": True}),
    ),
)

ENTRIES = (*_pickles(), *CONFIGURATIONS)
