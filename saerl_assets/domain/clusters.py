"""Clusters of prompts that activate the same features: spherical k-means on sparse rows.

Belongs here: the number of clusters, weighting, fitting, assignment. Does not belong here: what a person
reads about a cluster (cluster_descriptions) and batches drawn from clusters (batches).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import polars as pl
from scipy import sparse

from saerl_assets.domain.features import require_finite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from saerl_assets.domain.features import FloatMatrix
    from saerl_assets.domain.spec import ClusterSpec

    Floats: TypeAlias = NDArray[np.float32]
    Doubles: TypeAlias = NDArray[np.float64]
    Labels: TypeAlias = NDArray[np.int32]

FIT_ROWS_PER_CLUSTER = 256
"""Centroids are fitted to so many prompts for each cluster at most, as faiss does
(https://github.com/facebookresearch/faiss/wiki/FAQ); every prompt is then assigned. So time is linear in the
prompts."""

SEED_ROWS_PER_CLUSTER = 50
"""The fit starts on so many prompts for each cluster at most, to try several starts at little cost."""

N_STARTS = 5
"""Three single starts in eight merged two of eight planted groups (normalised mutual information 0.91 to 0.93);
the best of five never did (0.99 and over), the best of ten was no better."""

MAX_ITERATIONS = 50

MIN_GAIN = 1e-4
"""Fitting ends when an iteration lowers the mean distance by a smaller share of itself."""

SAME_DIRECTION = 1e-6
"""Cosine distance under which two float32 rows are the same."""

BLOCK_ROWS = 4096
"""Prompts compared with all centroids at once; bounds the memory."""

ASSIGNMENTS_SCHEMA = pl.Schema({"prompt_id": pl.String, "cluster_id": pl.UInt32, "similarity": pl.Float64})


@dataclass(frozen=True)
class Clustering:
    """Clusters numbered by size, the largest first; of equal ones that with the smallest row number first."""

    assignments: Labels
    """[n_prompts] cluster of each prompt; every cluster has at least one."""
    similarity: Doubles
    """[n_prompts] cosine to the centroid of that cluster, the largest to any; 0 for a prompt without
    features."""
    centroids: Floats
    """[k, n_features] of length 1; one row of zeros if no prompt has features."""
    weights: Floats
    """[n_features] what values were multiplied by: inverse document frequencies, or ones."""
    distances: Doubles
    """[n_iterations] mean cosine distance of the fitted prompts to their centroid; never rises."""


def choose_k(k: int | Literal["auto"], n_prompts: int) -> int:
    """The number of clusters to look for, never more than prompts.

    Args:
        k: The number itself, or `auto`: the square root of half the number of prompts (a rule of thumb
            of Mardia, Kent and Bibby, Multivariate Analysis, 1979), between 2 and 1,000.
        n_prompts: Number of prompts.
    """
    wanted = min(max(round((n_prompts / 2) ** 0.5), 2), 1000) if k == "auto" else k
    return min(wanted, n_prompts)


def fit_clusters(matrix: FloatMatrix, spec: ClusterSpec, seed: int) -> Clustering:
    """Groups prompts by spherical k-means: k-means by cosine on rows of length 1.

    The algorithm is Dhillon and Modha's (Machine Learning 42, 2001), with first centroids by greedy k-means++
    (Arthur and Vassilvitskii, SODA 2007). A cluster that loses all of its prompts starts anew at the prompt
    farthest from its centroid. Where fewer than k rows differ, there are fewer clusters. A prompt without
    active features is like none; it goes to the largest cluster with similarity 0.

    Args:
        matrix: float32 [n_prompts, n_features], nothing negative.
        spec: k and the weighting of features.
        seed: Seed of the first centroids.

    Returns:
        The clustering. It depends on the rows, not on their order, which only numbers clusters of one size.

    Raises:
        SaerlError: `features_not_finite`.
    """
    require_finite(matrix)
    k = choose_k(spec.k, matrix.shape[0])
    weights = _feature_weights(matrix, spec.weighting)
    if not matrix.data.any():
        return _one_silent_cluster(matrix, weights)
    units = _unit_rows(matrix, spec.weighting, weights)
    order = _content_order(units)
    order = order[np.diff(units.indptr)[order] > 0]
    sample = units[order[: FIT_ROWS_PER_CLUSTER * k]]
    centroids = _best_start(sample[: SEED_ROWS_PER_CLUSTER * k], k, np.random.default_rng(seed))
    centroids, distances = _refine(sample, centroids)
    assignments, similarity = _assign(units, centroids)
    assignments, centroids = _number_by_size(assignments, centroids, np.diff(units.indptr) > 0)
    return Clustering(assignments, similarity, centroids, weights, distances)


def _one_silent_cluster(matrix: FloatMatrix, weights: Floats) -> Clustering:
    """All prompts together, where not one has an active feature."""
    n_prompts, n_features = matrix.shape
    return Clustering(
        assignments=np.zeros(n_prompts, dtype=np.int32),
        similarity=np.zeros(n_prompts),
        centroids=np.zeros((min(n_prompts, 1), n_features), dtype=np.float32),
        weights=weights,
        distances=np.zeros(0),
    )


def assignment_frame(clustering: Clustering, prompt_ids: Sequence[str]) -> pl.DataFrame:
    """Table `cluster_assignments`, one row per prompt in the order of `prompt_ids`."""
    return pl.DataFrame(
        {
            "prompt_id": list(prompt_ids),
            "cluster_id": clustering.assignments,
            "similarity": clustering.similarity,
        },
        schema=ASSIGNMENTS_SCHEMA,
    )


def _feature_weights(matrix: FloatMatrix, weighting: str) -> Floats:
    """log((1 + prompts) / prompts in which it is active) for `idf`, else 1; float32 [n_features].

    The inverse document frequency (Spärck Jones, J. Documentation 28(1), 1972) of a feature that fires
    everywhere is near 0, since it makes no two prompts alike; the 1 keeps it above 0, so that no row loses
    all of its features.
    """
    n_prompts, n_features = matrix.shape
    if weighting != "idf":
        return np.ones(n_features, dtype=np.float32)
    n_active = np.bincount(matrix.indices, weights=matrix.data > 0, minlength=n_features)
    return np.log((1 + n_prompts) / np.maximum(n_active, 1)).astype(np.float32)


def _unit_rows(matrix: FloatMatrix, weighting: str, weights: Floats) -> FloatMatrix:
    """Weighted rows of length 1; rows without features stay empty. float32 [n_prompts, n_features]."""
    from sklearn.preprocessing import normalize

    values = np.sqrt(matrix.data) if weighting == "sqrt" else matrix.data * weights[matrix.indices]
    units = sparse.csr_matrix((values, matrix.indices.copy(), matrix.indptr.copy()), shape=matrix.shape)
    units.eliminate_zeros()
    normalize(units, copy=False)
    return units


def _content_order(units: FloatMatrix) -> NDArray[np.int64]:
    """An order that follows from what is in the rows only, as good as random: int64 [n_prompts]."""
    directions = np.random.default_rng(0).standard_normal(units.shape[1])
    projections = np.asarray(units @ directions, dtype=np.float64)
    # Rows that differ have different projections; multiplying their bits by 2^64 / golden ratio scatters
    # close ones.
    return np.argsort(projections.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15), kind="stable")


def _best_start(units: FloatMatrix, k: int, rng: np.random.Generator) -> Floats:
    """Of several starts the one that ends nearest to its rows, refined on them; the first of equal ones."""
    starts = [_refine(units, _first_centroids(units, k, rng)) for _ in range(N_STARTS)]
    return min(starts, key=lambda start: float(start[1][-1]))[0]


def _first_centroids(units: FloatMatrix, k: int, rng: np.random.Generator) -> Floats:
    """Up to k rows that are far from one another; fewer where fewer differ. float32 [<= k, n_features]."""
    n_candidates = 2 + int(np.log(k))
    chosen = [int(rng.integers(units.shape[0]))]
    nearest = _distances(units, chosen)[0]
    while len(chosen) < k and nearest.any():
        cumulative = np.cumsum(nearest)
        draws = rng.random(n_candidates) * cumulative[-1]
        candidates = np.minimum(np.searchsorted(cumulative, draws, side="right"), len(nearest) - 1)
        distances = np.minimum(nearest, _distances(units, candidates))
        best = int(np.argmin(distances.sum(axis=1)))
        chosen.append(int(candidates[best]))
        nearest = distances[best]
    return np.asarray(units[chosen].toarray())


def _distances(units: FloatMatrix, rows: Sequence[int] | NDArray[np.int64]) -> Doubles:
    """Cosine distance of all rows to some, exactly 0 to themselves: float64 [len(rows), n_prompts]."""
    cosines = units @ np.ascontiguousarray(units[rows].toarray().T)
    distances = 1 - cosines.T.astype(np.float64)
    return np.where(distances < SAME_DIRECTION, 0.0, distances)


def _refine(units: FloatMatrix, centroids: Floats) -> tuple[Floats, Doubles]:
    """Lloyd's iterations: the centroids, and the mean distance to them after each."""
    distances: list[float] = []
    for _ in range(MAX_ITERATIONS):
        assignments, similarity = _assign(units, centroids)
        distances.append(float(1 - similarity.mean()))
        if len(distances) > 1 and distances[-2] - distances[-1] <= MIN_GAIN * distances[-2]:
            break
        centroids = _mean_directions(units, assignments, similarity, centroids)
    return centroids, np.array(distances)


def _assign(units: FloatMatrix, centroids: Floats) -> tuple[Labels, Doubles]:
    """The most similar centroid of each row, the first of equal ones, and the cosine to it."""
    columns = np.ascontiguousarray(centroids.T)
    n_rows = units.shape[0]
    assignments = np.zeros(n_rows, dtype=np.int32)
    similarity = np.zeros(n_rows)
    for start in range(0, n_rows, BLOCK_ROWS):
        # scipy's sparse product runs on one thread in a fixed order, so its bits are the same everywhere.
        cosines = units[start : start + BLOCK_ROWS] @ columns
        nearest = cosines.argmax(axis=1)
        assignments[start : start + BLOCK_ROWS] = nearest
        similarity[start : start + BLOCK_ROWS] = cosines[np.arange(len(nearest)), nearest]
    return assignments, np.clip(similarity, -1.0, 1.0)


def _mean_directions(units: FloatMatrix, assignments: Labels, similarity: Doubles, centroids: Floats) -> Floats:
    """The direction of each cluster's summed rows; an empty one gets a row far from its centroid."""
    k, n_features = centroids.shape
    sums = np.zeros((k, n_features))
    for start in range(0, units.shape[0], BLOCK_ROWS):
        block = units[start : start + BLOCK_ROWS]
        clusters = np.repeat(assignments[start : start + BLOCK_ROWS], np.diff(block.indptr))
        places = clusters.astype(np.int64) * n_features + block.indices
        np.add.at(sums.ravel(), places, block.data.astype(np.float64))
    lengths = np.sqrt((sums**2).sum(axis=1, keepdims=True))
    directions: Floats = (sums / np.maximum(lengths, np.finfo(np.float64).tiny)).astype(np.float32)
    empty = np.flatnonzero(np.bincount(assignments, minlength=k) == 0)
    farthest = np.argsort(similarity, kind="stable")[: len(empty)]
    directions[empty] = units[farthest].toarray()
    return directions


def _number_by_size(assignments: Labels, centroids: Floats, has_features: NDArray[np.bool_]) -> tuple[Labels, Floats]:
    """Clusters from the largest to the smallest, empty ones gone; rows without features go to the largest."""
    k = len(centroids)
    rows = np.flatnonzero(has_features)
    sizes = np.bincount(assignments[rows], minlength=k)
    first_row = np.full(k, len(assignments))
    np.minimum.at(first_row, assignments[rows], rows)
    order = np.lexsort((first_row, -sizes))
    order = order[sizes[order] > 0]
    number = np.zeros(k, dtype=np.int32)
    number[order] = np.arange(len(order))
    return np.where(has_features, number[assignments], 0).astype(np.int32), centroids[order]
