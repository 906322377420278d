"""Which prompts ask the same: several responses to one question are prompts of their own, but not independent ones.

Belongs here: the one key by which they stay together, in the split as in folds, samples and bootstraps. Does not belong
here: the folds (folds), the identity itself (messages).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from saerl_assets.domain.messages import question_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl
    from numpy.typing import NDArray

    Integers = NDArray[np.int64]


def question_ids(prompts: pl.DataFrame, rows: Integers | None = None) -> list[str]:
    """What each prompt asks: whoever has seen one response to a question knows how hard the others are.

    A prompt without a response is its own question and keeps its id, so that a version without responses has the
    split, the folds and the figures that its prompts' ids give.

    Args:
        prompts: Table `prompts`.
        rows: int64 [n], row numbers; all prompts by default.
    """
    chosen = prompts if rows is None else prompts[rows]
    if "response" not in chosen.columns:
        return chosen["prompt_id"].to_list()
    return [
        identity if response is None else question_id(json.loads(messages))
        for identity, messages, response in chosen.select("prompt_id", "messages", "response").iter_rows()
    ]


def numbered(names: Sequence[str]) -> Integers:
    """The group of each name, counted from 0 in the order in which they turn up: int64 [n]."""
    places: dict[str, int] = {}
    return np.array([places.setdefault(name, len(places)) for name in names], dtype=np.int64)


def members(rows: Integers, groups: Integers) -> list[Integers]:
    """The rows of each group that has any, groups in the order in which they turn up, rows in theirs.

    Args:
        rows: int64 [m], row numbers.
        groups: int64 [n], group of every row.
    """
    of = groups[rows]
    order = np.argsort(of, kind="stable")
    _, starts = np.unique(of[order], return_index=True)
    parts = np.split(rows[order], starts[1:])
    return [parts[place] for place in np.argsort([order[start] for start in starts], kind="stable")]


def redrawn(parts: Sequence[Integers], rng: np.random.Generator) -> Integers:
    """A bootstrap sample of rows: as many groups as there are, drawn with replacement, each whole.

    Groups of one row each give the sample that drawing rows gives.

    Args:
        parts: Rows of each group, as `members` gives them.
        rng: What draws.
    """
    return np.concatenate([parts[place] for place in rng.choice(len(parts), len(parts))])


def exchanged(parts: Sequence[Integers], rng: np.random.Generator) -> Integers:
    """The rows with groups in another order, each together: the labels of the n-th are put on the n-th of `parts`.

    That permutes labels where rows of a group have labels that are alike. Where groups differ in size, the last labels
    of one may come to lie on the first rows of the next.

    Args:
        parts: Rows of each group, as `members` gives them.
        rng: What permutes.
    """
    return np.concatenate([parts[place] for place in rng.permutation(len(parts))])
