from __future__ import annotations

import polars as pl
import pytest

from saerl_assets.checks.preference_pairs import pairs_are_whole
from saerl_assets_tests.checks.cases import Case

PROMPTS = pl.DataFrame({"prompt_id": ["a", "b"]})
PAIRS = pl.DataFrame(
    {"prompt_id": ["a", "b", "b"], "pair": [0, 0, 1], "chosen": ["[1]"] * 3, "rejected": ["[2]", "[2]", "[3]"]},
    schema_overrides={"pair": pl.UInt32},
)
NAME = "preference_pairs.every_prompt_has_its_pairs"


def case(says: str, pairs: pl.DataFrame, *, passes: bool = False, wants_pairs: bool = True) -> Case:
    return Case(NAME, passes, says, lambda: pairs_are_whole(pairs, PROMPTS, wants_pairs=wants_pairs))


CASES = [
    case("Every prompt has its pairs", PAIRS, passes=True),
    case("names no pairs, and there are none", PAIRS.clear(), passes=True, wants_pairs=False),
    case("names no pairs, but there are 3", PAIRS, wants_pairs=False),
    case("1 prompts have no pair", PAIRS.filter(pl.col("prompt_id") == "b")),
    case("2 prompts have no pair", PAIRS.clear()),
    case("1 pairs belong to no prompt", pl.concat([PAIRS, PAIRS[:1].with_columns(prompt_id=pl.lit("c"))])),
    case("1 pairs have the same answer twice", PAIRS.with_columns(chosen=pl.Series(["[1]", "[2]", "[1]"]))),
    case("1 pairs lack an answer", PAIRS.with_columns(rejected=pl.Series(["[2]", "[]", "[3]"]))),
    case("1 prompts have pairs that are not numbered", pl.concat([PAIRS[:1], PAIRS[2:]])),
    case("not numbered from 0", PAIRS.with_columns(pair=pl.lit(0, pl.UInt32))),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_preference_pairs_checks(case: Case) -> None:
    case.hold()
