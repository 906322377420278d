"""The map of the clusters: prompts as points of a plane, like ones together.

Belongs here: the projection of the features that were clustered. Does not belong here: the clusters (clusters), drawing
(report).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from saerl_assets.domain.clusters import feature_weights, unit_rows
from saerl_assets.domain.features import require_finite
from saerl_assets.domain.folds import hash_fractions
from saerl_assets.domain.seeds import derive_seed
from saerl_assets.domain.threads import one_thread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from saerl_assets.domain.features import FeatureSet
    from saerl_assets.domain.spec import ClusterSpec

MAX_POINTS = 1500
"""Prompts on the map; of more an even sample, which the eye could not tell apart."""

N_COMPONENTS = 50
"""Principal directions that are kept before prompts are compared, as van der Maaten and Hinton do (section 4.2)."""

PERPLEXITY = 30.0
"""Neighbours that each prompt is placed by, about; fewer where there are few prompts."""

MIN_POINTS = 8
"""Of fewer prompts the first two principal directions are the map: they have too few neighbours to be placed by."""

N_NEIGHBOURS = 10
"""Of how many nearest prompts on the map it is asked whether they are near in the features, too."""

MAP_SCHEMA = pl.Schema({"prompt_id": pl.String(), "cluster_id": pl.UInt32(), "x": pl.Float64(), "y": pl.Float64()})


def map_prompts(
    features: FeatureSet, assignments: pl.DataFrame, spec: ClusterSpec, seed: int
) -> tuple[pl.DataFrame, float | None]:
    """Places prompts in a plane by the features that they were clustered by.

    Weighted features of length 1, their first `N_COMPONENTS` principal directions (truncated SVD), then t-SNE (van der
    Maaten and Hinton, 'Visualizing Data using t-SNE', JMLR 9, 2008), started from the first two of them, so that what
    is far apart in the whole stays so. On one thread, since it amplifies the last bits of every sum.

    Args:
        features: n prompts.
        assignments: `prompt_id` and `cluster_id` of the same prompts.
        spec: Pooling and weighting of the clustering.
        seed: Seed of the sample and of the projection.

    Returns:
        Columns `prompt_id`, `cluster_id`, `x` and `y` (both 0 to 1) of at most `MAX_POINTS` prompts with an active
        feature, by prompt; and the trustworthiness of the map, 0 to 1 (Venna and Kaski, 'Neighborhood preservation in
        nonlinear projection methods', ICANN 2001): whether neighbours on it are neighbours in the features. None of so
        few prompts that it is not defined.

    Raises:
        SaerlError: `features_not_finite`.
    """
    fractions = hash_fractions(features.prompt_ids, seed=seed, purpose="cluster_map")
    rows = np.sort(np.argsort(fractions, kind="stable")[:MAX_POINTS])
    pooled = features.csr(spec.pooling, rows)
    require_finite(pooled)
    units = unit_rows(pooled, spec.weighting, feature_weights(pooled, spec.weighting))
    active = np.flatnonzero(np.diff(units.indptr))
    if not len(active):
        return MAP_SCHEMA.to_frame(), None
    units, rows = units[active], rows[active]
    with one_thread():
        start = derive_seed(seed, "cluster_map") % 2**32
        directions = _principal(units, start)
        places = _spread(_placed(directions, start))
        trust = _trustworthiness(directions, places)
    points = pl.DataFrame(
        {"prompt_id": [features.prompt_ids[row] for row in rows], "x": places[:, 0], "y": places[:, 1]}
    )
    known = assignments.select("prompt_id", pl.col("cluster_id").cast(pl.UInt32))
    found = points.join(known, on="prompt_id", how="inner", maintain_order="left")
    return found.select(MAP_SCHEMA.names()).cast(MAP_SCHEMA), trust


def _principal(units: object, seed: int) -> NDArray[np.float64]:
    """float64 [n, <= N_COMPONENTS], at least two columns, the first ones of largest variance."""
    from sklearn.utils.extmath import randomized_svd

    n_rows, n_features = units.shape  # type: ignore[attr-defined]
    n_kept = min(N_COMPONENTS, n_rows, n_features)
    if n_rows == 1 or n_features == 1:
        return np.zeros((n_rows, 2))
    left, strengths, _ = randomized_svd(units, n_kept, random_state=seed)
    found = left.astype(np.float64) * strengths
    return np.asarray(found - found.mean(axis=0))


def _placed(directions: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """float64 [n, 2]."""
    from sklearn.manifold import TSNE

    order = np.argsort(-directions.var(axis=0), kind="stable")[:2]
    start = directions[:, order]
    spread = float(start[:, 0].std())
    if len(directions) < MIN_POINTS or not spread:
        return np.asarray(start)
    perplexity = min(PERPLEXITY, (len(directions) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init=(start / spread * 1e-4).astype(np.float32), random_state=seed, n_jobs=1)
    return np.asarray(tsne.fit_transform(directions), dtype=np.float64)


def _spread(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Both axes on the same scale, from 0 to 1 along the longer one; four digits, as fine as a map is looked at."""
    low = places.min(axis=0)
    extent = float((places.max(axis=0) - low).max()) or 1.0
    middle = (1.0 - (places.max(axis=0) - low) / extent) / 2
    return np.asarray(np.round((places - low) / extent + middle, 4))


def _trustworthiness(directions: NDArray[np.float64], places: NDArray[np.float64]) -> float | None:
    from sklearn.manifold import trustworthiness

    n_neighbours = min(N_NEIGHBOURS, (len(places) - 1) // 2)
    if n_neighbours < 1:
        return None
    return float(trustworthiness(directions, places, n_neighbors=n_neighbours))
