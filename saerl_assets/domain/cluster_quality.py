"""How good a clustering is: would another seed have found it, are its clusters even, apart, and large enough.

Belongs here: the measures and what they are held against. Does not belong here: clusters (clusters), whether they agree
with topics, which is not known of most prompts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl

from saerl_assets.domain.clusters import (
    SEED_ROWS_PER_CLUSTER,
    SILHOUETTE_ROWS,
    Clustering,
    active_rows,
    sampled_rows,
    unit_rows,
)
from saerl_assets.domain.seeds import derive_seed
from saerl_assets.domain.spherical_kmeans import cosine_distances, fit_from, nearest, silhouette

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from saerl_assets.domain.features import FeatureSet, FloatMatrix
    from saerl_assets.domain.spec import ClusterSpec

N_RESEEDS = 3
"""Fits that start elsewhere, for stability."""

MAX_STABILITY_ROWS = 4_096
"""Prompts that those fits are made on at most."""

TINY_FRACTION = 0.1
"""A cluster of fewer prompts than this share of the mean size is tiny."""

QUALITY_SCHEMA = pl.Schema(
    {
        "measure": pl.String(),
        "value": pl.Float64(),
        "threshold": pl.Float64(),
        "n_prompts": pl.UInt64(),
        "verdict": pl.String(),
        "explanation": pl.String(),
    }
)


@dataclass(frozen=True)
class _Measure:
    """A measure, its limit, and on which side of it all is well."""

    name: str
    limit: float
    side: Literal["at least", "at most"]
    meaning: str


MEASURES = (
    _Measure("stability", 0.4, "at least", "mean adjusted Rand index against fits that start from other seeds"),
    _Measure(
        "silhouette", 0.0, "at least", "mean cosine silhouette: 1 apart, 0 touching, below 0 in the wrong cluster"
    ),
    _Measure("balance", 0.7, "at least", "entropy of the clusters' shares over that of equal ones: 1 is equal"),
    _Measure("largest_fraction", 0.5, "at most", "share of the prompts in the largest cluster"),
    _Measure("tiny_fraction", 0.2, "at most", "share of the clusters that have less than a tenth of the mean size"),
)
"""What is measured. The limits are where a person should look, not where a clustering is wrong."""


def measure_clusters(clustering: Clustering, features: FeatureSet, spec: ClusterSpec, seed: int) -> pl.DataFrame:
    """One row per measure.

    Stability and silhouette are measured on a sample by hash, so that their cost is bounded. With fewer than two
    clusters there is nothing to compare, and the values are null.

    Args:
        clustering: What `fit_clusters` returned for the features.
        features: Of the prompts.
        spec: Pooling and weighting.
        seed: Seed of the sample and of the other fits.

    Returns:
        Table `cluster_quality` in the order of `MEASURES`.
    """
    sizes = np.bincount(clustering.places, minlength=1)
    k, n_prompts = len(clustering.centroids.ids), len(clustering.places)
    values: dict[str, tuple[float | None, int]] = {measure.name: (None, n_prompts) for measure in MEASURES}
    if n_prompts:
        values["largest_fraction"] = (float(sizes.max() / n_prompts), n_prompts)
        values["tiny_fraction"] = (float((sizes < TINY_FRACTION * n_prompts / max(k, 1)).mean()), n_prompts)
    if k > 1:
        shares = sizes / n_prompts
        values["balance"] = (float(-(shares * np.log(shares)).sum() / np.log(k)), n_prompts)
        n_rows = min(max(SEED_ROWS_PER_CLUSTER * k, SILHOUETTE_ROWS), MAX_STABILITY_ROWS)
        pooled = sampled_rows(features, spec, n_rows, seed)
        units = active_rows(unit_rows(pooled, spec.weighting, clustering.centroids.weights))
        places, _ = nearest(units, clustering.centroids.directions)
        values["stability"] = (_stability(units, places, k, seed), units.shape[0])
        near = units[:SILHOUETTE_ROWS]
        values["silhouette"] = (silhouette(cosine_distances(near), places[:SILHOUETTE_ROWS]), near.shape[0])
    return pl.DataFrame([_row(measure, *values[measure.name]) for measure in MEASURES], schema=QUALITY_SCHEMA)


def _stability(units: FloatMatrix, places: NDArray[np.int32], k: int, seed: int) -> float | None:
    """Mean adjusted Rand index (Hubert and Arabie, J. Classification 2, 1985) with the clusters of other fits."""
    from sklearn.metrics import adjusted_rand_score

    if units.shape[0] < 2:
        return None
    found = []
    for reseed in range(N_RESEEDS):
        rng = np.random.default_rng(derive_seed(seed, "stability", reseed))
        other, _ = nearest(units, fit_from(units, None, k, rng)[0])
        found.append(float(adjusted_rand_score(places, other)))
    return float(np.mean(found))


def _row(measure: _Measure, value: float | None, n_prompts: int) -> dict[str, object]:
    """One row of the table."""
    if value is None:
        verdict, said = "not_measured", "Not measured: it takes two clusters or more, and prompts with active features."
    else:
        good = value >= measure.limit if measure.side == "at least" else value <= measure.limit
        verdict = "good" if good else "watch"
        said = (
            f"{measure.name.replace('_', ' ')} {value:.2f}, wanted {measure.side} {measure.limit:g}: {measure.meaning}."
        )
    return {
        "measure": measure.name,
        "value": value,
        "threshold": measure.limit,
        "n_prompts": n_prompts,
        "verdict": verdict,
        "explanation": said[0].upper() + said[1:],
    }
