from __future__ import annotations

import polars as pl
import pytest

from saerl_assets.checks.feature_examples import tokens_of_prompts
from saerl_assets_tests.checks.cases import Case

EXAMPLES = pl.DataFrame(
    {
        "feature_id": [3, 3, 7],
        "place": [0, 1, 0],
        "activation": [2.0, 1.5, 4.0],
        "token_index": [0, 4, 9],
        "n_tokens": [5, 5, 10],
    }
)
DENSITY = pl.DataFrame({"feature_id": [0, 3, 7], "n_prompts": [0, 2, 1]})
SILENT = DENSITY.with_columns(n_prompts=0)
TOKENS = "feature_examples.examples_are_tokens_of_their_prompts"


def changed(**columns: list[float | None]) -> pl.DataFrame:
    return EXAMPLES.with_columns(**{name: pl.Series(values, strict=False) for name, values in columns.items()})


CASES = [
    Case(TOKENS, True, "2 features have examples", lambda: tokens_of_prompts(EXAMPLES, DENSITY)),
    Case(TOKENS, True, "0 features have examples", lambda: tokens_of_prompts(EXAMPLES.clear(), SILENT)),
    Case(TOKENS, False, "2 features fire, and none", lambda: tokens_of_prompts(EXAMPLES.clear(), DENSITY)),
    Case(
        TOKENS,
        False,
        "1 examples are of no prompt",
        lambda: tokens_of_prompts(changed(n_tokens=[5, None, 10]), DENSITY),
    ),
    Case(
        TOKENS,
        False,
        "1 examples are of a token that",
        lambda: tokens_of_prompts(changed(n_tokens=[5, 4, 10]), DENSITY),
    ),
    Case(TOKENS, False, "does not fire", lambda: tokens_of_prompts(changed(activation=[2.0, 0.0, 4.0]), DENSITY)),
    Case(TOKENS, False, "does not fire", lambda: tokens_of_prompts(changed(activation=[2, float("nan"), 4]), DENSITY)),
    Case(TOKENS, False, "1 examples are stronger", lambda: tokens_of_prompts(changed(activation=[1, 1.5, 4]), DENSITY)),
    Case(TOKENS, False, "1 features lack some", lambda: tokens_of_prompts(changed(place=[0, 2, 0]), DENSITY)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_feature_examples_checks(case: Case) -> None:
    case.hold()
