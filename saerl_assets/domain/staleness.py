"""Whether a probe still holds: how it does on prompts that were labelled after it was trained.

Belongs here: which labels are newer, and the area under the ROC curve on them. Does not belong here: training
(quality), verdicts (checks).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from saerl_assets.domain.agreement import auroc
from saerl_assets.domain.intervals import auroc_interval

MIN_NEWER_PROMPTS = 30
"""Fewer prompts say too little."""


@dataclass(frozen=True)
class NewerArea:
    """The area under the ROC curve on newer labels, with its 95% interval."""

    area: float
    low: float
    high: float
    n_rows: int


def newer_area(scores: pl.DataFrame, observations: pl.DataFrame, label: str, n_known: int) -> NewerArea | None:
    """How well scores rank prompts of which nothing was known when the probe was trained.

    Observations are appended and never replaced, so the probe knew the first `n_known` of them.

    Args:
        scores: Table `quality_scores`.
        observations: Table `label_observations`, all labels.
        label: The label that the probe learned.
        n_known: How many observations of it there were.

    Returns:
        The area; None where fewer than `MIN_NEWER_PROMPTS` prompts are newly labelled, or all of them alike.
    """
    named = observations.filter((pl.col("label") == label) & pl.col("value").is_between(0.0, 1.0))
    ordered = named.unique("observation_id", maintain_order=True).sort("observed_at", maintain_order=True)
    known, newer = ordered[:n_known], ordered[n_known:]
    fresh = newer.filter(~pl.col("prompt_id").is_in(known["prompt_id"].implode()))
    folded = fresh.group_by("prompt_id").agg(share=pl.col("value").mean(), weight=pl.len().cast(pl.Float64))
    rows = folded.join(scores.drop_nulls("quality"), on="prompt_id", how="inner").sort("prompt_id")
    if rows.height < MIN_NEWER_PROMPTS:
        return None
    score, share, weight = (rows[name].to_numpy().astype(np.float64) for name in ("quality", "share", "weight"))
    area = auroc(score, share, weight)
    places = np.arange(rows.height)
    interval = auroc_interval(score, share, weight, np.zeros(rows.height, dtype=np.int64), places, seed=0)
    if area is None or interval is None:
        return None
    return NewerArea(area, *interval, rows.height)
