"""Evidence: what a signal is worth against the cheap things that could be used instead, on the version's own labels.

Belongs here: all labels of a version, as tables. Does not belong here: one label's measurements (label_evidence), what
the predictors are (predictors).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from saerl_assets.domain.kernel_ridge import linear_kernels
from saerl_assets.domain.label_evidence import LabelEvidence, verdict_row
from saerl_assets.domain.label_values import LabelValues, sampled, why_not
from saerl_assets.domain.progress import Progress, silent
from saerl_assets.domain.spec import EvidenceSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from saerl_assets.domain.predictors import Predictor

TELLS_ITSELF = {("topic", "metadata")}
"""Label and predictor that hold the same column."""

EVIDENCE_SCHEMA = pl.Schema(
    {
        "label": pl.String,
        "kind": pl.String,
        "predictor": pl.String,
        "n_rows": pl.UInt64,
        "measure": pl.String,
        "value": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "second_measure": pl.String,
        "second_value": pl.Float64,
        "given_length": pl.Float64,
        "over_length": pl.Float64,
        "over_length_low": pl.Float64,
        "over_length_high": pl.Float64,
        "over_dense": pl.Float64,
        "over_dense_low": pl.Float64,
        "over_dense_high": pl.Float64,
        "behind_best": pl.Float64,
        "behind_best_margin": pl.Float64,
    }
)
CURVE_SCHEMA = pl.Schema(
    {
        "label": pl.String,
        "predictor": pl.String,
        "n_labels": pl.UInt64,
        "measure": pl.String,
        "value": pl.Float64,
    }
)
VERDICTS_SCHEMA = pl.Schema(
    {
        "label": pl.String,
        "verdict": pl.String,
        "best_predictor": pl.String,
        "n_rows": pl.UInt64,
        "explanation": pl.String,
    }
)


@dataclass(frozen=True)
class Evidence:
    """Everything about the labels of one version."""

    signals: pl.DataFrame
    """Table signal_evidence."""
    curve: pl.DataFrame
    """Table evidence_curve."""
    verdicts: pl.DataFrame
    """Table evidence_verdicts."""


def weigh_evidence(
    predictors: Mapping[str, Predictor],
    labels: Sequence[LabelValues],
    questions: Sequence[str],
    lengths: NDArray[np.float64],
    spec: EvidenceSpec,
    seed: int,
    progress: Progress = silent,
) -> Evidence:
    """Measures every predictor on every label, on the same rows and folds.

    Predictions are ridge regressions on the predictor's linear kernel, cross-validated over the hash of the question,
    with kernel and penalty chosen by leave-one-question-out error inside each training part. Intervals are percentiles
    of a bootstrap over questions within folds, paired over predictors. Where prompts have no responses, every prompt is
    a question of its own.

    Args:
        predictors: What there is by name, simpler ones first; only the labelled rows are made.
        labels: What is known of the training prompts.
        questions: What each prompt asks (`questions.question_ids`), of all prompts.
        lengths: float64 [n_prompts], their tokens.
        spec: Limits.
        seed: Seed of folds, samples and bootstrap.
        progress: Told after every predictor.
    """
    signals: list[dict[str, object]] = []
    curve: list[dict[str, object]] = []
    verdicts: list[dict[str, object]] = []
    for number, label in enumerate(labels):
        chosen = sampled(label, questions, spec.max_labels, seed)
        asked = [questions[row] for row in chosen.rows]
        reason = why_not(chosen, asked, spec.min_labels)
        if reason is not None:
            verdicts.append(verdict_row(chosen, "not_measured", None, reason))
            continue
        told = LabelEvidence(chosen, asked, lengths[chosen.rows], spec, seed)
        for place, (name, predictor) in enumerate(predictors.items()):
            if (label.name, name) not in TELLS_ITSELF:
                told.measure(name, linear_kernels(predictor.take(chosen.rows)))
            progress(number * len(predictors) + place + 1, len(labels) * len(predictors), unit="fits", note=label.name)
        told.combine()
        signals += told.rows()
        curve += told.curve()
        verdicts.append(told.verdict())
    return Evidence(
        pl.DataFrame(signals, schema=EVIDENCE_SCHEMA),
        pl.DataFrame(curve, schema=CURVE_SCHEMA),
        pl.DataFrame(verdicts, schema=VERDICTS_SCHEMA),
    )
