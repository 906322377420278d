from __future__ import annotations

import dagster as dg
import polars as pl
import pytest

from saerl_assets.checks.hygiene import (
    every_group_has_one_representative,
    groups_are_no_template,
    little_is_contaminated,
    what_hygiene_defers_has_its_evidence,
)
from saerl_assets_tests.checks.cases import Case, plain

WHOLE = "near_duplicates.every_group_has_one_representative"
TEMPLATE = "near_duplicates.groups_are_no_template"
LITTLE = "contamination.little_is_contaminated"
EVIDENCE = "deferred_prompts.what_hygiene_defers_has_its_evidence"

PROMPTS = pl.DataFrame(
    {"prompt_id": [f"p{place}" for place in range(100)], "split": ["train"] * 90 + ["evaluation"] * 10}
)


def groups(*sizes: int) -> pl.DataFrame:
    """Groups of training prompts."""
    rows, start = [], 0
    for group, size in enumerate(sizes):
        names = [f"p{start + place}" for place in range(size)]
        start += size
        rows += [
            {
                "prompt_id": name,
                "group_id": group,
                "n_prompts": size,
                "representative": names[0],
                "role": "representative" if name == names[0] else "copy",
                "nearest": names[1] if name == names[0] else names[0],
            }
            for name in names
        ]
    schema = {"group_id": pl.UInt32, "n_prompts": pl.UInt32} | dict.fromkeys(
        ("prompt_id", "representative", "role", "nearest"), pl.String
    )
    return pl.DataFrame(rows, schema=schema)


def whole(near: pl.DataFrame) -> dg.AssetCheckResult:
    return plain(every_group_has_one_representative)(near, PROMPTS)


def changed(**columns: pl.Expr) -> pl.DataFrame:
    return groups(3, 2).with_columns(**columns)


def contamination(n: int) -> pl.DataFrame:
    return pl.DataFrame({"prompt_id": [f"p{place}" for place in range(n)] * 2}, schema={"prompt_id": pl.String})


def deferred(**codes: str) -> pl.DataFrame:
    schema = {"prompt_id": pl.String, "reason_code": pl.String}
    return pl.DataFrame({"prompt_id": list(codes), "reason_code": list(codes.values())}, schema=schema)


def evidence(rows: pl.DataFrame) -> dg.AssetCheckResult:
    return plain(what_hygiene_defers_has_its_evidence)(rows, contamination(2), groups(3, 2))


SECOND = pl.col("prompt_id") == "p1"
CASES = [
    Case(WHOLE, True, "Every group is whole", lambda: whole(groups(3, 2))),
    Case(WHOLE, True, "Every group is whole", lambda: whole(groups())),
    Case(WHOLE, True, "Every group is whole", lambda: whole(groups(2).with_columns(role=pl.lit("evaluation")))),
    Case(
        WHOLE, False, "1 groups are not whole", lambda: whole(groups(3, 2).filter(~SECOND | (pl.col("group_id") == 1)))
    ),
    Case(WHOLE, False, "2 groups are not whole", lambda: whole(changed(role=pl.lit("copy")))),
    Case(WHOLE, False, "1 groups are not whole", lambda: whole(groups(3, 2)[3:4])),
    Case(
        WHOLE,
        False,
        "1 groups are not whole",
        lambda: whole(changed(representative=pl.when(SECOND).then(pl.lit("p1")).otherwise("representative"))),
    ),
    Case(
        WHOLE,
        False,
        "1 prompts of groups are not of the version",
        lambda: whole(changed(prompt_id=pl.when(SECOND).then(pl.lit("x")).otherwise("prompt_id"))),
    ),
    Case(WHOLE, False, "in no group", lambda: whole(changed(nearest=pl.lit("p99")))),
    Case(TEMPLATE, True, "holds 5 prompts", lambda: plain(groups_are_no_template)(groups(5, 2), PROMPTS)),
    Case(TEMPLATE, True, "holds 0 prompts", lambda: plain(groups_are_no_template)(groups(), PROMPTS)),
    Case(TEMPLATE, True, "holds 5 prompts", lambda: plain(groups_are_no_template)(groups(5), PROMPTS[:5])),
    Case(TEMPLATE, False, "holds 6 of 100 prompts", lambda: plain(groups_are_no_template)(groups(6), PROMPTS)),
    Case(LITTLE, True, "4 of 90 training prompts", lambda: plain(little_is_contaminated)(contamination(4), PROMPTS)),
    Case(LITTLE, True, "0 of 0 training", lambda: plain(little_is_contaminated)(contamination(0), PROMPTS[:0])),
    Case(LITTLE, False, "(6%) repeat", lambda: plain(little_is_contaminated)(contamination(5), PROMPTS)),
    Case(
        EVIDENCE,
        True,
        "has its evidence",
        lambda: evidence(deferred(p0="contaminated", p1="near_duplicate", p9="tail")),
    ),
    Case(EVIDENCE, True, "has its evidence", lambda: evidence(deferred())),
    Case(EVIDENCE, False, "without a row in contamination", lambda: evidence(deferred(p7="contaminated"))),
    Case(EVIDENCE, False, "without a row in near_duplicates", lambda: evidence(deferred(p0="near_duplicate"))),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_hygiene_checks(case: Case) -> None:
    case.hold()
