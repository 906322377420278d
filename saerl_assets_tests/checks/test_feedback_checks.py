from __future__ import annotations

import polars as pl
import pytest

from saerl_assets.checks.feedback import rows_match_prompts
from saerl_assets_tests.checks.cases import Case, plain


def files(*counts: tuple[int, int]) -> pl.DataFrame:
    rows = [{"file": f"{place}.jsonl", "n_rows": n, "n_unmatched": lost} for place, (n, lost) in enumerate(counts)]
    return pl.DataFrame(rows, schema={"file": pl.String, "n_rows": pl.UInt64, "n_unmatched": pl.UInt64})


match = plain(rows_match_prompts)
MATCH = "feedback_files.rows_match_prompts"

CASES = [
    Case(MATCH, True, "Nothing has arrived", lambda: match(files())),
    Case(MATCH, True, "Nearly every row", lambda: match(files((100, 5), (3, 0)))),
    Case(MATCH, False, "6 of 100 rows of 1.jsonl match no prompt", lambda: match(files((100, 0), (100, 6)))),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_check(case: Case) -> None:
    case.hold()
