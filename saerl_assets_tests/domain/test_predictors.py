"""Predictors: rows that are taken and rows in blocks are the same rows, and no label is among the columns."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from saerl_assets.domain import predictors
from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.predictors import (
    CHEAPEST_FIRST,
    Metadata,
    PooledFeatures,
    SideBySide,
    WholeMatrix,
    Words,
    build_predictors,
    combined,
)
from saerl_assets_tests.domain.feature_sets import feature_set, planted_rows, prompt_frame

if TYPE_CHECKING:
    from saerl_assets.domain.predictors import Predictor

N = 23
FEATURES = feature_set(planted_rows(N, 9, seed=0, density=0.4), block_size=5)
EXTRAS = [
    json.dumps({"source": "ab"[i % 2], "info": {"size": i, "level": i % 3}, "tags": [1], "id": f"row {i}"})
    for i in range(N)
]
PROMPTS = prompt_frame(FEATURES.prompt_ids).with_columns(
    extra=pl.Series(EXTRAS), topic=pl.Series(["x" if i % 4 else None for i in range(N)])
)


def dense(name: str, seed: int) -> WholeMatrix:
    rows = np.random.default_rng(seed).normal(size=(N, 4))
    return WholeMatrix(sparse.csr_matrix(rows, dtype=np.float32), name)


def everything() -> dict[str, Predictor]:
    states = {"dense_mean": dense("dense_mean", 1), "dense_last": dense("dense_last", 2)}
    return build_predictors(
        PROMPTS,
        FEATURES,
        states=states,
        control=feature_set(planted_rows(N, 9, seed=3)),
        sentences=dense("sentence", 4),
        label_fields=["info.level"],
    )


def test_all_predictors_are_there_simpler_ones_first() -> None:
    made = everything()
    assert list(made) == ["constant", *(name for name in CHEAPEST_FIRST if name != "combined")]
    assert {name: predictor.name for name, predictor in made.items()} == {name: name for name in made}


@pytest.mark.parametrize("name", ["constant", *CHEAPEST_FIRST, "several poolings", "pooled beside dense"])
def test_taken_rows_are_those_of_the_blocks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictors, "BLOCK_PROMPTS", 8)
    made = everything()
    predictor = {
        **made,
        "combined": combined(made),
        "several poolings": PooledFeatures(FEATURES, ("max", "mean", "last")),
        "pooled beside dense": SideBySide((PooledFeatures(FEATURES, ("max", "binary")), made["dense_mean"])),
    }[name]
    whole = np.zeros((N, sum(predictor.widths)), dtype=np.float32)
    rows = 0
    for start, block in predictor.blocks():
        assert start == rows
        assert block.dtype == np.float32
        whole[start : start + block.shape[0]] = block.toarray()
        rows += block.shape[0]
    assert rows == N
    chosen = np.array([0, 3, 7, 8, 22])
    np.testing.assert_array_equal(predictor.take(chosen).toarray(), whole[chosen])
    assert predictor.take(np.arange(0)).shape == (0, sum(predictor.widths))


def test_poolings_stand_side_by_side_in_their_order() -> None:
    both = PooledFeatures(FEATURES, ("mean", "max"))
    assert both.widths == (9, 9)
    found = both.take(np.arange(N)).toarray()
    np.testing.assert_array_equal(found[:, :9], FEATURES.csr("mean").toarray())
    np.testing.assert_array_equal(found[:, 9:], FEATURES.csr("max").toarray())


def test_metadata_leaves_out_labels_lists_and_names_of_rows() -> None:
    found = Metadata(EXTRAS, PROMPTS["topic"].to_list(), frozenset({"info.level"}))
    # size, two sources, and the one topic; 23 ids are few enough to be categories
    assert found.widths == (1 + 2 + 1 + N,)
    values = found.take(np.array([0, 5])).toarray()
    assert values[:, N].tolist() == [0, 5], "fields by name: id, info.size, source, topic"
    assert values[:, N + 1 :].tolist() == [[1, 0, 0], [0, 1, 1]]
    many = [json.dumps({"id": f"row {i}"}) for i in range(80)]
    assert Metadata(many, [None] * 80, frozenset()).widths == (0,)


def test_a_number_that_is_missing_or_none_is_the_mean() -> None:
    extras = [json.dumps({"size": size}) for size in (1, 3, None)] + ['{"size": NaN}', '{"size": 1e300}', "{}"]
    found = Metadata(extras, [None] * 6, frozenset())
    assert found.take(np.arange(6)).toarray().ravel().tolist() == [1, 3, 2, 2, 2, 2]


def test_words_that_no_two_texts_share_are_still_words() -> None:
    found = Words([f"only{i}" for i in range(5)])
    assert found.take(np.arange(5)).shape == (5, 5)


@pytest.mark.parametrize("texts", [["  ", "\t"], [""], []])
def test_texts_without_a_word_are_an_empty_predictor(texts: list[str]) -> None:
    found = Words(texts)
    assert found.widths == (0,)
    assert found.take(np.arange(len(texts))).shape == (len(texts), 0)
    assert [block.shape for _, block in found.blocks()] == [(len(texts), 0)] * bool(texts)
    whole = WholeMatrix(sparse.csr_matrix(np.ones((len(texts), 1), dtype=np.float32)))
    assert SideBySide((found, whole)).take(np.arange(len(texts))).shape == (len(texts), 1)


def test_words_are_learned_from_a_spread_of_many_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictors, "MAX_PROMPTS_LEARNED", 10)
    found = Words([f"even word{i % 2}" for i in range(100)])
    assert set(found._vectoriser.vocabulary_) >= {"even", "word0"}
    assert found.take(np.array([99])).shape[0] == 1


@pytest.mark.parametrize("name", ["sae_max", "random_sae", "combined"])
def test_an_undefined_activation_is_refused(name: str) -> None:
    broken = planted_rows(N, 9, seed=0)
    broken[11, 2] = np.inf
    features = feature_set(broken)
    states = {"dense_mean": dense("dense_mean", 1), "dense_last": dense("dense_last", 2)}
    made = build_predictors(PROMPTS, features, states=states, control=features, sentences=None, label_fields=[])
    predictor = combined(made) if name == "combined" else made[name]
    with pytest.raises(SaerlError, match="no finite numbers"):
        predictor.take(np.arange(N))
    with pytest.raises(SaerlError, match="no finite numbers"):
        list(predictor.blocks())
