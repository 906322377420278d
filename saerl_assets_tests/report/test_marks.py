"""Shared marks: bins that hold what they claim, labels that do not overlap, samples that stay the same."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from saerl_assets.report.marks import bin_edges, end_labels, histogram, thinned
from saerl_assets.report.style import BLUE, card

NUMBERS = st.lists(
    st.floats(-1e6, 1e6, allow_nan=False, allow_subnormal=False) | st.integers(-1000, 100_000),
    min_size=1,
    max_size=60,
)


@given(NUMBERS)
def test_bins_start_at_the_smallest_and_leave_out_at_most_the_largest_half_percent(
    values: list[float],
) -> None:
    data = np.array(values, dtype=np.float64)
    edges = bin_edges(data)
    assert (np.diff(edges) > 0).all()
    assert 2 <= len(edges) <= 42
    assert edges[0] <= data.min()
    assert (data > edges[-1]).mean() <= 0.005


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=60))
def test_whole_numbers_get_bins_of_whole_widths(values: list[int]) -> None:
    edges = bin_edges(np.array(values, dtype=np.float64))
    assert np.allclose(np.diff(edges), round(float(edges[1] - edges[0])))


def test_a_histogram_says_how_many_values_it_does_not_show() -> None:
    values = np.concatenate([np.arange(1000.0), [1e6]])
    drawn = card("many")
    assert histogram(drawn.axes[0], {"": values}, [BLUE]) == 1
    heights = [bar.get_height() for bar in drawn.axes[0].patches]  # type: ignore[attr-defined]
    assert sum(heights) == 1000


def test_names_at_line_ends_keep_their_order_and_do_not_overlap() -> None:
    drawn = card("lines")
    axes = drawn.axes[0]
    axes.set_ylim(0.0, 1.0)
    end_labels(axes, [(0.99, "c", BLUE), (0.98, "b", BLUE), (0.97, "a", BLUE)])
    places = {text.get_text(): float(text.xy[1]) for text in axes.texts}  # type: ignore[attr-defined]
    assert places["a"] < places["b"] < places["c"] <= 1.0
    assert min(places["b"] - places["a"], places["c"] - places["b"]) >= 0.07


def test_a_sample_does_not_depend_on_the_order_of_rows() -> None:
    frame = pl.DataFrame({"id": [f"{number:04d}" for number in range(1000)]})
    sample = thinned(frame, "id", 90)
    assert sample.height <= 90
    assert sample.equals(thinned(frame.reverse(), "id", 90))
    assert thinned(frame, "id", 1000).height == 1000
