"""YAML from outside as plain values: every key once, and no more than its text shows.

YAML lets a value be named again (`*name`). Nine lines that name the one before nine times each stand for a billion
values, and merging keys (`<<`) copies them all, so a document is measured before anything is made of it.
"""

from __future__ import annotations

from typing import Any

import yaml

MOST_VALUES = 50_000  # a list of 22,000 classes is known
MOST_DEPTH = 50
MOST_DIGITS = 300  # no number that a computer works with is longer


class _Loader(yaml.SafeLoader):
    """The safe loader, which stops at a document that is too large while it reads it."""

    num_nodes = 0
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.num_nodes += 1
        self.depth += 1
        if self.num_nodes > MOST_VALUES or self.depth > MOST_DEPTH:
            much = f"{MOST_VALUES:,} values" if self.num_nodes > MOST_VALUES else f"{MOST_DEPTH} levels"
            raise yaml.MarkedYAMLError(problem=f"it has more than {much}", problem_mark=self.get_mark())
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def load_plain(text: str) -> Any:
    """What a document says; None where it says nothing.

    Raises:
        yaml.YAMLError: it is no YAML, gives a key twice, holds itself, or holds too much. Nothing else is raised.
    """
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        _check(root)
        return loader.construct_document(root)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deep") from None
    except (
        ValueError,
        TypeError,
        OverflowError,
        KeyError,
        AttributeError,
    ) as error:  # a 13th month, an !!int of letters
        raise yaml.YAMLError(f"a value is not what it says it is ({error})") from error
    finally:
        loader.dispose()


def _check(root: yaml.Node) -> None:
    """Refuse what would be silently dropped, or made without end.

    A node that aliases name many times is looked at once, and counted each time.
    """
    counted: dict[int, int] = {}
    above: set[int] = set()

    def count(node: yaml.Node) -> int:
        if id(node) in above:
            raise yaml.YAMLError("a value holds itself")
        if id(node) in counted:
            return counted[id(node)]
        total = 1
        if isinstance(node, yaml.ScalarNode):
            if node.tag.endswith((":int", ":float")) and len(node.value) > MOST_DIGITS:
                raise _fault(f"a number has {len(node.value):,} digits", node)
        else:
            above.add(id(node))
            seen: set[str] = set()
            for entry in node.value:
                key, value = entry if isinstance(node, yaml.MappingNode) else (None, entry)
                if key is not None:
                    if isinstance(key, yaml.ScalarNode) and key.value in seen:
                        raise _fault(f"{key.value[:MOST_DIGITS]!r} is given twice", key)
                    seen.add(key.value if isinstance(key, yaml.ScalarNode) else "")
                    total += count(key)
                total += count(value)
            above.remove(id(node))
        if total > MOST_VALUES:
            raise _fault(f"it stands for more than {MOST_VALUES:,} values", node)
        counted[id(node)] = total
        return total

    count(root)


def _fault(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
