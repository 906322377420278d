"""From a probe's score to a probability, and whether that probability holds.

Belongs here: fitting and applying a calibration, the calibration curve and its error. Does not belong here: which rows
it is fitted to (quality).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl

from saerl_assets.domain.logistic_regression import log_loss, logistic

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Doubles = NDArray[np.float64]

Method = Literal["platt", "isotonic"]

MIN_ROWS_ISOTONIC = 1_000
"""From so many labels on the calibration is isotonic, below Platt's. scikit-learn's guide advises against isotonic
regression for 'far less than 1000' of them, for it overfits
(https://scikit-learn.org/stable/modules/calibration.html#isotonic)."""

MAX_BINS = 10
ROWS_IN_BIN = 50
"""A bin of the calibration curve has about so many rows, for fewer say nothing of a share."""

CURVE_SCHEMA = pl.Schema(
    {
        "probe": pl.String,
        "bin": pl.UInt32,
        "n_rows": pl.UInt64,
        "predicted": pl.Float64,
        "observed": pl.Float64,
        "observed_low": pl.Float64,
        "observed_high": pl.Float64,
    }
)


@dataclass(frozen=True)
class Calibration:
    """A rising map from scores to probabilities.

    `platt`: logistic(points[0] score + values[0]). `isotonic`: straight lines through (points, values), level beyond
    the first and the last.
    """

    method: Method
    points: Doubles
    values: Doubles

    def apply(self, scores: Doubles) -> Doubles:
        """Probabilities, float64 [n]."""
        if self.method == "platt":
            return logistic(self.points[0] * scores + self.values[0])
        return np.interp(scores, self.points, self.values)


def fit_calibration(scores: Doubles, shares: Doubles, weight: Doubles) -> Calibration:
    """Learns what share of outcomes is correct at each score: Platt's way, or isotonic from `MIN_ROWS_ISOTONIC` rows.

    Args:
        scores: float64 [n], of models that have not seen the row.
        shares: float64 [n], shares of correct outcomes.
        weight: float64 [n].
    """
    return (_isotonic if len(scores) >= MIN_ROWS_ISOTONIC else _platt)(scores, shares, weight)


def _isotonic(scores: Doubles, shares: Doubles, weight: Doubles) -> Calibration:
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression().fit(scores, shares, sample_weight=weight)
    return Calibration("isotonic", model.X_thresholds_.astype(np.float64), model.y_thresholds_.astype(np.float64))


def _platt(scores: Doubles, shares: Doubles, weight: Doubles) -> Calibration:
    """A logistic regression on the score alone (Platt, Advances in Large Margin Classifiers, 1999).

    Its targets are not 0 and 1 but (N- side) 1 / (N- + 2) and (N+ side) (N+ + 1) / (N+ + 2), as there, so that a
    perfect separation of few rows does not end in certainty. A score that ranks the wrong way round says nothing: the
    slope is at least 0.
    """
    from scipy.optimize import minimize

    centre, spread = float(scores.mean()), float(scores.std()) or 1.0
    scaled = (scores - centre) / spread
    n_correct, n_wrong = float(np.sum(weight * shares)), float(np.sum(weight * (1 - shares)))
    targets = shares * (n_correct + 1) / (n_correct + 2) + (1 - shares) / (n_wrong + 2)

    def objective(point: Doubles) -> tuple[float, Doubles]:
        logits = point[0] * scaled + point[1]
        residual = weight * (logistic(logits) - targets)
        return float(np.sum(weight * log_loss(targets, logits))), np.array([np.sum(residual * scaled), residual.sum()])

    found = minimize(objective, np.zeros(2), jac=True, method="L-BFGS-B", bounds=[(0.0, None), (None, None)])
    slope, intercept = found.x
    return Calibration("platt", np.array([slope / spread]), np.array([intercept - slope * centre / spread]))


def calibration_curve(probe: str, probability: Doubles, shares: Doubles, weight: Doubles) -> pl.DataFrame:
    """Predicted and observed shares in bins of equally many rows.

    Args:
        probe: Its name.
        probability: float64 [n].
        shares: float64 [n], shares of correct outcomes.
        weight: float64 [n].

    Returns:
        Table `probe_calibration`, lowest bin first. The 95% interval of the observed share is Wilson's (JASA 22, 1927)
        for as many outcomes as there are rows.
    """
    n_bins = int(np.clip(len(probability) // ROWS_IN_BIN, 1, MAX_BINS))
    parts = np.array_split(np.argsort(probability, kind="stable"), n_bins)
    rows = []
    for number, part in enumerate(parts):
        observed = float(np.average(shares[part], weights=weight[part]))
        low, high = _wilson(observed, len(part))
        predicted = float(np.average(probability[part], weights=weight[part]))
        rows.append((probe, number, len(part), predicted, observed, low, high))
    return pl.DataFrame(rows, schema=CURVE_SCHEMA, orient="row")


def calibration_error(curve: pl.DataFrame) -> float:
    """Expected calibration error: how far observed and predicted are apart, averaged over the rows (Naeini 2015)."""
    gap = (curve["observed"] - curve["predicted"]).abs()
    return float(np.average(gap.to_numpy(), weights=curve["n_rows"].to_numpy()))


def _wilson(share: float, n: int) -> tuple[float, float]:
    z = 1.959964
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(float(centre - half), 0.0), min(float(centre + half), 1.0)
