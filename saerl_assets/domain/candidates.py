"""Candidates: the training prompts with all that the order is planned on, one row each.

Belongs here: gathering them from the tables of a version. Does not belong here: planning (batches), and what locks
prompts while a training goes on (curriculum).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from saerl_assets.domain.contamination import contaminated_reasons
from saerl_assets.domain.control_signals import columns_planned_on
from saerl_assets.domain.near_duplicates import folded_reasons

if TYPE_CHECKING:
    from saerl_assets.domain.spec import DifficultySpec, VersionSpec

_PROMPT_TOKENS = pl.when(pl.col("n_prefix_tokens") > 0).then("n_prefix_tokens").otherwise("n_tokens")
"""Tokens of the prompt alone, also where a response is read after it."""


@dataclass(frozen=True)
class PlannedOn:
    """The tables of one version that its order is planned on, under their names."""

    prompts: pl.DataFrame
    cluster_assignments: pl.DataFrame
    difficulty_scores: pl.DataFrame
    quality_scores: pl.DataFrame
    near_duplicates: pl.DataFrame
    contamination: pl.DataFrame
    control_signals: pl.DataFrame


def gather_candidates(tables: PlannedOn, spec: VersionSpec) -> pl.DataFrame:
    """What `batches.plan_manifest` takes: one row per training prompt, by (difficulty, prompt_id).

    Args:
        tables: The version's tables.
        spec: The version's spec: what is left out for hygiene or by rank, and which controls need signals of their own.
    """
    beside = tables.control_signals.select("prompt_id", *columns_planned_on(spec.batches.controls))
    contaminated = contaminated_reasons(tables.contamination, spec.hygiene)
    folded = folded_reasons(tables.near_duplicates, spec.hygiene)
    return (
        tables.prompts.filter(pl.col("split") == "train")
        .select("prompt_id", n_tokens=_PROMPT_TOKENS)
        .join(tables.cluster_assignments.select("prompt_id", "cluster_id"), on="prompt_id")
        .join(tables.difficulty_scores.select("prompt_id", "difficulty"), on="prompt_id")
        .join(tables.quality_scores.select("prompt_id", "kept", "quality", "reason"), on="prompt_id")
        .join(_reasons(contaminated, "contaminated"), on="prompt_id", how="left")
        .join(_reasons(folded, "near_duplicate"), on="prompt_id", how="left")
        .join(beside, on="prompt_id", how="left")
        .pipe(with_ranks, spec.difficulty)
    )


def with_ranks(candidates: pl.DataFrame, spec: DifficultySpec) -> pl.DataFrame:
    """Says who is outside `difficulty.min_rank` and `max_rank`.

    Args:
        candidates: One row per training prompt: prompt_id String, difficulty Float64, and any other columns.
        spec: The range.

    Returns:
        The same rows by (difficulty, prompt_id), with `out_of_range`: a String that says why the place in this order
        is not planned, null where it is.
    """
    n, kept = candidates.height, spec.places_kept(candidates.height)
    bounds = "difficulty.min_rank = {} and max_rank = {} keep {} to {}."
    reason = pl.format(
        "Number {} of {} by difficulty, the lowest score first; " + bounds,
        pl.col("_place") + 1,
        *(pl.lit(value) for value in (n, f"{spec.min_rank:g}", f"{spec.max_rank:g}", kept.start + 1, kept.stop)),
    )
    is_kept = pl.col("_place").is_between(kept.start, kept.stop - 1)
    ranked = candidates.sort("difficulty", "prompt_id").with_row_index("_place")
    return ranked.with_columns(out_of_range=pl.when(~is_kept).then(reason)).drop("_place")


def _reasons(left_out: pl.DataFrame, code: str) -> pl.DataFrame:
    """The reasons under the name that the planner knows them by."""
    return left_out.select("prompt_id", pl.col("reason").alias(code))
