"""Sparse SAE features of prompts: the shape in which they are handed on, and how often each fires.

Belongs here: the `FeatureSet` that storage implements, blocks of rows, pooling over tokens, activity per
prompt and density per feature. Does not belong here: computing features (models), keeping them (storage),
what is learned from them (clusters, difficulty, quality).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, get_args, runtime_checkable

import numpy as np
import polars as pl
from scipy import sparse

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.spec import Pooling

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

FloatMatrix: TypeAlias = "sparse.csr_matrix[np.float32]"

EntryColumn: TypeAlias = Literal["maximum", "total", "last", "n_active", "argmax_token"]
"""What is known of a feature in a prompt besides that it is active there."""
ENTRY_COLUMNS: tuple[EntryColumn, ...] = get_args(EntryColumn)

POOLED_FROM: dict[Pooling, tuple[EntryColumn, ...]] = {
    "max": ("maximum",),
    "mean": ("total",),
    "sqrt_mean": ("total",),
    "last": ("last",),
    "fraction": ("n_active",),
    "binary": (),
}
"""What each pooling is made of; a table need not be read for the others."""

N_TOP_PROMPTS = 5
"""Prompts that are named for each feature."""

DENSITY_SCHEMA = pl.Schema(
    {
        "feature_id": pl.UInt32(),
        "layer": pl.UInt32(),
        "latent": pl.UInt32(),
        "n_prompts": pl.UInt64(),
        "n_tokens": pl.UInt64(),
        "mean_activation": pl.Float64(),
        "max_activation": pl.Float64(),
        "top_prompts": pl.List(pl.String),
    }
)


@dataclass(frozen=True)
class FeatureRows:
    """A block of prompts as parallel arrays: prompt i owns the entries `indptr[i]:indptr[i + 1]`.

    Only features that are active on at least one token have an entry, so every `maximum` is above 0. A column that was
    not asked for is empty.
    """

    prompt_ids: list[str]
    """[n] prompts of the block."""
    n_tokens: NDArray[np.int64]
    """[n] tokens pooled over."""
    indptr: NDArray[np.int64]
    """[n + 1] where each prompt's entries start and end."""
    feature_ids: NDArray[np.int32]
    """[nnz] feature over all layers, ascending within a prompt."""
    maximum: NDArray[np.float32]
    """[nnz] largest activation over the tokens."""
    total: NDArray[np.float32]
    """[nnz] summed activation over the tokens."""
    last: NDArray[np.float32]
    """[nnz] activation on the last token, 0 where it is not active there."""
    n_active: NDArray[np.int32]
    """[nnz] tokens on which it is active."""
    argmax_token: NDArray[np.int32]
    """[nnz] token of the largest activation."""

    def rows(self) -> NDArray[np.int64]:
        """The prompt of every entry, int64 [nnz], counted within the block."""
        return np.repeat(np.arange(len(self.prompt_ids)), np.diff(self.indptr))


@runtime_checkable
class FeatureSet(Protocol):
    """The features of one dataset version; its lists are never in memory all at once."""

    @property
    def prompt_ids(self) -> list[str]:
        """The prompts, sorted; row i of every matrix is `prompt_ids[i]`."""

    @property
    def n_features(self) -> int:
        """Width of every matrix: features over all layers."""

    def csr(self, pooling: Pooling, rows: NDArray[np.int64] | None = None) -> FloatMatrix:
        """Pooled rows, all or those of some ascending numbers: float32 [n, n_features], sorted within each row."""

    def blocks(self, pooling: Pooling) -> Iterator[tuple[int, FloatMatrix]]:
        """All prompts pooled, block after block: the number of a block's first row, and its matrix."""

    def activations(self, columns: Sequence[EntryColumn] = ENTRY_COLUMNS) -> Iterator[FeatureRows]:
        """All prompts in blocks, in the order of `prompt_ids`, with these of the columns; the fewer, the faster."""


def pool(rows: FeatureRows, pooling: Pooling, n_features: int) -> FloatMatrix:
    """A block of prompts as a matrix.

    Args:
        rows: n prompts with nnz entries, with what the pooling is made of (`POOLED_FROM`).
        pooling: `max`; `mean` over all tokens of the prompt, active or not; `sqrt_mean`, its square root; `last`;
            `fraction` of all tokens on which the feature is active; `binary`.
        n_features: Width of the matrix.

    Returns:
        float32 [n, n_features], without explicit zeros.
    """
    if pooling == "max":
        values = rows.maximum
    elif pooling == "last":
        values = rows.last
    elif pooling == "binary":
        values = np.ones(len(rows.feature_ids), dtype=np.float32)
    else:
        summed = rows.n_active if pooling == "fraction" else rows.total
        values = (summed / np.maximum(rows.n_tokens, 1)[rows.rows()]).astype(np.float32)
        values = np.sqrt(values) if pooling == "sqrt_mean" else values
    shape = (len(rows.prompt_ids), n_features)
    matrix = sparse.csr_matrix((values, rows.feature_ids, rows.indptr), shape=shape, dtype=np.float32)
    if pooling == "last":  # most features are not active on the last token
        matrix = matrix.copy()  # the row bounds are the block's own
        matrix.eliminate_zeros()
    return matrix


def finite_csr(features: FeatureSet, pooling: Pooling) -> FloatMatrix:
    """The pooled matrix, float32 [n_prompts, n_features], proven to hold numbers.

    Raises:
        SaerlError: `features_not_finite`.
    """
    matrix = features.csr(pooling)
    require_finite(matrix)
    return matrix


def require_finite(matrix: FloatMatrix, first_row: int = 0) -> None:
    """Proves that every entry is a number.

    Args:
        matrix: The features of some prompts.
        first_row: The number of its first row among all prompts.

    Raises:
        SaerlError: `features_not_finite` naming the first row with an infinite or undefined value.
    """
    bad = np.flatnonzero(~np.isfinite(matrix.data))
    if len(bad) == 0:
        return
    row = first_row + int(np.searchsorted(matrix.indptr, bad[0], side="right")) - 1
    raise SaerlError(
        "features_not_finite",
        f"{len(bad):,} activations are no finite numbers, the first in row {row} of the prompts by id.",
        where="prompt_features",
        remedy='Read the prompts again with reader.dtype = "float32".',
    )


def require_aligned(features: FeatureSet, prompts: pl.DataFrame) -> None:
    """Proves that row i of the features is row i of the prompts.

    Raises:
        ValueError: They are of other prompts, or in another order; a defect of the caller.
    """
    if prompts["prompt_id"].to_list() != features.prompt_ids:
        message = "features and prompts are not of the same prompts in the same order; sort both by prompt_id"
        raise ValueError(message)


@dataclass(frozen=True)
class PromptActivity:
    """How much is active in each prompt: arrays [n_prompts]."""

    n_active: NDArray[np.int64]
    """Features that are active anywhere in the prompt: the union over its tokens."""
    per_token: NDArray[np.float64]
    """Features that are active on a token, on average: its mean L0, summed over layers."""
    magnitude: NDArray[np.float64]
    """Their activation, summed over the tokens."""


def prompt_activity(features: FeatureSet) -> PromptActivity:
    """How much is active in each prompt, in memory bounded by one block."""
    n_prompts = len(features.prompt_ids)
    found = PromptActivity(np.zeros(n_prompts, dtype=np.int64), np.zeros(n_prompts), np.zeros(n_prompts))
    start = 0
    for rows in features.activations(("total", "n_active")):
        end = start + len(rows.prompt_ids)
        owner = rows.rows()
        found.n_active[start:end] = np.diff(rows.indptr)
        n_firings = np.bincount(owner, weights=rows.n_active, minlength=end - start)
        found.per_token[start:end] = n_firings / np.maximum(rows.n_tokens, 1)
        found.magnitude[start:end] = np.bincount(owner, weights=rows.total, minlength=end - start)
        start = end
    return found


def feature_density(features: FeatureSet, layer_of: Sequence[tuple[int, int, int]]) -> pl.DataFrame:
    """How often and how strongly each feature fires, in memory bounded by one block and the width.

    Args:
        features: The version's features.
        layer_of: (layer, feature_offset, n_latents) of every layer; together they cover
            `features.n_features`.

    Returns:
        Table `feature_density` by feature_id, dead features included. Of the prompts that activate a feature
        equally, the one with the smaller id comes first.

    Raises:
        ValueError: The layers do not cover the features exactly.
    """
    width = features.n_features
    layers, latents = _layers_and_latents(layer_of, width)
    n_prompts = np.zeros(width, dtype=np.int64)
    n_tokens = np.zeros(width, dtype=np.int64)
    total = np.zeros(width)
    top = _Strongest(width, N_TOP_PROMPTS)
    offset = 0
    for rows in features.activations(("maximum", "total", "n_active")):
        # np.add.at adds one entry after the other, so the sums do not depend on where blocks begin.
        np.add.at(n_prompts, rows.feature_ids, 1)
        np.add.at(n_tokens, rows.feature_ids, rows.n_active)
        np.add.at(total, rows.feature_ids, rows.total.astype(np.float64))
        top.add(rows.feature_ids, rows.maximum, rows.rows() + offset)
        offset += len(rows.prompt_ids)
    names = np.array(features.prompt_ids, dtype=object)
    return pl.DataFrame(
        {
            "feature_id": np.arange(width),
            "layer": layers,
            "latent": latents,
            "n_prompts": n_prompts,
            "n_tokens": n_tokens,
            "mean_activation": total / np.maximum(n_tokens, 1),
            "max_activation": np.maximum(top.values[:, 0], 0).astype(np.float64),
            "top_prompts": [list(names[row[row >= 0]]) for row in top.rows],
        },
        schema=DENSITY_SCHEMA,
    )


class _Strongest:
    """The rows with the largest values of each feature, kept while entries stream by in row order."""

    def __init__(self, n_features: int, n_kept: int) -> None:
        self.values = np.full((n_features, n_kept), -np.inf, dtype=np.float32)
        self.rows = np.full((n_features, n_kept), -1, dtype=np.int64)

    def add(self, features: NDArray[np.int32], values: NDArray[np.float32], rows: NDArray[np.int64]) -> None:
        """Takes in entries of rows later than all before; of equal values the earlier row stays."""
        n_kept = self.values.shape[1]
        stronger = values > self.values[features, -1]
        touched = np.unique(features[stronger])
        feature = np.concatenate([np.repeat(touched, n_kept), features[stronger]])
        value = np.concatenate([self.values[touched].ravel(), values[stronger]])
        row = np.concatenate([self.rows[touched].ravel(), rows[stronger]])
        order = np.lexsort((row, -value, feature))
        feature, value, row = feature[order], value[order], row[order]
        place = np.arange(len(feature)) - np.searchsorted(feature, feature)
        kept = place < n_kept
        self.values[feature[kept], place[kept]] = value[kept]
        self.rows[feature[kept], place[kept]] = row[kept]


def _layers_and_latents(
    layer_of: Sequence[tuple[int, int, int]], width: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Layer and index within its SAE of every feature, int64 [width] each."""
    layers = np.full(width, -1, dtype=np.int64)
    latents = np.full(width, -1, dtype=np.int64)
    if sum(n_latents for _, _, n_latents in layer_of) == width:
        for layer, offset, n_latents in layer_of:
            layers[offset : offset + n_latents] = layer
            latents[offset : offset + n_latents] = np.arange(n_latents)
    if (latents < 0).any():
        message = f"the layers {list(layer_of)} do not cover {width} features exactly"
        raise ValueError(message)
    return layers, latents
