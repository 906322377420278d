from __future__ import annotations

import polars as pl
import pytest

from saerl_assets.checks.artifacts import all_intact
from saerl_assets_tests.checks.cases import Case, plain

CHECK = "artifacts.all_intact"
intact = plain(all_intact)


def artifacts(*, whole: bool) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "kind": ["sae", "probe"],
            "name": ["layer 1", "logistic"],
            "path": ["artifacts/sae/1", "artifacts/probe/2"],
            "made_by": ["sae_weights", "quality_probe"],
            "n_bytes": [10, 20],
            "intact": [True, whole],
        }
    )


CASES = [
    Case(CHECK, True, "All 2 artefacts", lambda: intact(artifacts(whole=True))),
    Case(CHECK, True, "All 0 artefacts", lambda: intact(artifacts(whole=True).clear())),
    Case(CHECK, False, "materialise quality_probe again", lambda: intact(artifacts(whole=False))),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_artifacts_checks(case: Case) -> None:
    case.hold()
