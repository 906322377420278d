"""Pairs of prompts in which nearly the same features fire: nearest neighbours in SAE space.

Belongs here: cosine similarity of pooled features, and where neighbours are looked for. Does not belong here: overlap
of texts (text_pairs).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from scipy import sparse

from saerl_assets.domain.features import require_finite
from saerl_assets.domain.pairs import members_of, pair_frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from saerl_assets.domain.features import FeatureSet, FloatMatrix
    from saerl_assets.domain.progress import Progress
    from saerl_assets.domain.spec import Pooling

MAX_COMPARED = 2_000
"""So many prompts are all held against each other. Where more could be the same problem, each is held against those of
its own cluster; where a cluster has more, against those about as near to its centroid, which copies are."""
GATHERED_ROWS = 20_000
"""Rows of features in memory at once: 130 MB at 800 features a prompt."""
SMALL_CROWD = 16
"""Up to so many prompts, all pairs are gone through one by one instead of as a product of matrices."""
N_NEIGHBOURS = 10
"""Nearest neighbours of a prompt that are kept: what makes the pairs grow with the prompts and not their square."""


def feature_pairs(
    features: FeatureSet,
    keys: NDArray[np.int64],
    clusters: NDArray[np.int64],
    centroid_similarity: NDArray[np.float64],
    *,
    pooling: Pooling,
    min_similarity: float,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Pairs of prompts whose features are nearly parallel.

    Args:
        features: Of the n prompts, in the order of all other arguments.
        keys: int64 [n], the problem that each could be, see `pairs.problem_keys`.
        clusters: int64 [n], the cluster of each.
        centroid_similarity: float64 [n], its cosine to the cluster's centroid.
        pooling: How a prompt's tokens become one value per feature.
        min_similarity: Least cosine of a pair, above 0 to 1.
        progress: Told after each block of prompts.

    Returns:
        `first`, `second` (rows, the first below the second) and `similarity`, by row. A prompt without an active
        feature has no neighbour. Time is linear in the prompts that share a key: each is held against MAX_COMPARED
        others at most.

    Raises:
        SaerlError: `features_not_finite`.
    """
    crowds = _crowds(keys, clusters, centroid_similarity)
    found = [pair_frame([], [], similarity=[])]
    n_seen, n_rows = 0, sum(len(crowd) for crowd in crowds)
    for part in _parts(crowds):
        rows = np.unique(np.concatenate(part))
        matrix = unit_rows(features.csr(pooling, rows), int(rows[0]))
        for first, second, similarity in _near(matrix, [np.searchsorted(rows, crowd) for crowd in part]):
            near = similarity >= min_similarity
            kept = np.flatnonzero(near)[_nearest(first[near], second[near], similarity[near])]
            found.append(pair_frame(rows[first[kept]], rows[second[kept]], similarity=similarity[kept]))
        n_seen += sum(len(crowd) for crowd in part)
        if progress is not None:
            progress(n_seen, n_rows, unit="prompts", note="neighbours")
    return pl.concat(found).group_by("first", "second").agg(pl.col("similarity").max()).sort("first", "second")


def cosines(
    features: FeatureSet, first: NDArray[np.int64], second: NDArray[np.int64], *, pooling: Pooling
) -> NDArray[np.float64]:
    """Cosine of the features of pairs of prompts, float64 [n_pairs], 0 where one has none active."""
    found = np.zeros(len(first))
    for start in range(0, len(first), GATHERED_ROWS // 2):
        block = slice(start, start + GATHERED_ROWS // 2)
        rows = np.unique(np.concatenate([first[block], second[block]]))
        matrix = unit_rows(features.csr(pooling, rows), int(rows[0]))
        found[block] = _products(matrix, np.searchsorted(rows, first[block]), np.searchsorted(rows, second[block]))
    return found


def unit_rows(matrix: FloatMatrix, first_row: int = 0) -> FloatMatrix:
    """The rows scaled to length 1; those of zeros stay as they are.

    Raises:
        SaerlError: `features_not_finite`.
    """
    require_finite(matrix, first_row)
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1), dtype=np.float64)).ravel()
    scales = sparse.diags_array((1.0 / np.where(lengths > 0, lengths, 1.0)).astype(np.float32))
    scaled: FloatMatrix = sparse.csr_matrix(scales @ matrix)
    return scaled


def _crowds(
    keys: NDArray[np.int64], clusters: NDArray[np.int64], centroid_similarity: NDArray[np.float64]
) -> list[NDArray[np.int64]]:
    """Rows that are all held against each other, at most MAX_COMPARED each."""
    crowds = []
    for rows in members_of(keys):
        if len(rows) <= MAX_COMPARED:
            crowds.append(rows)
            continue
        for places in members_of(clusters[rows]):
            members = rows[places]
            by_nearness = members[np.lexsort([members, -centroid_similarity[members]])]
            # Windows that overlap by half: neighbours in this order meet in one of them.
            starts = range(0, max(len(members) - MAX_COMPARED // 2, 1), MAX_COMPARED // 2)
            crowds += [by_nearness[start : start + MAX_COMPARED] for start in starts]
    return crowds


def _parts(crowds: list[NDArray[np.int64]]) -> Iterator[list[NDArray[np.int64]]]:
    """Crowds whose features are in memory together."""
    part: list[NDArray[np.int64]] = []
    n_rows = 0
    for crowd in crowds:
        if part and n_rows + len(crowd) > GATHERED_ROWS:
            yield part
            part, n_rows = [], 0
        part.append(crowd)
        n_rows += len(crowd)
    if part:
        yield part


def _near(
    matrix: FloatMatrix, crowds: list[NDArray[np.int64]]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]:
    """All pairs of rows of length 1 within each crowd with their cosines, those that share no feature left out."""
    small = [crowd for crowd in crowds if len(crowd) <= SMALL_CROWD]
    if small:
        pairs = [crowd[np.column_stack(np.triu_indices(len(crowd), k=1))] for crowd in small]
        first, second = np.concatenate(pairs).T
        yield first, second, _products(matrix, first, second)
    for crowd in crowds:
        if len(crowd) > SMALL_CROWD:
            own = matrix[crowd]
            products = sparse.triu(own @ own.T, k=1).tocoo()
            yield crowd[products.row], crowd[products.col], np.minimum(products.data.astype(np.float64), 1.0)


def _products(matrix: FloatMatrix, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.float64]:
    """Cosines of pairs of rows of length 1."""
    found = np.zeros(len(first))
    for start in range(0, len(first), GATHERED_ROWS):
        block = slice(start, start + GATHERED_ROWS)
        found[block] = np.asarray(matrix[first[block]].multiply(matrix[second[block]]).sum(axis=1)).ravel()
    return np.minimum(found, 1.0)


def _nearest(first: NDArray[np.int64], second: NDArray[np.int64], similarity: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The pairs in which one of the two is among the N_NEIGHBOURS nearest before or after the other, bool [n_pairs]."""
    is_kept = np.zeros(len(similarity), dtype=np.bool_)
    for own, other in ((first, second), (second, first)):
        order = np.lexsort([other, -similarity, own])
        place = np.arange(len(order)) - np.searchsorted(own[order], own[order])
        is_kept[order[place < N_NEIGHBOURS]] = True
    return is_kept
