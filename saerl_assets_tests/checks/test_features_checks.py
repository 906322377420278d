from __future__ import annotations

import polars as pl
import pytest

from saerl_assets.checks.features import all_read
from saerl_assets_tests.checks.cases import Case


def coverage(n_read: int = 10, n_silent: int = 2) -> pl.DataFrame:
    return pl.DataFrame({"layer": [1, 5], "n_prompts": [10, 10], "n_read": [10, n_read], "n_silent": [0, n_silent]})


CHECK = "prompt_features.every_prompt_was_read"
CASES = [
    Case(CHECK, True, "Every prompt was read.", lambda: all_read(coverage())),
    Case(CHECK, False, "Layer 5: 1 prompts have no features.", lambda: all_read(coverage(n_read=9))),
    Case(CHECK, False, "Layer 5: no feature fires", lambda: all_read(coverage(n_silent=10))),
    Case(CHECK, False, "no prompts or no encoder", lambda: all_read(coverage().clear())),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_features_checks(case: Case) -> None:
    case.hold()
