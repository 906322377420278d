"""Difficulty: how hard each prompt seems, from its features alone or learned from labels.

Belongs here: the scores, the choice of the one in use, and how well each ranks the labelled prompts. Does not
belong here: fitting (elastic_net) and the order that is made of it (batches).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import polars as pl

from saerl_assets.domain.agreement import MIN_ROWS_RANKED, mean_over_folds, r_squared, spearman
from saerl_assets.domain.elastic_net import fit_elastic_net
from saerl_assets.domain.features import finite_csr, prompt_activity, require_aligned
from saerl_assets.domain.folds import N_OUTER_FOLDS, hash_fractions, held_out_parts, outer_folds
from saerl_assets.domain.linear_models import LinearModel, predict_held_out
from saerl_assets.domain.supervision import Supervision, known_values, supervise, why_not_learnable
from saerl_assets.domain.threads import one_thread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from saerl_assets.domain.features import FeatureSet, FloatMatrix
    from saerl_assets.domain.spec import DifficultySpec

    Doubles: TypeAlias = NDArray[np.float64]

METRICS_SCHEMA = pl.Schema(
    {
        "score_name": pl.String,
        "rows": pl.String,
        "n_rows": pl.UInt64,
        "spearman": pl.Float64,
        "r2": pl.Float64,
        "explanation": pl.String,
    }
)

SCORES_SCHEMA = pl.Schema(
    {
        "prompt_id": pl.String,
        "n_active_features": pl.UInt32,
        "magnitude": pl.Float64,
        "proxy": pl.Float64,
        "difficulty": pl.Float64,
        "score_name": pl.String,
        "difficulty_rank": pl.Float64,
    }
)


@dataclass(frozen=True)
class DifficultyResult:
    """What is known of difficulty, and how well it is known."""

    scores: pl.DataFrame
    """Table `difficulty_scores`, every prompt of both splits."""
    metrics: pl.DataFrame
    """Table `difficulty_proxy`."""


@dataclass(frozen=True)
class _Proxy:
    """A learned score and its figures; without one, the reason."""

    values: Doubles | None
    """[n_prompts] on the label's scale."""
    held_out_spearman: float | None
    metrics: list[dict[str, object]]

    @property
    def is_trusted(self) -> bool:
        """Whether it ranks unseen prompts the right way round at all."""
        return self.values is not None and (self.held_out_spearman or 0.0) > 0


def score_difficulty(
    features: FeatureSet, prompts: pl.DataFrame, labels: pl.DataFrame, spec: DifficultySpec, seed: int
) -> DifficultyResult:
    """Scores every prompt, and learns a proxy from the labels of the training split if there are enough.

    `auto` takes the proxy if its held-out rank correlation with the label is above 0, else the magnitude.
    `label` takes the label where known and the proxy elsewhere, on the same scale; without a proxy the
    magnitude fills in, its ranks mapped to the known labels' quantiles.

    Args:
        features: The version's features.
        prompts: Table `prompts`, all splits, in the order of the features.
        labels: Table `labels`, all labels; may be empty.
        spec: What to score and learn.
        seed: Seed of the folds and of the labelled subset.

    Returns:
        Scores and metrics; what could not be learned is said in the metrics' `explanation`.

    Raises:
        ValueError: Features and prompts are not aligned.
        SaerlError: `features_not_finite`.
    """
    require_aligned(features, prompts)
    supervision = supervise(prompts, labels, spec.label, limit=spec.n_labels, seed=seed)
    n_active, magnitude = prompt_activity(features)
    proxy = _learn_proxy(features, supervision, spec, seed)
    count, label = n_active.astype(np.float64), known_values(prompts, labels, spec.label)
    difficulty, names = _score_in_use(spec, proxy, label, count, magnitude)
    scores = pl.DataFrame(
        {
            "prompt_id": features.prompt_ids,
            "n_active_features": n_active,
            "magnitude": magnitude,
            "proxy": proxy.values,
            "difficulty": difficulty,
            "score_name": names,
            "difficulty_rank": _ranks(difficulty),
        },
        schema=SCORES_SCHEMA,
    )
    lengths = prompts["n_tokens"].to_numpy().astype(np.float64)
    baselines = {"count": count, "magnitude": magnitude, "length": lengths}
    rows = proxy.metrics + [_baseline(name, score, supervision) for name, score in baselines.items()]
    return DifficultyResult(scores, pl.DataFrame(rows, schema=METRICS_SCHEMA))


def _learn_proxy(features: FeatureSet, supervision: Supervision, spec: DifficultySpec, seed: int) -> _Proxy:
    """ElasticNet on the labelled prompts, measured on held-out ones, then applied to every prompt."""
    reason = why_not_learnable(supervision, section="difficulty", min_labels=spec.min_labels)
    if reason is not None:
        return _no_proxy(supervision, reason)
    matrix = finite_csr(features, spec.pooling)
    known, target = matrix[supervision.rows], supervision.values
    names = [features.prompt_ids[row] for row in supervision.rows]
    fractions = hash_fractions(names, seed=seed, purpose="difficulty inner fold")
    folds = outer_folds(names, seed=seed)

    def fit(rows: NDArray[np.int64]) -> LinearModel:
        return fit_elastic_net(known[rows], target[rows], fractions[rows])

    with one_thread():
        model = fit(np.arange(len(target)))
        if not model.coefficients.any():
            return _no_proxy(
                supervision,
                f"The features do not predict label {spec.label!r} better than its mean: label more prompts.",
            )
        held_out = predict_held_out(fit, known, folds).predictions
    rank_correlation = mean_over_folds(lambda rows: spearman(held_out[rows], target[rows]), folds)
    metrics = [
        _held_out_metric(held_out, target, folds, rank_correlation, supervision.left_out),
        _fitted_metric(model, known, target),
    ]
    return _Proxy(model.predict(matrix), rank_correlation, metrics)


def _held_out_metric(
    predictions: Doubles,
    target: Doubles,
    folds: NDArray[np.int64],
    rank_correlation: float | None,
    left_out: str,
) -> dict[str, object]:
    base = np.full(len(target), target.mean())
    for train, test in held_out_parts(folds):
        base[test] = target[train].mean()
    explanation = (
        f"ElasticNet on SAE features, on prompts that it has not seen: mean over {N_OUTER_FOLDS} folds, "
        f"its penalties chosen within each.{left_out}"
    )
    if not (rank_correlation or 0.0) > 0:
        explanation += ' It does not rank unseen prompts, so score = "auto" takes the magnitude: label more prompts.'
    r2 = r_squared(predictions, target, base)
    return _metric("proxy", "held_out", len(target), rank_correlation, r2, explanation)


def _fitted_metric(model: LinearModel, known: FloatMatrix, target: Doubles) -> dict[str, object]:
    fitted = model.predict(known)
    r2 = r_squared(fitted, target, np.full(len(target), target.mean()))
    n_used = int(np.count_nonzero(model.coefficients))
    explanation = f"The same on the prompts that it was fitted to, with {n_used:,} features: how far it overfits."
    return _metric("proxy", "fitted", len(target), spearman(fitted, target), r2, explanation)


def _no_proxy(supervision: Supervision, reason: str) -> _Proxy:
    consequence = " Where the proxy is asked for, the magnitude takes its place."
    return _Proxy(None, None, [_metric("proxy", "held_out", len(supervision.rows), None, None, reason + consequence)])


def _score_in_use(
    spec: DifficultySpec, proxy: _Proxy, label: Doubles, count: Doubles, magnitude: Doubles
) -> tuple[Doubles, list[str]]:
    """The difficulty of each prompt, float64 [n_prompts], and the name of the score that it is.

    `label` is float64 [n_prompts], not a number where it is not known.
    """
    if spec.score == "count":
        return count, ["count"] * len(count)
    wanted = spec.score == "proxy" or (spec.score in ("auto", "label") and proxy.is_trusted)
    learned = proxy.values if wanted else None
    scores, name = (magnitude, "magnitude") if learned is None else (learned, "proxy")
    is_known = np.isfinite(label)
    if spec.score != "label" or not is_known.any():
        return scores, [name] * len(scores)
    if learned is None:
        scores = np.quantile(label[is_known], _ranks(magnitude))
    return np.where(is_known, label, scores), np.where(is_known, "label", name).tolist()


def _ranks(scores: Doubles) -> Doubles:
    """Rank from 0 for the lowest to 1 for the highest, ties at their mean; 0 for a single one."""
    from scipy.stats import rankdata

    return (rankdata(scores) - 1) / max(len(scores) - 1, 1)


def _baseline(name: str, scores: Doubles, supervision: Supervision) -> dict[str, object]:
    """How a score that nobody fitted ranks the labelled prompts."""
    what = {
        "count": "Number of active features",
        "magnitude": "Summed activation of the features",
        "length": "Number of tokens, the baseline that a proxy must beat",
    }[name]
    value = spearman(scores[supervision.rows], supervision.values)
    if value is not None:
        explanation = f"{what}; nothing is learned, so every labelled training prompt is held out."
    else:
        explanation = (
            f"{what}; not measured, for that takes {MIN_ROWS_RANKED} labelled training prompts whose labels "
            f"and scores differ: add [labels.{supervision.label}] to the spec, or append outcomes."
        )
    return _metric(name, "held_out", len(supervision.rows), value, None, explanation)


def _metric(
    score_name: str,
    rows: str,
    n_rows: int,
    rank_correlation: float | None,
    r2: float | None,
    explanation: str,
) -> dict[str, object]:
    return {
        "score_name": score_name,
        "rows": rows,
        "n_rows": n_rows,
        "spearman": rank_correlation,
        "r2": r2,
        "explanation": explanation,
    }
