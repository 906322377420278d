"""Figures of what trainings measured: difficulty against reward or loss, its files, and the curriculum it leads to.

Belongs here: `training_feedback`, `rejected_feedback`, `feedback_files` and `curriculum_steps`. Does not belong here:
how the next epoch is decided.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from saerl_assets.domain.training_feedback import difficulty_correlation, fullest
from saerl_assets.report.marks import bars, thinned, whole_ticks
from saerl_assets.report.style import AMBER, BLUE, INK, VERMILION, card, finite, label, message, png
from saerl_assets.report.words import count, cut, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HOW_TO_GIVE = (
    "Give the version its training's log: saerl labels add KEY FILE, or put it into <home>/inbox/labels/<version>. "
    "TRL's completions, verl's rollouts, saerl_log.jsonl and JSONL with prompt_id or prompt are read."
)
MEASURES = {"reward": "mean reward", "pass_rate": "share of correct completions", "loss": "mean loss"}
N_GROUPS = 10
MAX_FILES = 12


def figure_training_feedback(feedback: pl.DataFrame, difficulty: pl.DataFrame) -> bytes:
    """Difficulty against what the latest training measured, and what it measured over its steps.

    Args:
        feedback: Table `training_feedback`.
        difficulty: Columns `prompt_id` and `difficulty`.

    Returns:
        PNG bytes.
    """
    if feedback.is_empty():
        return message("No training has told anything yet", HOW_TO_GIVE)
    ordered = feedback.sort("observed_at", "run_name")
    run = ordered["run_name"][-1]
    training = fullest(feedback.filter(pl.col("run_name") == run))
    measure = next((name for name in MEASURES if training[name].is_not_null().any()), None)
    if measure is None:
        return message("The training's log holds no reward, loss or pass rate", HOW_TO_GIVE)
    known = training.drop_nulls(measure)
    prompts = known.group_by("prompt_id").agg(pl.col(measure).mean()).join(difficulty, on="prompt_id")
    n_prompts, correlation = difficulty_correlation(known, difficulty, measure)
    said = f"Spearman {figure(correlation)}" if correlation is not None else "no correlation to tell"
    drawn = card(
        f"{MEASURES[measure].capitalize()} falls with difficulty: {said}"
        if correlation is not None and correlation < 0
        else f"{MEASURES[measure].capitalize()} against difficulty: {said}",
        key=[("a prompt", BLUE), ("mean of a tenth of the prompts", VERMILION)],
        note=f"{count(n_prompts, 'prompt')}, {count(known['step'].n_unique(), 'step')} of {cut(str(run), 24)}",
        widths=(1.2, 1.0),
        height=3.6,
    )
    _draw_prompts(drawn.axes[0], prompts, measure)
    steps = known.group_by("step").agg(pl.col(measure).mean()).sort("step")
    drawn.axes[1].plot(steps["step"], steps[measure], color=BLUE, linewidth=1.4, marker=".", markersize=4)
    whole_ticks(drawn.axes[1].xaxis)
    label(drawn.axes[1], x="optimizer step", y=MEASURES[measure])
    return png(drawn)


def figure_rejected_feedback(rejected: pl.DataFrame) -> bytes:
    """Why rows of those files were not taken.

    Args:
        rejected: Table `rejected_feedback`.

    Returns:
        PNG bytes.
    """
    if rejected.is_empty():
        return message("Every row that arrived was taken up", "Rows that match no prompt of the version would be here.")
    counted = rejected.group_by("reason_code").len().sort(["len", "reason_code"], descending=[True, False])
    drawn = card(f"{count(rejected.height, 'row')} not taken up", height=0.95 + 0.34 * counted.height)
    numbers = [float(number) for number in counted["len"]]
    bars(drawn.axes[0], counted["reason_code"].to_list(), numbers, [count(number) for number in numbers], VERMILION)
    label(drawn.axes[0], x="rows")
    return png(drawn)


def figure_feedback_files(files: pl.DataFrame) -> bytes:
    """How many rows each file had.

    Args:
        files: Table `feedback_files`.

    Returns:
        PNG bytes.
    """
    if files.is_empty():
        return message("No labels and no training log have arrived", HOW_TO_GIVE)
    shown = files.sort(["taken_at", "file"], descending=[True, False]).head(MAX_FILES)
    further = f"; the latest {MAX_FILES}" if files.height > MAX_FILES else ""
    drawn = card(
        f"{count(files.height, 'file')} with {count(int(files['n_rows'].sum()), 'row')} arrived later{further}",
        note=f"{count(int(files['n_unmatched'].sum()), 'row')} match no prompt of the version",
        height=1.1 + 0.34 * shown.height,
    )
    names = [f"{cut(row['file'], 30)} ({row['format']})" for row in shown.iter_rows(named=True)]
    numbers = [float(number) for number in shown["n_rows"]]
    bars(drawn.axes[0], names, numbers, [count(number) for number in numbers], BLUE)
    label(drawn.axes[0], x="rows")
    return png(drawn)


def figure_curriculum_steps(steps: pl.DataFrame) -> bytes:
    """What each epoch unlocked, beside what was measured before it.

    Args:
        steps: Table `curriculum_steps`.

    Returns:
        PNG bytes.
    """
    if steps.is_empty():
        explanation = "The spec has no [batches.feedback]: the order is planned ahead and follows no training's log."
        return message("The curriculum follows no feedback", explanation)
    ordered = steps.sort("epoch", "manifest_id")
    by_parts = ordered["n_stages_unlocked"].is_not_null().any()
    drawn = card(
        ordered["explanation"][-1],
        key=[("unlocked", BLUE), (f"{ordered['measure'][-1]} before it", AMBER)],
        widths=(1.0, 1.0),
        height=3.2,
    )
    column, unit = ("n_stages_unlocked", "parts unlocked") if by_parts else ("target", "target (rank, 0 to 1)")
    for axes, name, colour, said in (
        (drawn.axes[0], column, BLUE, unit),
        (drawn.axes[1], "measured", AMBER, str(ordered["measure"][-1])),
    ):
        known = ordered.drop_nulls(name)
        axes.plot(known["epoch"], known[name], color=colour, marker="o", linewidth=1.4, markersize=5)
        whole_ticks(axes.xaxis)
        label(axes, x="epoch", y=said)
    if by_parts:
        whole_ticks(drawn.axes[0].yaxis)
    return png(drawn)


def _draw_prompts(axes: Axes, prompts: pl.DataFrame, measure: str) -> None:
    """A point for each prompt, and the means of tenths of them by difficulty."""
    sample = thinned(prompts, "prompt_id")
    axes.scatter(sample["difficulty"], sample[measure], s=8, color=BLUE, alpha=0.3, linewidths=0)
    ordered = prompts.sort("difficulty", "prompt_id")
    groups = np.array_split(np.arange(ordered.height), min(N_GROUPS, max(ordered.height, 1)))
    middles = [float(finite(ordered[group.tolist()], "difficulty").mean()) for group in groups if len(group)]
    means = [float(finite(ordered[group.tolist()], measure).mean()) for group in groups if len(group)]
    axes.plot(middles, means, color=VERMILION, marker="o", linewidth=1.4, markersize=4, zorder=3)
    axes.axhline(0.0, color=INK, linewidth=0.0)
    label(axes, x="difficulty", y=MEASURES[measure])
