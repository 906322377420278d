"""One label's values as what is to be foretold.

Belongs here: numbers, two values or classes, samples of them, why there may be too few. Does not belong here:
foretelling them (label_evidence).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from saerl_assets.domain.folds import N_OUTER_FOLDS, hash_fractions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Doubles: TypeAlias = NDArray[np.float64]
    Integers: TypeAlias = NDArray[np.int64]

Kind = Literal["numeric", "binary", "class"]

MIN_EACH = 2 * N_OUTER_FOLDS
"""A class of fewer prompts is one of the others, since a fold would lack it; of fewer questions nothing is measured."""


@dataclass(frozen=True)
class LabelValues:
    """One label of training prompts: numbers, or names of classes."""

    name: str
    rows: Integers
    """[n] row numbers of the prompts, ascending."""
    values: Sequence[float] | Sequence[str]
    """[n]"""

    @property
    def kind(self) -> Kind:
        """Classes, two values, or numbers."""
        if len(self.values) and isinstance(self.values[0], str):
            return "class"
        return "binary" if len(np.unique(np.asarray(self.values, dtype=float))) == 2 else "numeric"


def sampled(label: LabelValues, questions: Sequence[str], limit: int, seed: int) -> LabelValues:
    """So many rows at most, by the hash of the question, so that its responses come together; of all prompts."""
    if len(label.rows) <= limit:
        return label
    names = [questions[row] for row in label.rows]
    fractions = hash_fractions(names, seed=seed, purpose=f"evidence on {label.name}")
    kept = np.sort(np.argsort(fractions, kind="stable")[:limit])
    return LabelValues(label.name, label.rows[kept], [label.values[place] for place in kept])


def why_not(label: LabelValues, questions: Sequence[str], min_labels: int) -> str | None:
    """Why nothing can be measured on it, with what to supply; None if there is enough.

    Args:
        label: What is known.
        questions: What each of its prompts asks.
        min_labels: Fewest labelled prompts.
    """
    n, n_questions, n_values = len(label.rows), len(set(questions)), len(set(label.values))
    if n < min_labels:
        return f"Only {n:,} training prompts have it, fewer than evidence.min_labels = {min_labels}: label more."
    if n_questions < MIN_EACH:
        return f"Its {n:,} prompts ask {n_questions} questions, fewer than {MIN_EACH}: label responses to more."
    if n_values < 2:
        return f"It is {label.values[0]} for all of its {n:,} prompts: supply values that differ."
    if len(np.unique(coded(label)[1])) < 2 and label.kind == "class":
        return (
            f"None of its {n_values:,} classes has {MIN_EACH} prompts or more, so that all of its {n:,} prompts are "
            "others: supply fewer and broader classes, or label more."
        )
    return None


def coded(label: LabelValues) -> tuple[list[str], Integers]:
    """Classes by name and the class of each row; rare ones are one class, since a fold would lack them."""
    if label.kind != "class":
        return [], np.zeros(len(label.rows), dtype=np.int64)
    names, counts = np.unique(np.asarray(label.values, dtype=str), return_counts=True)
    kept = sorted(name for name, count in zip(names, counts, strict=True) if count >= MIN_EACH)
    number = {name: place for place, name in enumerate(kept)}
    codes = np.array([number.get(str(value), len(kept)) for value in label.values], dtype=np.int64)
    return [*kept, "others"], codes


def targets_of(label: LabelValues, classes: list[str], codes: Integers) -> Doubles:
    """What is fitted: float64 [n, 1], of two values 1 for the larger; or a column for each class."""
    if label.kind == "class":
        return np.asarray(codes[:, None] == np.arange(len(classes)), dtype=np.float64)
    values = np.asarray(label.values, dtype=np.float64)[:, None]
    return np.asarray(values == values.max(), dtype=np.float64) if label.kind == "binary" else values
