"""Pairs of prompts that may be near-duplicates: a frame of rows, where to look for them, and what groups they make.

Belongs here: what text_pairs and feature_pairs have in common. Does not belong here: how alike two prompts are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from scipy import sparse
from scipy.sparse.csgraph import connected_components

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

MAX_ANSWER_WORDS = 8
"""A reference answer with more words is a worked solution, which two copies may write differently."""


def problem_keys(quantities: Iterable[Sequence[str]], answers: Iterable[Sequence[str] | None]) -> NDArray[np.int64]:
    """Numbers the problems that could be the same: two prompts with different keys are different problems.

    Prompts with other quantities are, and so are prompts with other answers, where every prompt with these
    quantities has a short one.

    Args:
        quantities: Of each of the n prompts, as `wording.quantities` gives them.
        answers: Of each the tokens of its reference answer, or none where there is none.

    Returns:
        int64 [n], from 0 in the order of their first prompts.
    """
    pairs = [
        (tuple(numbers), None if answer is None or len(answer) > MAX_ANSWER_WORDS else tuple(answer))
        for numbers, answer in zip(quantities, answers, strict=True)
    ]
    open_ended = {numbers for numbers, answer in pairs if answer is None}
    keys: dict[object, int] = {}
    found = [
        keys.setdefault((numbers, None if numbers in open_ended else answer), len(keys)) for numbers, answer in pairs
    ]
    return np.array(found, dtype=np.int64)


def members_of(keys: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The rows of every key that more than one row has, ascending each, in the order of the keys."""
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    return [rows for rows in np.split(order, starts[1:]) if len(rows) > 1]


def pair_frame(first: Iterable[int], second: Iterable[int], **values: Iterable[float]) -> pl.DataFrame:
    """Pairs of rows, `first` below `second`, each once, sorted."""
    frame = pl.DataFrame(
        {"first": np.asarray(first, dtype=np.int64), "second": np.asarray(second, dtype=np.int64)}
        | {name: np.asarray(value, dtype=np.float64) for name, value in values.items()}
    )
    swapped = frame.with_columns(
        first=pl.min_horizontal("first", "second"), second=pl.max_horizontal("first", "second")
    )
    return swapped.unique(["first", "second"], keep="first", maintain_order=True).sort("first", "second")


def connected_groups(pairs: pl.DataFrame, n_rows: int) -> NDArray[np.int64]:
    """The number of the connected group of every row, int64 [n_rows]; a row without a pair is a group of its own."""
    first, second = pairs["first"].to_numpy(), pairs["second"].to_numpy()
    graph = sparse.coo_matrix((np.ones(len(first)), (first, second)), shape=(n_rows, n_rows))
    return connected_components(graph, directed=False)[1].astype(np.int64)
