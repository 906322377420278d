"""Who is held out when: deterministic folds and subsets by a hash, of the prompt or of what it asks (questions).

Belongs here: turning prompt ids into fractions, folds and the rows that settings are chosen on. Does not
belong here: what is learned on the folds (difficulty, quality), and the split into training and evaluation
prompts (prompts).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

N_OUTER_FOLDS = 5
"""Folds that the held-out figures come from."""

N_INNER_FOLDS = 3
"""Folds within the training rows of an outer fold, on which its hyperparameters are chosen."""

N_TUNING_ROWS = 4_000
"""Hyperparameters are chosen on about so many rows at most; more rows hardly change the choice, only its
price."""


def hash_fractions(prompt_ids: Sequence[str], *, seed: int, purpose: str) -> NDArray[np.float64]:
    """A fraction for each prompt that depends on nothing but its id, the seed and the purpose.

    Args:
        prompt_ids: n ids.
        seed: Seed of the version.
        purpose: What the fractions decide, so that two decisions are independent of each other.

    Returns:
        float64 [n], uniform in [0, 1).
    """
    salt = f"{seed}:{purpose}:"
    digests = b"".join(hashlib.blake2b(f"{salt}{name}".encode(), digest_size=8).digest() for name in prompt_ids)
    return (np.frombuffer(digests, dtype="<u8") >> np.uint64(11)).astype(np.float64) * 2.0**-53


def outer_folds(prompt_ids: Sequence[str], *, seed: int) -> NDArray[np.int64]:
    """The outer fold of each prompt, int64 [n] in [0, `N_OUTER_FOLDS`); the same for the same name.

    A prompt keeps its fold when others come or go. So folds are of about the same size, not of exactly the
    same; of very few prompts one can be empty.
    """
    return (hash_fractions(prompt_ids, seed=seed, purpose="outer fold") * N_OUTER_FOLDS).astype(np.int64)


def tuning_folds(fractions: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows on which hyperparameters are chosen, and their inner folds.

    Args:
        fractions: float64 [n], hash fractions of the rows that may be learned from.

    Returns:
        int64 [m], row numbers, m about `N_TUNING_ROWS` at most; int64 [m], their folds in [0,
        `N_INNER_FOLDS`).
    """
    scaled = fractions * N_INNER_FOLDS
    folds = scaled.astype(np.int64)
    # What is left after the fold is a fraction again, independent of the fold.
    rows = np.flatnonzero(scaled - folds < N_TUNING_ROWS / max(len(fractions), 1))
    return rows, folds[rows]


def held_out_parts(folds: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """For each fold that is neither empty nor everything: rows to learn from, rows to measure on."""
    for fold in np.unique(folds):
        held_out = folds == fold
        if not held_out.all():
            yield np.flatnonzero(~held_out), np.flatnonzero(held_out)
