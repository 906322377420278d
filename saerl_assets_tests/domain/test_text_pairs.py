from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saerl_assets.domain import text_pairs as module
from saerl_assets.domain.pairs import connected_groups, members_of, pair_frame, problem_keys
from saerl_assets.domain.text_pairs import N_PERMUTATIONS, band_rows, jaccard_overlaps, text_pairs
from saerl_assets.domain.wording import shingles

VOCABULARY = ["apple", "river", "stone", "paper", "clock", "garden", "window", "bread"]


def brute_force(texts: list[str], keys: list[int], min_jaccard: float) -> dict[tuple[int, int], float]:
    pieces = [shingles(text) for text in texts]
    overlaps = {
        (one, other): len(pieces[one] & pieces[other]) / len(pieces[one] | pieces[other])
        for one in range(len(texts))
        for other in range(one + 1, len(texts))
        if keys[one] == keys[other]
    }
    return {pair: overlap for pair, overlap in overlaps.items() if overlap >= min_jaccard}


def as_dict(pairs: pl.DataFrame) -> dict[tuple[int, int], float]:
    return {(first, second): jaccard for first, second, jaccard in pairs.iter_rows()}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(VOCABULARY), max_size=5).map(" ".join), max_size=9),
    st.lists(st.integers(0, 1), min_size=9, max_size=9),
)
def test_no_more_pairs_than_there_are_and_all_that_are_the_same(texts: list[str], keys: list[int]) -> None:
    found = as_dict(text_pairs(texts, np.array(keys[: len(texts)], dtype=np.int64), min_jaccard=0.8))
    expected = brute_force(texts, keys, 0.8)
    assert found.items() <= expected.items()
    assert {pair for pair, overlap in expected.items() if overlap == 1.0} <= found.keys()


def test_nearly_all_pairs_are_found_and_their_overlap_is_exact() -> None:
    rng = np.random.default_rng(0)
    texts = []
    for _ in range(150):
        own = [str(word) for word in rng.choice(VOCABULARY, 12)]
        texts += [" ".join(own), " ".join([*own[:-1], "other"]), " ".join(["other", *own[2:]])]
    found = as_dict(text_pairs(texts, np.zeros(len(texts), dtype=np.int64), min_jaccard=0.7))
    expected = brute_force(texts, [0] * len(texts), 0.7)
    assert found.items() <= expected.items()
    assert len(expected) > 200
    assert len(found) >= 0.97 * len(expected)


def test_prompts_with_different_keys_are_no_pair() -> None:
    assert text_pairs(["the same text"] * 2, np.array([0, 1]), min_jaccard=0.8).is_empty()
    assert text_pairs([], np.zeros(0, dtype=np.int64), min_jaccard=0.8).is_empty()
    assert text_pairs(["alone"], np.zeros(1, dtype=np.int64), min_jaccard=0.8).is_empty()


def test_a_thousand_equal_texts_give_few_pairs_and_one_group() -> None:
    texts = ["one and the same text, many times"] * 1000
    found = text_pairs(texts, np.zeros(1000, dtype=np.int64), min_jaccard=0.8)
    assert found.height <= 1000 * module.N_NEXT
    assert set(connected_groups(found, 1000).tolist()) == {0}


def test_a_band_lets_99_of_100_pairs_at_the_threshold_through() -> None:
    for threshold in (0.5, 0.8, 0.9):
        n_rows = band_rows(threshold)
        missed = (1 - threshold**n_rows) ** (N_PERMUTATIONS // n_rows)
        assert missed <= 0.01
    assert band_rows(1.0) == N_PERMUTATIONS
    assert band_rows(0.001) == 1


def test_overlaps_of_named_pairs() -> None:
    overlaps = jaccard_overlaps(["hello", "hello you", "other"], np.array([0, 0]), np.array([1, 2]))
    assert overlaps.tolist() == [pytest.approx(0.2), 0.0]


def test_pairs_are_sorted_and_each_is_there_once() -> None:
    frame = pair_frame([5, 1, 2], [1, 5, 0], similarity=[0.9, 0.9, 0.8])
    assert frame.rows() == [(0, 2, 0.8), (1, 5, 0.9)]


def test_rows_of_every_key_that_is_shared() -> None:
    assert [rows.tolist() for rows in members_of(np.array([3, 0, 3, 1, 0, 3]))] == [[1, 4], [0, 2, 5]]
    assert members_of(np.zeros(0, dtype=np.int64)) == []


def test_what_could_be_the_same_problem() -> None:
    keys = problem_keys(
        [("1",), ("1",), ("1",), ("2",), ("2",), ("3",), ("3",)],
        [["a"], ["a"], ["b"], ["a"], None, ["a"] * 20, ["b"]],
    )
    assert keys[0] == keys[1] != keys[2]  # another answer
    assert keys[3] == keys[4]  # one of the answers is not known
    assert keys[5] == keys[6]  # one of the answers is a worked solution
    assert len({keys[0], keys[2], keys[3], keys[5]}) == 4
