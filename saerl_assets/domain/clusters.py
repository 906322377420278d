"""Clusters of prompts that activate the same features, and how they keep their names from version to version.

Belongs here: the number of clusters, weighting of features, fitting on a sample, assigning every prompt, ids. Does not
belong here: the iterations (spherical_kmeans), what a person reads about a cluster (cluster_descriptions), how good a
clustering is (cluster_quality), how it differs from the parent's (drift), batches drawn from clusters (batches).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
import polars as pl
from scipy import sparse

from saerl_assets.domain.features import require_finite
from saerl_assets.domain.folds import hash_fractions
from saerl_assets.domain.spherical_kmeans import best_start, cosine_distances, fit_from, nearest, refine, silhouette

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from saerl_assets.domain.features import FeatureSet, FloatMatrix
    from saerl_assets.domain.spec import ClusterSpec, Pooling, Weighting

    Floats: TypeAlias = NDArray[np.float32]
    Doubles: TypeAlias = NDArray[np.float64]
    Labels: TypeAlias = NDArray[np.int32]
    Integers: TypeAlias = NDArray[np.int64]

FIT_ROWS_PER_CLUSTER = 256
"""Centroids are fitted to so many prompts for each cluster at most, as faiss does
(https://github.com/facebookresearch/faiss/wiki/FAQ); every prompt is then assigned."""

MAX_FIT_ROWS = 65_536
"""And to so many in all, which bounds the memory: with 700 active features in a prompt they take half a gigabyte."""

SEED_ROWS_PER_CLUSTER = 50
"""The fit starts on so many prompts for each cluster at most, to try several starts at little cost."""

MAX_AUTO = 256
"""`auto` looks for so many clusters at most, so that time is linear in the prompts where there are many."""

SILHOUETTE_ROWS = 2_000
"""Prompts that a silhouette is measured on; its cost grows with their square."""

N_CHOICE_STARTS = 3
"""Starts for each number of clusters that `auto` tries."""

ADDED = (1, 2, 4, 8)
"""Clusters that `auto` tries to add at once to those that there are."""

MAX_ADDITIONS = 3
"""How often it does."""

MIN_SILHOUETTE_GAIN = 0.01
"""Clusters are added only where they raise the silhouette by so much."""

ASSIGNMENTS_SCHEMA = pl.Schema({"prompt_id": pl.String, "cluster_id": pl.UInt32, "similarity": pl.Float64})


class PooledRows(Protocol):
    """A row of numbers for every prompt, which is all that clusters are made of: a `FeatureSet`, or dense states."""

    @property
    def prompt_ids(self) -> list[str]:
        """The prompts, sorted; row i of every matrix is `prompt_ids[i]`."""

    def csr(self, pooling: Pooling, rows: NDArray[np.int64] | None = None, /) -> FloatMatrix:
        """Pooled rows, all or those of some ascending numbers: float32 [n, n_features]."""

    def blocks(self, pooling: Pooling, /) -> Iterator[tuple[int, FloatMatrix]]:
        """All prompts, block after block: the number of a block's first row, and its matrix."""


@dataclass(frozen=True)
class Centroids:
    """What is kept of a clustering, so that a later version can continue it."""

    ids: Integers
    """[k] cluster ids, ascending."""
    directions: Floats
    """[k, n_features] of length 1; one row of zeros if no prompt has features."""
    weights: Floats
    """[n_features] what values are multiplied by: inverse document frequencies, or ones."""
    next_id: int
    """The first id that no cluster has had yet, in this version or in those that it continues."""


@dataclass(frozen=True)
class Clustering:
    """Every prompt in one cluster. Clusters are rows of `centroids`; `centroids.ids` are their names."""

    centroids: Centroids
    places: Labels
    """[n_prompts] row of the cluster of each prompt; every cluster has at least one prompt."""
    similarity: Doubles
    """[n_prompts] cosine to the centroid of that cluster; 0 for a prompt without features."""
    n_active: Integers
    """[k, n_features] prompts of each cluster in which each feature is active."""
    distances: Doubles
    """[n_iterations] mean cosine distance of the fitted prompts to the nearest centroid; never rises."""


def candidates(k: int | str, n_prompts: int, n_inherited: int = 0) -> list[int]:
    """The numbers of clusters to start with that come into question, ascending, never more than prompts.

    Args:
        k: The number itself, or `auto`: seven numbers around the square root of half the number of prompts (a rule of
            thumb of Mardia, Kent and Bibby, Multivariate Analysis, 1979), from a quarter of it to twice as many,
            between 2 and `MAX_AUTO`; for a version that continues another, as many clusters as that has.
        n_prompts: Number of prompts.
        n_inherited: Clusters of the version that this one continues.
    """
    if k != "auto":
        wanted = [int(k)]
    elif n_inherited:
        wanted = [n_inherited]
    else:
        rule = (n_prompts / 2) ** 0.5
        wanted = [min(max(round(rule * 2 ** (step / 2)), 2), MAX_AUTO) for step in range(-4, 3)]
    return sorted({min(number, max(n_prompts, 1)) for number in wanted})


def fit_clusters(features: PooledRows, spec: ClusterSpec, seed: int, parent: Centroids | None = None) -> Clustering:
    """Groups prompts by spherical k-means on their weighted features.

    Centroids are fitted to a sample by the hash of the prompt; then all prompts are assigned block by block, so that
    memory does not grow with their number. Where `k` is `auto`, several numbers of clusters are tried on
    `SILHOUETTE_ROWS` of the sample, and the one with the largest silhouette is taken; then clusters are added as long
    as that raises it. A child does the second alone, so that prompts of the parent's kinds leave it with the parent's
    clusters, and another kind gets one of its own.

    Without a parent the fit starts anew, and clusters are numbered from the largest to the smallest, of equal ones that
    with the first prompt first. With one it starts from the parent's centroids under the parent's feature weights:
    cluster i of this version is what has become of cluster i of the parent's. More clusters than the parent's are
    started far from all of these and get ids that were never used before; fewer keep those with the most prompts. A
    parent's cluster without prompts is gone, and so is its id.

    A cluster of fewer than `min_prompts` prompts is dissolved: they go to the nearest of the others (all to the largest
    if all are as small). Where fewer than k prompts differ, there are fewer clusters. A prompt without active features
    is like none; it goes to the largest cluster with similarity 0. Of no prompts there are no clusters.

    Args:
        features: n prompts.
        spec: k, pooling, weighting and the smallest cluster.
        seed: Seed of the sample and of the first centroids.
        parent: Centroids to start from, of the same features, pooling and weighting.

    Raises:
        SaerlError: `features_not_finite`.
    """
    if parent is not None and not parent.directions.any():
        parent = None  # of prompts without features; there is nothing to continue
    numbers = candidates(spec.k, len(features.prompt_ids), len(parent.ids) if parent else 0)
    pooled = sampled_rows(features, spec, min(FIT_ROWS_PER_CLUSTER * max(numbers), MAX_FIT_ROWS), seed)
    weights = feature_weights(pooled, spec.weighting) if parent is None else parent.weights
    units = active_rows(unit_rows(pooled, spec.weighting, weights))
    del pooled
    rng = np.random.default_rng(seed)
    if units.shape[0]:
        directions, distances, inherited = _fit(units, numbers, rng, parent, is_auto=spec.k == "auto")
    else:  # not one sampled prompt has an active feature
        directions, distances = np.zeros((1, units.shape[1]), dtype=np.float32), np.zeros(0)
        inherited = np.zeros(0, dtype=np.int64)
    places, similarity, n_active = _assign(features, spec, weights, directions)
    places = _dissolve_tiny(features, spec, weights, directions, places, similarity, n_active)
    order, ids, next_id = _name(places, inherited, parent.next_id if parent else 0, len(directions))
    number = np.full(len(directions) + 1, order[0] if len(order) else 0, dtype=np.int32)
    number[order] = np.arange(len(order))
    silent_home = int(np.argmax(np.bincount(number[places[places >= 0]], minlength=1))) if len(places) else 0
    number[-1] = silent_home  # the place -1 of a prompt without features
    return Clustering(
        Centroids(ids, directions[order], weights, next_id), number[places], similarity, n_active[order], distances
    )


def assignment_frame(clustering: Clustering, features: FeatureSet) -> pl.DataFrame:
    """Table `cluster_assignments`, one row per prompt in the order of the features."""
    return pl.DataFrame(
        {
            "prompt_id": features.prompt_ids,
            "cluster_id": clustering.centroids.ids[clustering.places],
            "similarity": clustering.similarity,
        },
        schema=ASSIGNMENTS_SCHEMA,
    )


def sampled_rows(features: PooledRows, spec: ClusterSpec, n_rows: int, seed: int) -> FloatMatrix:
    """Pooled features of the prompts that come first by hash, in that order: float32 [<= n_rows, n_features].

    Raises:
        SaerlError: `features_not_finite`.
    """
    fractions = hash_fractions(features.prompt_ids, seed=seed, purpose="clusters")
    first = np.argsort(fractions, kind="stable")[:n_rows]
    ascending = np.sort(first)
    pooled = features.csr(spec.pooling, ascending)
    require_finite(pooled)
    return pooled[np.searchsorted(ascending, first)]


def feature_weights(pooled: FloatMatrix, weighting: Weighting) -> Floats:
    """log((1 + prompts) / prompts in which it is active) for `idf`, else 1; float32 [n_features].

    The inverse document frequency (Spärck Jones, J. Documentation 28(1), 1972) of a feature that fires
    everywhere is near 0, since it makes no two prompts alike; the 1 keeps it above 0, so that no row loses
    all of its features.
    """
    n_prompts, n_features = pooled.shape
    if weighting not in ("idf", "sqrt_idf"):
        return np.ones(n_features, dtype=np.float32)
    n_active = np.bincount(pooled.indices[pooled.data > 0], minlength=n_features)
    return np.log((1 + n_prompts) / np.maximum(n_active, 1)).astype(np.float32)


def unit_rows(pooled: FloatMatrix, weighting: Weighting, weights: Floats) -> FloatMatrix:
    """Weighted rows of length 1; rows without features stay empty. float32 [n_prompts, n_features]."""
    from sklearn.preprocessing import normalize

    values = np.sqrt(pooled.data) if weighting in ("sqrt", "sqrt_idf") else pooled.data
    if weighting in ("idf", "sqrt_idf"):
        values = values * weights[pooled.indices]
    units = sparse.csr_matrix((values, pooled.indices, pooled.indptr), shape=pooled.shape, copy=True)
    units.eliminate_zeros()
    return normalize(units, copy=False) if units.nnz else units


def active_rows(units: FloatMatrix) -> FloatMatrix:
    """The rows that have an entry."""
    return units[np.diff(units.indptr) > 0]


class _Choice:
    """How far apart clusters of a few rows are, for one number of clusters or another."""

    def __init__(self, units: FloatMatrix, rng: np.random.Generator) -> None:
        self._near, self._rng = units[:SILHOUETTE_ROWS], rng
        self._distances = cosine_distances(self._near)

    def silhouette(self, start: Floats) -> float:
        """Of a fit from these centroids; the worst there is where nothing can be compared."""
        directions, _ = refine(self._near, start, n_inherited=len(start))
        found = silhouette(self._distances, nearest(self._near, directions)[0])
        return -1.0 if found is None else found

    def best(self, numbers: list[int], given: Floats | None = None) -> tuple[int, float]:
        """The number of the largest silhouette over a few fits, of equal ones the smallest, and that silhouette."""
        found = [
            max(self.silhouette(fit_from(self._near, given, k, self._rng)[0]) for _ in range(N_CHOICE_STARTS))
            for k in numbers
        ]
        best = int(np.argmax(found))
        return numbers[best], found[best]


def _fit(
    units: FloatMatrix, numbers: list[int], rng: np.random.Generator, parent: Centroids | None, *, is_auto: bool
) -> tuple[Floats, Doubles, Integers]:
    """Centroids, the inherited ones first; the mean distances of the last refinement; the ids of the inherited."""
    choice = _Choice(units, rng) if is_auto and units.shape[0] > 2 else None
    k = choice.best(numbers)[0] if choice and len(numbers) > 1 else numbers[0]
    start, inherited = _start(units, k, rng, parent)
    for _ in range(MAX_ADDITIONS):
        if choice is None:
            break
        k, found = choice.best([len(start) + more for more in ADDED], start)
        if found <= choice.silhouette(start) + MIN_SILHOUETTE_GAIN:
            break
        start = best_start(units[: SEED_ROWS_PER_CLUSTER * k], k, rng, start)
    directions, distances = refine(units, start, n_inherited=len(inherited))
    return directions, distances, inherited


def _start(units: FloatMatrix, k: int, rng: np.random.Generator, parent: Centroids | None) -> tuple[Floats, Integers]:
    """Centroids to start from, the inherited ones first, and the ids of those."""
    if parent is None:
        return best_start(units[: SEED_ROWS_PER_CLUSTER * k], k, rng), np.zeros(0, dtype=np.int64)
    ids, directions = parent.ids, parent.directions
    if k < len(ids):
        sizes = np.bincount(nearest(units, directions)[0], minlength=len(ids))
        kept = np.sort(np.argsort(-sizes, kind="stable")[:k])
        ids, directions = ids[kept], directions[kept]
    return best_start(units[: SEED_ROWS_PER_CLUSTER * k], k, rng, directions), ids


def _assign(
    features: PooledRows, spec: ClusterSpec, weights: Floats, directions: Floats
) -> tuple[Labels, Doubles, Integers]:
    """The nearest centroid of every prompt (-1 where no feature is active), the cosine to it, and active features."""
    n_prompts = len(features.prompt_ids)
    places = np.full(n_prompts, -1, dtype=np.int32)
    similarity = np.zeros(n_prompts)
    n_active = np.zeros(directions.shape, dtype=np.int64)
    for start, pooled in features.blocks(spec.pooling):
        require_finite(pooled, start)
        units = unit_rows(pooled, spec.weighting, weights)
        rows = np.flatnonzero(np.diff(units.indptr) > 0)
        found, cosines = nearest(units, directions)
        places[start + rows], similarity[start + rows] = found[rows], cosines[rows]
        n_active += active_counts(units, found, len(directions))
    return places, similarity, n_active


def active_counts(units: FloatMatrix, places: Labels, k: int) -> Integers:
    """Rows of each cluster in which each feature is active: int64 [k, n_features]."""
    n_features = units.shape[1]
    cells = np.repeat(places.astype(np.int64) * n_features, np.diff(units.indptr)) + units.indices
    return np.bincount(cells, minlength=k * n_features).reshape(k, n_features)


def _dissolve_tiny(
    features: PooledRows,
    spec: ClusterSpec,
    weights: Floats,
    directions: Floats,
    places: Labels,
    similarity: Doubles,
    n_active: Integers,
) -> Labels:
    """Moves the prompts of clusters that are too small to the nearest of the others; changes the last two in place."""
    sizes = np.bincount(places[places >= 0], minlength=len(directions))
    kept = np.flatnonzero(sizes >= spec.min_prompts)
    kept = kept if len(kept) else np.array([int(np.argmax(sizes))])
    moved = np.flatnonzero((places >= 0) & ~np.isin(places, kept))
    if len(moved) == 0:
        return places
    units = unit_rows(features.csr(spec.pooling, moved), spec.weighting, weights)
    found, cosines = nearest(units, directions[kept])
    n_active[kept] += active_counts(units, found, len(kept))
    places = places.copy()
    places[moved], similarity[moved] = kept[found], cosines
    return places


def _name(places: Labels, inherited: Integers, next_id: int, k: int) -> tuple[Integers, Integers, int]:
    """Which clusters there are, with their ids: the inherited ones as before, then new ones by size.

    Returns:
        int64 [m] rows of the centroids; int64 [m] ids; the next id that is free.
    """
    rows = np.flatnonzero(places >= 0)
    sizes = np.bincount(places[rows], minlength=k)
    if len(places) == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), next_id
    if len(rows) == 0:
        return np.zeros(1, dtype=np.int64), np.array([next_id]), next_id + 1
    first_row = np.full(k, len(places))
    np.minimum.at(first_row, places[rows], rows)
    old = np.flatnonzero(sizes[: len(inherited)] > 0)
    new = np.lexsort((first_row, -sizes))
    new = new[(sizes[new] > 0) & (new >= len(inherited))]
    ids = np.concatenate([inherited[old], next_id + np.arange(len(new))])
    return np.concatenate([old, new]), ids, next_id + len(new)
