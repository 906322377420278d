from __future__ import annotations

import polars as pl
import pytest

from saerl_assets.checks.prompts import rows_add_up, splits_present
from saerl_assets_tests.checks.cases import Case

PROMPTS = pl.DataFrame({"prompt_id": ["a", "b", "c"], "n_rows": [1, 3, 1], "split": ["train", "train", "evaluation"]})
REJECTED = pl.DataFrame({"position": [3, 6]})
TRAIN = PROMPTS.filter(split="train")

CASES = [
    Case("prompts.no_row_lost", True, "accounted for", lambda: rows_add_up(7, PROMPTS, REJECTED)),
    Case("prompts.no_row_lost", True, "accounted for", lambda: rows_add_up(0, PROMPTS.clear(), REJECTED.clear())),
    Case("prompts.no_row_lost", False, "1 rows are missing", lambda: rows_add_up(8, PROMPTS, REJECTED)),
    Case("prompts.no_row_lost", False, "2 rows are counted twice", lambda: rows_add_up(5, PROMPTS, REJECTED)),
    Case("prompts.both_splits_as_asked", True, "as the spec", lambda: splits_present(PROMPTS, wants_evaluation=True)),
    Case("prompts.both_splits_as_asked", True, "as the spec", lambda: splits_present(TRAIN, wants_evaluation=False)),
    Case("prompts.both_splits_as_asked", False, "but none is", lambda: splits_present(TRAIN, wants_evaluation=True)),
    Case(
        "prompts.both_splits_as_asked",
        False,
        "No prompt is left",
        lambda: splits_present(PROMPTS.filter(split="evaluation"), wants_evaluation=True),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_prompts_checks(case: Case) -> None:
    case.hold()
