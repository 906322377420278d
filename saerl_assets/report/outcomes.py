"""Figures of what the policy's own answers say: how long they are, and how often they are right.

Belongs here: `rollouts` and `outcomes`. Does not belong here: the labels that are made of them (prompts).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from saerl_assets.report.marks import histogram, median_line, whole_ticks
from saerl_assets.report.style import AMBER, BLUE, CARD, SKY, card, finite, label, message, png
from saerl_assets.report.words import count, share

if TYPE_CHECKING:
    from matplotlib.axes import Axes

N_BINS = 17
"""Bins of pass rates where rollouts are many: with 16 or fewer each possible rate has one."""
HOW_TO_ASK = (
    "Add a table [outcomes] with the policy and a verifier to the spec of another version: the policy then answers a "
    "sample of the prompts, and its pass rates are labels."
)


def figure_rollouts(rollouts: pl.DataFrame) -> bytes:
    """How long the policy's answers are, and which were cut off.

    Args:
        rollouts: Table `rollouts`: `n_tokens`, `is_truncated`, `score`, `prompt_id`.

    Returns:
        PNG bytes.
    """
    tokens = finite(rollouts, "n_tokens")
    if not tokens.size:
        return message("No policy has answered", HOW_TO_ASK)
    groups = {
        name: found
        for name, is_cut in (("ended", False), ("cut off", True))
        if (found := finite(rollouts.filter(pl.col("is_truncated") == is_cut), "n_tokens")).size
    }
    colours = [BLUE if name == "ended" else AMBER for name in groups]
    drawn = card(
        f"{count(tokens.size, 'answer')} to {count(rollouts['prompt_id'].n_unique(), 'prompt')}, "
        f"median {count(float(np.median(tokens)), 'token')}",
        key=[(f"{count(groups[name].size)} {name}", colour) for name, colour in zip(groups, colours, strict=True)],
    )
    axes = drawn.axes[0]
    histogram(axes, groups, colours)
    median_line(axes, float(np.median(tokens)), "median")
    label(axes, x="tokens of an answer", y="answers")
    return png(drawn)


def figure_outcomes(outcomes: pl.DataFrame) -> bytes:
    """How often the policy is right, prompt by prompt.

    Args:
        outcomes: Table `outcomes`: `pass_rate`, `n_rollouts`, `split`.

    Returns:
        PNG bytes.
    """
    rates = finite(outcomes, "pass_rate")
    if not rates.size:
        return message("No policy has answered", HOW_TO_ASK)
    never, always = float((rates <= 0.0).mean()), float((rates >= 1.0).mean())
    splits = [split for split in ("train", "evaluation") if (outcomes["split"] == split).any()]
    drawn = card(
        f"{count(rates.size, 'prompt')}, mean pass rate {share(float(rates.mean()))}",
        key=[(split, colour) for split, colour in zip(splits, (BLUE, SKY), strict=False)],
        note=f"{share(never)} never right, {share(always)} always: a policy learns from the others",
    )
    _draw_rates(drawn.axes[0], outcomes, splits)
    label(drawn.axes[0], x="share of the policy's answers that are right", y="prompts")
    return png(drawn)


def _draw_rates(axes: Axes, outcomes: pl.DataFrame, splits: list[str]) -> None:
    """Stacked bars, one for each rate that so many rollouts can give where they are few."""
    n_bins = min(int(outcomes["n_rollouts"].max() or 1) + 1, N_BINS)  # type: ignore[arg-type]
    edges = np.linspace(0.0, 1.0, n_bins) if n_bins > 1 else np.array([0.5])
    width = 0.9 / max(n_bins - 1, 1)
    floor = np.zeros(n_bins)
    for split, colour in zip(splits, (BLUE, SKY), strict=False):
        rates = np.clip(finite(outcomes.filter(pl.col("split") == split), "pass_rate"), 0.0, 1.0)
        heights = np.bincount(np.rint(rates * (n_bins - 1)).astype(np.int64), minlength=n_bins)
        axes.bar(edges, heights, width=width, bottom=floor, color=colour, edgecolor=CARD, linewidth=0.6)
        floor += heights
    axes.set_xlim(-0.02 - width / 2, 1.02 + width / 2)
    axes.grid(visible=False, axis="x")
    whole_ticks(axes.yaxis)
