"""Difficulty: how hard each prompt seems, from its features alone or learned from labels.

Belongs here: the scores, the choice of the one in use, and how well each ranks the labelled prompts. Does not
belong here: fitting (regressors), the label's scale (label_scale) and the order that is made of it (batches).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import polars as pl

from saerl_assets.domain.features import PromptActivity, prompt_activity, require_aligned
from saerl_assets.domain.folds import N_OUTER_FOLDS, hash_fractions, outer_folds
from saerl_assets.domain.label_scale import LabelScale
from saerl_assets.domain.linear_models import LinearModel, predict_held_out
from saerl_assets.domain.predictors import PooledFeatures, SideBySide, prompt_length
from saerl_assets.domain.questions import numbered, question_ids
from saerl_assets.domain.ranking import MIN_ROWS_RANKED, Ranking
from saerl_assets.domain.regressors import NAMES, Regressor, choose_regressor, fit_regressor
from saerl_assets.domain.supervision import Supervision, known_values, supervise, why_not_learnable
from saerl_assets.domain.threads import one_thread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from saerl_assets.domain.features import FeatureSet
    from saerl_assets.domain.predictors import Predictor
    from saerl_assets.domain.spec import DifficultySpec

    Doubles: TypeAlias = NDArray[np.float64]

METRICS_SCHEMA = pl.Schema(
    {
        "score_name": pl.String,
        "rows": pl.String,
        "n_rows": pl.UInt64,
        "spearman": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "r2": pl.Float64,
        "over_length": pl.Float64,
        "over_length_low": pl.Float64,
        "over_length_high": pl.Float64,
        "explanation": pl.String,
    }
)

SCORES_SCHEMA = pl.Schema(
    {
        "prompt_id": pl.String,
        "n_active_features": pl.UInt32,
        "n_active_per_token": pl.Float64,
        "magnitude": pl.Float64,
        "proxy": pl.Float64,
        "difficulty": pl.Float64,
        "score_name": pl.String,
        "difficulty_rank": pl.Float64,
    }
)

HAVE_LENGTH = ("length", "combined")
"""Predictors that the prompt's length is a part of."""

UNLEARNED = {
    "count": "Number of features active anywhere in the prompt",
    "count_per_token": "Number of features active on a token, on average",
    "magnitude": "Summed activation of the features",
    "length": "Number of tokens, the baseline that a proxy must beat",
}
"""Scores that no label goes into, in words."""


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
    features: FeatureSet,
    prompts: pl.DataFrame,
    labels: pl.DataFrame,
    spec: DifficultySpec,
    seed: int,
    *,
    predictor: Predictor | None = None,
    chosen: str = "",
    is_named: bool = False,
) -> DifficultyResult:
    """Scores every prompt, and learns a proxy from the labels of the training split if there are enough.

    The proxy is fitted to the labelled rows and applied block by block, so memory does not grow with the prompts. Its
    predictions are brought to the label's scale by isotonic regression on those of rows that were not learned from;
    where that makes steps, the raw prediction orders the prompts of a step. Responses to one question are held out
    together, in the folds that measure as in those that choose, and drawn together for the intervals.

    `auto` takes the proxy if its held-out rank correlation with the label is above 0, else the magnitude.
    `label` takes the label where known and the proxy elsewhere, on the same scale; without a proxy the
    magnitude fills in, its ranks mapped to the known labels' quantiles.

    Args:
        features: The version's features.
        prompts: Table `prompts`, all splits, in the order of the features.
        labels: Table `labels`, all labels; may be empty.
        spec: What to score and learn.
        seed: Seed of the folds, of the labelled subset and of the bootstrap.
        predictor: What the proxy learns from, with a row for every prompt; by default the features, pooled as the spec
            says.
        chosen: Why it is this one, to be said beside its figures.
        is_named: Whether the version's spec says where the label comes from.

    Returns:
        Scores and metrics; what could not be learned is said in the metrics' `explanation`.

    Raises:
        ValueError: Features and prompts are not aligned.
        SaerlError: `features_not_finite`.
    """
    require_aligned(features, prompts)
    supervision = supervise(prompts, labels, spec.label, limit=spec.n_labels, seed=seed, is_named=is_named)
    activity, length = prompt_activity(features), prompt_length(prompts)
    names = question_ids(prompts, supervision.rows)
    n_tokens = prompts["n_tokens"].to_numpy().astype(np.float64)
    folds, groups = outer_folds(names, seed=seed), numbered(names)
    ranking = Ranking(supervision.values, folds, n_tokens[supervision.rows], seed, groups)
    source = predictor or PooledFeatures(features, spec.pooling, f"sae_{'+'.join(spec.pooling)}")
    if spec.with_length and source.name not in HAVE_LENGTH:
        source = SideBySide((source, length), f"{source.name} and length")
    reason = why_not_learnable(supervision, section="difficulty", min_labels=spec.min_labels)
    if reason is None:
        fractions = hash_fractions(names, seed=seed, purpose="difficulty inner fold")
        proxy = _learn_proxy(source, len(prompts), supervision, ranking, fractions, spec, chosen)
    else:
        proxy = _no_proxy(supervision, reason)
    unlearned = _unlearned(activity)
    difficulty, used = _score_in_use(spec, proxy, known_values(prompts, labels, spec.label), unlearned)
    scores = pl.DataFrame(
        {
            "prompt_id": features.prompt_ids,
            "n_active_features": activity.n_active,
            "n_active_per_token": activity.per_token,
            "magnitude": activity.magnitude,
            "proxy": proxy.values,
            "difficulty": difficulty,
            "score_name": used,
            "difficulty_rank": _ranks(difficulty),
        },
        schema=SCORES_SCHEMA,
    )
    baselines = [
        _baseline(name, score, supervision, ranking) for name, score in (unlearned | {"length": n_tokens}).items()
    ]
    return DifficultyResult(scores, pl.DataFrame(proxy.metrics + baselines, schema=METRICS_SCHEMA))


def _unlearned(activity: PromptActivity) -> dict[str, Doubles]:
    return {
        "count": activity.n_active.astype(np.float64),
        "count_per_token": activity.per_token,
        "magnitude": activity.magnitude,
    }


def _learn_proxy(
    predictor: Predictor,
    n_prompts: int,
    supervision: Supervision,
    ranking: Ranking,
    fractions: Doubles,
    spec: DifficultySpec,
    chosen: str,
) -> _Proxy:
    """A regression on the labelled prompts, measured on held-out ones, then applied to every prompt."""
    known, target, widths = predictor.take(supervision.rows), supervision.values, predictor.widths

    def regressor(rows: NDArray[np.int64]) -> Regressor:
        if spec.regressor != "best":
            return spec.regressor
        return choose_regressor(known[rows], target[rows], fractions[rows], widths)

    def fit(rows: NDArray[np.int64]) -> LinearModel:
        return fit_regressor(regressor(rows), known[rows], target[rows], fractions[rows], widths)

    everything = np.arange(len(target))
    with one_thread():
        name = regressor(everything)
        model = fit_regressor(name, known, target, fractions, widths)
        if not model.coefficients.any():
            return _no_proxy(
                supervision,
                f"{predictor.name} does not predict label {spec.label!r} better than its mean: label more prompts.",
            )
        held_out = predict_held_out(fit, known, ranking.folds).predictions
    is_held_out = np.isfinite(held_out)  # all are, unless one fold holds every prompt
    scale = LabelScale.fit(held_out[is_held_out], target[is_held_out]) if is_held_out.any() else None
    values = np.empty(n_prompts)
    for start, block in predictor.blocks():
        values[start : start + block.shape[0]] = model.predict(block)
    raw = model.predict(known)
    measured = ranking.of(held_out)
    explanation = (
        f"{NAMES[name]} on {predictor.name}, on prompts that it has not seen: mean over {N_OUTER_FOLDS} folds, "
        f"its settings chosen within each.{f' {chosen}' if chosen else ''}{supervision.left_out}"
    )
    if not (measured["spearman"] or 0.0) > 0:
        explanation += ' It does not rank unseen prompts, so score = "auto" takes the magnitude: label more prompts.'
    n_used = int(np.count_nonzero(model.coefficients))
    overfit = f"The same on the prompts that it was fitted to, with {n_used:,} columns: how far it overfits."
    metrics = [
        _metric("proxy", "held_out", len(target), explanation, measured),
        _metric("proxy", "fitted", len(target), overfit, ranking.of_fitted(raw if scale is None else scale.apply(raw))),
    ]
    return _Proxy(values if scale is None else scale.apply(values), measured["spearman"], metrics)


def _no_proxy(supervision: Supervision, reason: str) -> _Proxy:
    consequence = " Where the proxy is asked for, the magnitude takes its place."
    return _Proxy(None, None, [_metric("proxy", "held_out", len(supervision.rows), reason + consequence)])


def _score_in_use(
    spec: DifficultySpec, proxy: _Proxy, label: Doubles, unlearned: dict[str, Doubles]
) -> tuple[Doubles, list[str]]:
    """The difficulty of each prompt, float64 [n_prompts], and the name of the score that it is.

    `label` is float64 [n_prompts], not a number where it is not known.
    """
    if spec.score in ("count", "count_per_token"):
        return unlearned[spec.score], [spec.score] * len(label)
    magnitude = unlearned["magnitude"]
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


def _baseline(name: str, scores: Doubles, supervision: Supervision, ranking: Ranking) -> dict[str, object]:
    """How a score that nobody fitted ranks the labelled prompts."""
    what = UNLEARNED[name]
    measured = ranking.of(scores[supervision.rows])
    if measured["spearman"] is not None:
        explanation = f"{what}; nothing is learned, so every labelled training prompt is held out."
    elif len(supervision.rows) and np.ptp(scores[supervision.rows]) == 0:
        explanation = f"{what}; it is the same for every labelled prompt, so it ranks none."
    else:
        explanation = (
            f"{what}; not measured, for that takes {MIN_ROWS_RANKED} labelled training prompts whose labels "
            f"differ: {supervision.remedy}."
        )
    return _metric(name, "held_out", len(supervision.rows), explanation, measured)


def _metric(
    score_name: str, rows: str, n_rows: int, explanation: str, measured: dict[str, float | None] | None = None
) -> dict[str, object]:
    """A row of the table, without figures where nothing was measured."""
    row: dict[str, object] = dict.fromkeys(METRICS_SCHEMA)
    names = {"score_name": score_name, "rows": rows, "n_rows": n_rows, "explanation": explanation}
    return row | (measured or {}) | names
