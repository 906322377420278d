"""The features of one version, read from the shared tables as they are needed.

Belongs here: turning list columns into CSR without holding a million Python lists. Does not belong here: what is made
of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.features import FeatureRows, pool
from saerl_assets.domain.spec import Pooling
from saerl_assets.storage.warehouse import Warehouse

BLOCK_PROMPTS = 20_000


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
        self._text_ids: list[str] = ordered["text_id"].to_list()
        self._warehouse = warehouse
        self._layers = tuple(layers)

    def csr(self, pooling: Pooling, rows: NDArray[np.int64] | None = None) -> sp.csr_matrix[np.float32]:
        """Prompts x all features, float32: all prompts, or those of some ascending row numbers."""
        chosen = np.arange(len(self.prompt_ids)) if rows is None else rows
        blocks = [
            pool(self._block(chosen[start : start + BLOCK_PROMPTS].tolist()), pooling, self.n_features)
            for start in range(0, max(len(chosen), 1), BLOCK_PROMPTS)
        ]
        joined: sp.csr_matrix[np.float32] = sp.vstack(blocks, format="csr")
        return joined

    def blocks(self, pooling: Pooling) -> Iterator[tuple[int, sp.csr_matrix[np.float32]]]:
        """Prompts x all features, block after block, each with the number of its first row."""
        start = 0
        for rows in self.activations():
            yield start, pool(rows, pooling, self.n_features)
            start += len(rows.prompt_ids)

    def activations(self) -> Iterator[FeatureRows]:
        """Blocks of prompts in the order of `prompt_ids`.

        Raises:
            SaerlError: `features_missing` if a prompt has no row.
        """
        for start in range(0, len(self.prompt_ids), BLOCK_PROMPTS):
            yield self._block(range(start, min(start + BLOCK_PROMPTS, len(self.prompt_ids))))

    def _block(self, rows: Sequence[int]) -> FeatureRows:
        prompt_ids, text_ids = [self.prompt_ids[row] for row in rows], [self._text_ids[row] for row in rows]
        parts = [self._layer_block(layer, prompt_ids, text_ids) for layer in self._layers]
        return parts[0] if len(parts) == 1 else _side_by_side(parts)

    def _layer_block(self, layer: EncodedLayer, prompt_ids: list[str], text_ids: list[str]) -> FeatureRows:
        wanted = pl.DataFrame({"text_id": text_ids, "place": np.arange(len(text_ids))})
        with self._warehouse.reading("features") as connection:
            connection.register("wanted", wanted.unique("text_id", maintain_order=True).to_arrow())
            found = connection.execute(
                'SELECT f.text_id, f.n_tokens, f.feature_ids, f."max", f."sum", f."last", f.n_active, f.argmax_token '
                "FROM prompt_features f JOIN wanted USING (text_id) WHERE f.encoder_id = ?",
                [layer.encoder_id],
            ).pl()
        rows = wanted.join(found, on="text_id", how="left", maintain_order="left")
        if rows["n_tokens"].null_count():
            raise SaerlError(
                "features_missing",
                f"{rows['n_tokens'].null_count()} prompts have no features.",
                where="prompt_features",
                remedy="Materialise prompt_features for this version.",
            )
        lengths = rows["feature_ids"].list.len().to_numpy().astype(np.int64)
        flat = {
            name: rows[name].explode(empty_as_null=False).to_numpy()
            for name in ("feature_ids", "max", "sum", "last", "n_active", "argmax_token")
        }
        return FeatureRows(
            prompt_ids=prompt_ids,
            n_tokens=rows["n_tokens"].to_numpy().astype(np.int64),
            indptr=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            feature_ids=flat["feature_ids"].astype(np.int32) + np.int32(layer.feature_offset),
            maximum=flat["max"].astype(np.float32),
            total=flat["sum"].astype(np.float32),
            last=flat["last"].astype(np.float32),
            n_active=flat["n_active"].astype(np.int32),
            argmax_token=flat["argmax_token"].astype(np.int32),
        )


def _side_by_side(parts: Sequence[FeatureRows]) -> FeatureRows:
    """The same prompts read at several layers, as one row each; ids stay ascending because the offsets do."""
    lengths = [np.diff(part.indptr) for part in parts]
    row_of = np.concatenate([np.repeat(np.arange(len(length)), length) for length in lengths])
    order = np.argsort(row_of, kind="stable")
    return FeatureRows(
        prompt_ids=parts[0].prompt_ids,
        n_tokens=np.max([part.n_tokens for part in parts], axis=0),
        indptr=np.concatenate([[0], np.cumsum(np.sum(lengths, axis=0))]).astype(np.int64),
        feature_ids=np.concatenate([part.feature_ids for part in parts])[order],
        maximum=np.concatenate([part.maximum for part in parts])[order],
        total=np.concatenate([part.total for part in parts])[order],
        last=np.concatenate([part.last for part in parts])[order],
        n_active=np.concatenate([part.n_active for part in parts])[order],
        argmax_token=np.concatenate([part.argmax_token for part in parts])[order],
    )
