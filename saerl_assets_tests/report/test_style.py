"""The card: words that are not interpreted, markdown that carries a figure, numbers that can be drawn."""

from __future__ import annotations

import base64
import io
import subprocess
import sys

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from saerl_assets.report.style import (
    as_markdown,
    card,
    escape_math,
    finite,
    label,
    largest,
    message,
    png,
    write,
)
from saerl_assets_tests.report.frames import HOSTILE

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


def test_a_figure_is_drawn_without_pyplot() -> None:
    program = (
        "import sys; from saerl_assets.report.style import message; message('title', 'words'); "
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_importing_figures_does_not_import_matplotlib() -> None:
    program = "import sys; import saerl_assets.report.page; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_hostile_words_are_drawn_as_they_are() -> None:
    for text in HOSTILE:
        drawn = card(text, key=[(text, "#000000")], note=text)
        label(drawn.axes[0], x=text, y=text)
        write(drawn.axes[0], 0.5, 0.5, text)
        assert png(drawn)
        assert message(text, text)


@settings(max_examples=10)
@given(st.text(max_size=60))
def test_no_text_stops_a_figure(text: str) -> None:
    assert message(text, text).startswith(b"\x89PNG")


def test_the_ground_outside_the_card_is_transparent_and_the_card_is_not() -> None:
    from PIL import Image

    image = Image.open(io.BytesIO(message("Title", "Words"))).convert("RGBA")
    assert image.getpixel((0, 0)) == (0, 0, 0, 0)
    middle = image.getpixel((image.width // 2, image.height - 20))
    assert isinstance(middle, tuple)
    assert middle[3] == 255
    assert min(middle[:3]) > 245


def test_dollars_and_unknown_letters_are_escaped() -> None:
    assert escape_math("$5 and 数") == r"\$5 and □"


def test_markdown_holds_the_figure_and_an_alternative_in_words() -> None:
    said = as_markdown(PIXEL, "bars [of]\nrows")
    assert said == f"![bars \\[of\\] rows](data:image/png;base64,{base64.b64encode(PIXEL).decode()})"


def test_only_finite_numbers_are_drawn() -> None:
    frame = pl.DataFrame({"x": [1.0, None, float("nan"), float("inf"), -2.0], "none": [None] * 5})
    assert finite(frame, "x").tolist() == [1.0, -2.0]
    assert finite(frame, "none").dtype == np.float64
    assert largest(frame, "x") == 1.0
    assert largest(frame, "none") == 0.0


def test_numbers_along_an_axis_have_the_decimals_that_their_step_needs() -> None:
    drawn = card("ticks")
    axis = drawn.axes[0].xaxis
    for ticks, said in (
        ([0.0, 2.5, 5.0], ["0.0", "2.5", "5.0"]),
        ([0.0, 1000.0, 2000.0], ["0", "1,000", "2,000"]),
        ([0.0, 0.25], ["0.00", "0.25"]),
        ([7.0], ["7"]),
    ):
        axis.set_ticks(ticks)
        axis.set_view_interval(min(ticks), max(ticks) + 1.0)
        assert axis.get_major_formatter().format_ticks(ticks) == said
