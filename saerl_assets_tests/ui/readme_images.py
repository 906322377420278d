"""The README's pictures of the UI, taken from a home in which the demo has been built.

Belongs here: what they show, their crop and their size. Does not belong here: tests.

    python -m saerl_assets_tests.ui.readme_images .saerl
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import FloatRect

from saerl_assets_tests.ui.serving import CHECKOUT, served
from saerl_assets_tests.ui.walking import Walk, browser

FOLDER = CHECKOUT / "docs" / "images"
LARGEST_BYTES = 120_000
LEFT = 68
"""Where the folded navigation ends, in pixels."""


def take_all(home: Path) -> None:
    """Starts the UI over a home and takes every picture."""
    with tempfile.TemporaryDirectory() as folder, browser() as opened, served(home, Path(folder) / "log") as address:
        page = opened.new_page(viewport={"width": 1300, "height": 780}, base_url=address)
        walk = Walk(page)
        walk.fold_navigation()
        walk.see_asset("batch_manifest", "Lineage")
        graph = page.locator("foreignObject.group")
        graph.last.wait_for()
        page.wait_for_load_state("networkidle")
        take(walk, "lineage", {"x": LEFT, "y": 0, "width": 1232, "height": 780})
        walk.see_asset("signal_evidence", "Events")
        walk.open_figure()
        take(walk, "asset", {"x": LEFT, "y": 0, "width": 1232, "height": 700})


def take(walk: Walk, name: str, part: FloatRect) -> None:
    """Keeps a part of the window as a small PNG."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = FOLDER / f"{name}.png"
    walk.page.mouse.move(0, 0)
    walk.page.screenshot(path=file, clip=part, animations="disabled")
    with Image.open(file) as taken:
        reduced = taken.convert("RGB").quantize(128, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    reduced.save(file, optimize=True)
    assert file.stat().st_size < LARGEST_BYTES, f"{file}: {file.stat().st_size:,} bytes"


if __name__ == "__main__":
    take_all(Path(sys.argv[1]).resolve())
