"""Which prompts are dropped for their quality, and why each is kept or not.

Belongs here: scoring every prompt with a probe, the filter, its reasons. Does not belong here: training and measuring
the probe (quality).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from saerl_assets.domain.predictors import Predictor
    from saerl_assets.domain.quality import ProbeResult
    from saerl_assets.domain.spec import QualitySpec

    Doubles = NDArray[np.float64]

SCORES_SCHEMA = pl.Schema({"prompt_id": pl.String, "quality": pl.Float64, "kept": pl.Boolean, "reason": pl.String})

SET_APART = "set apart for evaluation; never in a manifest"

CHANCE = 0.5


def score_quality(predictor: Predictor, prompts: pl.DataFrame, result: ProbeResult, spec: QualitySpec) -> pl.DataFrame:
    """Scores every prompt and drops the worst ones of the training split, as the spec says.

    Args:
        predictor: A row for every prompt; one block of it is in memory at a time.
        prompts: Table `prompts`, all splits, in the order of the predictor.
        result: What `train_probe` returned.
        spec: What to drop. Shares are of the training split's prompts; prompts set apart for evaluation are kept.

    Returns:
        Table `quality_scores`. Prompts of the same probability are dropped in the order of the probe's own score, then
        of prompt_id.

    Raises:
        ValueError: The predictor has a row for other than every prompt.
        SaerlError: `features_not_finite`.
    """
    score = _scores(predictor, result, len(prompts))
    quality = None if score is None or result.probe is None else result.probe.probability(score)
    is_train = prompts["split"].to_numpy() == "train"
    reasons = np.full(len(prompts), SET_APART, dtype=object)
    kept = np.ones(len(prompts), dtype=bool)
    idle = why_idle(result, spec)
    if idle is not None or quality is None or score is None:
        reasons[is_train] = idle
    else:
        order = np.flatnonzero(is_train)
        order = order[np.lexsort((score[order], quality[order]))]
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


def why_idle(result: ProbeResult, spec: QualitySpec) -> str | None:
    """Why the filter drops nothing at all; None if it may."""
    if spec.filter == "none":
        return 'quality.filter = "none": nothing is dropped'
    if result.probe is None:
        return "no probe was trained, so nothing is dropped; quality_probe says what is missing"
    weakness = why_weak(result.held_out, spec)
    return f"{weakness}: nothing is dropped" if weakness else None


def why_weak(held_out: dict[str, float | None], spec: QualitySpec) -> str | None:
    """Why a probe is not good enough to filter by; None if it is.

    Args:
        held_out: The row of table `quality_probe` on prompts not trained on.
        spec: The least that is asked of it.
    """
    area, low = held_out.get("auroc"), held_out.get("auroc_low")
    if area is None or area < spec.min_auroc:
        found = "undefined" if area is None else f"{area:.3f}"
        return f"the probe's held-out AUROC is {found}, under quality.min_auroc = {spec.min_auroc:g}"
    if low is not None and low <= CHANCE < area:
        return f"the probe's held-out AUROC, {area:.3f}, may be chance: its 95% interval begins at {low:.3f}"
    return None


def _how_many(ascending: Doubles, spec: QualitySpec) -> tuple[int, str, str]:
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


def _scores(predictor: Predictor, result: ProbeResult, n_prompts: int) -> Doubles | None:
    """The probe's score of every prompt, block by block; None without a probe."""
    if result.probe is None:
        return None
    scores = np.full(n_prompts, np.nan)
    for start, matrix in predictor.blocks():
        scores[start : start + matrix.shape[0]] = result.probe.score(matrix)
    if np.isnan(scores).any():
        message = "the predictor does not have a row for every prompt"
        raise ValueError(message)
    return scores
