"""What a person reads about a cluster: the features, tokens and words that set it apart, its exemplars, its topic.

Belongs here: the statistics behind such a description. Does not belong here: the clusters themselves
(clusters).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import polars as pl
from scipy import sparse

from saerl_assets.domain.features import require_aligned

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from saerl_assets.domain.clusters import Clustering
    from saerl_assets.domain.features import FeatureSet

    Presence: TypeAlias = sparse.csr_matrix[np.int32]
    Decode: TypeAlias = Callable[[Sequence[int]], list[str]]

N_TOP = 10
"""Features and words that are named for each cluster."""

N_TOKENS = 3
"""Tokens that are named for each of its features."""

N_EXEMPLARS = 5

MAX_READ_PROMPTS = 20_000
"""Words and tokens are counted in so many prompts at most; those with the smallest ids, which are hashes."""

WORD_PATTERN = r"\p{L}{3,}"
"""A word: at least three letters of any script in a row, after lower-casing."""

MIN_LOG_LIKELIHOOD_RATIO = 3.84
"""G2 under which a difference is left unnamed: what chance exceeds in 5% of cases (chi-squared, 1 degree of
freedom)."""

CLUSTERS_SCHEMA = pl.Schema(
    {
        "cluster_id": pl.UInt32(),
        "n_prompts": pl.UInt64(),
        "prompt_fraction": pl.Float64(),
        "mean_similarity": pl.Float64(),
        "top_features": pl.List(pl.UInt32),
        "firing_tokens": pl.List(pl.String),
        "top_words": pl.List(pl.String),
        "exemplars": pl.List(pl.String),
        "top_topic": pl.String(),
        "top_topic_fraction": pl.Float64(),
    }
)


def describe_clusters(
    clustering: Clustering, features: FeatureSet, prompts: pl.DataFrame, decode: Decode
) -> pl.DataFrame:
    """One row per cluster, by id.

    Args:
        clustering: What `fit_clusters` returned for the features.
        features: Of the prompts.
        prompts: `prompt_id`, `text`, `token_ids` and `topic` of the same prompts in the same order.
        decode: The text of each of some token ids.

    Returns:
        The columns of table `clusters` that say what is in it. `firing_tokens` has an entry for each of `top_features`:
        the tokens at which it is strongest in most of the cluster's prompts, the most frequent first. Words and tokens
        are those of the first `MAX_READ_PROMPTS` prompts. `top_topic_fraction` is of those prompts of the cluster whose
        topic is known.
    """
    require_aligned(features, prompts)
    k, places = len(clustering.centroids.ids), clustering.places
    sizes = np.bincount(places, minlength=k)
    sums = np.bincount(places, weights=clustering.similarity, minlength=k)
    everything, total = np.arange(features.n_features), clustering.n_active.sum(axis=0)
    tops = [
        _most_typical(everything, counts, int(size), total, len(places))
        for counts, size in zip(clustering.n_active, sizes, strict=True)
    ]
    topics = _top_topics(places, prompts["topic"], k)
    return pl.DataFrame(
        {
            "cluster_id": clustering.centroids.ids,
            "n_prompts": sizes,
            "prompt_fraction": sizes / max(len(places), 1),
            "mean_similarity": sums / np.maximum(sizes, 1),
            "top_features": tops,
            "firing_tokens": _firing_tokens(features, places, tops, prompts["token_ids"], decode),
            "top_words": _top_words(prompts["text"].head(MAX_READ_PROMPTS), places[:MAX_READ_PROMPTS], k),
            "exemplars": [[features.prompt_ids[row] for row in rows] for rows in _nearest(clustering, k)],
            "top_topic": [topic for topic, _ in topics],
            "top_topic_fraction": [fraction for _, fraction in topics],
        },
        schema=CLUSTERS_SCHEMA,
    )


def log_likelihood_ratio(
    inside: NDArray[np.int64], n_inside: int, total: NDArray[np.int64], n_total: int
) -> NDArray[np.float64]:
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


def _most_typical(
    items: NDArray[np.int64], inside: NDArray[np.int64], n_inside: int, total: NDArray[np.int64], n_total: int
) -> list[int]:
    """The items of largest log-likelihood ratio, the first of equal ones first."""
    found = log_likelihood_ratio(inside, n_inside, total, n_total)
    order = np.argsort(-found, kind="stable")[:N_TOP]
    named: list[int] = items[order[found[order] > MIN_LOG_LIKELIHOOD_RATIO]].tolist()
    return named


def _firing_tokens(
    features: FeatureSet, places: NDArray[np.int32], tops: list[list[int]], token_ids: pl.Series, decode: Decode
) -> list[list[str]]:
    """For each cluster and each of its features the tokens at which it is strongest, one text for each feature."""
    cells = [cluster * features.n_features + feature for cluster, top in enumerate(tops) for feature in top]
    wanted = np.array(sorted(cells), dtype=np.int64)
    counts: dict[int, Counter[int]] = {cell: Counter() for cell in cells}
    start = 0
    for rows in features.activations(("argmax_token",)):
        if start >= MAX_READ_PROMPTS or not cells:
            break
        entry_row = rows.rows()
        entry_cell = places[start + entry_row].astype(np.int64) * features.n_features + rows.feature_ids
        hits = np.flatnonzero(np.isin(entry_cell, wanted))
        read = token_ids.slice(start, len(rows.prompt_ids))
        lengths = read.list.len().to_numpy().astype(np.int64)
        flat = read.explode(empty_as_null=False).to_numpy()
        first = np.concatenate([[0], np.cumsum(lengths)])
        tokens = flat[first[entry_row[hits]] + rows.argmax_token[hits]]
        for cell, token in zip(entry_cell[hits].tolist(), tokens.tolist(), strict=True):
            counts[cell][token] += 1
        start += len(rows.prompt_ids)
    known = sorted({token for counter in counts.values() for token in counter})
    said = dict(zip(known, decode(known), strict=True)) if known else {}
    texts = {cell: ", ".join(_most_frequent(counter, said)) for cell, counter in counts.items()}
    return [[texts[cluster * features.n_features + feature] for feature in top] for cluster, top in enumerate(tops)]


def _most_frequent(counter: Counter[int], said: dict[int, str]) -> list[str]:
    """Texts of the most frequent tokens; those that differ in the space around them alone are one."""
    texts: Counter[str] = Counter()
    for token, n in counter.items():
        texts[said[token].strip() or repr(said[token])] += n
    return [text for text, _ in sorted(texts.items(), key=lambda item: (-item[1], item[0]))[:N_TOKENS]]


def _top_words(texts: pl.Series, places: NDArray[np.int32], k: int) -> list[list[str]]:
    """For each cluster the words of largest log-likelihood ratio, the first of the alphabet first of equal ones."""
    presence, vocabulary = _word_presence(texts)
    n_prompts = len(places)
    ones = np.ones(n_prompts, dtype=np.int32)
    counts = sparse.csr_matrix((ones, (places, np.arange(n_prompts))), shape=(k, n_prompts)) @ presence
    counts.sort_indices()
    total = np.bincount(presence.indices, minlength=presence.shape[1])
    sizes = np.bincount(places, minlength=k)
    found = []
    for cluster in range(k):
        entries = slice(counts.indptr[cluster], counts.indptr[cluster + 1])
        items, inside = counts.indices[entries].astype(np.int64), counts.data[entries].astype(np.int64)
        named = _most_typical(items, inside, int(sizes[cluster]), total[items], n_prompts)
        found.append([vocabulary[word] for word in named])
    return found


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
    order = np.lexsort((-clustering.similarity, clustering.places))
    starts = np.searchsorted(clustering.places[order], np.arange(k + 1))
    return [order[starts[i] : starts[i + 1]][:N_EXEMPLARS] for i in range(k)]


def _top_topics(places: NDArray[np.int32], topics: pl.Series, k: int) -> list[tuple[str | None, float | None]]:
    """The most frequent topic of each cluster, by alphabet if equal, and its share of known topics."""
    found: list[tuple[str | None, float | None]] = [(None, None)] * k
    counts = (
        pl.DataFrame({"cluster": places, "topic": topics})
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
