from __future__ import annotations

from itertools import permutations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saerl_assets.domain.alignment import agreeing, matched_words, state_the_same
from saerl_assets.domain.quantities import parts, quantities

STORY = "Ann has 3 red apples. Ben eats 5 of the pears. How many are left?"


def same(one: str, other: str) -> bool:
    found = state_the_same(parts(one), parts(other))
    assert found == state_the_same(parts(other), parts(one))
    return found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 7 mod 3?", "What is 3 mod 7?"),
        ("Solve 8 - 3", "Solve 3 - 8"),
        ("What is 12/4", "What is 4/12"),
        ("Find x^2 for x=3", "Find x^3 for x=2"),
        ("Subtract 5 from 9", "Subtract 9 from 5"),
        ("Is 5 larger than 7?", "Is 7 larger than 5?"),
        ("He walks two miles in six hours.", "He walks six miles in two hours."),
        ("A baker has 12 trays. He sells 45 rolls.", "A baker has 45 trays. He sells 12 rolls."),
        ("Pay 12 dollars and 45 euros.", "Pay 12 euros and 45 dollars."),
        (
            "Lunch costs him 12 dollars a day and dinner costs him 45 dollars a day.",
            "Lunch costs him 45 dollars a day and dinner costs him 12 dollars a day.",
        ),
        (STORY, "How many are left? Ann has 5 red apples. Ben eats 3 of the pears."),
    ],
)
def test_the_same_numbers_in_other_places_are_another_problem(one: str, other: str) -> None:
    assert quantities(one) == quantities(other), "their order alone tells them apart"
    assert not same(one, other)


@pytest.mark.parametrize(
    ("one", "other"), [("Is 5 < 7?", "Is 5 > 7?"), ("It takes two hours", "It takes six hours"), ("3", "")]
)
def test_other_quantities_are_another_problem(one: str, other: str) -> None:
    assert not same(one, other)


@pytest.mark.parametrize(
    "copy",
    [
        STORY,
        STORY.upper(),
        "ann has  3 red apples ben eats 5 of the pears\nhow many are left",
        STORY.replace("apples", "aples").replace("eats", "etas").replace("pears", "paers"),
        STORY.replace("Ann", "Petra").replace("Ben", "Otto"),
        STORY.replace("3", "three"),
        "Ben eats 5 of the pears. How many are left? Ann has 3 red apples.",
        "Ann has 3 red apples. How many are left? Ben eats 5 of the pears.",
        "How many are left? Ann has 3 red apples. Ben eats 5 of the pears.",
        "how many are left ben eats 5 of the paers ann has 3 red apples",
    ],
)
def test_copies_state_the_same(copy: str) -> None:
    assert same(STORY, copy)


def test_a_word_that_turns_the_meaning_is_not_known() -> None:
    assert same("Is x^2 increasing for x > 3?", "Is x^2 decreasing for x > 3?")


@pytest.mark.parametrize(
    "sentences",
    [
        ["A ticket costs 40.", "Ben buys 12 of them!", "How much did he pay?"],
        ["40 hens live here;", "12 hens are grey.", "Some of them are hungry at 5."],
        ["The ratio of gold to silver is 10:45.", "Ann has 440 coins.", "How many are of gold?"],
        ["Use letters for digits above 9.", "Convert from base 13 the number 4.", "Answer in base 7."],
    ],
)
def test_sentences_move_with_the_numbers_that_they_begin_or_end_with(sentences: list[str]) -> None:
    for moved in permutations(sentences):
        assert same(" ".join(sentences), " ".join(moved))


def test_a_moved_line_without_a_stop_is_told_by_the_text_where_it_ends() -> None:
    assert same("Solve the equation: 17*g - 3 = 303", "17*g - 3 = 303 Solve the equation:")


def test_words_are_matched_in_place_before_those_that_moved() -> None:
    assert matched_words(["a", "b", "c", "d", "e"], ["d", "e", "a", "b", "c"]) == [2, 3, 4, 0, 1]
    assert matched_words(["a", "b", "x", "c", "d"], ["a", "b", "y", "c", "d"]) == [0, 1, 3, 4]
    assert matched_words(["a"], []) == []


@given(st.lists(st.sampled_from("abc")), st.lists(st.sampled_from("abc")))
def test_every_word_is_matched_as_often_as_both_have_it(one: list[str], other: list[str]) -> None:
    order = matched_words(one, other)
    assert len(set(order)) == len(order)
    assert sorted(other[place] for place in order) == sorted(
        letter for letter in "abc" for _ in range(min(one.count(letter), other.count(letter)))
    )


@given(st.lists(st.sampled_from(["3", "5", "two", "+", "apples", "pears", "has"]), max_size=12))
def test_a_text_states_what_it_states(pieces: list[str]) -> None:
    assert same(" ".join(pieces), " ".join(pieces).upper())


def test_pairs_of_rows() -> None:
    pairs = pl.DataFrame({"first": [0, 0, 1], "second": [1, 2, 2]})
    assert agreeing(["7 mod 3", "3 mod 7", "7 MOD 3!"], pairs).to_list() == [False, True, False]
    assert agreeing([], pairs.clear()).to_list() == []
