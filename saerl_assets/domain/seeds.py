"""Randomness by hashing: the same numbers on every machine and in every release.

Belongs here: deriving a seed from names, and a stream of random words from a seed. Does not belong here:
folds and subsets of single prompts (folds), and numpy's own generators, whose streams may change between
releases of numpy.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def derive_seed(*parts: str | int) -> int:
    """A 64-bit seed from names and numbers: the first 8 bytes of a SHA-256 over them, little-endian."""
    document = json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(document.encode()).digest()[:8], "little")


def random_words(n: int, seed: int) -> NDArray[np.uint64]:
    """The first n numbers of the SplitMix64 generator.

    All of them differ, because the generator permutes the 64-bit numbers: sorting by them is a permutation
    without ties.

    Args:
        n: How many.
        seed: 64-bit seed, as `derive_seed` gives it.

    Returns:
        uint64 [n].

    Source: Steele, Lea and Flood, 'Fast splittable pseudorandom number generators', OOPSLA 2014,
    https://doi.org/10.1145/2660193.2660195; constants as in https://prng.di.unimi.it/splitmix64.c.
    """
    words = np.arange(1, n + 1, dtype=np.uint64) * _GOLDEN + np.uint64(seed)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
