"""The dense states of one version.

Belongs here: list columns into arrays. Does not belong here: what is made of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.predictors import DenseStates
from saerl_assets.storage.warehouse import Warehouse


def dense_states(warehouse: Warehouse, prompts: pl.DataFrame, reading_ids: Sequence[str]) -> DenseStates:
    """Mean and last hidden state of prompts, layers side by side.

    Args:
        warehouse: Where the rows are.
        prompts: Columns prompt_id and text_id.
        reading_ids: The version's readings, one for each layer.

    Returns:
        float32 [n_prompts, n_layers * d_model] each, in the order of `prompts`.

    Raises:
        SaerlError: `states_missing`.
    """
    mean: list[NDArray[np.float32]] = []
    last: list[NDArray[np.float32]] = []
    for reading_id in reading_ids:
        rows = warehouse.rows("prompt_states", ["text_id", "mean", "last"], reading_id=reading_id)
        placed = prompts.select("text_id").join(rows, on="text_id", how="left", maintain_order="left")
        if placed["mean"].null_count():
            raise SaerlError(
                "states_missing",
                f"{placed['mean'].null_count()} prompts have no dense state.",
                where="prompt_states",
                remedy="Materialise prompt_states for this version.",
            )
        for parts, column in ((mean, "mean"), (last, "last")):
            flat = placed[column].explode(empty_as_null=False).to_numpy()
            parts.append(flat.reshape(placed.height, -1).astype(np.float32))
    return DenseStates(np.concatenate(mean, axis=1), np.concatenate(last, axis=1))
