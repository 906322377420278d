"""Quality: a probe that predicts correct outcomes from features, and which prompts are dropped by it.

Belongs here: training and measuring the probe, its scores, the filter and its reasons. Does not belong here:
fitting (logistic_regression) and keeping the probe's weights (storage).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from saerl_assets.domain.agreement import auroc, brier, mean_over_folds
from saerl_assets.domain.folds import N_OUTER_FOLDS, hash_fractions, outer_folds
from saerl_assets.domain.linear_models import LinearModel, predict_held_out
from saerl_assets.domain.logistic_regression import fit_logistic, logistic
from saerl_assets.domain.supervision import Supervision, supervise, why_not_learnable
from saerl_assets.domain.threads import one_thread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from saerl_assets.domain.predictors import Predictor
    from saerl_assets.domain.spec import QualitySpec

METRICS_SCHEMA = pl.Schema(
    {
        "probe": pl.String,
        "rows": pl.String,
        "n_rows": pl.UInt64,
        "base_rate": pl.Float64,
        "auroc": pl.Float64,
        "brier": pl.Float64,
        "penalty": pl.Float64,
        "digest": pl.String,
        "path": pl.String,
        "explanation": pl.String,
    }
)

SCORES_SCHEMA = pl.Schema({"prompt_id": pl.String, "quality": pl.Float64, "kept": pl.Boolean, "reason": pl.String})

SET_APART = "set apart for evaluation; never in a manifest"


@dataclass(frozen=True)
class Probe:
    """A logistic regression: probability = logistic(intercept + features x coefficients)."""

    coefficients: NDArray[np.float32]
    """[n_features] in units of the predictor's columns."""
    intercept: float


@dataclass(frozen=True)
class ProbeResult:
    """A probe and its figures; without one, the figures say why."""

    probe: Probe | None
    metrics: pl.DataFrame
    """Table `quality_probe`; digest and path are null until the weights are kept."""

    @property
    def held_out_auroc(self) -> float | None:
        """Area under the ROC curve on prompts that the probe has not seen; None where there is no answer."""
        values = self.metrics.filter(pl.col("rows") == "held_out")["auroc"].to_list()
        return values[0] if values else None


def train_probe(
    predictor: Predictor, prompts: pl.DataFrame, labels: pl.DataFrame, spec: QualitySpec, seed: int
) -> ProbeResult:
    """Logistic regression on the labelled training prompts, measured on held-out ones.

    A label is a share of correct outcomes. A prompt with share p of n observations weighs as n p correct and
    n (1 - p) wrong ones, in the fit as in the figures: that is the likelihood of its rollouts, and with one
    observation each it is plain two-class regression. Weights are divided by their mean, so that the penalty
    does not grow with the rollouts.

    Args:
        predictor: A row for every prompt; only those of labelled prompts are taken.
        prompts: Table `prompts`, all splits, in the order of the predictor.
        labels: Table `labels`, all labels; may be empty.
        spec: What to learn.
        seed: Seed of the folds.

    Returns:
        The probe with its held-out and fitted figures; without enough labels no probe, and an explanation of
        what to supply.

    Raises:
        SaerlError: `features_not_finite`.
    """
    supervision = supervise(prompts, labels, spec.label, limit=None, seed=seed)
    reason = why_not_learnable(supervision, section="quality", min_labels=spec.min_labels)
    reason = reason or _why_not_shares(supervision)
    if reason is not None:
        explanation = f"{reason} Quality filters nothing."
        metric = _empty_metric("none", "held_out", len(supervision.rows), explanation)
        return ProbeResult(None, pl.DataFrame([metric], schema=METRICS_SCHEMA))
    known = predictor.take(supervision.rows)
    shares = supervision.values
    weight = supervision.n_observations / supervision.n_observations.mean()
    names = prompts["prompt_id"].gather(supervision.rows).to_list()
    fractions = hash_fractions(names, seed=seed, purpose="quality inner fold")
    folds = outer_folds(names, seed=seed)

    def fit(rows: NDArray[np.int64]) -> LinearModel:
        return fit_logistic(known[rows], shares[rows], weight[rows], fractions[rows])

    with one_thread():
        held_out = predict_held_out(fit, known, folds)
        model = fit(np.arange(len(shares)))
    outcomes = _Outcomes(shares, weight)
    area = mean_over_folds(lambda rows: outcomes.take(rows).auroc(held_out.predictions[rows]), folds)
    explanation = (
        f"Logistic regression on {predictor.name or 'its predictor'}, on prompts that it has not seen: mean over "
        f"{N_OUTER_FOLDS} folds, its penalty chosen within each.{supervision.left_out}{_caution(area, spec)}"
    )
    overfit = "The same on the prompts that it was fitted to: how far it overfits."
    fitted, penalty = model.predict(known), float(np.median(held_out.penalties))
    metrics = [
        outcomes.metric("held_out", held_out.predictions, area, penalty, explanation),
        outcomes.metric("fitted", fitted, outcomes.auroc(fitted), model.penalty, overfit),
    ]
    probe = Probe(model.coefficients.astype(np.float32), model.intercept)
    return ProbeResult(probe, pl.DataFrame(metrics, schema=METRICS_SCHEMA))


@dataclass(frozen=True)
class _Outcomes:
    """What a probe is measured against: float64 [n] shares of correct outcomes and their weights."""

    shares: NDArray[np.float64]
    weight: NDArray[np.float64]

    def take(self, rows: NDArray[np.int64]) -> _Outcomes:
        return _Outcomes(self.shares[rows], self.weight[rows])

    def auroc(self, logits: NDArray[np.float64]) -> float | None:
        return auroc(logits, self.shares, self.weight)

    def metric(
        self, rows: str, logits: NDArray[np.float64], area: float | None, penalty: float, explanation: str
    ) -> dict[str, object]:
        return _empty_metric("logistic", rows, len(self.shares), explanation) | {
            "base_rate": float(np.average(self.shares, weights=self.weight)),
            "auroc": area,
            "brier": brier(logistic(logits), self.shares, self.weight),
            "penalty": penalty,
        }


def score_quality(predictor: Predictor, prompts: pl.DataFrame, result: ProbeResult, spec: QualitySpec) -> pl.DataFrame:
    """Scores every prompt and drops the worst ones of the training split, as the spec says.

    Args:
        predictor: A row for every prompt; only those of labelled prompts are taken.
        prompts: Table `prompts`, all splits, in the order of the predictor.
        result: What `train_probe` returned.
        spec: What to drop. Shares are of the training split's prompts; prompts set apart for evaluation are
            kept.

    Returns:
        Table `quality_scores`. Equal scores are dropped in the order of prompt_id.

    Raises:
        ValueError: The predictor has a row for other than every prompt.
        SaerlError: `features_not_finite`.
    """
    quality = _probabilities(predictor, result.probe, len(prompts))
    is_train = prompts["split"].to_numpy() == "train"
    reasons = np.full(len(prompts), SET_APART, dtype=object)
    kept = np.ones(len(prompts), dtype=bool)
    idle = _why_idle(result, spec)
    if idle is not None or quality is None:
        reasons[is_train] = idle
    else:
        order = np.flatnonzero(is_train)
        order = order[np.argsort(quality[order], kind="stable")]
        wanted, dropped, passed = _how_many(quality[order], spec)
        n_dropped = min(wanted, _share(spec.max_dropped_fraction, len(order)))
        kept[order[:n_dropped]] = False
        reasons[order[:n_dropped]] = dropped
        reasons[order[n_dropped:wanted]] = (
            f"{dropped}, but kept: quality.max_dropped_fraction = {spec.max_dropped_fraction:g} is used up"
        )
        reasons[order[wanted:]] = passed
    return pl.DataFrame(
        {"prompt_id": prompts["prompt_id"], "quality": quality, "kept": kept, "reason": list(reasons)},
        schema=SCORES_SCHEMA,
    )


def _how_many(ascending: NDArray[np.float64], spec: QualitySpec) -> tuple[int, str, str]:
    """How many of the lowest scores to drop, the reason for these, the reason for the others."""
    if spec.filter == "threshold":
        wanted = int(np.searchsorted(ascending, spec.threshold, side="left"))
        return (
            wanted,
            f"predicted quality under quality.threshold = {spec.threshold:g}",
            f"predicted quality at or over quality.threshold = {spec.threshold:g}",
        )
    fraction = f"the share quality.drop_fraction = {spec.drop_fraction:g} of lowest predicted quality"
    return _share(spec.drop_fraction, len(ascending)), f"in {fraction}", f"not in {fraction}"


def _share(fraction: float, number: int) -> int:
    """The share of a number, rounded down; 0.29 of 100 is 29 although 0.29 * 100 is 28.999..."""
    return int(fraction * number + 1e-9)


def _probabilities(predictor: Predictor, probe: Probe | None, n_prompts: int) -> NDArray[np.float64] | None:
    """The probability of every prompt, block by block."""
    if probe is None:
        return None
    model = LinearModel(probe.coefficients.astype(np.float64), probe.intercept, np.nan)
    quality = np.full(n_prompts, np.nan)
    for start, matrix in predictor.blocks():
        quality[start : start + matrix.shape[0]] = logistic(model.predict(matrix))
    if np.isnan(quality).any():
        message = "the predictor does not have a row for every prompt"
        raise ValueError(message)
    return quality


def _why_idle(result: ProbeResult, spec: QualitySpec) -> str | None:
    """Why the filter drops nothing at all; None if it may."""
    if spec.filter == "none":
        return 'quality.filter = "none": nothing is dropped'
    if result.probe is None:
        return "no probe was trained, so nothing is dropped; quality_probe says what is missing"
    area = result.held_out_auroc
    if area is None or area < spec.min_auroc:
        found = "undefined" if area is None else f"{area:.3f}"
        return (
            f"the probe's held-out AUROC is {found}, under quality.min_auroc = {spec.min_auroc:g}: nothing is dropped"
        )
    return None


def _caution(area: float | None, spec: QualitySpec) -> str:
    if area is not None and area >= spec.min_auroc:
        return ""
    return f" Under quality.min_auroc = {spec.min_auroc:g}, so it filters nothing: label more prompts."


def _why_not_shares(supervision: Supervision) -> str | None:
    lowest, highest = supervision.values.min(), supervision.values.max()
    if lowest >= 0 and highest <= 1:
        return None
    return (
        f"Label {supervision.label!r} runs from {lowest:g} to {highest:g}, but quality.label takes shares of "
        "correct outcomes from 0 to 1: name another label, or divide its values."
    )


def _empty_metric(probe: str, rows: str, n_rows: int, explanation: str) -> dict[str, object]:
    """A row of the table without figures."""
    row: dict[str, object] = dict.fromkeys(METRICS_SCHEMA)
    return row | {"probe": probe, "rows": rows, "n_rows": n_rows, "explanation": explanation}
