"""Files that are never seen half-written. `compressor.stages` has its own: this package works without `compressor`."""

from __future__ import annotations

from pathlib import Path


def write_atomically(content: bytes, path: Path) -> None:
    """Write beside `path` and rename; on failure nothing is left."""
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
