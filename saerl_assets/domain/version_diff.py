"""What sets two versions apart: spec, data, features, clusters, difficulty, quality and order.

Belongs here: comparing two versions, whether or not one continues the other. Does not belong here: the drift from a
parent that has limits (drift), gathering the tables, saying it in words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl

from saerl_assets.domain.drift import density_shift

if TYPE_CHECKING:
    from saerl_assets.domain.spec import VersionSpec

N_NAMED = 5
"""Prompts of each kind that are named."""

COMPARED_FIELDS = ("answer", "topic", "split", "extra")
"""What can change of a prompt; another text is another prompt."""


@dataclass(frozen=True)
class VersionState:
    """One version as far as it exists: a stage that has not run is a frame without rows."""

    spec: VersionSpec
    sources: Mapping[str, str]
    """Digests of what was read, by what it is for."""
    prompts: pl.DataFrame
    """`prompt_id`, `answer`, `topic`, `split`, `extra`."""
    labels: pl.DataFrame
    """`prompt_id`, `label`, `value`."""
    sae_weights: pl.DataFrame
    """`layer`, `encoder_id`, `digest`, `reader_digest`."""
    density: pl.DataFrame
    """`feature_id`, `n_prompts`."""
    assignments: pl.DataFrame
    """`prompt_id`, `cluster_id`."""
    difficulty: pl.DataFrame
    """`prompt_id`, `difficulty_rank`, `score_name`."""
    quality: pl.DataFrame
    """`prompt_id`, `quality`, `kept`."""
    order: pl.DataFrame
    """`prompt_id`, `epoch`, `step`, `slot` of the exported arm of the current manifest."""
    manifest_id: str | None


@dataclass(frozen=True)
class Change:
    """One thing that is another in the second version."""

    what: str
    before: object
    after: object


@dataclass(frozen=True)
class DataDiff:
    """Prompts of both, of one, and those of both that are not the same in everything."""

    n_before: int
    n_after: int
    n_common: int
    n_added: int
    n_removed: int
    n_changed: int
    changed_fields: dict[str, int]
    """By field the number of common prompts in which it is another."""
    added: list[str]
    removed: list[str]
    changed: list[str]
    """The first `N_NAMED` ids of each kind."""
    sources: list[Change]
    """Sources by digest, those that are others alone."""
    labels: dict[str, dict[str, int]]
    """By label: `before` and `after`, prompts that have it, and `changed`, common prompts with another value."""


@dataclass(frozen=True)
class FeatureDiff:
    """The encoders, and what fires where both have the same ones."""

    encoders: list[Change]
    """By layer and part, those that are others alone."""
    same_encoders: bool
    n_active_before: int
    n_active_after: int
    n_fell_silent: int | None
    """Features that fired in the first alone; None where the encoders are not the same ones."""
    n_woke_up: int | None
    density_shift: float | None
    """Bray-Curtis dissimilarity of how many prompts each feature is active in, 0 to 1."""


@dataclass(frozen=True)
class ClusterDiff:
    """Both clusterings of the common prompts. Clusters are paired, one to one, so that most prompts stay."""

    n_before: int
    n_after: int
    n_common: int
    n_moved: int
    """Common prompts that are not in the cluster that theirs is paired with."""
    agreement: float | None
    """Adjusted Rand index: 1 is the same grouping whatever the clusters are called, 0 is chance."""
    pairs: list[tuple[int, int, int]]
    """Cluster of the first, its partner in the second, and the common prompts in both; most first."""


@dataclass(frozen=True)
class DifficultyDiff:
    """The difficulty in use, on the common prompts."""

    score_before: str
    score_after: str
    n_common: int
    spearman: float | None
    most_changed: list[tuple[str, float, float]]
    """Prompts whose rank has changed most, with both ranks between 0 and 1."""


@dataclass(frozen=True)
class QualityDiff:
    """What the quality filter keeps, of the common prompts."""

    n_kept_before: int
    n_kept_after: int
    n_common: int
    n_now_dropped: int
    n_now_kept: int
    spearman: float | None


@dataclass(frozen=True)
class OrderDiff:
    """The exported orders, each prompt where it first comes."""

    manifest_before: str
    manifest_after: str
    n_steps_before: int
    n_steps_after: int
    n_before: int
    n_after: int
    n_common: int
    same_step_fraction: float | None
    """Share of the common prompts that are in the same batch."""
    spearman: float | None
    kendall: float | None
    """Of the common prompts' places."""


@dataclass(frozen=True)
class VersionDiff:
    """What sets the second version apart from the first; None for a stage that either lacks."""

    before: str
    after: str
    spec: list[Change]
    data: DataDiff | None
    features: FeatureDiff | None
    clusters: ClusterDiff | None
    difficulty: DifficultyDiff | None
    quality: QualityDiff | None
    order: OrderDiff | None


def compare(before: VersionState, after: VersionState) -> VersionDiff:
    """What sets the second version apart from the first."""
    return VersionDiff(
        before=before.spec.key,
        after=after.spec.key,
        spec=spec_changes(before.spec, after.spec),
        data=_data(before, after) if _both(before.prompts, after.prompts) else None,
        features=_features(before, after) if _both(before.sae_weights, after.sae_weights) else None,
        clusters=_clusters(before.assignments, after.assignments)
        if _both(before.assignments, after.assignments)
        else None,
        difficulty=_difficulty(before.difficulty, after.difficulty)
        if _both(before.difficulty, after.difficulty)
        else None,
        quality=_quality(before.quality, after.quality) if _both(before.quality, after.quality) else None,
        order=_order(before, after) if _both(before.order, after.order) else None,
    )


def spec_changes(before: VersionSpec, after: VersionSpec) -> list[Change]:
    """Settings that are others, by their dotted names; None where one spec has no such setting."""
    first, second = _flat(before.model_dump(mode="json")), _flat(after.model_dump(mode="json"))
    names = [*first, *(name for name in second if name not in first)]
    return [
        Change(name, first.get(name), second.get(name))
        for name in names
        if name != "key" and first.get(name) != second.get(name)
    ]


def _flat(table: Mapping[str, object], path: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in table.items():
        found |= _flat(value, f"{path}{name}.") if isinstance(value, dict) and value else {f"{path}{name}": value}
    return found


def _both(before: pl.DataFrame, after: pl.DataFrame) -> bool:
    return before.height > 0 and after.height > 0


def _data(before: VersionState, after: VersionState) -> DataDiff:
    first, second = before.prompts.sort("prompt_id"), after.prompts.sort("prompt_id")
    removed = first.join(second, on="prompt_id", how="anti")["prompt_id"].sort()
    added = second.join(first, on="prompt_id", how="anti")["prompt_id"].sort()
    pairs = first.join(second, on="prompt_id", how="inner", suffix="_after").sort("prompt_id")
    other = {name: pairs[name].ne_missing(pairs[f"{name}_after"]) for name in COMPARED_FIELDS}
    any_other = pl.DataFrame(other).select(pl.any_horizontal(pl.all())).to_series()
    changed = pairs.filter(any_other)["prompt_id"]
    names = sorted({*before.sources, *after.sources})
    return DataDiff(
        n_before=first.height,
        n_after=second.height,
        n_common=pairs.height,
        n_added=len(added),
        n_removed=len(removed),
        n_changed=len(changed),
        changed_fields={name: int(differs.sum()) for name, differs in other.items() if differs.any()},
        added=added.head(N_NAMED).to_list(),
        removed=removed.head(N_NAMED).to_list(),
        changed=changed.head(N_NAMED).to_list(),
        sources=[
            Change(name, before.sources.get(name), after.sources.get(name))
            for name in names
            if before.sources.get(name) != after.sources.get(name)
        ],
        labels=_labels(before.labels, after.labels),
    )


def _labels(before: pl.DataFrame, after: pl.DataFrame) -> dict[str, dict[str, int]]:
    keys = ["label", "prompt_id"]
    pairs = before.select(*keys, "value").join(after.select(*keys, "value"), on=keys, how="inner", suffix="_after")
    changed = pairs.filter(pl.col("value").ne_missing(pl.col("value_after")))
    return {
        name: {
            "before": before.filter(label=name).height,
            "after": after.filter(label=name).height,
            "changed": changed.filter(label=name).height,
        }
        for name in sorted({*before["label"], *after["label"]})
    }


def _features(before: VersionState, after: VersionState) -> FeatureDiff:
    first = {row["layer"]: row for row in before.sae_weights.iter_rows(named=True)}
    second = {row["layer"]: row for row in after.sae_weights.iter_rows(named=True)}
    encoders = [
        Change(f"layer {layer}, {said}", was, now)
        for layer in sorted({*first, *second})
        for column, said in (("digest", "SAE"), ("reader_digest", "reader"), ("encoder_id", "encoder"))
        if (was := first.get(layer, {}).get(column)) != (now := second.get(layer, {}).get(column))
    ]
    # features are the same ones where the SAEs are, whatever the prompts were read with
    same = {layer: row["digest"] for layer, row in first.items()} == {
        layer: row["digest"] for layer, row in second.items()
    }
    active = [state.density.filter(pl.col("n_prompts") > 0)["feature_id"] for state in (before, after)]
    known = same and _both(before.density, after.density)
    return FeatureDiff(
        encoders=encoders,
        same_encoders=not encoders,
        n_active_before=len(active[0]),
        n_active_after=len(active[1]),
        n_fell_silent=len(set(active[0]) - set(active[1])) if known else None,
        n_woke_up=len(set(active[1]) - set(active[0])) if known else None,
        density_shift=density_shift(before.density, before.prompts.height, after.density, after.prompts.height)
        if known
        else None,
    )


def _clusters(before: pl.DataFrame, after: pl.DataFrame) -> ClusterDiff:
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import adjusted_rand_score

    pairs = before.select("prompt_id", was="cluster_id").join(
        after.select("prompt_id", now="cluster_id"), on="prompt_id", how="inner"
    )
    first, second = before["cluster_id"].unique().sort(), after["cluster_id"].unique().sort()
    if pairs.is_empty():
        return ClusterDiff(len(first), len(second), 0, 0, None, [])
    table = np.zeros((len(first), len(second)), dtype=np.int64)
    np.add.at(table, (first.search_sorted(pairs["was"]).to_numpy(), second.search_sorted(pairs["now"]).to_numpy()), 1)
    rows, columns = linear_sum_assignment(table, maximize=True)
    common = table[rows, columns]
    found = [
        (int(first[int(row)]), int(second[int(column)]), int(n))
        for row, column, n in zip(rows, columns, common, strict=True)
        if n
    ]
    return ClusterDiff(
        n_before=len(first),
        n_after=len(second),
        n_common=pairs.height,
        n_moved=pairs.height - int(common.sum()),
        agreement=float(adjusted_rand_score(pairs["was"].to_numpy(), pairs["now"].to_numpy())),
        pairs=sorted(found, key=lambda pair: (-pair[2], pair[0])),
    )


def _difficulty(before: pl.DataFrame, after: pl.DataFrame) -> DifficultyDiff:
    pairs = before.select("prompt_id", was="difficulty_rank").join(
        after.select("prompt_id", now="difficulty_rank"), on="prompt_id", how="inner"
    )
    far = pairs.with_columns(by=(pl.col("was") - pl.col("now")).abs()).filter(pl.col("by") > 0)
    most = far.sort(["by", "prompt_id"], descending=[True, False]).head(N_NAMED)
    return DifficultyDiff(
        score_before=str(before["score_name"][0]),
        score_after=str(after["score_name"][0]),
        n_common=pairs.height,
        spearman=_correlation(pairs, "spearman"),
        most_changed=most.select("prompt_id", "was", "now").rows(),
    )


def _quality(before: pl.DataFrame, after: pl.DataFrame) -> QualityDiff:
    pairs = before.join(after, on="prompt_id", how="inner", suffix="_after")
    return QualityDiff(
        n_kept_before=int(before["kept"].sum()),
        n_kept_after=int(after["kept"].sum()),
        n_common=pairs.height,
        n_now_dropped=pairs.filter(pl.col("kept") & ~pl.col("kept_after")).height,
        n_now_kept=pairs.filter(~pl.col("kept") & pl.col("kept_after")).height,
        spearman=_correlation(pairs.select(was="quality", now="quality_after"), "spearman"),
    )


def _order(before: VersionState, after: VersionState) -> OrderDiff:
    first, second = _first_places(before.order), _first_places(after.order)
    pairs = first.join(second, on="prompt_id", how="inner", suffix="_after")
    places = pairs.select(was="place", now="place_after")
    same = pairs.filter(pl.col("batch") == pl.col("batch_after")).height
    return OrderDiff(
        manifest_before=before.manifest_id or "",
        manifest_after=after.manifest_id or "",
        n_steps_before=before.order.select("epoch", "step").n_unique(),
        n_steps_after=after.order.select("epoch", "step").n_unique(),
        n_before=first.height,
        n_after=second.height,
        n_common=pairs.height,
        same_step_fraction=same / pairs.height if pairs.height else None,
        spearman=_correlation(places, "spearman"),
        kendall=_correlation(places, "kendall"),
    )


def _first_places(order: pl.DataFrame) -> pl.DataFrame:
    """`prompt_id`, `place` and `batch` of every prompt where it first comes, both counted from 0 over all epochs."""
    batches = order.select("epoch", "step").unique().sort("epoch", "step").with_row_index("batch")
    return (
        order.join(batches, on=["epoch", "step"])
        .sort("batch", "slot")
        .with_row_index("place")
        .unique("prompt_id", keep="first", maintain_order=True)
        .select("prompt_id", "place", "batch")
    )


def _correlation(pairs: pl.DataFrame, kind: Literal["spearman", "kendall"]) -> float | None:
    """Of the columns `was` and `now`; None where one of them does not vary or fewer than three rows have both."""
    from scipy.stats import kendalltau, spearmanr

    both = pairs.select("was", "now").drop_nulls()
    if both.height < 3 or min(both["was"].n_unique(), both["now"].n_unique()) < 2:
        return None
    was, now = both["was"].to_numpy(), both["now"].to_numpy()
    found = kendalltau(was, now) if kind == "kendall" else spearmanr(was, now)
    return float(found.statistic)
