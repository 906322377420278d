from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from saerl_assets.domain import batch_metrics as module
from saerl_assets.domain.batch_metrics import MAX_COMPARED, batch_metrics, mean_jaccard
from saerl_assets_tests.domain.feature_sets import feature_set

if TYPE_CHECKING:
    from saerl_assets.domain.features import FloatMatrix

BATCH = ["manifest_id", "arm", "epoch", "step"]


def manifest_of(batches: list[list[tuple[str, int, float]]], arm: str = "clustered") -> pl.DataFrame:
    rows = [
        ("m", arm, 0, step, slot, prompt, cluster, difficulty, False)
        for step, batch in enumerate(batches)
        for slot, (prompt, cluster, difficulty) in enumerate(batch)
    ]
    u32 = pl.UInt32
    return pl.DataFrame(
        rows,
        orient="row",
        schema={
            "manifest_id": pl.String,
            "arm": pl.String,
            "epoch": u32,
            "step": u32,
            "slot": u32,
            "prompt_id": pl.String,
            "cluster_id": u32,
            "difficulty": pl.Float64,
            "is_padding": pl.Boolean,
        },
    )


def matrix_of(sets: list[set[int]], n_features: int = 8) -> FloatMatrix:
    dense = np.zeros((len(sets), n_features), dtype=np.float32)
    for row, features in enumerate(sets):
        dense[row, list(features)] = 1.0
    return sparse.csr_matrix(dense)


def jaccard(one: set[int], other: set[int]) -> float:
    return len(one & other) / len(one | other) if one | other else 0.0


def test_figures_of_a_batch_by_hand() -> None:
    manifest = manifest_of([[("a", 0, 1.0), ("b", 0, 2.0), ("c", 5, 3.0), ("d", 5, 9.0)], [("e", 1, 4.0)]])
    features = feature_set(matrix_of([{0, 1}, {1, 2}, set(), {0, 1}, {3}]), prompt_ids=["a", "b", "c", "d", "e"])
    quality = pl.DataFrame({"prompt_id": ["a", "b", "c", "d", "e"], "quality": [0.1, None, 0.5, None, None]})
    first, second = batch_metrics(manifest, features, quality).iter_rows(named=True)
    assert first["n_prompts"] == 4
    assert first["n_clusters"] == 2
    assert first["cluster_entropy"] == pytest.approx(math.log(2))
    assert first["feature_overlap"] == pytest.approx((1 / 3 + 1 + 1 / 3) / 6)
    assert first["difficulty_p10"] == pytest.approx(1.3)
    assert first["difficulty_p50"] == pytest.approx(2.5)
    assert first["difficulty_p90"] == pytest.approx(7.2)
    assert first["mean_quality"] == pytest.approx(0.3)
    assert (second["n_prompts"], second["n_clusters"], second["step"]) == (1, 1, 1)
    assert second["cluster_entropy"] == 0.0
    assert math.copysign(1, second["cluster_entropy"]) == 1
    assert second["feature_overlap"] == 0.0
    assert second["mean_quality"] is None


def test_the_frame_is_that_of_the_table() -> None:
    manifest = pl.concat([manifest_of([[("b", 0, 1.0)], [("a", 0, 1.0)]], arm) for arm in ("shuffle", "clustered")])
    quality = pl.DataFrame(
        {"prompt_id": ["a"], "quality": [None]}, schema={"prompt_id": pl.String, "quality": pl.Float64}
    )
    features = feature_set(matrix_of([{1}, {2}]), prompt_ids=["a", "b"])
    measured = batch_metrics(manifest.sample(fraction=1.0, shuffle=True, seed=3), features, quality)
    assert measured.schema == {
        "manifest_id": pl.String,
        "arm": pl.String,
        "epoch": pl.UInt32,
        "step": pl.UInt32,
        "n_prompts": pl.UInt32,
        "n_clusters": pl.UInt32,
        "cluster_entropy": pl.Float64,
        "feature_overlap": pl.Float64,
        "difficulty_p10": pl.Float64,
        "difficulty_p50": pl.Float64,
        "difficulty_p90": pl.Float64,
        "mean_quality": pl.Float64,
    }
    assert measured.select(BATCH).rows() == [
        ("m", "clustered", 0, 0),
        ("m", "clustered", 0, 1),
        ("m", "shuffle", 0, 0),
        ("m", "shuffle", 0, 1),
    ]
    assert measured["mean_quality"].is_null().all()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.sets(st.integers(0, 7)), min_size=1, max_size=6), min_size=1, max_size=6),
    st.sampled_from([1, 10, 10_000]),
    st.sampled_from([1, 20, 10_000]),
)
def test_overlap_equals_all_pairs_whatever_is_multiplied_at_once(
    batches: list[list[set[int]]], entries: int, columns: int
) -> None:
    sets = [features for batch in batches for features in batch]
    batch = np.repeat(np.arange(len(batches)), [len(one) for one in batches])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_ENTRIES_AT_ONCE", entries)
        patch.setattr(module, "_COLUMNS_AT_ONCE", columns)
        found = mean_jaccard(matrix_of(sets), np.arange(len(sets)), batch)
    for value, one in zip(found, batches, strict=True):
        pairs = [jaccard(*pair) for pair in combinations(one, 2)]
        assert value == pytest.approx(np.mean(pairs) if pairs else 0.0)


def test_large_batches_are_sampled_the_same_in_every_run_and_order() -> None:
    rng = np.random.default_rng(0)
    names = [f"p{number}" for number in range(3 * MAX_COMPARED)]
    active = [set(np.flatnonzero(row < 0.2).tolist()) for row in rng.random((len(names), 50))]
    manifest = manifest_of([[(name, 0, 0.0) for name in names]])
    quality = pl.DataFrame({"prompt_id": names, "quality": rng.random(len(names))})
    features = feature_set(matrix_of(active, 50), prompt_ids=names)
    one = batch_metrics(manifest, features, quality)
    other = batch_metrics(manifest.reverse(), features, quality)
    assert one.equals(other)
    exact = float(np.mean([jaccard(*pair) for pair in combinations(active, 2)]))
    assert one["feature_overlap"][0] != exact
    assert one["feature_overlap"][0] == pytest.approx(exact, rel=0.1)


def test_padding_within_a_batch_is_compared_once() -> None:
    manifest = manifest_of([[("a", 0, 1.0), ("a", 0, 1.0), ("b", 0, 1.0)]])
    quality = pl.DataFrame({"prompt_id": ["a", "b"], "quality": [0.2, 0.8]})
    measured = batch_metrics(manifest, feature_set(matrix_of([{0}, {1}]), prompt_ids=["a", "b"]), quality)
    assert measured["feature_overlap"][0] == 0.0
    assert measured["n_prompts"][0] == 3
    assert measured["mean_quality"][0] == pytest.approx(0.4)


def test_a_prompt_without_features_is_an_error() -> None:
    manifest = manifest_of([[("a", 0, 1.0), ("b", 0, 1.0)]])
    quality = pl.DataFrame({"prompt_id": ["a"], "quality": [0.2]})
    with pytest.raises(ValueError, match="prompt b of the manifest has no features"):
        batch_metrics(manifest, feature_set(matrix_of([{0}]), prompt_ids=["a"]), quality)


def test_of_many_prompts_some_batches_of_each_arm_are_compared_as_they_would_be_among_all() -> None:
    rng = np.random.default_rng(0)
    names = [f"p{number:03}" for number in range(200)]
    features = feature_set((rng.random((200, 30)) < 0.3).astype(np.float32), prompt_ids=names)
    batches = [[(name, 0, 0.0) for name in names[start : start + 10]] for start in range(0, 200, 10)]
    manifest = pl.concat([manifest_of(batches), manifest_of(batches[::-1], "shuffle")])
    quality = pl.DataFrame({"prompt_id": names, "quality": rng.random(200)})
    every = batch_metrics(manifest, features, quality)
    sampled = batch_metrics(manifest, features, quality, max_prompts_read=100)
    looked_at = sampled.filter(pl.col("feature_overlap").is_not_null())
    assert looked_at.select("arm", "step").rows() == [
        (a, s) for a in ("clustered", "shuffle") for s in (0, 4, 8, 12, 16)
    ]
    assert looked_at.equals(every.join(looked_at, on=BATCH, how="semi", maintain_order="left"))
    assert sampled.drop("feature_overlap").equals(every.drop("feature_overlap"))
