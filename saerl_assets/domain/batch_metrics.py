"""What the batches of a manifest are like: how diverse, how alike inside, how hard, how good.

Belongs here: one row of figures per batch of every arm. Does not belong here: making batches (batches),
charts (report).

Features are read for the prompts that are compared only, so that memory does not grow with the prompts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import polars as pl
from scipy import sparse

from saerl_assets.domain.seeds import derive_seed, random_words

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from saerl_assets.domain.features import FeatureSet, FloatMatrix

    IntArray: TypeAlias = NDArray[np.int64]

MAX_COMPARED = 64
"""Prompts of a batch that are compared with one another; of a larger batch, so many chosen by hash."""

MAX_PROMPTS_READ = 65_536
"""Where more prompts are in a manifest, every so many batches of each arm are compared, about so many prompts in all:
with 700 active features each they take half a gigabyte."""

_BATCH = ["manifest_id", "arm", "epoch", "step"]
_ENTRIES_AT_ONCE = 4_000_000
_COLUMNS_AT_ONCE = 16_000_000
"""Non-zeros and columns of what is multiplied at once: some hundred MB of work space."""


def batch_metrics(
    manifest: pl.DataFrame, features: FeatureSet, quality: pl.DataFrame, max_prompts_read: int = MAX_PROMPTS_READ
) -> pl.DataFrame:
    """Measures every batch of every arm. Padding counts: it is what the trainer sees.

    - `cluster_entropy`: minus the sum of p ln p over the shares p of the clusters in the batch, in nats; 0
      for one cluster.
    - `feature_overlap`: mean over pairs of prompts of the Jaccard index of their active features, |A and B| /
      |A or B|, 0 where both are empty. Of a batch with more than `MAX_COMPARED` distinct prompts so many are
      compared, the same ones in every run. 0 for a batch with less than two, null for one that is not looked at.
    - `difficulty_p10`, `_p50`, `_p90`: quantiles, linear between prompts.
    - `mean_quality`: over the prompts whose quality is known; null without any.

    Args:
        manifest: Table `batch_manifest` with `manifest_id`.
        features: The features of its prompts.
        quality: Columns prompt_id and quality.
        max_prompts_read: See `MAX_PROMPTS_READ`.

    Returns:
        Table `batch_metrics` with `manifest_id`, by (manifest_id, arm, epoch, step).

    Raises:
        ValueError: The manifest has a prompt without features.
    """
    shares = (
        manifest.group_by([*_BATCH, "cluster_id"])
        .len("n")
        .with_columns(share=pl.col("n") / pl.col("n").sum().over(_BATCH))
        # Sorted, because the last bits of a sum depend on the order of its terms.
        .sort([*_BATCH, "cluster_id"])
        .group_by(_BATCH, maintain_order=True)
        .agg(
            n_clusters=pl.len().cast(pl.UInt32),
            cluster_entropy=-(pl.col("share") * pl.col("share").log()).sum(),
        )
    )
    figures = (
        manifest.join(quality.select("prompt_id", "quality"), on="prompt_id", how="left")
        .sort([*_BATCH, "slot"])
        .group_by(_BATCH, maintain_order=True)
        .agg(
            n_prompts=pl.len().cast(pl.UInt32),
            **{f"difficulty_p{q}": pl.col("difficulty").quantile(q / 100, "linear") for q in (10, 50, 90)},
            mean_quality=pl.col("quality").cast(pl.Float64).mean(),
        )
    )
    return (
        figures.join(shares, on=_BATCH, how="left", maintain_order="left")
        .join(_overlaps(manifest, features, max_prompts_read), on=_BATCH, how="left", maintain_order="left")
        .select(
            *_BATCH,
            "n_prompts",
            "n_clusters",
            pl.col("cluster_entropy").abs(),
            "feature_overlap",
            "difficulty_p10",
            "difficulty_p50",
            "difficulty_p90",
            "mean_quality",
        )
    )


def _overlaps(manifest: pl.DataFrame, features: FeatureSet, max_prompts_read: int) -> pl.DataFrame:
    """The column `feature_overlap` for every batch that is looked at."""
    if manifest["prompt_id"].n_unique() > max_prompts_read:
        manifest = manifest.filter(pl.col("step") % -(-manifest.height // max_prompts_read) == 0)
    compared = _compared_prompts(manifest, features.prompt_ids)
    batches = compared.select(_BATCH).unique(maintain_order=True)
    batch = compared.join(batches.with_row_index("batch"), on=_BATCH, how="left", maintain_order="left")["batch"]
    rows, row = np.unique(compared["row"].to_numpy().astype(np.int64), return_inverse=True)
    overlap = mean_jaccard(features.csr("binary", rows), row, batch.to_numpy().astype(np.int64))
    return batches.with_columns(pl.Series("feature_overlap", overlap))


def _compared_prompts(manifest: pl.DataFrame, prompt_ids: list[str]) -> pl.DataFrame:
    """The prompts that are compared, batch by batch, each once in a batch, with their rows in the matrix."""
    rows = pl.DataFrame({"prompt_id": prompt_ids}, schema={"prompt_id": pl.String}).with_row_index("row")
    rows = rows.with_columns(pl.Series("hash", random_words(len(prompt_ids), derive_seed("compared prompts"))))
    compared = (
        manifest.select(*_BATCH, "prompt_id").unique().join(rows, on="prompt_id", how="left").sort([*_BATCH, "hash"])
    )
    if compared["row"].has_nulls():
        missing = compared.filter(pl.col("row").is_null())["prompt_id"][0]
        message = f"prompt {missing} of the manifest has no features"
        raise ValueError(message)
    return compared.filter(pl.int_range(pl.len()).over(_BATCH) < MAX_COMPARED)


def mean_jaccard(binary: FloatMatrix, rows: IntArray, batch: IntArray) -> NDArray[np.float64]:
    """Mean Jaccard index over the pairs of rows within each batch.

    Args:
        binary: [n, n_features], non-zero where a feature is active.
        rows: [m] rows of the matrix, those of one batch after another.
        batch: [m] ascending, 0 to T - 1: the batch of each.

    Returns:
        float64 [T], 0 for a batch of one row.
    """
    n_batches = int(batch[-1]) + 1 if len(batch) else 0
    sums = np.zeros(n_batches)
    starts = np.searchsorted(batch, np.arange(n_batches + 1))
    entries = np.concatenate([[0], np.cumsum(np.diff(binary.indptr)[rows], dtype=np.int64)])[starts]
    first = 0
    while first < n_batches:
        last = int(np.searchsorted(entries, entries[first] + _ENTRIES_AT_ONCE, side="right")) - 1
        last = max(first + 1, min(last, first + _COLUMNS_AT_ONCE // binary.shape[1]))
        part = slice(starts[first], starts[last])
        sums[first:last] = _jaccard_sums(binary[rows[part]], batch[part] - first, last - first)
        first = last
    sizes = np.diff(starts)
    return np.asarray(sums / np.maximum(sizes * (sizes - 1), 1), dtype=np.float64)


def _jaccard_sums(active: FloatMatrix, batch: IntArray, n_batches: int) -> NDArray[np.float64]:
    """Sums the Jaccard index over all ordered pairs of rows within each batch, float64 [n_batches].

    Each batch has columns of its own; then one sparse product of all rows with themselves has entries within the
    batches only: how many features each pair shares.
    """
    sizes = np.diff(active.indptr)
    column = active.indices + np.repeat(batch, sizes) * active.shape[1]
    ones = np.ones(len(column), dtype=np.float32)
    separate = sparse.csr_matrix((ones, column, active.indptr), shape=(len(sizes), n_batches * active.shape[1]))
    shared = (separate @ separate.T).tocoo()
    pair = shared.row != shared.col
    first, second, both = shared.row[pair], shared.col[pair], shared.data[pair].astype(np.float64)
    jaccard = both / (sizes[first] + sizes[second] - both)
    return np.bincount(batch[first], weights=jaccard, minlength=n_batches).astype(np.float64)
