"""How far a measured area under the ROC curve may be off by chance.

Belongs here: its bootstrap interval, fast enough for tens of thousands of rows. Does not belong here: the area itself
(agreement).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Doubles = NDArray[np.float64]
    Integers = NDArray[np.int64]

N_SAMPLES = 400
CONFIDENCE = 0.95


def auroc_interval(
    score: Doubles, share: Doubles, weight: Doubles, folds: Integers, groups: Integers, *, seed: int
) -> tuple[float, float] | None:
    """The 95% bootstrap interval of the area within folds, averaged over them by size.

    Groups are drawn with replacement, whole: rows of one group, such as the answers to one question, do not tell more
    than the group does. A model is not fitted anew to each sample, so the interval is that of this probe on other
    prompts of the same kind.

    Args:
        score: float64 [n].
        share: float64 [n], shares of correct outcomes.
        weight: float64 [n].
        folds: int64 [n], scores of different folds are not compared.
        groups: int64 [n], group of each row, counted from 0.
        seed: Seed of the samples.

    Returns:
        Lower and upper end; None where the area is nowhere defined.
    """
    rng = np.random.default_rng(seed)
    n_groups = int(groups.max()) + 1 if len(groups) else 0
    if not n_groups:
        return None
    drawn = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=N_SAMPLES)
    total, size = np.zeros(N_SAMPLES), np.zeros(N_SAMPLES)
    for fold in np.unique(folds):
        rows = np.flatnonzero(folds == fold)
        times = drawn[:, groups[rows]].astype(np.float64)
        area = _areas(score[rows], share[rows], weight[rows] * times)
        defined = np.isfinite(area)
        n_rows = times.sum(axis=1)
        total[defined] += area[defined] * n_rows[defined]
        size[defined] += n_rows[defined]
    usable = size > 0
    if not usable.any():
        return None
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(total[usable] / size[usable], [tail, 1 - tail])
    return float(low), float(high)


def _areas(score: Doubles, share: Doubles, weight: Doubles) -> Doubles:
    """The area for each row of weights [n_samples, n], ties counted half; not a number where a class is missing."""
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=np.nan) != 0)
    correct, wrong = (np.add.reduceat((weight * part)[:, order], starts, axis=1) for part in (share, 1 - share))
    below = np.cumsum(wrong, axis=1) - wrong
    pairs = (correct * (below + wrong / 2)).sum(axis=1)
    possible = correct.sum(axis=1) * wrong.sum(axis=1)
    areas: Doubles = np.divide(pairs, possible, out=np.full(len(weight), np.nan), where=possible > 0)
    return areas
