"""The picture of a report in the README: renders a run's report.md as a page and photographs it.

    python docs/report_picture.py demo/run docs/images/report.png

Needs Chromium on the PATH, which neither the tool nor its tests do.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

from markdown_it import MarkdownIt

STYLE = """
body { font: 15px/1.45 "DejaVu Sans", sans-serif; margin: 28px 36px; width: 1000px; color: #1f2328; }
h1 { font-size: 24px; margin: 0 0 8px; } h2 { font-size: 18px; border-bottom: 1px solid #d1d9e0; padding-bottom: 4px; }
table { border-collapse: collapse; margin: 8px 0 16px; } th, td { border: 1px solid #d1d9e0; padding: 4px 10px; }
code { font-family: "DejaVu Sans Mono", monospace; font-size: 13px; background: #eff1f3; padding: 1px 4px; }
li { margin: 3px 0; } p, ul { margin: 8px 0; }
"""
LAST_SECTION = "## Where the student differs"  # the first screen of a report ends here


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--height", type=int, default=1640, help="pixels")
    options = parser.parse_args()
    markdown = (options.run / "report.md").read_text().split(LAST_SECTION)[0]
    body = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown)
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        base = f"<base href='{options.run.resolve().as_uri()}/'>"  # the report's own pictures lie beside it
        page.write_text(f"<!doctype html><meta charset=utf-8>{base}<style>{STYLE}</style>{body}")
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
        command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        command += [f"--user-data-dir={folder}/profile", f"--window-size=1080,{options.height}"]
        subprocess.run([*command, f"--screenshot={options.picture.resolve()}", page.as_uri()], check=True)


if __name__ == "__main__":
    main()
