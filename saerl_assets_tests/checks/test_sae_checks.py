from __future__ import annotations

import polars as pl
import pytest

from saerl_assets.checks.sae import sae_fits
from saerl_assets_tests.checks.cases import Case, plain


def health(verdict: str = "good") -> pl.DataFrame:
    return pl.DataFrame(
        {
            "layer": [3, 7],
            "explained_variance": [0.9, 0.8],
            "verdict": ["good", verdict],
            "explanation": ["It fits.", "It explains little."],
        }
    )


fits = plain(sae_fits)

CASES = [
    Case("sae_health.sae_fits", True, "It fits. It explains little.", lambda: fits(health())),
    Case("sae_health.sae_fits", True, "It fits.", lambda: fits(health("poor"))),
    Case("sae_health.sae_fits", False, "Layer 7: It explains little.", lambda: fits(health("unfit"))),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_sae_checks(case: Case) -> None:
    case.hold()
