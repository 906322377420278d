"""How far a version has moved from its parent: its clusters one by one, and in a few figures that have limits.

Belongs here: comparing two clusterings of the same features. Does not belong here: making either (clusters), how good
one is by itself (cluster_quality).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from saerl_assets.domain.clusters import Centroids
    from saerl_assets.domain.spec import DriftSpec

    Doubles = NDArray[np.float64]

CLUSTER_DRIFT_SCHEMA = pl.Schema(
    {
        "cluster_id": pl.UInt32(),
        "fate": pl.String(),
        "n_prompts_before": pl.UInt64(),
        "n_prompts_after": pl.UInt64(),
        "fraction_before": pl.Float64(),
        "fraction_after": pl.Float64(),
        "fraction_shift": pl.Float64(),
        "n_common": pl.UInt64(),
        "n_moved": pl.UInt64(),
        "centroid_shift": pl.Float64(),
    }
)

VERSION_DRIFT_SCHEMA = pl.Schema(
    {
        "measure": pl.String(),
        "value": pl.Float64(),
        "threshold": pl.Float64(),
        "verdict": pl.String(),
        "explanation": pl.String(),
    }
)

MEANINGS = {
    "moved_fraction": "of the prompts of both versions are in another cluster now",
    "population_shift": "bits of Jensen-Shannon divergence between the clusters' shares of the prompts",
    "centroid_shift": "cosine distance from the clusters' centroids to the parent's, averaged over the prompts",
    "density_shift": "Bray-Curtis dissimilarity of how many prompts each feature is active in",
}
"""What is measured, in the order of the table."""


@dataclass(frozen=True)
class State:
    """One version's clusters and features."""

    assignments: pl.DataFrame
    """Table `cluster_assignments`: `prompt_id`, `cluster_id`."""
    centroids: Centroids
    """Of its clusters."""
    density: pl.DataFrame
    """Table `feature_density`: `feature_id`, `n_prompts`."""


def cluster_drift(before: State, after: State) -> pl.DataFrame:
    """One row per cluster of either version, by id.

    Args:
        before: The parent.
        after: A version that continues the parent's clusters, so that ids mean the same in both.

    Returns:
        Table `cluster_drift`. `fate` is `kept`, `new` or `gone`. `n_common` prompts of the parent's cluster are in
        both versions, `n_moved` of them in another cluster now. `centroid_shift` is 1 - cosine, for kept clusters.
    """
    moves = _common(before, after)
    left = moves.group_by("cluster_id").agg(
        n_common=pl.len(), n_moved=(pl.col("cluster_id") != pl.col("cluster_after")).sum()
    )
    shares = _sizes(before, "before").join(_sizes(after, "after"), on="cluster_id", how="full", coalesce=True)
    place = {name: dict(zip(state.centroids.ids.tolist(), state.centroids.directions, strict=True))
             for name, state in (("before", before), ("after", after))}  # fmt: skip
    shifts = {
        cluster: float(np.clip(1 - float(was @ place["after"][cluster]), 0.0, 2.0))
        for cluster, was in place["before"].items()
        if cluster in place["after"]
    }
    counts = ["n_prompts_before", "n_prompts_after", "fraction_before", "fraction_after", "n_common", "n_moved"]
    return (
        shares.join(left, on="cluster_id", how="left")
        .with_columns(
            fate=pl.when(pl.col("n_prompts_before").is_null())
            .then(pl.lit("new"))
            .when(pl.col("n_prompts_after").is_null())
            .then(pl.lit("gone"))
            .otherwise(pl.lit("kept")),
            centroid_shift=pl.Series([shifts.get(cluster) for cluster in shares["cluster_id"]], dtype=pl.Float64),
        )
        .with_columns(pl.col(counts).fill_null(0))
        .with_columns(fraction_shift=pl.col("fraction_after") - pl.col("fraction_before"))
        .sort("cluster_id")
        .select(pl.col(name).cast(dtype) for name, dtype in CLUSTER_DRIFT_SCHEMA.items())
    )


def version_drift(before: State, after: State, clusters: pl.DataFrame, spec: DriftSpec) -> pl.DataFrame:
    """One row per measure, with its limit and a verdict.

    Args:
        before: The parent.
        after: A version that continues the parent's clusters.
        clusters: What `cluster_drift` returned for them.
        spec: The limits.

    Returns:
        Table `version_drift`, verdicts `steady`, `drifted` or, where there is nothing to compare, `not_measured`.
    """
    n_common = int(clusters["n_common"].sum())
    moved = float(clusters["n_moved"].sum()) / n_common if n_common else None
    kept = clusters.filter(fate="kept")
    n_kept = int(kept["n_prompts_after"].sum())
    weighted = float((kept["centroid_shift"] * kept["n_prompts_after"]).sum())
    values = {
        "moved_fraction": moved,
        "population_shift": jensen_shannon(
            clusters["fraction_before"].to_numpy(), clusters["fraction_after"].to_numpy()
        ),
        "centroid_shift": weighted / n_kept if n_kept else None,
        "density_shift": _density_shift(before, after),
    }
    return _measures(values, spec, "Not measured: the versions have nothing in common that it could be taken from.")


def no_drift(why: str, spec: DriftSpec, *, density: float | None = None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Both tables where clusters cannot be compared: no row per cluster, and measures that say why.

    Args:
        why: In a sentence.
        spec: The limits.
        density: The feature density shift, where at least the features are the same.
    """
    values = dict.fromkeys(MEANINGS) | {"density_shift": density}
    return pl.DataFrame(schema=CLUSTER_DRIFT_SCHEMA), _measures(values, spec, f"Not measured: {why}")


def density_shift(before: pl.DataFrame, n_before: int, after: pl.DataFrame, n_after: int) -> float | None:
    """Bray-Curtis dissimilarity of two versions' feature densities, 0 to 1.

    The sum over features of |after - before| over the sum of both, of the shares of the prompts in which each is
    active (Bray and Curtis, Ecological Monographs 27(4), 1957).

    Args:
        before: Table `feature_density` of one version: `feature_id`, `n_prompts`.
        n_before: Its prompts.
        after: Of the other, with the same features.
        n_after: Its prompts.

    Returns:
        The dissimilarity; None where no feature is active or there are no prompts.
    """
    if not n_before or not n_after:
        return None
    both = before.join(after, on="feature_id", suffix="_after").sort("feature_id")
    one, other = both["n_prompts"].to_numpy() / n_before, both["n_prompts_after"].to_numpy() / n_after
    total = float(np.sum(one + other))
    return float(np.sum(np.abs(one - other))) / total if total else None


def jensen_shannon(before: Doubles, after: Doubles) -> float | None:
    """Jensen-Shannon divergence of two distributions in bits, 0 to 1 (Lin, IEEE Trans. Inf. Theory 37(1), 1991).

    For small shifts it is the population stability index, the sum of (q - p) ln(q / p), over 8 ln 2; unlike that it is
    finite where a cluster is new or gone. None where one of them has no prompts.
    """
    from scipy.special import rel_entr

    if not before.sum() or not after.sum():
        return None
    middle = (before + after) / 2
    nats = (rel_entr(before, middle).sum() + rel_entr(after, middle).sum()) / 2
    return float(np.clip(nats / np.log(2), 0.0, 1.0))


def _density_shift(before: State, after: State) -> float | None:
    return density_shift(before.density, before.assignments.height, after.density, after.assignments.height)


def _common(before: State, after: State) -> pl.DataFrame:
    """The prompts of both versions with the cluster of each."""
    columns = ["prompt_id", "cluster_id"]
    return before.assignments.select(columns).join(
        after.assignments.select("prompt_id", cluster_after="cluster_id"), on="prompt_id"
    )


def _sizes(state: State, when: str) -> pl.DataFrame:
    """Prompts of every cluster, and their share."""
    counted = state.assignments.group_by("cluster_id").agg(n=pl.len())
    return counted.select(
        "cluster_id",
        pl.col("n").alias(f"n_prompts_{when}"),
        (pl.col("n") / max(state.assignments.height, 1)).alias(f"fraction_{when}"),
    )


def _measures(values: dict[str, float | None], spec: DriftSpec, otherwise: str) -> pl.DataFrame:
    """The table of measures."""
    rows = []
    for name, meaning in MEANINGS.items():
        value, limit = values[name], float(getattr(spec, f"max_{name}"))
        said = otherwise if value is None else f"{value:.3g} {meaning}; at most {limit:g} is wanted."
        verdict = "not_measured" if value is None else "steady" if value <= limit else "drifted"
        rows.append({"measure": name, "value": value, "threshold": limit, "verdict": verdict, "explanation": said})
    return pl.DataFrame(rows, schema=VERSION_DRIFT_SCHEMA)
