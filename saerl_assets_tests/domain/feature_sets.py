"""Feature sets in memory, for tests: any matrix of activations as a `FeatureSet`, and planted ones."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from scipy import sparse

from saerl_assets.domain.features import (
    ENTRY_COLUMNS,
    POOLED_FROM,
    EntryColumn,
    FeatureRows,
    FloatMatrix,
    pool,
)
from saerl_assets.domain.spec import Pooling

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True)
class MemoryFeatureSet:
    """All rows in one block; `activations` hands them out `block_size` at a time."""

    block: FeatureRows
    n_features: int
    block_size: int = 7

    @property
    def prompt_ids(self) -> list[str]:
        return self.block.prompt_ids

    def csr(self, pooling: Pooling, rows: NDArray[np.int64] | None = None) -> FloatMatrix:
        matrix = pool(self.block, pooling, self.n_features)
        return matrix if rows is None else matrix[rows]

    def blocks(self, pooling: Pooling) -> Iterator[tuple[int, FloatMatrix]]:
        start = 0
        for rows in self.activations(POOLED_FROM[pooling]):
            yield start, pool(rows, pooling, self.n_features)
            start += len(rows.prompt_ids)

    def activations(self, columns: Sequence[EntryColumn] = ENTRY_COLUMNS) -> Iterator[FeatureRows]:
        for start in range(0, len(self.prompt_ids), self.block_size):
            rows = _rows(self.block, start, min(start + self.block_size, len(self.prompt_ids)))
            yield replace(rows, **{name: getattr(rows, name)[:0] for name in ENTRY_COLUMNS if name not in columns})


def _rows(block: FeatureRows, start: int, stop: int) -> FeatureRows:
    first, end = block.indptr[start], block.indptr[stop]
    return FeatureRows(
        prompt_ids=block.prompt_ids[start:stop],
        n_tokens=block.n_tokens[start:stop],
        indptr=block.indptr[start : stop + 1] - first,
        feature_ids=block.feature_ids[first:end],
        maximum=block.maximum[first:end],
        total=block.total[first:end],
        last=block.last[first:end],
        n_active=block.n_active[first:end],
        argmax_token=block.argmax_token[first:end],
    )


def make_prompt_ids(n_prompts: int) -> list[str]:
    """Hashes like real prompt ids, sorted."""
    return sorted(hashlib.sha256(f"prompt {i}".encode()).hexdigest()[:32] for i in range(n_prompts))


def feature_set(
    maximum: NDArray[np.floating] | FloatMatrix,
    *,
    prompt_ids: Sequence[str] | None = None,
    block_size: int = 7,
) -> MemoryFeatureSet:
    """Each entry as a feature that is active on two of four tokens, on the second and last one half as much.

    Args:
        maximum: [n_prompts, n_features], at least 0.
        prompt_ids: Sorted here together with the rows; made up by default.
        block_size: Prompts in a block of `activations`.
    """
    matrix = sparse.csr_matrix(maximum, dtype=np.float32)
    matrix.eliminate_zeros()
    names = list(prompt_ids) if prompt_ids is not None else make_prompt_ids(matrix.shape[0])
    order = np.argsort(np.array(names))
    matrix = matrix[order]
    matrix.sort_indices()
    block = FeatureRows(
        prompt_ids=[names[i] for i in order],
        n_tokens=np.full(matrix.shape[0], 4, dtype=np.int64),
        indptr=matrix.indptr.astype(np.int64),
        feature_ids=matrix.indices.astype(np.int32),
        maximum=matrix.data,
        total=matrix.data * np.float32(1.5),
        last=matrix.data * np.float32(0.5),
        n_active=np.full(matrix.nnz, 2, dtype=np.int32),
        argmax_token=np.ones(matrix.nnz, dtype=np.int32),
    )
    return MemoryFeatureSet(block, matrix.shape[1], block_size)


def prompt_frame(prompt_ids: Sequence[str], *, n_evaluation: int = 0) -> pl.DataFrame:
    """The columns of table `prompts` that scores need; the last `n_evaluation` prompts are set apart."""
    n_train = len(prompt_ids) - n_evaluation
    return pl.DataFrame(
        {
            "prompt_id": list(prompt_ids),
            "text": [f"prompt number {i}" for i in range(len(prompt_ids))],
            "topic": [None] * len(prompt_ids),
            "split": ["train"] * n_train + ["evaluation"] * n_evaluation,
            "n_tokens": [10 + i % 7 for i in range(len(prompt_ids))],
        },
        schema={
            "prompt_id": pl.String,
            "text": pl.String,
            "topic": pl.String,
            "split": pl.String,
            "n_tokens": pl.UInt32,
        },
    )


def label_frame(
    label: str,
    prompt_ids: Sequence[str],
    values: Sequence[float] | NDArray[np.floating],
    *,
    n_observations: int = 1,
) -> pl.DataFrame:
    """Table `labels` with one label."""
    return pl.DataFrame(
        {
            "prompt_id": list(prompt_ids),
            "label": [label] * len(prompt_ids),
            "value": [float(value) for value in values],
            "n_observations": [n_observations] * len(prompt_ids),
            "spread": [0.0] * len(prompt_ids),
        },
        schema={
            "prompt_id": pl.String,
            "label": pl.String,
            "value": pl.Float64,
            "n_observations": pl.UInt32,
            "spread": pl.Float64,
        },
    )


def no_labels() -> pl.DataFrame:
    """Table `labels` without a row."""
    return label_frame("any", [], [])


def planted_rows(n_prompts: int, n_features: int, *, seed: int, density: float = 0.15) -> NDArray[np.float32]:
    """Activations without any structure: float32 [n_prompts, n_features], a share of them above 0."""
    rng = np.random.default_rng(seed)
    active = rng.random((n_prompts, n_features)) < density
    return (active * rng.gamma(2.0, 1.0, (n_prompts, n_features))).astype(np.float32)
