"""Pairs of prompts with nearly the same text: MinHash finds candidates, their exact Jaccard overlap decides.

Belongs here: overlap of shingles. Does not belong here: what a shingle is (wording), overlap of features
(feature_pairs).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from saerl_assets.domain.pairs import members_of, pair_frame
from saerl_assets.domain.wording import shingles

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from saerl_assets.domain.progress import Progress

N_PERMUTATIONS = 128
FOUND_FRACTION = 0.99
"""Of the pairs whose overlap is exactly the least one that counts, so many are found; of closer ones more."""
N_NEXT = 8
"""Prompts with the same band of a signature are sorted, and each is held against so many after it: where a template
gives a thousand prompts the same band, their pairs grow with their number and not with its square."""
ESTIMATE_MARGIN = 0.15
"""A pair whose signatures agree by so much less than needed is not looked at; the estimate's standard deviation is at
most 0.044."""
_BLOCK_PAIRS = 100_000


def text_pairs(
    texts: Sequence[str], keys: NDArray[np.int64], *, min_jaccard: float, progress: Progress | None = None
) -> pl.DataFrame:
    """Pairs of prompts whose shingles overlap.

    Signatures are those of `datasketch` (128 permutations), cut into bands after Leskovec, Rajaraman and Ullman,
    'Mining of Massive Datasets', section 3.4: pairs that agree in a band are candidates, and their exact Jaccard
    overlap is computed. Only prompts that could be the same problem are held against each other.

    Args:
        texts: What is compared, n of them.
        keys: int64 [n], the problem that each could be, see `pairs.problem_keys`.
        min_jaccard: Least overlap of a pair, above 0 to 1.
        progress: Told while signatures are made.

    Returns:
        `first`, `second` (rows, the first below the second) and `jaccard`, by row. Time is linear in the prompts that
        share a key, memory too: 512 bytes a signature.
    """
    rows = np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *members_of(keys)]))
    signatures = _signatures([texts[row] for row in rows], progress)
    n_in_band = band_rows(min_jaccard)
    candidates = [
        pair_frame(rows[first], rows[second])
        for first, second in _candidates(signatures, keys[rows], n_in_band, min_jaccard - ESTIMATE_MARGIN)
    ]
    found = pl.concat([pair_frame([], []), *candidates]).unique().sort("first", "second")
    overlaps = jaccard_overlaps(texts, found["first"].to_numpy(), found["second"].to_numpy())
    return found.with_columns(jaccard=overlaps).filter(pl.col("jaccard") >= min_jaccard)


def jaccard_overlaps(texts: Sequence[str], first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.float64]:
    """Jaccard overlap of the shingles of pairs of texts, float64 [n_pairs]; pairs by `first` are the fastest."""
    overlaps = np.zeros(len(first))
    row, own = -1, frozenset[str]()
    for place, (one, other) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        if one != row:
            row, own = one, shingles(texts[one])
        theirs = shingles(texts[other])
        n_shared = len(own & theirs)
        overlaps[place] = n_shared / (len(own) + len(theirs) - n_shared)
    return overlaps


def band_rows(min_jaccard: float) -> int:
    """Rows of a band, as many as still let FOUND_FRACTION of the pairs with just this overlap agree in one band."""
    fitting = [
        n_rows
        for n_rows in range(1, N_PERMUTATIONS + 1)
        if 1.0 - (1.0 - min_jaccard**n_rows) ** (N_PERMUTATIONS // n_rows) >= FOUND_FRACTION
    ]
    return max(fitting, default=1)


def _signatures(texts: Sequence[str], progress: Progress | None) -> NDArray[np.uint32]:
    """MinHash signatures, uint32 [n, N_PERMUTATIONS]."""
    from datasketch import MinHash

    signatures = np.zeros((len(texts), N_PERMUTATIONS), dtype=np.uint32)
    blank = MinHash(N_PERMUTATIONS, scheme="affine32")
    for row, text in enumerate(texts):
        signature = blank.copy()
        signature.update_batch([piece.encode(errors="surrogatepass") for piece in sorted(shingles(text))])
        signatures[row] = signature.hashvalues
        if progress is not None and (row + 1) % 10_000 == 0:
            progress(row + 1, len(texts), unit="prompts", note="signatures")
    return signatures


def _candidates(
    signatures: NDArray[np.uint32], keys: NDArray[np.int64], n_in_band: int, min_estimate: float
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows of pairs that share a key and a band and seem alike enough, band after band."""
    n_bands = N_PERMUTATIONS // n_in_band
    for band in range(n_bands):
        # Of many that share the band, those that share the next one too come to stand beside each other.
        columns = [(band * n_in_band + place) % N_PERMUTATIONS for place in range(2 * n_in_band)]
        order = np.lexsort([signatures[:, column] for column in reversed(columns)] + [keys])
        own = np.column_stack([keys[order], signatures[:, columns[:n_in_band]][order]])
        for step in range(1, min(N_NEXT, len(order) - 1) + 1):
            first = np.flatnonzero((own[step:] == own[:-step]).all(axis=1))
            for start in range(0, len(first), _BLOCK_PAIRS):
                one, other = (
                    order[first[start : start + _BLOCK_PAIRS]],
                    order[first[start : start + _BLOCK_PAIRS] + step],
                )
                alike = (signatures[one] == signatures[other]).mean(axis=1) >= min_estimate
                yield one[alike], other[alike]
