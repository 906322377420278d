"""What a label is foretold from: SAE features, and the cheap things that a sceptic would use instead.

Belongs here: turning prompts, features and states into one predictor each, whose rows are made as they are needed. Does
not belong here: fitting (ridge, elastic_net), measuring (evidence).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import polars as pl
from scipy import sparse

from saerl_assets.domain.features import POOLED_FROM, pool, require_finite
from saerl_assets.domain.spec import Pooling

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from saerl_assets.domain.features import FeatureSet, FloatMatrix

    Matrix: TypeAlias = "sparse.csr_matrix[np.float32] | NDArray[np.floating]"

MAX_CATEGORIES = 50
"""A text field with more values than this is no category but a name of the row."""

MAX_PROMPTS_LEARNED = 20_000
"""Words and categories are collected from so many prompts at most, spread evenly over all of them."""

BLOCK_PROMPTS = 20_000

LARGEST_NUMBER = float(np.finfo(np.float32).max)

SAE_POOLINGS: tuple[Pooling, ...] = ("max", "mean", "binary")

COMBINED = ("sae_max", "dense_mean", "length")
"""What the predictor `combined` puts side by side, each with the same total variance."""

CHEAPEST_FIRST = (
    "length",
    "metadata",
    "tfidf",
    "dense_mean",
    "dense_last",
    "sentence",
    "random_sae",
    "sae_max",
    "sae_mean",
    "sae_binary",
    "combined",
)
"""Predictors by what they cost: nothing is read, the reader alone, another model, the reader with an SAE."""

CHOOSABLE = tuple(name for name in CHEAPEST_FIRST if name != "metadata")
"""What `best` may stand for. A source's own columns may be made from the label, a near copy of it under another name,
and no figure tells such a copy from a true signal; who knows that they are not can name `metadata` in the spec."""


class Predictor(Protocol):
    """A row of numbers for every prompt, made part by part as it is needed: what a proxy or a probe learns from."""

    @property
    def name(self) -> str:
        """What `signal_evidence` calls it."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Columns of each of the parts that stand side by side; their sum is the width of every matrix."""

    def take(self, rows: NDArray[np.int64]) -> FloatMatrix:
        """Some prompts by ascending row number: float32 [len(rows), n_columns], proven to be finite.

        Raises:
            SaerlError: `features_not_finite`.
        """

    def blocks(self) -> Iterator[tuple[int, FloatMatrix]]:
        """All prompts, block after block: the number of a block's first row, and its matrix, proven to be finite.

        Raises:
            SaerlError: `features_not_finite`.
        """


@dataclass(frozen=True)
class PooledFeatures:
    """SAE features as a predictor; several poolings stand side by side."""

    features: FeatureSet
    pooling: Pooling | tuple[Pooling, ...]
    name: str = ""

    @property
    def poolings(self) -> tuple[Pooling, ...]:
        """The poolings, one or more."""
        return (self.pooling,) if isinstance(self.pooling, str) else self.pooling

    @property
    def widths(self) -> tuple[int, ...]:
        """See `Predictor.widths`."""
        return (self.features.n_features,) * len(self.poolings)

    def take(self, rows: NDArray[np.int64]) -> FloatMatrix:
        """See `Predictor.take`."""
        matrix = _side_by_side([self.features.csr(pooling, rows) for pooling in self.poolings])
        require_finite(matrix)
        return matrix

    def blocks(self) -> Iterator[tuple[int, FloatMatrix]]:
        """See `Predictor.blocks`."""
        start = 0
        columns = tuple({column for pooling in self.poolings for column in POOLED_FROM[pooling]})
        for rows in self.features.activations(columns):
            matrix = _side_by_side([pool(rows, pooling, self.features.n_features) for pooling in self.poolings])
            require_finite(matrix, start)
            yield start, matrix
            start += matrix.shape[0]


@dataclass(frozen=True)
class WholeMatrix:
    """A matrix that is in memory as a predictor."""

    matrix: FloatMatrix
    name: str = ""

    @property
    def widths(self) -> tuple[int, ...]:
        """See `Predictor.widths`."""
        return (self.matrix.shape[1],)

    def take(self, rows: NDArray[np.int64]) -> FloatMatrix:
        """See `Predictor.take`."""
        return self.matrix[rows]

    def blocks(self) -> Iterator[tuple[int, FloatMatrix]]:
        """See `Predictor.blocks`."""
        yield 0, self.matrix


@dataclass(frozen=True)
class SideBySide:
    """Several predictors of the same prompts as one, in the blocks of the first."""

    parts: tuple[Predictor, ...]
    name: str = ""

    @property
    def widths(self) -> tuple[int, ...]:
        """See `Predictor.widths`."""
        return tuple(width for part in self.parts for width in part.widths)

    def take(self, rows: NDArray[np.int64]) -> FloatMatrix:
        """See `Predictor.take`."""
        return _side_by_side([part.take(rows) for part in self.parts])

    def blocks(self) -> Iterator[tuple[int, FloatMatrix]]:
        """See `Predictor.blocks`."""
        for start, first in self.parts[0].blocks():
            rows = np.arange(start, start + first.shape[0])
            yield start, _side_by_side([first, *(part.take(rows) for part in self.parts[1:])])


@dataclass(frozen=True)
class Words:
    """Words and pairs of words, weighted by how rare they are among the prompts (TF-IDF)."""

    texts: Sequence[str] = field(repr=False)
    name: str = "tfidf"

    @property
    def widths(self) -> tuple[int, ...]:
        """See `Predictor.widths`."""
        return (0 if self._vectoriser is None else len(self._vectoriser.vocabulary_),)

    def take(self, rows: NDArray[np.int64]) -> FloatMatrix:
        """See `Predictor.take`."""
        if not len(rows) or self._vectoriser is None:  # scikit-learn takes no texts for an error
            return sparse.csr_matrix(np.zeros((len(rows), self.widths[0]), dtype=np.float32))
        found = self._vectoriser.transform([self.texts[row] for row in rows.tolist()])
        return sparse.csr_matrix(found, dtype=np.float32)

    def blocks(self) -> Iterator[tuple[int, FloatMatrix]]:
        """See `Predictor.blocks`."""
        return _in_blocks(self, len(self.texts))

    @cached_property
    def _vectoriser(self) -> Any:  # noqa: ANN401 - scikit-learn's, which has no types
        """None where no text that is learned from has a word."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        words = r"\S+"
        learned = [self.texts[row] for row in _spread(len(self.texts))]
        if not any(text.strip() for text in learned):
            return None
        # where no word is in two texts, those of one are all that there is
        for min_df in (2, 1):
            vectoriser = TfidfVectorizer(
                ngram_range=(1, 2),
                sublinear_tf=True,
                min_df=min(min_df, len(learned)),
                max_features=50_000,
                token_pattern=words,
            )
            try:
                return vectoriser.fit(learned)
            except ValueError:
                if min_df == 1:
                    raise
        return None


@dataclass(frozen=True)
class Metadata:
    """Further fields of the source as columns: numbers as they are, texts with few values one column for each."""

    extras: Sequence[str] = field(repr=False)
    """[n_prompts] JSON object of each prompt, table `prompts`."""
    topics: Sequence[str | None] = field(repr=False)
    label_fields: frozenset[str]
    """Fields, in lower case, that are labels and therefore no predictors."""
    name: str = "metadata"

    @property
    def widths(self) -> tuple[int, ...]:
        """See `Predictor.widths`."""
        return (sum(len(known) if isinstance(known, tuple) else 1 for known in self._columns.values()),)

    def take(self, rows: NDArray[np.int64]) -> FloatMatrix:
        """See `Predictor.take`."""
        found = [self._fields(row) for row in rows.tolist()]
        columns: list[NDArray[np.float64]] = []
        for name, known in self._columns.items():
            values = [row.get(name) for row in found]
            if isinstance(known, tuple):
                said = [None if value is None else str(value) for value in values]
                columns += [np.array([value == category for value in said], dtype=np.float64) for category in known]
            else:
                numbers = np.array([_number(value) for value in values])
                columns.append(np.where(np.isfinite(numbers), numbers, known))
        whole = np.stack(columns, axis=1) if columns else np.zeros((len(rows), 0))
        return sparse.csr_matrix(whole, dtype=np.float32)

    def blocks(self) -> Iterator[tuple[int, FloatMatrix]]:
        """See `Predictor.blocks`."""
        return _in_blocks(self, len(self.extras))

    @cached_property
    def _columns(self) -> dict[str, tuple[str, ...] | float]:
        """By field its categories, or the mean of its numbers, which stands for a missing one."""
        rows = [self._fields(row) for row in _spread(len(self.extras))]
        columns: dict[str, tuple[str, ...] | float] = {}
        for name in sorted({name for row in rows for name in row}):
            values = [row[name] for row in rows if row.get(name) is not None]
            numbers = np.array([_number(value) for value in values])
            if all(isinstance(value, int | float) for value in values):
                if np.isfinite(numbers).any():
                    columns[name] = float(numbers[np.isfinite(numbers)].mean())
            elif len(known := sorted({str(value) for value in values})) <= MAX_CATEGORIES:
                columns[name] = tuple(known)
        return columns

    def _fields(self, row: int) -> dict[str, object]:
        found = dict(_flat(json.loads(self.extras[row])))
        topic = self.topics[row]
        if topic is not None:
            found["topic"] = topic
        return {name: value for name, value in found.items() if name.lower() not in self.label_fields}


def build_predictors(
    prompts: pl.DataFrame,
    features: FeatureSet,
    *,
    states: Mapping[str, Predictor],
    control: FeatureSet | None,
    sentences: Predictor | None,
    label_fields: Sequence[str],
) -> dict[str, Predictor]:
    """One predictor by name, with a row for every prompt in the order of `prompts`.

    Args:
        prompts: Table `prompts`, in the order of the features.
        features: The SAE's features.
        states: `dense_mean` and `dense_last`: the dense states that the features were made from.
        control: Features of an SAE with random weights; left out where there is none.
        sentences: Sentence embeddings; left out where there are none.
        label_fields: Fields of the source that are labels, and therefore no predictors.

    Returns:
        `constant`, and what is there of `CHEAPEST_FIRST` in that order, without `combined`.
    """
    found: dict[str, Predictor] = {
        "constant": WholeMatrix(sparse.csr_matrix(np.ones((len(prompts), 1), dtype=np.float32)), "constant"),
        "length": prompt_length(prompts),
    }
    fields = frozenset(name.lower() for name in label_fields)
    metadata = Metadata(prompts["extra"].to_list(), prompts["topic"].to_list(), fields)
    if sum(metadata.widths):
        found["metadata"] = metadata
    found["tfidf"] = Words(prompts["text"].to_list())
    found |= states
    if sentences is not None:
        found["sentence"] = sentences
    if control is not None:
        found["random_sae"] = PooledFeatures(control, "max", "random_sae")
    return found | {f"sae_{pooling}": PooledFeatures(features, pooling, f"sae_{pooling}") for pooling in SAE_POOLINGS}


def prompt_length(prompts: pl.DataFrame) -> WholeMatrix:
    """Tokens of each prompt and their logarithm."""
    length = prompts["n_tokens"].to_numpy().astype(np.float32)
    return WholeMatrix(sparse.csr_matrix(np.stack([length, np.log1p(length)], axis=1)), "length")


def combined(predictors: Mapping[str, Predictor]) -> SideBySide:
    """The predictor `combined`, made of those that there are."""
    return SideBySide(tuple(predictors[name] for name in COMBINED), "combined")


def _side_by_side(parts: Sequence[FloatMatrix]) -> FloatMatrix:
    if len(parts) == 1:
        return parts[0]
    joined: FloatMatrix = sparse.hstack(parts, format="csr")
    return joined


def _in_blocks(predictor: Predictor, n_prompts: int) -> Iterator[tuple[int, FloatMatrix]]:
    for start in range(0, n_prompts, BLOCK_PROMPTS):
        yield start, predictor.take(np.arange(start, min(start + BLOCK_PROMPTS, n_prompts)))


def _spread(n_prompts: int) -> range:
    """At most `MAX_PROMPTS_LEARNED` row numbers; prompts are in the order of a hash, so any are a fair sample."""
    return range(0, n_prompts, max(-(-n_prompts // MAX_PROMPTS_LEARNED), 1))


def _number(value: object) -> float:
    """A number as it is; not a number for anything else, and for one that float32 does not hold."""
    if not isinstance(value, int | float) or not abs(value) < LARGEST_NUMBER:
        return np.nan
    return float(value)


def _flat(value: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    """Fields by dotted path; lists are no columns."""
    found: list[tuple[str, object]] = []
    for key, item in value.items():
        if isinstance(item, dict):
            found += _flat(item, f"{prefix}{key}.")
        elif not isinstance(item, list):
            found.append((f"{prefix}{key}", item))
    return found
