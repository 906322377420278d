from __future__ import annotations

import polars as pl
import pytest

from saerl_assets.checks.features import all_read, dead_latents
from saerl_assets_tests.checks.cases import Case


def coverage(n_read: int = 10, n_silent: int = 2) -> pl.DataFrame:
    return pl.DataFrame({"layer": [1, 5], "n_prompts": [10, 10], "n_read": [10, n_read], "n_silent": [0, n_silent]})


def density(n_dead: int) -> pl.DataFrame:
    """Ten latents in each of two layers; of the second one so many are dead."""
    alive = [0 if place < n_dead else 3 for place in range(10)]
    return pl.DataFrame({"layer": [1] * 10 + [5] * 10, "n_prompts": [3] * 10 + alive})


CHECK = "prompt_features.every_prompt_was_read"
CASES = [
    Case(CHECK, True, "Every prompt was read.", lambda: all_read(coverage())),
    Case(CHECK, False, "Layer 5: 1 prompts have no features.", lambda: all_read(coverage(n_read=9))),
    Case(CHECK, False, "Layer 5: no feature fires", lambda: all_read(coverage(n_silent=10))),
    Case(CHECK, False, "no prompts or no encoder", lambda: all_read(coverage().clear())),
    Case("feature_density.few_dead_latents", True, "At most 50%", lambda: dead_latents(density(5), 0.5)),
    Case("feature_density.few_dead_latents", False, "Layer 5: 60%", lambda: dead_latents(density(6), 0.5)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_features_checks(case: Case) -> None:
    case.hold()
