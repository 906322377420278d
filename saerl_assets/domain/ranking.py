"""How well scores rank what is labelled: rank correlation and R2 with intervals, and the difference to length.

Belongs here: measuring scores of the same rows in the same folds and on the same bootstrap samples. Does not belong
here: the scores (difficulty) and the measures themselves (agreement).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from saerl_assets.domain.agreement import MIN_ROWS_RANKED, r_squared, spearman
from saerl_assets.domain.folds import held_out_parts
from saerl_assets.domain.label_scale import LabelScale
from saerl_assets.domain.questions import members

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Doubles = NDArray[np.float64]
    Integers = NDArray[np.int64]

__all__ = ["MIN_ROWS_RANKED", "Ranking"]

N_BOOTSTRAP = 300
CONFIDENCE = (2.5, 97.5)
_ENTRIES_AT_ONCE = 2_000_000


class Ranking:
    """Labelled rows, and what every score is worth on them.

    Args:
        target: float64 [n] labels.
        folds: int64 [n], outer fold of each row.
        lengths: float64 [n] tokens of each row.
        seed: Seed of the bootstrap.
        groups: int64 [n], the same for rows that belong together and are in one fold; each is its own by default.
    """

    def __init__(
        self, target: Doubles, folds: Integers, lengths: Doubles, seed: int, groups: Integers | None = None
    ) -> None:
        self.target, self.folds, self._seed = target, folds, seed
        self._groups = np.arange(len(target)) if groups is None else groups
        parts = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
        # so few that no fold can be ranked are ranked together
        self._parts = [rows for rows in parts if len(rows) >= MIN_ROWS_RANKED] or [np.arange(len(target))]
        self._length, self._length_draws = self._value(lengths), self._draws(lengths)

    def of(self, score: Doubles) -> dict[str, float | None]:
        """Figures of a score of rows that it was not fitted to.

        Spearman's correlation within folds, averaged by size, since ranks of two models do not compare; its interval
        by bootstrap over prompts, those of a group drawn together; the same for the difference to length, whatever the
        direction in which length ranks; and R2 on the label's scale, for each fold by the map (`LabelScale`) that the
        other folds teach.
        """
        value, draws = self._value(score), self._draws(score)
        low, high = _interval(draws)
        found = {"spearman": value, "low": low, "high": high, "r2": self._r2(score)}
        if value is None or self._length is None:
            return found
        side = np.sign(self._length) or 1.0
        over_low, over_high = _interval(draws - side * self._length_draws)
        over = {"over_length": value - abs(self._length), "over_length_low": over_low, "over_length_high": over_high}
        return found | over

    def of_fitted(self, score: Doubles) -> dict[str, float | None]:
        """Figures of a score on the rows that it was fitted to: no evidence, and so without intervals."""
        mean = np.full(len(self.target), self.target.mean())
        return {"spearman": spearman(score, self.target), "r2": r_squared(score, self.target, mean)}

    def _value(self, score: Doubles) -> float | None:
        """Within the parts, averaged by size over those where it is defined."""
        found = [(spearman(score[rows], self.target[rows]), len(rows)) for rows in self._parts]
        defined = [(value, size) for value, size in found if value is not None]
        total = sum(size for _, size in defined)
        return sum(value * size for value, size in defined) / total if defined else None

    def _draws(self, score: Doubles) -> Doubles:
        """The same on samples of the rows of each part, float64 [N_BOOTSTRAP]; the same samples for every score."""
        rng = np.random.default_rng(self._seed)
        total, weight = np.zeros(N_BOOTSTRAP), np.zeros(N_BOOTSTRAP)
        for rows in self._parts:
            groups = members(rows, self._groups)
            values = (
                self._of_rows(score, rows, rng) if len(groups) == len(rows) else self._of_groups(score, groups, rng)
            )
            is_known = np.isfinite(values)
            total += np.where(is_known, values, 0.0) * len(rows)
            weight += is_known * len(rows)
        return np.asarray(np.divide(total, weight, out=np.full(N_BOOTSTRAP, np.nan), where=weight > 0))

    def _of_rows(self, score: Doubles, rows: Integers, rng: np.random.Generator) -> Doubles:
        """Correlations on samples of rows, many samples at once."""
        values = np.full(N_BOOTSTRAP, np.nan)
        at_once = max(_ENTRIES_AT_ONCE // max(len(rows), 1), 1)
        for start in range(0, N_BOOTSTRAP, at_once):
            draws = slice(start, min(start + at_once, N_BOOTSTRAP))
            places = rows[rng.integers(0, max(len(rows), 1), (draws.stop - start, len(rows)))]
            values[draws] = _spearman_by_row(score[places], self.target[places])
        return values

    def _of_groups(self, score: Doubles, groups: list[Integers], rng: np.random.Generator) -> Doubles:
        """Correlations on samples of whole groups, which differ in size and so come one by one."""
        values = np.full(N_BOOTSTRAP, np.nan)
        for draw, chosen in enumerate(rng.integers(0, len(groups), (N_BOOTSTRAP, len(groups)))):
            places = np.concatenate([groups[group] for group in chosen])
            values[draw] = _spearman_by_row(score[places][None], self.target[places][None])[0]
        return values

    def _r2(self, score: Doubles) -> float | None:
        foretold, base = np.full(len(score), np.nan), np.full(len(score), np.nan)
        for train, test in held_out_parts(self.folds):
            if np.isfinite(score[train]).all():
                foretold[test] = LabelScale.fit(score[train], self.target[train]).apply(score[test])
                base[test] = self.target[train].mean()
        known = np.isfinite(foretold)
        return r_squared(foretold[known], self.target[known], base[known]) if known.any() else None


def _spearman_by_row(scores: Doubles, labels: Doubles) -> Doubles:
    """Spearman's correlation of each row of [k, n] with that of the other; not a number where one is constant."""
    from scipy.stats import rankdata

    if scores.shape[1] < MIN_ROWS_RANKED:
        return np.full(len(scores), np.nan)
    ranks = [rankdata(values, axis=1) for values in (scores, labels)]
    a, b = (found - found.mean(axis=1, keepdims=True) for found in ranks)
    spread = np.sqrt(np.sum(a * a, axis=1) * np.sum(b * b, axis=1))
    products = np.sum(a * b, axis=1)
    return np.asarray(np.divide(products, spread, out=np.full(len(scores), np.nan), where=spread > 0))


def _interval(draws: Doubles) -> tuple[float | None, float | None]:
    """The middle 95% of draws; none where most are undefined."""
    known = draws[np.isfinite(draws)]
    if len(known) <= len(draws) / 2:
        return None, None
    low, high = np.percentile(known, CONFIDENCE)
    return float(low), float(high)
