"""The network's own tensors among those of what it was trained in: wrappers, losses, a second network beside it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from compressor.errors import InputRefused
from compressor.inputs.identify import below, class_count, compare, networks_within, without_auxiliary, without_wrapper
from compressor.inputs.own_code import is_own_name
from compressor.inputs.refusals import listed
from compressor.inputs.training_file import AVERAGE
from compressor.students.architectures import ARCHITECTURES, is_architecture


def network_tensors(
    file: str, tensors: Mapping[str, Tensor], architecture: str | None = None
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of the one network in a file, by the names that it gives them, and sentences for the report.

    A prefix that all names share goes (DataParallel's `module.`, torch.compile's `_orig_mod.`, Lightning's `model.`).
    Where other modules lie beside the network, its own prefix is the one below which an architecture is found; of an
    average and what it averages, the average is taken.

    Args:
        architecture: the one that was named, where one was.

    Raises:
        InputRefused: several networks are found, and none is the average of another.
    """
    if architecture is not None and is_own_name(architecture):
        return _of_own(file, dict(tensors), architecture)
    plain, prefix = without_wrapper(tensors)
    said = [f"Every key in {file} begins with '{prefix}', which was dropped."] if prefix else []
    found = {start: name for start, name in networks_within(plain).items() if architecture in (None, name)}
    if "" in found or not found:
        return plain if "" in found or not is_architecture(architecture) else _named(plain, str(architecture)), said
    averages = [start for start in found if AVERAGE.search(start)]
    others = [start for start in found if start not in averages]
    if len(averages) == 1 and len(others) == 1 and found[averages[0]] == found[others[0]]:
        chosen = averages[0]
        said.append(
            f"{file} holds weights below '{others[0]}' and their moving average below '{chosen}': the average was "
            f"taken, and --weights {others[0].rstrip('.')} takes the other."
        )
    elif len(found) == 1:
        chosen = next(iter(found))
    else:
        kinds = ", ".join(f"{name} below '{start}'" for start, name in found.items())
        raise InputRefused(
            f"The teacher {file} holds {len(found)} networks: {kinds}.",
            "One network was expected.",
            f"Say which one it is, for example with --weights {next(iter(found)).rstrip('.')}.",
        )
    left = [name for name in plain if not name.startswith(tuple(found))]
    if left:
        outside, they = ("tensor", "it belongs") if len(left) == 1 else (f"{len(left)} tensors", "they belong")
        said.append(
            f"Of {file} the {outside} outside of '{chosen}' ({listed(left)}) {'was' if len(left) == 1 else 'were'} "
            f"dropped: {they} to no layer of the network."
        )
    return below(plain, chosen), said


def _of_own(file: str, tensors: dict[str, Tensor], architecture: str) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a network of the user's own: only the prefixes that it does not itself give to all names go."""
    plain, dropped = tensors, ""
    while compare(architecture, plain):
        start = next(iter(plain), "").partition(".")[0] + "."
        if not all(name.startswith(start) for name in plain):  # no prefix helps: what came is what is refused
            return tensors, []
        plain, dropped = below(plain, start), dropped + start
    return plain, [f"Every key in {file} begins with '{dropped}', which was dropped."] if dropped else []


def _named(plain: dict[str, Tensor], architecture: str) -> dict[str, Tensor]:
    """The tensors below the prefix that has the classifier of the named architecture, which may be of another width."""
    if not compare(architecture, without_auxiliary(plain)[0]) or class_count(plain, architecture) is not None:
        return plain
    ending = f".{ARCHITECTURES[architecture].classifier_layer}.weight"
    starts = [name.removesuffix(ending[1:]) for name in plain if name.endswith(ending)]
    return below(plain, starts[0]) if len(starts) == 1 else plain
