"""Whether the copy of a user's code that a run keeps is enough: `python -m compressor.inputs.packed_network`.

Here is both the parent's side, `check_packed_network`, and the child's. Only a fresh process tells: in the one that has
imported the original, modules that the copy lacks are there already.
"""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

from compressor.deploy.child_process import ChildFailed, answer_of_child
from compressor.errors import CompressError, InputRefused
from compressor.inputs.own_code import ARCHIVE, OwnCode, packed_code
from compressor.students.own_networks import know_own_network


def check_packed_network(code: OwnCode, archive: Path, sides: tuple[int, int]) -> None:
    """Make the network from the copy alone, as a resumed run does, which may be on another machine; its code runs.

    Args:
        code: the original, which lies in a folder.
        archive: the copy that `pack` made of it.
        sides: height and width of its images.

    Raises:
        InputRefused: the copy lacks something that the original has found.
    """
    question = {
        "name": code.name,
        "archive": str(archive.absolute()),
        "sides": list(sides),
        "without": [str(Path.cwd()), str(code.root.absolute())],
    }
    try:
        refused: str = answer_of_child(__name__, question)
    except ChildFailed as failed:
        refused = f"The process that tried it failed: {failed}."
    if refused:
        raise InputRefused(
            f"The copy of the teacher's code that a run keeps, {', '.join(code.files)}, does not run by itself: "
            f"{refused}",
            f"A copy was expected that needs installed packages and nothing else: teacher/{ARCHIVE} has the files "
            f"beside {code.files[0]} that `import` statements name, and none that importlib or a changed sys.path "
            "finds.",
            f"Put what is missing beside {code.files[0]} and import it there with `import`, or install it.",
        )


def answer(name: str, archive: str, sides: tuple[int, int], without: list[str]) -> str:
    """The child's side: what was refused, "" where nothing was.

    Args:
        without: folders that this machine has and another will not, which `python -m` or the user put on the path.
    """
    gone = {Path(folder).resolve() for folder in without}
    sys.path[:] = [path for path in sys.path if Path(path).resolve() not in gone]
    try:
        with redirect_stdout(sys.stderr):
            know_own_network(packed_code(name, Path(archive)), (sides[0], sides[1]))
    except CompressError as error:
        return error.received
    return ""


if __name__ == "__main__":
    sys.stdout.write(json.dumps(answer(**json.load(sys.stdin))) + "\n")
