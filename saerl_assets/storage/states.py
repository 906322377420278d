"""Vectors that are kept for every text: the dense states of a version's readings, and sentence embeddings.

Belongs here: list columns into matrices, block by block. Does not belong here: what is made of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.features import require_finite

if TYPE_CHECKING:
    from saerl_assets.domain.features import FloatMatrix
    from saerl_assets.storage.warehouse import Warehouse

BLOCK_PROMPTS = 5_000


@dataclass(frozen=True)
class StoredVectors:
    """Vectors of prompts as a predictor: `saerl_assets.domain.predictors.Predictor` on the warehouse."""

    warehouse: Warehouse = field(repr=False)
    name: str
    table: str
    """`prompt_states` or `sentence_embeddings`."""
    column: str
    """The column that holds the vector."""
    owner: str
    """The column that says what made it."""
    owners: tuple[str, ...]
    """What made them: one reading for each layer, or one encoder; their vectors stand side by side."""
    text_key: str
    """The column that names the text."""
    texts: Sequence[str] = field(repr=False)
    """[n_prompts] the name of each prompt's text."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Columns of each layer."""
        return self._widths

    def take(self, rows: NDArray[np.int64]) -> FloatMatrix:
        """Some prompts by ascending row number: float32 [len(rows), n_columns], proven to be finite.

        Raises:
            SaerlError: `states_missing`, `features_not_finite`.
        """
        parts = [self._rows(owner, [self.texts[row] for row in rows.tolist()]) for owner in self.owners]
        matrix: FloatMatrix = sp.csr_matrix(np.concatenate(parts, axis=1))
        require_finite(matrix)
        return matrix

    def blocks(self) -> Iterator[tuple[int, FloatMatrix]]:
        """All prompts, block after block: the number of a block's first row, and its matrix.

        Raises:
            SaerlError: `states_missing`, `features_not_finite`.
        """
        for start in range(0, len(self.texts), BLOCK_PROMPTS):
            yield start, self.take(np.arange(start, min(start + BLOCK_PROMPTS, len(self.texts))))

    @cached_property
    def _widths(self) -> tuple[int, ...]:
        return tuple(self._rows(owner, self.texts[:1]).shape[1] for owner in self.owners)

    def _rows(self, owner: str, texts: Sequence[str]) -> NDArray[np.float32]:
        wanted = pl.DataFrame({self.text_key: list(texts)}, schema={self.text_key: pl.String})
        found = self.warehouse.matching(self.table, wanted.unique(), {self.owner: owner}, [self.text_key, self.column])
        placed = wanted.join(found, on=self.text_key, how="left", maintain_order="left")[self.column]
        if placed.null_count():
            raise SaerlError(
                "states_missing",
                f"{placed.null_count():,} prompts have no {self.name.replace('_', ' ')} vector.",
                where=self.table,
                remedy=f"Materialise {self.table} for this version.",
            )
        flat = placed.explode(empty_as_null=False).to_numpy()
        return flat.reshape(placed.len(), -1 if placed.len() else 0).astype(np.float32)


def dense_states(warehouse: Warehouse, prompts: pl.DataFrame, reading_ids: Sequence[str]) -> dict[str, StoredVectors]:
    """`dense_mean` and `dense_last`: mean and last hidden state of prompts, layers side by side.

    Args:
        warehouse: Where the rows are.
        prompts: Column text_id; its order is that of the rows.
        reading_ids: The version's readings, one for each layer.
    """
    texts = prompts["text_id"].to_list()
    return {
        f"dense_{column}": StoredVectors(
            warehouse, f"dense_{column}", "prompt_states", column, "reading_id", tuple(reading_ids), "text_id", texts
        )
        for column in ("mean", "last")
    }
