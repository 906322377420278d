"""Pooling at its edges; that it equals a loop over tokens is in the tests of extraction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from saerl_assets.models import pooling
from saerl_assets.models.pooling import (
    LARGEST_USHORT,
    PackedTexts,
    features_table,
    on_host,
    pool_features,
    pool_states,
    states_table,
)
from saerl_assets.models.saes import SparseActivations


def packed(lengths: list[int], kept: list[bool], first: list[int] | None = None) -> PackedTexts:
    norms = torch.tensor([1.0 if keep else 9.0 for keep in kept])
    return PackedTexts.pack(np.array(lengths), np.array(first or [0] * len(lengths)), norms, 5.0)


def sparse(*triples: tuple[int, int, float]) -> SparseActivations:
    token, latent, value = zip(*triples, strict=True) if triples else ((), (), ())
    return SparseActivations(
        torch.tensor(token, dtype=torch.long),
        torch.tensor(latent, dtype=torch.long),
        torch.tensor(value, dtype=torch.float32),
    )


def feature_rows(found: SparseActivations, n_latents: int, texts: PackedTexts) -> list[dict[str, Any]]:
    ids = [f"text{place}" for place in range(len(texts.n_kept))]
    rows: list[dict[str, Any]] = features_table(ids, [on_host(pool_features(found, n_latents, texts))]).to_pylist()
    return rows


def state_rows(states: torch.Tensor, texts: PackedTexts) -> list[dict[str, Any]]:
    ids = [f"text{place}" for place in range(len(texts.n_kept))]
    rows: list[dict[str, Any]] = states_table(
        ids, [on_host(pool_states(states, states[texts.kept], texts))]
    ).to_pylist()
    return rows


def test_tokens_are_counted_within_their_text_whatever_was_left_out() -> None:
    texts = packed([3, 2], kept=[False, True, True, True, False])
    # the three kept tokens are number 1 and 2 of the first text and number 0 of the second
    rows = feature_rows(sparse((0, 7, 2.0), (1, 7, 5.0), (1, 2, 1.0), (2, 7, 3.0)), 10, texts)
    assert rows[0] == {
        "text_id": "text0",
        "n_tokens": 2,
        "n_sink_tokens": 1,
        "feature_ids": [2, 7],
        "max": [1.0, 5.0],
        "sum": [1.0, 7.0],
        "last": [1.0, 5.0],
        "n_active": [1, 2],
        "argmax_token": [2, 2],
    }
    assert (rows[1]["n_tokens"], rows[1]["n_sink_tokens"]) == (1, 1)
    assert (rows[1]["feature_ids"], rows[1]["argmax_token"]) == ([7], [0])


def test_the_last_activation_is_that_of_the_last_token_and_of_no_other() -> None:
    last = [row["last"] for row in feature_rows(sparse((0, 3, 2.0), (1, 4, 5.0)), 9, packed([2], [True] * 2))]
    assert last == [[0.0, 5.0]]
    # the last token is a sink: the one before it does not stand in for it
    assert feature_rows(sparse((0, 3, 2.0)), 9, packed([2], [True, False]))[0]["last"] == [0.0]


def test_tokens_before_the_first_that_counts_are_no_sinks_either() -> None:
    (row,) = feature_rows(sparse((0, 3, 2.0)), 9, packed([3], [False, True, True], first=[2]))
    assert (row["n_tokens"], row["n_sink_tokens"], row["argmax_token"], row["last"]) == (1, 0, [2], [2.0])
    (row,) = feature_rows(sparse(), 9, packed([3], [True] * 3, first=[8]))
    assert (row["n_tokens"], row["n_sink_tokens"]) == (0, 0)


def test_of_equal_maxima_the_first_token_is_named() -> None:
    row = feature_rows(sparse((0, 2, 7.0), (1, 4, 2.0), (2, 4, 2.0)), 5, packed([3], [True] * 3))[0]
    assert row["argmax_token"] == [0, 1]


def test_texts_without_tokens_have_empty_rows_wherever_they_are() -> None:
    texts = packed([0, 2, 0, 0], kept=[True, True])
    rows = feature_rows(sparse((1, 3, 1.5)), 4, texts)
    assert [row["feature_ids"] for row in rows] == [[], [3], [], []]
    assert [row["n_tokens"] for row in rows] == [0, 2, 0, 0]
    states = state_rows(torch.tensor([[1.0, 2.0], [3.0, 6.0]]), texts)
    assert [row["mean"] for row in states] == [[0.0, 0.0], [2.0, 4.0], [0.0, 0.0], [0.0, 0.0]]
    assert [row["last"] for row in states] == [[0.0, 0.0], [3.0, 6.0], [0.0, 0.0], [0.0, 0.0]]


def test_nothing_active_at_all() -> None:
    rows = feature_rows(sparse(), 4, packed([2], [False, False]))
    assert rows[0]["feature_ids"] == []
    assert rows[0]["n_sink_tokens"] == 2


def test_the_mean_leaves_sinks_out_and_the_last_state_does_not() -> None:
    row = state_rows(torch.tensor([[1.0], [3.0], [1e6]]), packed([3], [True, True, False]))[0]
    assert row == {"text_id": "text0", "mean": [2.0], "last": [1e6]}


def test_half_precision_states_are_added_up_in_float32() -> None:
    row = state_rows(torch.tensor([[1.0], [1.0009765625]]).half(), packed([2], [True] * 2))[0]
    assert row["mean"] == [1.00048828125]  # half precision has nothing between the two


def test_keys_that_do_not_fit_an_int_give_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, found = packed([2, 1], [True] * 3), sparse((0, 7, 2.0), (1, 2, 1.0), (1, 7, 5.0), (2, 0, 3.0))
    rows = feature_rows(found, 10, texts)
    monkeypatch.setattr(pooling, "LARGEST_INT", 5)
    assert feature_rows(found, 10, texts) == rows


def test_batches_follow_one_another_in_a_table() -> None:
    first = pool_features(sparse((0, 1, 2.0)), 4, packed([1, 0], [True]))
    second = pool_features(sparse((0, 3, 4.0), (1, 2, 5.0)), 4, packed([1, 1], [True] * 2))
    rows = features_table(["a", "b", "c", "d"], [first, second]).to_pylist()
    assert [row["feature_ids"] for row in rows] == [[1], [], [3], [2]]
    assert [row["max"] for row in rows] == [[2.0], [], [4.0], [5.0]]


def test_counts_and_places_beyond_a_short_stay_at_its_largest() -> None:
    n_tokens = LARGEST_USHORT + 10
    tokens = torch.arange(n_tokens)
    values = torch.ones(n_tokens)
    values[-1] = 2.0
    found = SparseActivations(tokens, torch.zeros_like(tokens), values)
    row = feature_rows(found, 1, packed([n_tokens], [True] * n_tokens))[0]
    assert (row["n_active"], row["argmax_token"]) == ([LARGEST_USHORT], [LARGEST_USHORT])
    assert row["sum"][0] == pytest.approx(n_tokens + 1)
