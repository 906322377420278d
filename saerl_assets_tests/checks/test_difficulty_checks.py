from __future__ import annotations

import polars as pl
import pytest

from saerl_assets.checks.difficulty import every_prompt_scored, proxy_beats_length, range_was_meant
from saerl_assets.domain.spec import DifficultySpec
from saerl_assets_tests.checks.cases import Case, plain

PROMPTS = pl.DataFrame({"prompt_id": ["a", "b", "c"]})
SCORES = pl.DataFrame(
    {
        "prompt_id": ["a", "b", "c"],
        "difficulty": [0.5, 2.0, -1.0],
        "difficulty_rank": [0.5, 1.0, 0.0],
        "score_name": "proxy",
    }
)


def proxy(
    spearman: float | None, *, length: float | None = -0.3, interval: tuple[float, float] | None = (0.05, 0.2)
) -> pl.DataFrame:
    """Three rows of the table; without an interval there are too few prompts for one."""
    over = None if spearman is None or length is None else spearman - abs(length)
    low, high = interval if interval and over is not None else (None, None)
    nothing = [None, None]
    return pl.DataFrame(
        {
            "score_name": ["proxy", "length", "proxy"],
            "rows": ["held_out", "held_out", "fitted"],
            "spearman": [spearman, length, 0.99],
            "over_length": [over, *nothing],
            "over_length_low": [low, *nothing],
            "over_length_high": [high, *nothing],
            "explanation": ["Too few labels.", "", ""],
        },
        schema_overrides=dict.fromkeys(["spearman", "over_length", "over_length_low", "over_length_high"], pl.Float64),
    )


def scores(**columns: list[float]) -> pl.DataFrame:
    return SCORES.with_columns(**{name: pl.Series(values) for name, values in columns.items()})


scored, beats = plain(every_prompt_scored), plain(proxy_beats_length)
EVERY, BEATS = "difficulty_scores.every_prompt_scored", "difficulty_proxy.proxy_beats_length"
RANGE = "difficulty_scores.range_is_of_a_score_that_was_asked_for"
BY_MAGNITUDE = DifficultySpec(score="magnitude", min_rank=0.1)
NAN = float("nan")

CASES = [
    Case(EVERY, True, "(proxy)", lambda: scored(SCORES, PROMPTS)),
    Case(EVERY, False, "not the version's prompts", lambda: scored(SCORES.head(2), PROMPTS)),
    Case(EVERY, False, "not the version's prompts", lambda: scored(SCORES, PROMPTS.head(2))),
    Case(EVERY, False, "not finite", lambda: scored(scores(difficulty=[0.5, NAN, 0.0]), PROMPTS)),
    Case(EVERY, False, "do not follow", lambda: scored(scores(difficulty_rank=[1.0, 0.5, 0.0]), PROMPTS)),
    Case(EVERY, False, "do not follow", lambda: scored(scores(difficulty_rank=[0.5, 1.5, 0.0]), PROMPTS)),
    Case(RANGE, True, "Every rank is kept.", lambda: range_was_meant(DifficultySpec(), ["magnitude"])),
    Case(RANGE, True, "was asked for", lambda: range_was_meant(DifficultySpec(max_rank=0.9), ["label", "proxy"])),
    Case(RANGE, True, "was asked for", lambda: range_was_meant(BY_MAGNITUDE, ["magnitude"])),
    Case(RANGE, False, "label more prompts", lambda: range_was_meant(DifficultySpec(max_rank=0.9), ["magnitude"])),
    Case(
        RANGE, False, "by their summed", lambda: range_was_meant(DifficultySpec(min_rank=0.1), ["label", "magnitude"])
    ),
    Case(
        BEATS, True, "is 0.40, that of plain length -0.30; the difference lies between +0.05", lambda: beats(proxy(0.4))
    ),
    Case(BEATS, True, "is 0.40, that of plain length -0.30.", lambda: beats(proxy(0.4, interval=None))),
    Case(BEATS, True, "is 0.40", lambda: beats(proxy(0.4, length=None))),
    Case(BEATS, True, "Too few labels.", lambda: beats(proxy(None))),
    Case(BEATS, False, "not shown to be better", lambda: beats(proxy(0.4, interval=(-0.02, 0.2)))),
    Case(BEATS, False, "not shown to be better", lambda: beats(proxy(0.2, interval=(-0.2, -0.1)))),
    Case(BEATS, False, "is 0.20, that of plain length -0.30", lambda: beats(proxy(0.2, interval=None))),
    Case(BEATS, False, "is -0.40", lambda: beats(proxy(-0.4, length=None))),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_difficulty_checks(case: Case) -> None:
    case.hold()
