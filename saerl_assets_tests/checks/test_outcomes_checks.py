from __future__ import annotations

import polars as pl
import pytest

from saerl_assets.checks.outcomes import few_answers_are_cut_off, outcomes_tell_prompts_apart, rollouts_are_whole
from saerl_assets_tests.checks.cases import Case, plain

PROMPTS = pl.DataFrame({"prompt_id": ["a", "b"]})
ROLLOUTS = pl.DataFrame({"prompt_id": ["a", "a", "b", "b"], "sample": [0, 1, 0, 1], "score": [0.0, 1.0, 0.5, 1.0]})
OUTCOMES = pl.DataFrame({"pass_rate": [0.0, 0.25, 0.5, 1.0], "n_rollouts": [8] * 4, "n_truncated": [0, 1, 2, 0]})


def whole(says: str, rollouts: pl.DataFrame, *, passes: bool = False, n_rollouts: int | None = 2) -> Case:
    name = "rollouts.every_rollout_is_whole"
    return Case(name, passes, says, lambda: rollouts_are_whole(rollouts, PROMPTS, n_rollouts=n_rollouts))


def apart(says: str, rates: list[float], *, passes: bool = False) -> Case:
    frame = pl.DataFrame({"pass_rate": rates}, schema={"pass_rate": pl.Float64})
    check = plain(outcomes_tell_prompts_apart)
    return Case("outcomes.outcomes_tell_prompts_apart", passes, says, lambda: check(frame))


def cut_off(says: str, outcomes: pl.DataFrame, *, passes: bool = False) -> Case:
    check = plain(few_answers_are_cut_off)
    return Case("outcomes.few_answers_are_cut_off", passes, says, lambda: check(outcomes))


CASES = [
    whole("2 prompts have 2 answers each", ROLLOUTS, passes=True),
    whole("no [outcomes], and there are no rollouts", ROLLOUTS.clear(), passes=True, n_rollouts=None),
    whole("no outcomes, but there are 4", ROLLOUTS, n_rollouts=None),
    whole("No prompt was answered", ROLLOUTS.clear()),
    whole("1 prompts do not have 2 different answers", ROLLOUTS[:3]),
    whole("2 prompts do not have 2 different answers", ROLLOUTS.with_columns(sample=pl.lit(0))),
    whole("2 prompts do not have 3 different answers", ROLLOUTS, n_rollouts=3),
    whole("2 rollouts are of no prompt", ROLLOUTS.with_columns(prompt_id=pl.col("prompt_id").replace("b", "c"))),
    whole("1 scores are not from 0 to 1", ROLLOUTS.with_columns(score=pl.Series([0.0, 1.5, 0.0, 1.0]))),
    apart("No policy has answered", [], passes=True),
    apart("50% of the prompts are answered right sometimes", [0.0, 0.25, 0.5, 1.0], passes=True),
    apart("Every pass rate is 0, so that difficulty carries nothing", [0.0] * 5),
    apart("Every pass rate is 1", [1.0] * 5),
    apart("5% of the prompts are never answered right and 95% always", [0.0] + [1.0] * 19),
    cut_off("9% of 32 answers were cut off", OUTCOMES, passes=True),
    cut_off("0% of 0 answers", OUTCOMES.clear(), passes=True),
    cut_off("50% of 32 answers were cut off, more than 20%", OUTCOMES.with_columns(n_truncated=pl.lit(4))),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_outcomes_checks(case: Case) -> None:
    case.hold()


def test_what_may_be_so_only_warns() -> None:
    for case in CASES:
        found = case.result()
        if found.passed:
            continue
        assert found.severity.value == ("ERROR" if case.check.startswith("rollouts.") else "WARN")
