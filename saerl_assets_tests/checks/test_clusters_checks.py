from __future__ import annotations

import polars as pl
import pytest

from saerl_assets.checks.clusters import clusters_hold_together, every_prompt_in_one_cluster, no_cluster_takes_all
from saerl_assets_tests.checks.cases import Case, plain

PROMPTS = pl.DataFrame({"prompt_id": ["a", "b", "c", "d"]})
ASSIGNED = pl.DataFrame({"prompt_id": ["a", "b", "c", "d"], "cluster_id": [0, 0, 1, 1]})
CLUSTERS = pl.DataFrame({"cluster_id": [0, 1], "n_prompts": [2, 2], "prompt_fraction": [0.5, 0.5]})
LOPSIDED = CLUSTERS.with_columns(prompt_fraction=pl.Series([0.75, 0.25]))
ONE = pl.DataFrame({"cluster_id": [0], "n_prompts": [4], "prompt_fraction": [1.0]})

QUALITY = pl.DataFrame(
    {
        "measure": ["stability", "balance"],
        "value": [0.6, 0.9],
        "verdict": ["good", "good"],
        "explanation": ["Stability 0.6.", "Balance 0.9."],
    }
)
WEAK = QUALITY.with_columns(verdict=pl.Series(["watch", "good"]))
UNMEASURED = QUALITY.with_columns(value=pl.lit(None, pl.Float64), verdict=pl.lit("not_measured"))

in_one = plain(every_prompt_in_one_cluster)
not_all = plain(no_cluster_takes_all)
hold = plain(clusters_hold_together)
EVERY = "cluster_assignments.every_prompt_in_one_cluster"
HOLD = "cluster_quality.clusters_hold_together"
ALL = "clusters.no_cluster_takes_all"

CASES = [
    Case(EVERY, True, "in one cluster", lambda: in_one(ASSIGNED, PROMPTS, CLUSTERS)),
    Case(EVERY, False, "1 prompts have no cluster", lambda: in_one(ASSIGNED.head(3), PROMPTS, CLUSTERS)),
    Case(EVERY, False, "1 are unknown", lambda: in_one(ASSIGNED, PROMPTS.head(3), CLUSTERS)),
    Case(EVERY, False, "have no cluster", lambda: in_one(pl.concat([ASSIGNED, ASSIGNED.head(1)]), PROMPTS, CLUSTERS)),
    Case(EVERY, False, "sizes in `clusters`", lambda: in_one(ASSIGNED, PROMPTS, CLUSTERS.head(1))),
    Case(HOLD, True, "within its limit", lambda: hold(QUALITY)),
    Case(HOLD, True, "too few clusters", lambda: hold(UNMEASURED)),
    Case(HOLD, False, "Stability 0.6.", lambda: hold(WEAK)),
    Case(ALL, True, "holds 50%", lambda: not_all(CLUSTERS)),
    Case(ALL, True, "holds 100%", lambda: not_all(ONE)),
    Case(ALL, False, "One cluster holds 75%", lambda: not_all(LOPSIDED)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_clusters_checks(case: Case) -> None:
    case.hold()
