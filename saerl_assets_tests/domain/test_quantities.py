from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saerl_assets.domain.quantities import parts, quantities


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Is 3 + 4 = 7?", "3 + 4 = 7"),
        ("1,234.5 of them, -3 and +4", "1234.5 -3 4"),
        ("7-4, 7 -4, 7 - 4", "7 - 4 7 - 4 7 - 4"),
        ("(3, -4) is a point", "3 -4"),
        ("a list - 5, 4", "5 4"),
        ("pages 3\N{EN DASH}5", "3 - 5"),
        ("x^2 for x = 3", "^ 2 = 3"),
        ("3x + 2y \N{LESS-THAN OR EQUAL TO} z", "3 + 2 \N{LESS-THAN OR EQUAL TO}"),
        ("(3 + 4) * 2", "3 + 4 ) * 2"),
        ("3 + (4 * 2)", "3 + ( 4 * 2"),
        ("5% of 20", "5 % 20"),
        ("¼ of it", "1 / 4"),
        ("twice as many as three dozen, or half", "twice 3 dozen half"),
        ("twenty-one and Sixteen", "20 1 16"),
        ("the profit > the cost", ">"),
        ("a man - tall, I say - and/or a *bold* one", "1"),
        ("三个苹果和5个", "三 5"),
        ("Numbered 1. and 2)", "1 2"),
        ("no quantity; none?!", ""),
        ("", ""),
    ],
)
def test_quantities_in_their_order(text: str, expected: str) -> None:
    assert " ".join(part.text for part in parts(text) if part.is_quantity) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Calculate 7 + 4.", "Calculate 7 - 4."),
        ("Calculate 7 + 4.", "Calculate 7 + 5."),
        ("What is -3 plus 2?", "What is 3 plus 2?"),
        ("Pay 3.5 euros", "Pay 35 euros"),
        ("2^3", "2*3"),
        ("Is 5 < 7?", "Is 5 > 7?"),
        ("if n < m", "if n > m"),
        ("(3 + 4) * 2", "3 + (4 * 2)"),
        ("It takes two hours", "It takes six hours"),
        ("twice as slow", "half as slow"),
        ("the third word", "the fifth word"),
        ("5% of it", "5 of it"),
        ("三个苹果", "五个苹果"),
    ],
)
def test_other_quantities_tell_problems_apart(one: str, other: str) -> None:
    assert quantities(one) != quantities(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ann has 1,000 apples and 3 pears.", "Ann has 3 pears and 1000 apples"),
        ("Calculate 7 \N{MINUS SIGN} 4.", "calculate 7-4"),
        ("a list: 4, 5", "a list - 5, 4"),
        ("It is +3 degrees", "It is 3 degrees"),
        ("He has three cats.", "He has 3 cats"),
        ("$x$ + $y$ = 3", "x+y=3"),
        ("x^{2}", "x ^ 2"),
    ],
)
def test_the_same_quantities_however_they_are_written(one: str, other: str) -> None:
    assert quantities(one) == quantities(other)


@given(st.text())
def test_any_text_is_taken(text: str) -> None:
    assert all(part.text for part in parts(text))
    assert quantities(text) == quantities(text.upper()) or not text.isascii()


@given(st.lists(st.sampled_from(["3", "-4", "five", "+", "-", "x", "apples", "(", ")", "<", ",", "%"]), max_size=9))
def test_spaces_between_parts_play_no_part(pieces: list[str]) -> None:
    assert parts(" ".join(pieces)) == parts("  ".join(pieces) + "\n")
