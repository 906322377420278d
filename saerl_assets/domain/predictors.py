"""What a label is foretold from: SAE features, and the cheap things that a sceptic would use instead.

Belongs here: turning prompts, features and states into one matrix per predictor. Does not belong here: fitting
(kernel_ridge), measuring (evidence).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
import polars as pl
from scipy import sparse

from saerl_assets.domain.features import require_finite
from saerl_assets.domain.spec import Pooling

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from saerl_assets.domain.features import FeatureSet, FloatMatrix

    Matrix: TypeAlias = "sparse.csr_matrix[np.float32] | NDArray[np.floating]"

MAX_CATEGORIES = 50
"""A text field with more values than this is no category but a name of the row."""

SAE_POOLINGS: tuple[Pooling, ...] = ("max", "mean", "binary")

COMBINED = ("sae_max", "dense_mean", "length")
"""What the predictor `combined` puts side by side, each with the same total variance."""


class Predictor(Protocol):
    """A row of numbers for every prompt, made part by part as it is needed: what a proxy or a probe learns from."""

    @property
    def name(self) -> str:
        """What `signal_evidence` calls it."""

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
    """SAE features as a predictor."""

    features: FeatureSet
    pooling: Pooling
    name: str = ""

    def take(self, rows: NDArray[np.int64]) -> FloatMatrix:
        """See `Predictor.take`."""
        matrix = self.features.csr(self.pooling, rows)
        require_finite(matrix)
        return matrix

    def blocks(self) -> Iterator[tuple[int, FloatMatrix]]:
        """See `Predictor.blocks`."""
        for start, matrix in self.features.blocks(self.pooling):
            require_finite(matrix, start)
            yield start, matrix


@dataclass(frozen=True)
class WholeMatrix:
    """A matrix that is in memory as a predictor."""

    matrix: FloatMatrix
    name: str = ""

    def take(self, rows: NDArray[np.int64]) -> FloatMatrix:
        """See `Predictor.take`."""
        return self.matrix[rows]

    def blocks(self) -> Iterator[tuple[int, FloatMatrix]]:
        """See `Predictor.blocks`."""
        yield 0, self.matrix


@dataclass(frozen=True)
class DenseStates:
    """Hidden states of prompts: float32 [n_prompts, d_model] each, layers side by side."""

    mean: NDArray[np.float32]
    last: NDArray[np.float32]


def build_predictors(
    prompts: pl.DataFrame,
    features: FeatureSet,
    states: DenseStates,
    control: FeatureSet | None,
    *,
    label_fields: Sequence[str],
) -> dict[str, Matrix]:
    """One matrix per predictor, with a row for every prompt in the order of `prompts`.

    Args:
        prompts: Table `prompts`, in the order of the features.
        features: The SAE's features.
        states: The dense states that they were made from.
        control: Features of an SAE with random weights; left out where there is none.
        label_fields: Fields of the source that are labels, and therefore no predictors.

    Returns:
        `constant`, `length`, `tfidf`, `metadata` (where there is any), `dense_mean`, `dense_last`, `random_sae`,
        `sae_max`, `sae_mean`, `sae_binary`, simpler ones first.
    """
    length = prompts["n_tokens"].to_numpy().astype(np.float64)
    found: dict[str, Matrix] = {
        "constant": np.ones((len(prompts), 1)),
        "length": np.stack([length, np.log1p(length)], axis=1),
        "tfidf": _tfidf(prompts["text"].to_list()),
    }
    metadata = _metadata(prompts, label_fields)
    if metadata.shape[1]:
        found["metadata"] = metadata
    found |= {"dense_mean": states.mean, "dense_last": states.last}
    if control is not None:
        found["random_sae"] = control.csr("max")
    found |= {f"sae_{pooling}": features.csr(pooling) for pooling in SAE_POOLINGS}
    return found


def _tfidf(texts: Sequence[str]) -> Matrix:
    """Words and pairs of words, weighted by how rare they are among the prompts."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = r"\S+"
    vectoriser = TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, min_df=min(2, len(texts)), max_features=50_000, token_pattern=words
    )
    return sparse.csr_matrix(vectoriser.fit_transform(texts), dtype=np.float32)


def _metadata(prompts: pl.DataFrame, label_fields: Sequence[str]) -> NDArray[np.float64]:
    """Further fields of the source as columns: numbers as they are, texts with few values one column for each."""
    rows = [dict(_flat(json.loads(extra))) for extra in prompts["extra"]]
    if prompts["topic"].null_count() < len(prompts):
        rows = [row | {"topic": topic} for row, topic in zip(rows, prompts["topic"], strict=True)]
    left_out = {field.lower() for field in label_fields}
    names = sorted({name for row in rows for name in row if name.lower() not in left_out})
    columns: list[NDArray[np.float64]] = []
    for name in names:
        values = [row.get(name) for row in rows]
        if all(value is None or isinstance(value, int | float) for value in values):
            numbers = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
            is_known = np.isfinite(numbers)
            if is_known.any():
                columns.append(np.where(is_known, numbers, numbers[is_known].mean()))
        else:
            said = [None if value is None else str(value) for value in values]
            known = sorted({value for value in said if value is not None})
            if len(known) <= MAX_CATEGORIES:
                columns += [np.array([value == category for value in said], dtype=np.float64) for category in known]
    return np.stack(columns, axis=1) if columns else np.zeros((len(prompts), 0))


def _flat(value: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    """Fields by dotted path; lists are no columns."""
    found: list[tuple[str, object]] = []
    for key, item in value.items():
        if isinstance(item, dict):
            found += _flat(item, f"{prefix}{key}.")
        elif not isinstance(item, list):
            found.append((f"{prefix}{key}", item))
    return found
