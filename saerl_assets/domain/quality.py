"""Quality: a probe that predicts correct outcomes, measured on prompts that it has not seen.

Belongs here: what a probe is trained on, its figures, its calibration. Does not belong here: the kinds of probes
(probes), what is dropped by one (quality_filter), keeping its weights (storage).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from saerl_assets.domain.agreement import auroc, brier, mean_over_folds
from saerl_assets.domain.calibration import (
    CURVE_SCHEMA,
    Calibration,
    calibration_curve,
    calibration_error,
    fit_calibration,
)
from saerl_assets.domain.examples import Examples
from saerl_assets.domain.folds import N_OUTER_FOLDS, hash_fractions, held_out_parts, outer_folds
from saerl_assets.domain.intervals import auroc_interval
from saerl_assets.domain.probes import NAMES, Chosen, Probe, choose, fit_chosen
from saerl_assets.domain.quality_filter import why_weak
from saerl_assets.domain.questions import numbered, question_ids
from saerl_assets.domain.supervision import Supervision, supervise, why_not_learnable
from saerl_assets.domain.threads import one_thread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from saerl_assets.domain.predictors import Predictor
    from saerl_assets.domain.spec import QualitySpec

    Doubles = NDArray[np.float64]
    Integers = NDArray[np.int64]

METRICS_SCHEMA = pl.Schema(
    {
        "probe": pl.String,
        "rows": pl.String,
        "predictor": pl.String,
        "n_rows": pl.UInt64,
        "n_observations": pl.UInt64,
        "base_rate": pl.Float64,
        "auroc": pl.Float64,
        "auroc_low": pl.Float64,
        "auroc_high": pl.Float64,
        "brier": pl.Float64,
        "calibration": pl.String,
        "calibration_error": pl.Float64,
        "penalty": pl.Float64,
        "candidates": pl.String,
        "encoders": pl.String,
        "digest": pl.String,
        "path": pl.String,
        "explanation": pl.String,
    }
)


@dataclass(frozen=True)
class ProbeResult:
    """A probe and its figures; without one, the figures say why."""

    probe: Probe | None
    metrics: pl.DataFrame
    """Table `quality_probe`; digest, path and encoders are null until the weights are kept."""
    curve: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=CURVE_SCHEMA))
    """Table `probe_calibration`, on prompts that the probe has not seen; empty without a probe."""

    @property
    def held_out(self) -> dict[str, float | None]:
        """The figures on prompts that the probe has not seen, by column; empty without a probe."""
        rows = self.metrics.filter(pl.col("rows") == "held_out").select("auroc", "auroc_low", "auroc_high", "brier")
        return dict(rows.row(0, named=True)) if rows.height else {}

    @property
    def held_out_auroc(self) -> float | None:
        """Area under the ROC curve on prompts that the probe has not seen; None where there is no answer."""
        return self.held_out.get("auroc")


def train_probe(
    predictor: Predictor,
    prompts: pl.DataFrame,
    labels: pl.DataFrame,
    spec: QualitySpec,
    seed: int,
    *,
    is_named: bool = False,
) -> ProbeResult:
    """A probe learned from the labelled training prompts and measured on held-out ones.

    A label is a share of correct outcomes. A prompt with share p of n observations weighs as n p correct and n (1 - p)
    wrong ones, in the fit as in the figures: that is the likelihood of its rollouts, and with one observation each it
    is plain two-class regression. Weights are divided by their mean, so that the penalty does not grow with the
    rollouts. In the fit correct and wrong outcomes count alike in sum, however rare one of them is; the calibration,
    learned from out-of-fold scores, brings the probabilities back to how often outcomes are correct.

    Responses to one question are held out together (`questions.question_ids`), for a probe that has seen one of them
    knows how hard the question is.

    Args:
        predictor: A row for every prompt; only those of labelled prompts are taken.
        prompts: Table `prompts`, all splits, in the order of the predictor.
        labels: Table `labels`, all labels; may be empty.
        spec: What to learn, and by which kind of probe.
        seed: Seed of the folds and of what a probe draws at random.
        is_named: Whether the version's spec says where the label comes from.

    Returns:
        The probe with its held-out and fitted figures; without enough labels no probe, and an explanation of what to
        supply.

    Raises:
        SaerlError: `features_not_finite`.
    """
    supervision = supervise(prompts, labels, spec.label, limit=spec.max_labels, seed=seed, is_named=is_named)
    n_observations = int(labels.filter(pl.col("label") == spec.label)["n_observations"].sum())
    reason = why_not_learnable(supervision, section="quality", min_labels=spec.min_labels)
    reason = reason or _why_not_shares(supervision)
    if reason is not None:
        explanation = f"{reason} Quality filters nothing."
        metric = _empty_metric("none", "held_out", predictor.name, len(supervision.rows), n_observations, explanation)
        return ProbeResult(None, pl.DataFrame([metric], schema=METRICS_SCHEMA))
    names = question_ids(prompts, supervision.rows)
    examples = Examples(
        predictor.take(supervision.rows),
        supervision.values,
        supervision.n_observations / supervision.n_observations.mean(),
        hash_fractions(names, seed=seed, purpose="quality inner fold"),
        seed,
    )
    with one_thread():
        learned = _Learned.from_examples(examples, names, spec, seed)
        metrics = learned.metrics(predictor.name, n_observations, supervision.left_out, spec)
    return ProbeResult(learned.final, metrics, learned.curve)


def encoders_of(
    predictor: str, sae_weights: pl.DataFrame, controls: pl.DataFrame, sentence_model_id: str | None
) -> str | None:
    """What a predictor's columns are made by, as `quality_probe` notes it; None for one that no model makes.

    An encoder's id holds that of its reading, so that of `combined` stands for its dense states too.

    Args:
        predictor: Name of the predictor.
        sae_weights: Table `sae_weights`.
        controls: Table `control_saes`.
        sentence_model_id: Id of the version's sentence encoder, where it has one.
    """
    if predictor == "sentence":
        return sentence_model_id
    if predictor == "random_sae":
        return " ".join(controls.sort("layer")["encoder_id"])
    if predictor.startswith("dense_"):
        return " ".join(sae_weights.sort("layer")["reading_id"])
    if predictor.startswith("sae_") or predictor == "combined":
        return " ".join(sae_weights.sort("layer")["encoder_id"])
    return None


@dataclass(frozen=True)
class _Learned:
    """A probe of all examples, and out-of-fold scores and probabilities of each."""

    examples: Examples
    folds: Integers
    groups: Integers
    chosen: Chosen
    scores: Doubles
    """[n] by models that have not seen the row."""
    probabilities: Doubles
    """[n] by models and calibrations that have not seen the row."""
    final: Probe
    seed: int

    @classmethod
    def from_examples(cls, examples: Examples, names: Sequence[str], spec: QualitySpec, seed: int) -> _Learned:
        """Fits a model without each fold and one to everything, each with settings chosen on what it is fitted to."""
        folds = outer_folds(names, seed=seed)
        scores = np.zeros(len(folds))
        for train, test in held_out_parts(folds):
            known = examples.take(train)
            scores[test] = fit_chosen(choose(spec.probe, known), known).predict(examples.matrix[test])
        probabilities = np.full(len(folds), examples.base_rate)
        for train, test in held_out_parts(folds):
            probabilities[test] = _calibration(scores, examples, train).apply(scores[test])
        chosen = choose(spec.probe, examples)
        model = fit_chosen(chosen, examples)
        final = Probe(chosen.kind, model, _calibration(scores, examples, np.arange(len(folds))))
        return cls(examples, folds, numbered(names), chosen, scores, probabilities, final, seed)

    @property
    def curve(self) -> pl.DataFrame:
        """Table `probe_calibration`."""
        return calibration_curve(self.chosen.kind, self.probabilities, self.examples.shares, self.examples.weight)

    def metrics(self, predictor: str, n_observations: int, left_out: str, spec: QualitySpec) -> pl.DataFrame:
        """Table `quality_probe`."""
        examples = self.examples
        area = mean_over_folds(
            lambda rows: auroc(self.scores[rows], examples.shares[rows], examples.weight[rows]), self.folds
        )
        interval = auroc_interval(
            self.scores, examples.shares, examples.weight, self.folds, self.groups, seed=self.seed
        )
        low, high = interval or (None, None)
        fitted = self.final.score(examples.matrix)
        weakness = why_weak({"auroc": area, "auroc_low": low}, spec)
        caution = f" But {weakness}, so it filters nothing: label more prompts." if weakness else ""
        kind, method = NAMES[self.chosen.kind], self.final.calibration.method
        explanation = (
            f"{kind} on {predictor or 'its predictor'}{self._why()}, on prompts that it has not seen: mean over "
            f"{N_OUTER_FOLDS} folds, its settings chosen within each; probabilities calibrated "
            f"{'by isotonic regression' if method == 'isotonic' else 'by Platt scaling'} on such "
            f"scores.{left_out}{caution}"
        )
        overfit = "The same on the prompts that it was fitted to: how far it overfits."
        shared = {
            "base_rate": examples.base_rate,
            "calibration": method,
            "penalty": float(self.final.model.penalty),
            "candidates": json.dumps(self.chosen.candidates, sort_keys=True) if self.chosen.candidates else None,
        }
        n_rows = len(examples.shares)
        held_out = _empty_metric(self.chosen.kind, "held_out", predictor, n_rows, n_observations, explanation) | shared
        held_out |= {
            "auroc": area,
            "auroc_low": low,
            "auroc_high": high,
            "brier": brier(self.probabilities, examples.shares, examples.weight),
            "calibration_error": calibration_error(self.curve),
        }
        seen = _empty_metric(self.chosen.kind, "fitted", predictor, n_rows, n_observations, overfit) | shared
        seen |= {
            "auroc": auroc(fitted, examples.shares, examples.weight),
            "brier": brier(self.final.probability(fitted), examples.shares, examples.weight),
        }
        return pl.DataFrame([held_out, seen], schema=METRICS_SCHEMA)

    def _why(self) -> str:
        """Why this kind, where several were tried."""
        tried = ", ".join(f"{name} {area:.3f}" for name, area in self.chosen.candidates.items())
        return f" (the best by AUROC of inner folds: {tried})" if tried else ""


def _calibration(scores: Doubles, examples: Examples, rows: Integers) -> Calibration:
    return fit_calibration(scores[rows], examples.shares[rows], examples.weight[rows])


def _why_not_shares(supervision: Supervision) -> str | None:
    lowest, highest = supervision.values.min(), supervision.values.max()
    if lowest >= 0 and highest <= 1:
        return None
    return (
        f"Label {supervision.label!r} runs from {lowest:g} to {highest:g}, but quality.label takes shares of "
        "correct outcomes from 0 to 1: name another label, or divide its values."
    )


def _empty_metric(
    probe: str, rows: str, predictor: str, n_rows: int, n_observations: int, explanation: str
) -> dict[str, object]:
    """A row of the table without figures."""
    row: dict[str, object] = dict.fromkeys(METRICS_SCHEMA)
    return row | {
        "probe": probe,
        "rows": rows,
        "predictor": predictor,
        "n_rows": n_rows,
        "n_observations": n_observations,
        "explanation": explanation,
    }
