"""What sets two versions apart, counted by hand."""

from __future__ import annotations

import dataclasses

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saerl_assets.domain.spec import VersionSpec
from saerl_assets.domain.version_diff import Change, VersionState, compare, spec_changes
from saerl_assets_tests.report.frames import a_spec, empty_frames

IDS = [f"p{place}" for place in range(8)]


def state(spec: VersionSpec | None = None, **frames: pl.DataFrame) -> VersionState:
    """A version with these stages and no others."""
    none = empty_frames()
    names = {
        "prompts": "prompts",
        "labels": "labels",
        "sae_weights": "sae_weights",
        "density": "feature_density",
        "assignments": "cluster_assignments",
        "difficulty": "difficulty_scores",
        "quality": "quality_scores",
        "order": "batch_manifest",
    }
    stages = {name: frames.get(name, none[table]) for name, table in names.items()}
    return VersionState(spec=spec or a_spec(), sources={"data": "1"}, manifest_id="m", **stages)


def prompts(ids: list[str], **columns: list[object]) -> pl.DataFrame:
    """Table `prompts`."""
    other = {"answer": ["42"] * len(ids), "topic": [None] * len(ids), "split": ["train"] * len(ids)}
    frame = {"prompt_id": ids, **other, "extra": ["{}"] * len(ids), **columns}
    return pl.DataFrame(frame, schema_overrides={"topic": pl.String})


def order(*batches: str) -> pl.DataFrame:
    """Letters are prompts, words are batches."""
    rows = [(name, 0, step, slot) for step, names in enumerate(batches) for slot, name in enumerate(names)]
    return pl.DataFrame(rows, schema=["prompt_id", "epoch", "step", "slot"], orient="row")


def test_a_version_is_no_other_than_itself() -> None:
    one = state(
        prompts=prompts(IDS),
        assignments=pl.DataFrame({"prompt_id": IDS, "cluster_id": [0, 0, 0, 0, 1, 1, 2, 2]}),
        difficulty=pl.DataFrame(
            {"prompt_id": IDS, "difficulty_rank": [p / 7 for p in range(8)], "score_name": "proxy"}
        ),
        quality=pl.DataFrame({"prompt_id": IDS, "quality": [p / 7 for p in range(8)], "kept": [True] * 8}),
        order=order("abc", "def"),
    )
    found = compare(one, one)
    assert found.spec == []
    assert found.data
    assert (found.data.n_common, found.data.n_added, found.data.n_removed, found.data.n_changed) == (8, 0, 0, 0)
    assert found.data.sources == []
    assert found.clusters
    assert (found.clusters.n_moved, found.clusters.agreement) == (0, 1.0)
    assert found.difficulty
    assert found.difficulty.spearman == pytest.approx(1.0)
    assert found.difficulty.most_changed == []
    assert found.quality
    assert (found.quality.n_now_dropped, found.quality.n_now_kept) == (0, 0)
    assert found.order
    assert found.order.same_step_fraction == 1.0
    assert found.order.spearman == pytest.approx(1.0)
    assert found.order.kendall == pytest.approx(1.0)


def test_stages_that_one_version_lacks_are_left_out() -> None:
    whole = state(prompts=prompts(IDS), order=order("abc"))
    for found in (compare(whole, state()), compare(state(), whole), compare(state(), state())):
        assert [
            getattr(found, name) for name in ("data", "features", "clusters", "difficulty", "quality", "order")
        ] == [None] * 6


def test_settings_are_named_by_their_dotted_names() -> None:
    spec = a_spec()
    other = spec.model_copy(
        update={
            "key": "demo-v2",
            "parent": "demo-v1",
            "batches": spec.batches.model_copy(update={"batch_size": 32}),
            "labels": {"difficulty": spec.labels["difficulty"]},
        }
    )
    assert spec_changes(spec, other) == [
        Change("parent", None, "demo-v1"),
        Change("labels.correct.column", "correct", None),
        Change("batches.batch_size", 16, 32),
    ]


def test_prompts_are_added_removed_and_changed() -> None:
    first = state(prompts=prompts(["a", "b", "c", "d"]))
    second = state(
        prompts=prompts(
            ["b", "c", "d", "e", "f"], answer=["42", "43", "43", "1", "1"], topic=[None, None, "t", None, None]
        )
    )
    second = dataclasses.replace(second, sources={"data": "2", "labels": "3"})
    found = compare(first, second).data
    assert found
    assert (found.n_before, found.n_after, found.n_common) == (4, 5, 3)
    assert (found.added, found.removed, found.changed) == (["e", "f"], ["a"], ["c", "d"])
    assert (found.n_added, found.n_removed, found.n_changed) == (2, 1, 2)
    assert found.changed_fields == {"answer": 2, "topic": 1}
    assert found.sources == [Change("data", "1", "2"), Change("labels", None, "3")]


def test_labels_are_counted_and_other_values_are_too() -> None:
    def labels(*rows: tuple[str, str, float]) -> pl.DataFrame:
        return pl.DataFrame(rows, schema=["prompt_id", "label", "value"], orient="row")

    first = state(prompts=prompts(["a", "b"]), labels=labels(("a", "x", 1.0), ("b", "x", 0.0), ("a", "y", 1.0)))
    second = state(prompts=prompts(["a", "b"]), labels=labels(("a", "x", 0.5), ("b", "x", 0.0), ("a", "z", 1.0)))
    found = compare(first, second).data
    assert found
    assert found.labels == {
        "x": {"before": 2, "after": 2, "changed": 1},
        "y": {"before": 1, "after": 0, "changed": 0},
        "z": {"before": 0, "after": 1, "changed": 0},
    }


def weights(digest: str, reader: str = "r") -> pl.DataFrame:
    """One layer."""
    return pl.DataFrame({"layer": [15], "encoder_id": [digest + reader], "digest": [digest], "reader_digest": [reader]})


def density(*n_prompts: int) -> pl.DataFrame:
    """Feature i is active in so many prompts."""
    return pl.DataFrame({"feature_id": range(len(n_prompts)), "n_prompts": n_prompts})


def test_features_are_held_together_where_the_sae_is_the_same_one() -> None:
    first = state(prompts=prompts(IDS), sae_weights=weights("s"), density=density(8, 4, 0, 0))
    second = state(prompts=prompts(IDS), sae_weights=weights("s"), density=density(8, 0, 4, 0))
    found = compare(first, second).features
    assert found
    assert found.same_encoders
    assert (found.n_active_before, found.n_active_after) == (2, 2)
    assert (found.n_fell_silent, found.n_woke_up) == (1, 1)
    assert found.density_shift == pytest.approx(8 / 24)
    other = compare(first, dataclasses.replace(second, sae_weights=weights("t"))).features
    assert other
    assert (other.n_fell_silent, other.n_woke_up, other.density_shift) == (None, None, None)
    assert [change.what for change in other.encoders] == ["layer 15, SAE", "layer 15, encoder"]


def test_clusters_under_other_names_are_no_moves() -> None:
    def assigned(*clusters: int) -> pl.DataFrame:
        return pl.DataFrame({"prompt_id": IDS[: len(clusters)], "cluster_id": clusters})

    renamed = compare(state(assignments=assigned(0, 0, 1, 1, 2, 2)), state(assignments=assigned(7, 7, 0, 0, 1, 1)))
    assert renamed.clusters
    assert (renamed.clusters.n_moved, renamed.clusters.agreement) == (0, 1.0)
    assert set(renamed.clusters.pairs) == {(0, 7, 2), (1, 0, 2), (2, 1, 2)}
    moved = compare(
        state(assignments=assigned(0, 0, 0, 1, 1, 1)), state(assignments=assigned(0, 0, 1, 1, 1, 1, 1))
    ).clusters
    assert moved
    assert (moved.n_before, moved.n_after, moved.n_common, moved.n_moved) == (2, 2, 6, 1)
    assert moved.pairs == [(1, 1, 3), (0, 0, 2)]


def test_ranks_that_changed_most_come_first_and_so_does_what_the_filter_does() -> None:
    def ranks(*values: float) -> pl.DataFrame:
        return pl.DataFrame({"prompt_id": IDS[: len(values)], "difficulty_rank": values, "score_name": "proxy"})

    def kept(*values: bool) -> pl.DataFrame:
        return pl.DataFrame(
            {"prompt_id": IDS[: len(values)], "quality": [None] * len(values), "kept": values},
            schema_overrides={"quality": pl.Float64},
        )

    found = compare(
        state(difficulty=ranks(0.0, 0.5, 1.0), quality=kept(True, True, False)),
        state(difficulty=ranks(1.0, 0.25, 1.0), quality=kept(True, False, True)),
    )
    assert found.difficulty
    assert found.difficulty.most_changed == [("p0", 0.0, 1.0), ("p1", 0.5, 0.25)]
    assert found.quality
    assert (found.quality.n_now_dropped, found.quality.n_now_kept, found.quality.spearman) == (1, 1, None)


def test_an_order_backwards_is_one_of_correlation_minus_one() -> None:
    found = compare(state(order=order("ab", "cd", "ef")), state(order=order("fe", "dc", "ba"))).order
    assert found
    assert found.spearman == pytest.approx(-1.0)
    assert found.kendall == pytest.approx(-1.0)
    assert found.same_step_fraction == pytest.approx(1 / 3), "the batch in the middle"


def test_a_prompt_of_many_epochs_counts_where_it_first_comes() -> None:
    again = order("ab", "cd").with_columns(epoch=pl.lit(1, pl.Int64))
    found = compare(state(order=pl.concat([order("ab", "cd"), again.reverse()])), state(order=order("ab", "cd"))).order
    assert found
    assert (found.n_steps_before, found.n_steps_after, found.n_common) == (4, 2, 4)
    assert found.same_step_fraction == 1.0
    assert found.kendall == pytest.approx(1.0)


@settings(deadline=None)
@given(st.permutations("abcdefgh"), st.permutations("abcdefgh"))
def test_the_other_way_round_the_figures_are_the_same(one: list[str], other: list[str]) -> None:
    first, second = (order("".join(names[:4]), "".join(names[4:])) for names in (one, other))
    there, back = (
        compare(state(order=first), state(order=second)).order,
        compare(state(order=second), state(order=first)).order,
    )
    assert there
    assert back
    assert there.same_step_fraction == back.same_step_fraction
    assert there.kendall == pytest.approx(back.kendall)
    assert there.spearman == pytest.approx(back.spearman)
