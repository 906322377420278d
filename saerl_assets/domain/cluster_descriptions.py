"""What a person reads about a cluster: the features and words that set it apart, its exemplars, its topic.

Belongs here: the statistics behind such a description. Does not belong here: the clusters themselves
(clusters).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import polars as pl
from scipy import sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from saerl_assets.domain.clusters import Clustering
    from saerl_assets.domain.features import FloatMatrix

    Presence: TypeAlias = sparse.csr_matrix[np.int32]

N_TOP = 10
"""Features and words that are named for each cluster."""

N_EXEMPLARS = 5

WORD_PATTERN = r"\p{L}{3,}"
"""A word: at least three letters of any script in a row, after lower-casing."""

MIN_EVIDENCE = 3.84
"""G2 under which a difference is left unnamed: what chance exceeds in 5% of cases (chi-squared, 1 degree of
freedom)."""

CLUSTERS_SCHEMA = pl.Schema(
    {
        "cluster_id": pl.UInt32(),
        "n_prompts": pl.UInt64(),
        "prompt_fraction": pl.Float64(),
        "mean_similarity": pl.Float64(),
        "top_features": pl.List(pl.UInt32),
        "top_words": pl.List(pl.String),
        "exemplars": pl.List(pl.String),
        "top_topic": pl.String(),
        "top_topic_fraction": pl.Float64(),
    }
)


def describe_clusters(clustering: Clustering, matrix: FloatMatrix, prompts: pl.DataFrame) -> pl.DataFrame:
    """One row per cluster, largest first.

    Args:
        clustering: What `fit_clusters` returned for the matrix.
        matrix: float32 [n_prompts, n_features].
        prompts: `prompt_id`, `text` and `topic` of the same prompts in the same order.

    Returns:
        Table `clusters` without `centroids_digest` and `centroids_path`. `top_topic_fraction` is of those
        prompts of the cluster whose topic is known.
    """
    k = len(clustering.centroids)
    sizes = np.bincount(clustering.assignments, minlength=k)
    sums = np.bincount(clustering.assignments, weights=clustering.similarity, minlength=k)
    words, vocabulary = _word_presence(prompts["text"])
    topics = _top_topics(clustering.assignments, prompts["topic"], k)
    names = prompts["prompt_id"].to_list()
    return pl.DataFrame(
        {
            "cluster_id": np.arange(k),
            "n_prompts": sizes,
            "prompt_fraction": sizes / max(len(names), 1),
            "mean_similarity": sums / np.maximum(sizes, 1),
            "top_features": _distinctive(_feature_presence(matrix), clustering.assignments, k),
            "top_words": [[vocabulary[word] for word in top] for top in _distinctive(words, clustering.assignments, k)],
            "exemplars": [[names[row] for row in rows] for rows in _nearest(clustering, k)],
            "top_topic": [topic for topic, _ in topics],
            "top_topic_fraction": [fraction for _, fraction in topics],
        },
        schema=CLUSTERS_SCHEMA,
    )


def evidence(inside: NDArray[np.int64], n_inside: int, total: NDArray[np.int64], n_total: int) -> NDArray[np.float64]:
    """How surely items occur in a larger share of a cluster's prompts than of the other prompts.

    The log-likelihood ratio G2 = 2 sum O ln(O / E) over the four cells of cluster x occurrence (Dunning,
    'Accurate methods for the statistics of surprise and coincidence', Computational Linguistics 19(1), 1993),
    which, unlike a ratio of shares, needs no smoothing and holds for rare items; 0 where the cluster's share
    is not the larger one.

    Args:
        inside: int64 [n_items], prompts of the cluster that have the item.
        n_inside: Prompts of the cluster.
        total: int64 [n_items], prompts that have it, in all.
        n_total: Prompts in all.

    Returns:
        float64 [n_items], at least 0.
    """
    from scipy.special import rel_entr

    outside, n_outside = total - inside, n_total - n_inside
    ratio = np.zeros(len(inside))
    for observed, size in ((inside, n_inside), (outside, n_outside)):
        for cell, margin in ((observed, total), (size - observed, n_total - total)):
            ratio += 2 * rel_entr(cell, margin * (size / n_total))
    return np.where(inside * n_outside > outside * n_inside, ratio, 0.0)


def _distinctive(presence: Presence, assignments: NDArray[np.int32], k: int) -> list[list[int]]:
    """For each cluster the items of largest evidence, the lower number first of equal ones."""
    n_prompts = len(assignments)
    members = sparse.csr_matrix(
        (np.ones(n_prompts, dtype=np.int32), (assignments, np.arange(n_prompts))), shape=(k, n_prompts)
    )
    counts = members @ presence
    counts.sort_indices()
    total = np.bincount(presence.indices, minlength=presence.shape[1])
    sizes = np.bincount(assignments, minlength=k)
    tops = []
    for cluster in range(k):
        entries = slice(counts.indptr[cluster], counts.indptr[cluster + 1])
        items, inside = counts.indices[entries], counts.data[entries].astype(np.int64)
        found = evidence(inside, int(sizes[cluster]), total[items], n_prompts)
        order = np.argsort(-found, kind="stable")[:N_TOP]
        tops.append(items[order[found[order] > MIN_EVIDENCE]].tolist())
    return tops


def _feature_presence(matrix: FloatMatrix) -> Presence:
    """1 where a feature is active: int32 [n_prompts, n_features]."""
    active = (matrix.data > 0).astype(np.int32)
    presence = sparse.csr_matrix((active, matrix.indices, matrix.indptr), shape=matrix.shape, copy=True)
    presence.eliminate_zeros()
    return presence


def _word_presence(texts: pl.Series) -> tuple[Presence, list[str]]:
    """1 where a prompt has a word, int32 [n_prompts, n_words], and the words in alphabetical order."""
    pairs = (
        texts.to_frame("text")
        .with_row_index("row")
        .select("row", word=pl.col("text").str.to_lowercase().str.extract_all(WORD_PATTERN).list.unique())
        .explode("word")
        .drop_nulls("word")
        .with_columns(column=pl.col("word").rank("dense") - 1)
    )
    vocabulary = pairs["word"].unique().sort().to_list()
    ones = np.ones(len(pairs), dtype=np.int32)
    places = (pairs["row"].to_numpy(), pairs["column"].to_numpy())
    return sparse.csr_matrix((ones, places), shape=(len(texts), len(vocabulary))), vocabulary


def _nearest(clustering: Clustering, k: int) -> list[NDArray[np.int64]]:
    """The rows nearest to each cluster's centroid, the first of equal ones first."""
    order = np.lexsort((-clustering.similarity, clustering.assignments))
    starts = np.searchsorted(clustering.assignments[order], np.arange(k + 1))
    return [order[starts[i] : starts[i + 1]][:N_EXEMPLARS] for i in range(k)]


def _top_topics(assignments: NDArray[np.int32], topics: pl.Series, k: int) -> list[tuple[str | None, float | None]]:
    """The most frequent topic of each cluster, by alphabet if equal, and its share of known topics."""
    found: list[tuple[str | None, float | None]] = [(None, None)] * k
    counts = (
        pl.DataFrame({"cluster": assignments, "topic": topics})
        .drop_nulls("topic")
        .group_by("cluster", "topic")
        .len()
        .with_columns(fraction=pl.col("len") / pl.col("len").sum().over("cluster"))
        .sort("cluster", "fraction", "topic", descending=[False, True, False])
        .unique("cluster", keep="first", maintain_order=True)
    )
    for cluster, topic, fraction in counts.select("cluster", "topic", "fraction").iter_rows():
        found[cluster] = (topic, fraction)
    return found
