"""Pooling at its edges; that it equals a loop over tokens is in the tests of extraction."""

from __future__ import annotations

import pytest
import torch

from saerl_assets.models.pooling import LARGEST_USHORT, PackedTexts, pool_features, pool_states
from saerl_assets.models.saes import SparseActivations


def packed(lengths: list[int], kept: list[bool], in_scope: list[bool] | None = None) -> PackedTexts:
    return PackedTexts(
        [f"text{place}" for place in range(len(lengths))],
        torch.tensor(lengths),
        torch.tensor(in_scope or [True] * len(kept), dtype=torch.bool),
        torch.tensor(kept, dtype=torch.bool),
    )


def sparse(*triples: tuple[int, int, float]) -> SparseActivations:
    token, latent, value = zip(*triples, strict=True) if triples else ((), (), ())
    return SparseActivations(
        torch.tensor(token, dtype=torch.long),
        torch.tensor(latent, dtype=torch.long),
        torch.tensor(value, dtype=torch.float32),
    )


def test_tokens_are_counted_within_their_text_whatever_was_left_out() -> None:
    texts = packed(
        [3, 2],
        kept=[False, True, True, True, False],
        in_scope=[True, True, True, True, False],
    )
    # the three kept tokens are number 1 and 2 of the first text and number 0 of the second
    rows = pool_features(sparse((0, 7, 2.0), (1, 7, 5.0), (1, 2, 1.0), (2, 7, 3.0)), 10, texts).to_pylist()
    assert rows[0] == {
        "text_id": "text0",
        "n_tokens": 2,
        "n_sink_tokens": 1,
        "feature_ids": [2, 7],
        "max": [1.0, 5.0],
        "sum": [1.0, 7.0],
        "n_active": [1, 2],
        "argmax_token": [2, 2],
    }
    assert (rows[1]["n_tokens"], rows[1]["n_sink_tokens"]) == (1, 0)
    assert (rows[1]["feature_ids"], rows[1]["argmax_token"]) == ([7], [0])


def test_of_equal_maxima_the_first_token_is_named() -> None:
    row = pool_features(sparse((1, 4, 2.0), (2, 4, 2.0)), 5, packed([3], [True] * 3)).to_pylist()[0]
    assert row["argmax_token"] == [1]


def test_texts_without_tokens_have_empty_rows_wherever_they_are() -> None:
    texts = packed([0, 2, 0, 0], kept=[True, True])
    rows = pool_features(sparse((1, 3, 1.5)), 4, texts).to_pylist()
    assert [row["feature_ids"] for row in rows] == [[], [3], [], []]
    assert [row["n_tokens"] for row in rows] == [0, 2, 0, 0]
    states = pool_states(torch.tensor([[1.0, 2.0], [3.0, 6.0]]), texts).to_pylist()
    assert [row["mean"] for row in states] == [[0.0, 0.0], [2.0, 4.0], [0.0, 0.0], [0.0, 0.0]]
    assert [row["last"] for row in states] == [[0.0, 0.0], [3.0, 6.0], [0.0, 0.0], [0.0, 0.0]]


def test_nothing_active_at_all() -> None:
    rows = pool_features(sparse(), 4, packed([2], [False, False])).to_pylist()
    assert rows[0]["feature_ids"] == []
    assert rows[0]["n_sink_tokens"] == 2


def test_the_mean_leaves_sinks_out_and_the_last_state_does_not() -> None:
    states = torch.tensor([[1.0], [3.0], [1e6]])
    row = pool_states(states, packed([3], [True, True, False])).to_pylist()[0]
    assert row == {"text_id": "text0", "mean": [2.0], "last": [1e6]}


def test_counts_and_places_beyond_a_short_stay_at_its_largest() -> None:
    n_tokens = LARGEST_USHORT + 10
    tokens = torch.arange(n_tokens)
    values = torch.ones(n_tokens)
    values[-1] = 2.0
    found = SparseActivations(tokens, torch.zeros_like(tokens), values)
    row = pool_features(found, 1, packed([n_tokens], [True] * n_tokens)).to_pylist()[0]
    assert (row["n_active"], row["argmax_token"]) == ([LARGEST_USHORT], [LARGEST_USHORT])
    assert row["sum"][0] == pytest.approx(n_tokens + 1)
