"""Numbers and texts in words."""

from __future__ import annotations

import unicodedata

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saerl_assets.report.words import count, cut, figure, least_shown, listed, n_bytes, printable, share, short


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (count(2000, "prompt"), "2,000 prompts"),
        (count(1, "batch", "batches"), "1 batch"),
        (count(0, "batch", "batches"), "0 batches"),
        (count(1234.6), "1,235"),
        (share(0.0), "0%"),
        (share(0.0004), "under 0.1%"),
        (share(0.004), "0.4%"),
        (share(0.09), "9%"),
        (share(0.823), "82%"),
        (share(0.9999), "over 99%"),
        (share(1.0), "100%"),
        (figure(0.8312), "0.831"),
        (figure(0.0), "0"),
        (figure(12345.0), "12,345"),
        (figure(0.00001234), "1.2e-05"),
        (figure(-0.0000001, least_shown(pl.Series([1.0, -0.0000001]))), "0"),
        (figure(0.0000001, least_shown(pl.Series([None, float("nan")], dtype=pl.Float64))), "1.0e-07"),
        (figure(None), "not known"),
        (figure(float("nan")), "not known"),
        (n_bytes(999), "999 B"),
        (n_bytes(98_000_000), "98 MB"),
        (n_bytes(1_210_000), "1.2 MB"),
        (listed([]), "none"),
        (listed(["a"]), "a"),
        (listed(["a", "b", "c"]), "a, b and c"),
        (listed(["a", "b", "c", "d"], 2), "a, b and 2 more"),
        (short(None), "none"),
        (short("0123456789abcdef"), "0123456789ab"),
        (printable("a\u202eb\x00"), "a\ufffdb\ufffd"),
        (cut("one two three", 9), "one two…"),
    ],
)
def test_said(said: str, expected: str) -> None:
    assert said == expected


@given(st.floats(0.0, 1.0))
def test_a_share_says_nothing_and_all_only_of_nothing_and_all(fraction: float) -> None:
    assert (share(fraction) == "0%") == (fraction == 0.0)
    assert (share(fraction) == "100%") == (fraction == 1.0)


@given(st.text(), st.integers(4, 50))
def test_a_cut_text_is_one_printable_line_within_the_limit(text: str, limit: int) -> None:
    said = cut(text, limit)
    assert len(said) <= limit
    assert not any(unicodedata.category(letter) in {"Cc", "Cf", "Cs"} for letter in said)
    assert cut(said, limit) == said
