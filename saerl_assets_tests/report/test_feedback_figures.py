"""Figures of what trainings measured: of the house's size whatever the frames hold, the same in any order of rows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import numpy as np
import polars as pl
import pytest

from saerl_assets.domain.curriculum import Epoch, step_row
from saerl_assets.domain.spec import FeedbackSpec
from saerl_assets.report.feedback import (
    figure_curriculum_steps,
    figure_feedback_files,
    figure_rejected_feedback,
    figure_training_feedback,
)
from saerl_assets_tests.report.test_figures import check

WHEN = datetime(2026, 1, 2)  # noqa: DTZ001 - tables hold UTC without a zone


def feedback(n: int = 400, *, seed: int = 0) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Feedback of prompts whose reward falls with their difficulty, and the difficulties."""
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(size=n)
    names = [f"p{place:04}" for place in range(n)]
    rows = pl.DataFrame(
        {
            "run_name": "warm up",
            "step": pl.Series(np.arange(n) // 16, dtype=pl.UInt64),
            "prompt_id": names,
            "n_completions": pl.Series(np.full(n, 8), dtype=pl.UInt32),
            "reward": np.clip(0.5 - 0.2 * difficulty + 0.2 * rng.normal(size=n), 0, 1),
            "loss": pl.Series([None] * n, dtype=pl.Float64),
            "pass_rate": pl.Series([None] * n, dtype=pl.Float64),
            "file_digest": "d",
            "observed_at": WHEN,
        }
    )
    return rows, pl.DataFrame({"prompt_id": names, "difficulty": difficulty})


def files(n: int) -> pl.DataFrame:
    rows = [
        {"file": f"{place}.jsonl", "format": "trl", "n_rows": 10 * place, "n_unmatched": place % 2, "taken_at": WHEN}
        for place in range(n)
    ]
    return pl.DataFrame(rows, schema_overrides={"n_rows": pl.UInt64, "n_unmatched": pl.UInt64})


def steps(n: int) -> pl.DataFrame:
    rule = FeedbackSpec()
    epochs = [
        Epoch(place, "unlocked", f"Epoch {place} has its reasons.", n_stages=1 + place, measured=0.1 * place or None)
        for place in range(n)
    ]
    return pl.concat([step_row(epoch, f"m{epoch.number}", rule) for epoch in epochs])


def moved(n: int) -> pl.DataFrame:
    rule = FeedbackSpec(rule="target")
    epochs = [Epoch(place, "moved", "It moves.", target=0.1 * place, measured=0.5) for place in range(n)]
    return pl.concat([step_row(epoch, f"m{epoch.number}", rule) for epoch in epochs])


rejected = pl.DataFrame({"reason_code": ["no_such_prompt"] * 9 + ["no_value"]})
FIGURES: dict[str, Callable[[], bytes]] = {
    "training_feedback": lambda: figure_training_feedback(*feedback()),
    "of one prompt": lambda: figure_training_feedback(*feedback(1)),
    "without a measure": lambda: figure_training_feedback(
        feedback()[0].with_columns(reward=pl.lit(None, pl.Float64)), feedback()[1]
    ),
    "without difficulty": lambda: figure_training_feedback(feedback()[0], feedback()[1].head(0)),
    "none": lambda: figure_training_feedback(feedback()[0].head(0), feedback()[1]),
    "rejected_feedback": lambda: figure_rejected_feedback(rejected),
    "nothing rejected": lambda: figure_rejected_feedback(rejected.head(0)),
    "feedback_files": lambda: figure_feedback_files(files(20)),
    "no file": lambda: figure_feedback_files(files(1).head(0)),
    "curriculum_steps": lambda: figure_curriculum_steps(steps(5)),
    "one epoch": lambda: figure_curriculum_steps(steps(1)),
    "targets": lambda: figure_curriculum_steps(moved(4)),
    "no curriculum": lambda: figure_curriculum_steps(steps(1).head(0)),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_a_png_of_the_houses_size(name: str) -> None:
    check(FIGURES[name]())


def test_the_order_of_rows_makes_no_difference() -> None:
    rows, difficulty = feedback()
    shuffled = rows.sample(fraction=1, shuffle=True, seed=1)
    assert figure_training_feedback(shuffled, difficulty) == figure_training_feedback(rows, difficulty)
