"""A score brought to the scale of its label without changing the order.

Belongs here: learning the map from predictions of rows that were not learned from, and applying it. Does not belong
here: the scores (difficulty).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Doubles = NDArray[np.float64]

TIE_BREAK = 1e-6
"""Prompts of one step of the map differ by their score alone, by so much of the labels' range at most."""


@dataclass(frozen=True)
class LabelScale:
    """An increasing map from scores to labels: straight between its knots, level beyond them."""

    knots: Doubles
    """[k] scores, ascending."""
    levels: Doubles
    """[k] labels, ascending."""
    centre: float
    spread: float

    @classmethod
    def fit(cls, scores: Doubles, labels: Doubles) -> LabelScale:
        """Isotonic regression of labels on scores (pool adjacent violators; Barlow et al. 1972).

        Args:
            scores: float64 [n] finite, of rows that the scores were not learned from.
            labels: float64 [n] finite.
        """
        from sklearn.isotonic import IsotonicRegression

        found = IsotonicRegression(increasing=True, out_of_bounds="clip").fit(scores, labels)
        knots, levels = np.asarray(found.X_thresholds_), np.asarray(found.y_thresholds_)
        return cls(knots, levels, float(scores.mean()), float(scores.std()) or 1.0)

    def apply(self, scores: Doubles) -> Doubles:
        """Scores on the labels' scale, float64 [n]; a higher score is always a higher value.

        Nothing is beyond the lowest and the highest level: where labels begin at 0, no value is below it. Only a map
        that is level throughout, and has no range to keep to, is left by up to `TIE_BREAK`.
        """
        nudge = 0.5 + np.arctan((scores - self.centre) / self.spread) / np.pi  # above 0 and below 1
        lowest, highest = float(self.levels[0]), float(self.levels[-1])
        reach = TIE_BREAK * ((highest - lowest) or 1.0)
        above = (np.interp(scores, self.knots, self.levels) - lowest) * (1 - TIE_BREAK)
        return np.asarray(lowest + above + reach * nudge)
