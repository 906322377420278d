"""Which prompts may be learned from, and with which values.

Belongs here: picking one label's values for the training prompts, and saying in words why there are too few.
Does not belong here: reading and folding labels (labels), learning from them (difficulty, quality).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from saerl_assets.domain.folds import hash_fractions

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Supervision:
    """One label's values for prompts of the training split."""

    label: str
    rows: NDArray[np.int64]
    """[n] row numbers of the labelled prompts, ascending."""
    values: NDArray[np.float64]
    """[n] finite values."""
    n_observations: NDArray[np.int64]
    """[n] observations that each value is the mean of."""
    left_out: str
    """Which values of the label are not used, in words, with a space before; empty if all are."""
    n_prompts: int
    """Prompts in all, labelled or not."""
    is_named: bool
    """Whether the spec says where the label comes from."""

    @property
    def remedy(self) -> str:
        """What to do where there is no value at all."""
        if not self.is_named:
            return f"add [labels.{self.label}] to the spec, or append outcomes"
        prompts = _count(self.n_prompts, "prompt")
        return (
            f"the spec has [labels.{self.label}], but no value of any of the {prompts} could be read as a finite "
            "number; correct the field that it names, or append outcomes"
        )


def supervise(
    prompts: pl.DataFrame, labels: pl.DataFrame, label: str, *, limit: int | None, seed: int, is_named: bool = False
) -> Supervision:
    """The label's finite values for training prompts, in the order of the prompts.

    Args:
        prompts: Table `prompts`, all splits; its order numbers the rows.
        labels: Table `labels`, all labels.
        label: Name of the label.
        limit: Keep so many at most, chosen by the hash of the prompt; all if None.
        seed: Seed of that choice.
        is_named: Whether the spec says where the label comes from, for what is said where it has no value.
    """
    named = labels.filter(pl.col("label") == label)
    finite = named.filter(pl.col("value").is_finite())
    placed = _placed(prompts, finite)
    train = placed.filter(pl.col("split") == "train")
    left_out = _left_out(
        {
            "not a finite number": len(named) - len(finite),
            "of a prompt that is not in this version": len(finite) - len(placed),
            "of a prompt set apart for evaluation": len(placed) - len(train),
        }
    )
    if limit is not None and limit < len(train):
        order = np.argsort(
            hash_fractions(train["prompt_id"].to_list(), seed=seed, purpose=f"labels of {label}"),
            kind="stable",
        )
        train = train[np.sort(order[:limit])]
    return Supervision(
        label,
        train["row"].to_numpy().astype(np.int64),
        train["value"].to_numpy().astype(np.float64),
        train["n_observations"].to_numpy().astype(np.int64),
        left_out,
        len(prompts),
        is_named,
    )


def known_values(prompts: pl.DataFrame, labels: pl.DataFrame, label: str) -> NDArray[np.float64]:
    """The label of every prompt of either split, float64 [n_prompts]; not a number where it is not known."""
    placed = _placed(prompts, labels.filter((pl.col("label") == label) & pl.col("value").is_finite()))
    values = np.full(len(prompts), np.nan)
    values[placed["row"].to_numpy()] = placed["value"].to_numpy()
    return values


def why_not_learnable(supervision: Supervision, *, section: str, min_labels: int) -> str | None:
    """Why nothing can be learned, with what to supply; None if there is enough.

    Args:
        supervision: What is labelled.
        section: Section of the spec that asks for the label, such as `quality`.
        min_labels: Fewest labelled prompts to learn from.
    """
    label, prompts = supervision.label, _count(len(supervision.rows), "training prompt")
    if len(supervision.rows) == 0:
        problem = f"No label {label!r} to learn from"
        remedy = supervision.remedy
        if supervision.left_out:
            remedy = "label prompts of the training split"
    elif len(supervision.rows) < min_labels:
        problem = f"Only {prompts} with label {label!r}, fewer than {section}.min_labels = {min_labels}"
        remedy = "label more prompts, or lower that setting"
    elif np.ptp(supervision.values) == 0:
        problem = f"Label {label!r} is {supervision.values[0]:g} for all of its {prompts}"
        remedy = "supply values that differ"
    else:
        return None
    return f"{problem}: {remedy}.{supervision.left_out}"


def _placed(prompts: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    """The labels of prompts that are there, with row number and split, in the order of the prompts."""
    places = prompts.select("prompt_id", "split").with_row_index("row")
    return labels.join(places, on="prompt_id", how="inner").sort("row")


def _left_out(counts: dict[str, int]) -> str:
    parts = [f"{_count(count, 'value')} {why}" for why, count in counts.items() if count]
    return f" Left out: {', '.join(parts)}." if parts else ""


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
