"""Tables of what a version came from and what came back: its ancestors' measures, trainings' feedback.

Belongs here: versions beside each other, and rewards beside difficulty. Does not belong here: HTML, which escapes every
text that comes from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from saerl_assets.domain.training_feedback import difficulty_correlation, fullest
from saerl_assets.report.blocks import Cell, Column, Point, Scatter, Table, cells, columns, number, rows
from saerl_assets.report.cells import known
from saerl_assets.report.feedback import MEASURES
from saerl_assets.report.marks import shade_of, thinned
from saerl_assets.report.tables import prompts_shown
from saerl_assets.report.words import count, cut, figure, share, short

if TYPE_CHECKING:
    from saerl_assets.report.inputs import ReportInputs

POINT_LETTERS = 160
MAX_POINTS = 800


def lineage_table(inputs: ReportInputs) -> Table:
    """This version beside the ones that it continues, the newest first."""
    key = inputs.spec.key
    shown = [
        cells(
            Cell(row["dataset_version"], tag="here" if row["dataset_version"] == key else ""),
            number(row["n_prompts"], "" if row["n_prompts"] is None else count(row["n_prompts"])),
            _part(row["dead_fraction"]),
            _part(row["rare_fraction"]),
            number(row["n_clusters"], "" if row["n_clusters"] is None else count(row["n_clusters"])),
            number(row["balance"], known(row["balance"])),
            number(row["stability"], known(row["stability"])),
            number(row["proxy_spearman"], known(row["proxy_spearman"])),
            number(row["auroc"], known(row["auroc"])),
            Cell("" if row["auroc_low"] is None else f"{row['auroc_low']:.3f} to {row['auroc_high']:.3f}"),
            Cell(_drift(row["furthest_measure"], row["share_of_threshold"])),
        )
        for row in inputs.version_measures.sort("registered_at", descending=True).iter_rows(named=True)
    ]
    return Table(
        "lineage-table",
        "This version beside those that it continues" if len(shown) > 1 else "What later versions will be held against",
        columns(
            "version",
            Column("prompts", "number"),
            Column("dead", "number", "Share of the features that fire on no prompt of the version."),
            Column("rare", "number", "Share that fire on less than one prompt of a thousand, or on a single one."),
            Column("clusters", "number"),
            Column("balance", "number", "Entropy of the clusters' sizes over that of equal ones: 1 is even."),
            Column("stability", "number", "How alike another seed's clusters are: adjusted Rand index."),
            Column("proxy", "number", "Spearman of the learned difficulty with the label, on held-out prompts."),
            Column("AUROC", "number", "Of the quality probe, on held-out prompts."),
            Column("95% interval"),
            Column("drift", hint="The measure of drift nearest to its limit, or furthest beyond."),
        ),
        rows(shown),
    )


def feedback_table(inputs: ReportInputs) -> Table:
    """Each training with what it measured and how that goes with difficulty."""
    shown = []
    for (run,), group in inputs.training_feedback.sort("run_name").group_by("run_name", maintain_order=True):
        training = fullest(group)
        for measure, name in MEASURES.items():
            if training[measure].is_null().all():
                continue
            n_prompts, correlation = difficulty_correlation(training, inputs.difficulty_scores, measure)
            steps = training.drop_nulls(measure).group_by("step").agg(pl.col(measure).mean()).sort("step")[measure]
            tenth = max(1, len(steps) // 10)
            first, last = float(steps.head(tenth).mean()), float(steps.tail(tenth).mean())  # type: ignore[arg-type]
            shown.append(
                cells(
                    str(run),
                    name,
                    number(n_prompts, count(n_prompts)),
                    number(len(steps), count(len(steps))),
                    number(correlation, known(correlation)),
                    number(last - first, f"{figure(first)} → {figure(last)}"),
                )
            )
    return Table(
        "feedback-table",
        "Trainings that told something",
        columns(
            "training",
            "measured",
            Column("prompts", "number"),
            Column("steps", "number"),
            Column("Spearman", "number", "Rank correlation over prompts with the difficulty in use."),
            Column("over its steps", "number", "Mean of the first tenth of its steps, and of the last."),
        ),
        rows(shown),
    )


def feedback_block(inputs: ReportInputs) -> Scatter | None:
    """Difficulty against what the latest training measured, every prompt to point at."""
    feedback = inputs.training_feedback
    run = feedback.sort("observed_at", "run_name")["run_name"][-1]
    training = fullest(feedback.filter(pl.col("run_name") == run))
    measure = next((name for name in MEASURES if training[name].is_not_null().any()), None)
    if measure is None:
        return None
    prompts = (
        training.drop_nulls(measure)
        .group_by("prompt_id")
        .agg(pl.col(measure).sort().mean(), n_steps=pl.col("step").n_unique())
        .join(inputs.difficulty_scores.select("prompt_id", "difficulty", "difficulty_rank"), on="prompt_id")
        .join(inputs.prompts.select("prompt_id", "text"), on="prompt_id")
        .join(inputs.cluster_assignments.select("prompt_id", "cluster_id"), on="prompt_id", how="left")
    )
    shown = thinned(prompts, "prompt_id", MAX_POINTS)
    if shown.is_empty():
        return None
    in_table = set(prompts_shown(inputs)["prompt_id"])
    low, high = float(shown[measure].min()), float(shown[measure].max())  # type: ignore[arg-type]
    extent = (high - low) or 1.0
    points = tuple(
        Point(
            row["difficulty_rank"],
            1.0 - (row[measure] - low) / extent,
            short(row["prompt_id"]),
            "" if row["prompt_id"] in in_table else cut(row["text"], POINT_LETTERS),
            group=row["cluster_id"],
            shade=shade_of(row["cluster_id"] or 0),
            said=f"{MEASURES[measure]} {figure(row[measure])}, difficulty {figure(row['difficulty'])}, "
            f"{count(row['n_steps'], 'step')}",
        )
        for row in shown.sort("prompt_id").iter_rows(named=True)
    )
    ends = ((1.0, figure(low)), (0.5, figure(low + extent / 2)), (0.0, figure(low + extent)))
    return Scatter(
        "feedback-map",
        f"Difficulty against the {MEASURES[measure]} of {cut(str(run), 40)}",
        points,
        group_name="cluster",
        x_label="difficulty (rank in the version, 0 is the easiest)",
        y_label=MEASURES[measure],
        x_ticks=tuple((place / 4, f"{place / 4:g}") for place in range(5)),
        y_ticks=ends,
        note="Point at a prompt to read it; a click shows its cluster in the table of prompts.",
        height=0.5,
    )


def _part(fraction: float | None) -> Cell:
    return number(fraction, "" if fraction is None else share(fraction))


def _drift(measure: str | None, part: float | None) -> str:
    return "" if measure is None or part is None else f"{measure.replace('_', ' ')}: {share(part)} of its limit"
