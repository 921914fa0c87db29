"""Another library's exception as part of one of our sentences; `__cause__` keeps the whole of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def one_line(error: BaseException) -> str:
    """The first paragraph of an exception's message, on one line, without the mark that ends it.

    Of TorchScript's, which tell a traceback before they say what failed, the last line.
    """
    message = str(error).strip()
    paragraph = message.splitlines()[-1] if "Traceback of TorchScript" in message else message.split("\n\n")[0]
    return " ".join(paragraph.split()).rstrip(".!") or type(error).__name__


def root_cause(error: BaseException) -> BaseException:
    """The exception at the start of the chain. torch's exporters wrap it in a page of general advice."""
    return list(_chain(error))[-1]


def culprit(model: nn.Module, error: BaseException) -> str:
    """The model's class, and the innermost of its submodules that was running when `error` was raised."""
    names = {id(module): name for name, module in model.named_modules()}
    found = ""
    for cause in _chain(error):
        trace = cause.__traceback__
        while trace is not None:
            found = names.get(id(trace.tb_frame.f_locals.get("self")), found)
            trace = trace.tb_next
    kind = type(model).__name__
    return f"{kind}, in its module '{found}' ({type(model.get_submodule(found)).__name__})," if found else kind


def _chain(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__
