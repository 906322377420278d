"""The features of one version, read from the shared tables as they are needed.

Belongs here: turning list columns into CSR without holding a million Python lists. Does not belong here: what is made
of them.

An Arrow list column is a CSR matrix already: its offsets are the row bounds, its values the entries. A block is read by
row number, so that only its own stretch of the table is looked at, and only in the columns that are wanted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import scipy.sparse as sp
from numpy.typing import NDArray

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.features import ENTRY_COLUMNS, POOLED_FROM, EntryColumn, FeatureRows, pool
from saerl_assets.domain.spec import Pooling
from saerl_assets.storage.warehouse import Warehouse

BLOCK_PROMPTS = 20_000
"""Prompts that are in memory at once: of 700 active features each, 56 MB a column."""

MEMORY_LIMIT = "1GB"
"""What DuckDB may keep of a table that is scanned; it would keep all of it otherwise."""

_TABLE_COLUMNS: dict[EntryColumn, tuple[str, type[np.generic]]] = {
    "maximum": ("max", np.float32),
    "total": ("sum", np.float32),
    "last": ("last", np.float32),
    "n_active": ("n_active", np.int32),
    "argmax_token": ("argmax_token", np.int32),
}


@dataclass(frozen=True)
class EncodedLayer:
    """One layer's features within a version: feature id = `feature_offset` + latent."""

    encoder_id: str
    feature_offset: int
    n_latents: int


class WarehouseFeatures:
    """A version's features: `saerl_assets.domain.features.FeatureSet` on the warehouse.

    Args:
        warehouse: Where the rows are.
        prompts: Columns prompt_id and text_id of the version.
        layers: The version's encoders.
    """

    def __init__(self, warehouse: Warehouse, prompts: pl.DataFrame, layers: Sequence[EncodedLayer]) -> None:
        ordered = prompts.select("prompt_id", "text_id").sort("prompt_id")
        self.prompt_ids: list[str] = ordered["prompt_id"].to_list()
        self.n_features = sum(layer.n_latents for layer in layers)
        self._texts = ordered.select("text_id")
        self._warehouse = warehouse
        self._layers = tuple(layers)
        self._row_ids: dict[str, NDArray[np.int64]] = {}

    def csr(self, pooling: Pooling, rows: NDArray[np.int64] | None = None) -> sp.csr_matrix[np.float32]:
        """Prompts x all features, float32: all prompts, or those of some ascending row numbers."""
        chosen = np.arange(len(self.prompt_ids)) if rows is None else rows
        blocks = [
            pool(self._block(chosen[start : start + BLOCK_PROMPTS], POOLED_FROM[pooling]), pooling, self.n_features)
            for start in range(0, max(len(chosen), 1), BLOCK_PROMPTS)
        ]
        if len(blocks) == 1:
            return blocks[0]
        joined: sp.csr_matrix[np.float32] = sp.vstack(blocks, format="csr")
        return joined

    def blocks(self, pooling: Pooling) -> Iterator[tuple[int, sp.csr_matrix[np.float32]]]:
        """Prompts x all features, block after block, each with the number of its first row."""
        start = 0
        for rows in self.activations(POOLED_FROM[pooling]):
            yield start, pool(rows, pooling, self.n_features)
            start += len(rows.prompt_ids)

    def activations(self, columns: Sequence[EntryColumn] = ENTRY_COLUMNS) -> Iterator[FeatureRows]:
        """Blocks of prompts in the order of `prompt_ids`, with these of the columns; the others are empty.

        Raises:
            SaerlError: `features_missing` if a prompt has no row.
        """
        for start in range(0, len(self.prompt_ids), BLOCK_PROMPTS):
            yield self._block(np.arange(start, min(start + BLOCK_PROMPTS, len(self.prompt_ids))), columns)

    def _block(self, rows: NDArray[np.int64], columns: Sequence[EntryColumn]) -> FeatureRows:
        parts = [self._layer_block(layer, rows, columns) for layer in self._layers]
        return parts[0] if len(parts) == 1 else _side_by_side(parts, columns)

    def _layer_block(self, layer: EncodedLayer, rows: NDArray[np.int64], columns: Sequence[EntryColumn]) -> FeatureRows:
        found = self._read(layer, rows, columns)
        indptr, latents = _flat(found.column("feature_ids"))
        entries: dict[str, Any] = {name: np.zeros(0, dtype=kind) for name, (_, kind) in _TABLE_COLUMNS.items()}
        for name in columns:
            column, kind = _TABLE_COLUMNS[name]
            entries[name] = _flat(found.column(column))[1].astype(kind)
        return FeatureRows(
            prompt_ids=[self.prompt_ids[row] for row in rows.tolist()],
            n_tokens=found.column("n_tokens").to_numpy().astype(np.int64),
            indptr=indptr,
            feature_ids=latents.astype(np.int32) + np.int32(layer.feature_offset),
            **entries,
        )

    def _read(self, layer: EncodedLayer, rows: NDArray[np.int64], columns: Sequence[EntryColumn]) -> pa.Table:
        """The table's rows of these prompts, in their order.

        A version that is deleted meanwhile can move the rows of others: then their numbers are looked up again.
        """
        texts = self._texts["text_id"].gather(rows)
        with self._warehouse.reading("features") as connection:
            connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
            found = _rows_of(connection, self._numbered(connection, layer)[rows], columns)
            if pl.Series(found.column("text_id")).to_list() != texts.to_list():
                del self._row_ids[layer.encoder_id]
                found = _rows_of(connection, self._numbered(connection, layer)[rows], columns)
        return found

    def _numbered(self, connection: duckdb.DuckDBPyConnection, layer: EncodedLayer) -> NDArray[np.int64]:
        """The table's row numbers of all prompts, int64 [n_prompts]; they hold until something is deleted.

        Raises:
            SaerlError: `features_missing` if a prompt has no row.
        """
        if layer.encoder_id not in self._row_ids:
            known = connection.execute(
                "SELECT text_id, rowid AS row_id FROM prompt_features WHERE encoder_id = ?", [layer.encoder_id]
            ).pl()
            row_ids = self._texts.join(known, on="text_id", how="left", maintain_order="left")["row_id"]
            if row_ids.null_count():
                raise SaerlError(
                    "features_missing",
                    f"{row_ids.null_count()} prompts have no features.",
                    where="prompt_features",
                    remedy="Materialise prompt_features for this version.",
                )
            self._row_ids[layer.encoder_id] = row_ids.to_numpy().astype(np.int64)
        return self._row_ids[layer.encoder_id]


def _rows_of(
    connection: duckdb.DuckDBPyConnection, row_ids: NDArray[np.int64], columns: Sequence[EntryColumn]
) -> pa.Table:
    """Rows by number, in the order of the numbers; none if one is not there."""
    names = "".join(f', f."{_TABLE_COLUMNS[column][0]}"' for column in columns)
    connection.register("wanted", pa.table({"row_id": np.unique(row_ids)}))
    found = connection.execute(
        f"SELECT f.rowid AS row_id, f.text_id, f.n_tokens, f.feature_ids{names} "  # noqa: S608 - our own names
        "FROM prompt_features f SEMI JOIN wanted ON f.rowid = wanted.row_id"
    ).to_arrow_table()
    known = found.column("row_id").to_numpy()
    if np.array_equal(known, row_ids):
        return found
    order = np.argsort(known, kind="stable")
    places = np.searchsorted(known, row_ids, sorter=order)
    if len(known) < len(np.unique(row_ids)):
        return found.slice(0, 0)
    return found.take(pa.array(order[places]))


def _flat(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """A list column as row bounds, int64 [n + 1], and the values of all rows, a view."""
    lists = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    bounds = lists.offsets.to_numpy().astype(np.int64)
    return bounds - bounds[0], lists.values.to_numpy()[bounds[0] : bounds[-1]]


def _side_by_side(parts: Sequence[FeatureRows], columns: Sequence[EntryColumn]) -> FeatureRows:
    """The same prompts read at several layers, as one row each; ids stay ascending because the offsets do."""
    lengths = [np.diff(part.indptr) for part in parts]
    row_of = np.concatenate([np.repeat(np.arange(len(length)), length) for length in lengths])
    order = np.argsort(row_of, kind="stable")
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ENTRY_COLUMNS}
    return FeatureRows(
        prompt_ids=parts[0].prompt_ids,
        n_tokens=np.max([part.n_tokens for part in parts], axis=0),
        indptr=np.concatenate([[0], np.cumsum(np.sum(lengths, axis=0))]).astype(np.int64),
        feature_ids=np.concatenate([part.feature_ids for part in parts])[order],
        **{name: entries[order] if name in columns else entries for name, entries in joined.items()},
    )
