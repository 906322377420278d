from __future__ import annotations

import polars as pl
import pytest

from saerl_assets.checks.difficulty import every_prompt_scored, proxy_beats_length
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


def proxy(spearman: float | None, *, length: float = -0.3) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "score_name": ["proxy", "length", "proxy"],
            "rows": ["held_out", "held_out", "fitted"],
            "spearman": [spearman, length, 0.99],
            "explanation": ["Too few labels.", "", ""],
        }
    )


def scores(**columns: list[float]) -> pl.DataFrame:
    return SCORES.with_columns(**{name: pl.Series(values) for name, values in columns.items()})


scored, beats = plain(every_prompt_scored), plain(proxy_beats_length)
EVERY, BEATS = "difficulty_scores.every_prompt_scored", "difficulty_proxy.proxy_beats_length"
NAN = float("nan")

CASES = [
    Case(EVERY, True, "(proxy)", lambda: scored(SCORES, PROMPTS)),
    Case(EVERY, False, "not the version's prompts", lambda: scored(SCORES.head(2), PROMPTS)),
    Case(EVERY, False, "not the version's prompts", lambda: scored(SCORES, PROMPTS.head(2))),
    Case(EVERY, False, "not finite", lambda: scored(scores(difficulty=[0.5, NAN, 0.0]), PROMPTS)),
    Case(EVERY, False, "do not follow", lambda: scored(scores(difficulty_rank=[1.0, 0.5, 0.0]), PROMPTS)),
    Case(EVERY, False, "do not follow", lambda: scored(scores(difficulty_rank=[0.5, 1.5, 0.0]), PROMPTS)),
    Case(BEATS, True, "is 0.40, that of plain length 0.30", lambda: beats(proxy(0.4))),
    Case(BEATS, True, "Too few labels.", lambda: beats(proxy(None))),
    Case(BEATS, False, "is 0.20, that of plain length 0.30", lambda: beats(proxy(0.2))),
    Case(BEATS, False, "is -0.40", lambda: beats(proxy(-0.4))),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_difficulty_checks(case: Case) -> None:
    case.hold()
