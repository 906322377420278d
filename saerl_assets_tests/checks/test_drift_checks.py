from __future__ import annotations

import polars as pl
import pytest

from saerl_assets.checks.drift import near_the_parent
from saerl_assets.domain.drift import no_drift
from saerl_assets.domain.spec import DriftSpec
from saerl_assets_tests.checks.cases import Case, plain

STEADY = pl.DataFrame(
    {
        "measure": ["moved_fraction", "density_shift"],
        "value": [0.1, 0.1],
        "verdict": ["steady", "steady"],
        "explanation": ["0.1 moved.", "0.1 shifted."],
    }
)
DRIFTED = STEADY.with_columns(verdict=pl.Series(["steady", "drifted"]))

near = plain(near_the_parent)
NEAR = "version_drift.near_the_parent"

CASES = [
    Case(NEAR, True, "within its limit", lambda: near(STEADY)),
    Case(NEAR, True, "has no parent", lambda: near(no_drift("The version has no parent.", DriftSpec())[1])),
    Case(NEAR, False, "0.1 shifted.", lambda: near(DRIFTED)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_drift_checks(case: Case) -> None:
    case.hold()


def test_the_figures_are_there_for_a_sensor_to_act_on() -> None:
    found = near(DRIFTED)
    assert {name: value.value for name, value in found.metadata.items()} == {
        "moved_fraction": 0.1,
        "density_shift": 0.1,
    }
