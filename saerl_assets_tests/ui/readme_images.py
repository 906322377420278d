"""The README's pictures of the UI, taken from a home in which the demo has been built.

Belongs here: what they show, their crop and their size. Does not belong here: tests.

    python -m saerl_assets_tests.ui.readme_images .saerl
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from playwright.sync_api import FloatRect

from saerl_assets_tests.ui.serving import CHECKOUT, served
from saerl_assets_tests.ui.walking import LONGEST_WAIT_SECONDS, Walk, browser

FOLDER = CHECKOUT / "docs" / "images"
LARGEST_BYTES = 120_000
SCALE = 1.5
MARGIN = 16
LEFT = 68
"""Where the folded navigation ends, in pixels."""


def take_all(home: Path) -> None:
    """Starts the UI over a home and takes every picture."""
    with tempfile.TemporaryDirectory() as folder, browser() as opened, served(home, Path(folder) / "log") as address:
        page = opened.new_page(viewport={"width": 1300, "height": 800}, base_url=address, device_scale_factor=SCALE)
        page.set_default_timeout(LONGEST_WAIT_SECONDS * 1000)
        take_from(Walk(page))


def take_from(walk: Walk) -> None:
    """Walks to what is worth seeing."""
    walk.fold_navigation()
    walk.see_asset("batch_manifest", "Lineage")
    walk.page.locator("foreignObject").get_by_text("trainer_exports").first.wait_for()
    walk.page.wait_for_load_state("networkidle")  # its colours come later
    take(
        walk,
        "lineage",
        around([box for one in walk.page.locator("foreignObject").all() if (box := one.bounding_box())]),
    )
    walk.see_asset("signal_evidence", "Events")
    walk.open_figure()
    take(walk, "asset", {"x": LEFT, "y": 0, "width": 1232, "height": 700})


def around(boxes: Sequence[FloatRect]) -> FloatRect:
    """The part of the window that holds some boxes, with a margin."""
    left, top = min(box["x"] for box in boxes), min(box["y"] for box in boxes)
    right = max(box["x"] + box["width"] for box in boxes)
    bottom = max(box["y"] + box["height"] for box in boxes)
    width, height = right - left + 2 * MARGIN, bottom - top + 2 * MARGIN
    return {"x": left - MARGIN, "y": top - MARGIN, "width": width, "height": height}


def take(walk: Walk, name: str, part: FloatRect) -> None:
    """Keeps a part of the window as a small PNG."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = FOLDER / f"{name}.png"
    walk.page.mouse.move(0, 0)
    walk.page.screenshot(path=file, clip=part, animations="disabled")
    with Image.open(file) as taken:
        reduced = taken.convert("RGB").quantize(256, kmeans=2, dither=Image.Dither.NONE)
    reduced.save(file, optimize=True)
    assert file.stat().st_size < LARGEST_BYTES, f"{file}: {file.stat().st_size:,} bytes"


if __name__ == "__main__":
    take_all(Path(sys.argv[1]).resolve())
