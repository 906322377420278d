"""Dense hidden states of prompts where they stand in for SAE features.

Belongs here: what makes them comparable by cosine, how large they are. Does not belong here: reading and keeping them
(models, storage), what is made of them (clusters, control_signals).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from saerl_assets.domain.features import FloatMatrix
    from saerl_assets.domain.predictors import Predictor
    from saerl_assets.domain.spec import Pooling

    Doubles: TypeAlias = NDArray[np.float64]
    Floats: TypeAlias = NDArray[np.float32]

SAME_VALUE = 1e-10
"""A dimension whose variance is a smaller share of its mean square is the same everywhere: the rest is rounding."""


@dataclass(frozen=True)
class StandardStates:
    """Dense states as rows to cluster by cosine: every dimension with mean 0 and variance 1 over the prompts.

    As they are, all hidden states point much the same way, and a few dimensions of huge values decide their cosine
    alone. Standardising undoes both (Timkey and van Schijndel, 'All Bark and No Bite: Rogue Dimensions in Transformer
    Language Models Obscure Representational Quality', EMNLP 2021). It is to them what the weighting `idf` is to
    features: what all prompts share makes no two of them alike. With the demo's reader and prompts, mean states have a
    cosine of 0.97 to their mean, and 3 of 576 dimensions have 83% of their squares; clusters of them agree with the 17
    task families by 0.84 as they are, 0.86 centred and 0.90 standardised (adjusted Rand index, mean of four seeds).
    """

    states: Predictor
    prompt_ids: list[str]
    mean: Floats
    """[n_columns] over all prompts."""
    factor: Floats
    """[n_columns] 1 / standard deviation; 0 for a dimension that is the same everywhere."""

    @classmethod
    def of(cls, states: Predictor, prompt_ids: list[str]) -> StandardStates:
        """Reads all prompts once, block by block, for mean and variance.

        Raises:
            SaerlError: `states_missing`, `features_not_finite`.
        """
        total, square = np.zeros(sum(states.widths)), np.zeros(sum(states.widths))
        for _, block in states.blocks():
            dense = block.toarray().astype(np.float64)
            total += dense.sum(axis=0)
            square += (dense**2).sum(axis=0)
        mean, square = total / max(len(prompt_ids), 1), square / max(len(prompt_ids), 1)
        variance = square - mean**2
        differs = variance > SAME_VALUE * square
        factor = np.where(differs, 1 / np.sqrt(np.where(differs, variance, 1.0)), 0.0)
        return cls(states, prompt_ids, mean.astype(np.float32), factor.astype(np.float32))

    def csr(self, _pooling: Pooling, rows: NDArray[np.int64] | None = None, /) -> FloatMatrix:
        """Some prompts by ascending row number, or all: float32 [n, n_columns]. The states are pooled already."""
        return self._standard(self.states.take(np.arange(len(self.prompt_ids)) if rows is None else rows))

    def blocks(self, _pooling: Pooling, /) -> Iterator[tuple[int, FloatMatrix]]:
        """All prompts, block after block: the number of a block's first row, and its matrix."""
        for start, block in self.states.blocks():
            yield start, self._standard(block)

    def _standard(self, block: FloatMatrix) -> FloatMatrix:
        standard: FloatMatrix = sparse.csr_matrix((block.toarray() - self.mean) * self.factor)
        return standard


def summed_norms(states: Predictor, n_tokens: NDArray[np.integer]) -> Doubles:
    """The norm of every prompt's state summed over its tokens: that of the mean, times so many tokens.

    Args:
        states: The mean state of n prompts.
        n_tokens: int [n].

    Returns:
        float64 [n].
    """
    norms = np.zeros(len(n_tokens))
    for start, block in states.blocks():
        norms[start : start + block.shape[0]] = np.sqrt((block.toarray().astype(np.float64) ** 2).sum(axis=1))
    return norms * n_tokens
