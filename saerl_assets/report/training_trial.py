"""Figures of a trial: how accuracy rises over steps in each order, and the steps to the target beside shuffle's.

Belongs here: `trial_evaluations` and `trial_summary`. Does not belong here: how curves are compared (domain).
"""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Any

import polars as pl

from saerl_assets.domain.trial import AT_LEAST, AT_MOST, BASELINE, EXACT, by_steps, interval_of
from saerl_assets.report.blocks import Column, Table, cells, columns, number, rows
from saerl_assets.report.style import BLUE, INK, MUTED, SERIES, VERMILION, card, label, message, png, tick_names
from saerl_assets.report.words import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HOW_TO_ASK = (
    "Add a table [trial] with the policy and a verifier to the spec of another version, and ask for it: "
    "saerl trial KEY. It trains the policy in the order of every arm."
)
ARM_NAMES = {
    "clustered": "SAERL, clustered",
    "balanced": "SAERL, balanced",
    "shuffle": "shuffle",
    "easy_to_hard": "easy to hard",
    "dense_state": "dense state",
    "random_clusters": "random clusters",
    "true_difficulty": "true difficulty",
    "length_difficulty": "length as difficulty",
    "random_drop": "random drop",
}
"""In the order in which curves are drawn, as far as there is room."""
PLANNED = ("clustered", "balanced")
MAX_CURVES = 6
BEYOND = 3.0
"""Ratios above are drawn here, at the edge."""


def figure_trial_evaluations(evaluations: pl.DataFrame) -> bytes:
    """Accuracy over steps: the mean over seeds of each arm, shuffle and the planned orders first, in a band.

    The band is the standard error of the mean on either side; an arm with one seed has none.

    Args:
        evaluations: Table `trial_evaluations`: `arm`, `seed`, `step`, `accuracy`.

    Returns:
        PNG bytes.
    """
    if evaluations.is_empty():
        return message("No policy was trained", HOW_TO_ASK)
    known = evaluations["arm"].unique(maintain_order=True).to_list()
    named = [arm for arm in (BASELINE, *PLANNED, *ARM_NAMES) if arm in known]
    shown = list(dict.fromkeys([*named, *known]))[:MAX_CURVES]
    colours = dict(zip(shown, cycle((INK, *SERIES)), strict=False))
    n_seeds = evaluations["seed"].n_unique()
    left_out = len(known) - len(shown)
    drawn = card(
        f"Held-out accuracy while training, {count(n_seeds, 'seed')}",
        key=[(ARM_NAMES.get(arm, arm), colours[arm]) for arm in shown],
        note="band: standard error" + (f"; {count(left_out, 'further arm')} in the table" if left_out else ""),
        height=3.9,
    )
    axes = drawn.axes[0]
    for arm in shown:
        _draw_curve(axes, evaluations.filter(arm=arm), colours[arm], width=2.4 if arm in PLANNED else 1.6)
    axes.set_xlim(left=0)
    label(axes, x="optimizer steps", y="share of held-out prompts answered right")
    return png(drawn)


def figure_trial_summary(summary: pl.DataFrame) -> bytes:
    """Steps to the target as a ratio to shuffle's, with intervals: left of 1 is faster.

    Args:
        summary: Table `trial_summary`.

    Returns:
        PNG bytes.
    """
    arms = by_steps(summary).filter(pl.col("arm") != BASELINE).drop_nulls("step_ratio").to_dicts()
    if not arms:
        return message("Nothing can be compared yet", HOW_TO_ASK if summary.is_empty() else "One arm is not enough.")
    target = arms[0]["target"]
    drawn = card(
        f"Steps to {target:.1%} of held-out prompts, as a ratio to shuffle's",
        key=[("SAERL", BLUE), ("controls", MUTED)],
        note="95% intervals over seeds; an open mark is a bound: one of the two never got there",
        height=1.5 + 0.3 * len(arms),
    )
    axes = drawn.axes[0]
    for place, row in enumerate(arms):
        colour = BLUE if row["arm"] in PLANNED else MUTED
        low, high = (min(end, BEYOND) for end in _ends(row))
        axes.plot([low, high], [place, place], color=colour, linewidth=2.2, solid_capstyle="butt")
        face = colour if row["ratio_bound"] == EXACT else "none"
        ratio = min(row["step_ratio"], BEYOND)
        axes.plot([ratio], [place], color=colour, marker="o", markersize=6, markerfacecolor=face, linestyle="none")
    axes.axvline(1.0, color=VERMILION, linewidth=1.0, linestyle=":")
    axes.set_ylim(len(arms) - 0.4, -0.6)
    names = [f"{ARM_NAMES.get(row['arm'], row['arm'])} ({row['n_seeds']})" for row in arms]
    tick_names(axes, range(len(arms)), names)
    label(axes, x="ratio of steps (arm, with its seeds in brackets)")
    return png(drawn)


def trial_table(summary: pl.DataFrame) -> Table:
    """What each arm came to.

    Args:
        summary: Table `trial_summary`.
    """
    shown = [
        cells(
            ARM_NAMES.get(row["arm"], row["arm"]),
            number(row["n_seeds"], count(row["n_seeds"])),
            number(row["final_accuracy"], f"{row['final_accuracy']:.1%}"),
            number(row["final_difference"], _difference(row)),
            number(row["steps_to_target"], _steps(row)),
            number(row["n_censored"], _arrived(row)),
            number(row["step_ratio"], _ratio(row)),
            number(row["time_ratio"], _bounded(row, "time_ratio")),
        )
        for row in by_steps(summary).iter_rows(named=True)
    ]
    return Table(
        "trial-table",
        "The trial, arm by arm",
        columns(
            "order",
            Column("seeds", "number"),
            Column("final accuracy", "number"),
            Column("beside shuffle", "number", "difference in points, 95% interval over seeds"),
            Column("steps to the target", "number", "of the mean curve made monotone"),
            Column("seeds that got there", "number", "each curve made monotone by itself"),
            Column("ratio to shuffle", "number", "95% interval over seeds; below 1 is faster"),
            Column("ratio in seconds", "number", "what the signals took counted in, on the machine that made them"),
        ),
        rows(shown),
    )


def _difference(row: dict[str, Any]) -> str:
    if row["final_difference"] is None or row["arm"] == BASELINE:
        return ""
    said = f"{100 * row['final_difference']:+.1f}"
    if row["final_difference_low"] is None:
        return said
    return f"{said} ({100 * row['final_difference_low']:+.1f} to {100 * row['final_difference_high']:+.1f})"


def _steps(row: dict[str, Any]) -> str:
    if row["steps_to_target"] is None:
        return ""
    return "not reached" if row["is_censored"] else count(round(row["steps_to_target"]))


def _arrived(row: dict[str, Any]) -> str:
    return "" if row["n_censored"] is None else f"{row['n_seeds'] - row['n_censored']} of {row['n_seeds']}"


def _ratio(row: dict[str, Any]) -> str:
    said, interval = _bounded(row, "step_ratio"), interval_of(row)
    return f"{said} ({interval})" if said and interval else said


def _bounded(row: dict[str, Any], name: str) -> str:
    """A ratio of an arm with what it is a bound of."""
    if row[name] is None or row["arm"] == BASELINE:
        return ""
    bound = {AT_LEAST: "over ", AT_MOST: "under "}.get(row["ratio_bound"], "")
    return f"{bound}{row[name]:.2f}"


def _ends(row: dict[str, Any]) -> tuple[float, float]:
    """Where the line of an arm's ratio begins and ends."""
    if row["step_ratio_low"] is None:
        return row["step_ratio"], row["step_ratio"]
    return row["step_ratio_low"], BEYOND if row["step_ratio_high"] is None else row["step_ratio_high"]


def _draw_curve(axes: Axes, evaluated: pl.DataFrame, colour: str, *, width: float) -> None:
    """The mean over seeds, and its standard error as a band."""
    mean = (
        evaluated.group_by("step")
        .agg(pl.col("accuracy").mean(), error=pl.col("accuracy").std() / pl.len().sqrt())
        .sort("step")
        .with_columns(pl.col("error").fill_null(0.0))
    )
    steps, height, error = (mean[name].to_numpy() for name in ("step", "accuracy", "error"))
    axes.fill_between(steps, height - error, height + error, color=colour, alpha=0.14, linewidth=0)
    axes.plot(steps, height, color=colour, linewidth=width)
