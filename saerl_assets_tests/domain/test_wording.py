# ruff: noqa: RUF001 - letters of other scripts are what is tested
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saerl_assets.domain.wording import shingles, tokens, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What is 3 + 4?", ["what", "is", "3", "+", "4"]),
        ("“Well-known”, (he) said...", ["well", "known", "he", "said"]),
        ("1,234.5 and 12,34", ["1234.5", "and", "12", "34"]),
        ("7-4", ["7", "-", "4"]),
        ("x\N{MINUS SIGN}2 \N{MULTIPLICATION SIGN} y", ["x", "-", "2", "*", "y"]),
        ("Ｆｕｌｌ ﬁgure ½", ["full", "figure", "1", "/", "2"]),
        ("STRASSE Straße", ["strasse", "strasse"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("三个苹果", ["三", "个", "苹", "果"]),
        ("Привет, мир!", ["привет", "мир"]),
        ("🎉 x", ["🎉", "x"]),
        ("...", []),
        ("", []),
    ],
)
def test_tokens(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


def test_words_are_tokens_without_operators() -> None:
    assert words("Is 3 + 4 > π?") == ["is", "3", "4", "π"]


def test_shingles_of_short_and_of_wordless_texts() -> None:
    assert shingles("Hello!") == {"hello"}
    assert shingles("Hello you") == {"hello", "ello ", "llo y", "lo yo", "o you"}
    assert shingles("Hi") == {"hi"}
    assert shingles("?!") == {"?!"}
    assert shingles("") == {""}


@given(st.text())
def test_any_text_is_taken(text: str) -> None:
    assert shingles(text)
    assert all(token and not token.isspace() for token in tokens(text))
    assert tokens(" ".join(tokens(text))) == tokens(text)
