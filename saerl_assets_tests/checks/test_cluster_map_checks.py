from __future__ import annotations

import polars as pl
import pytest

from saerl_assets.checks.cluster_map import map_shows_the_clusters
from saerl_assets_tests.checks.cases import Case, plain

ASSIGNED = pl.DataFrame({"prompt_id": ["a", "b", "c", "d"], "cluster_id": [0, 0, 1, 1]})
MAP = ASSIGNED.with_columns(x=pl.Series([0.0, 0.1, 0.9, 1.0]), y=pl.Series([0.5, 0.5, 0.6, 0.4]))
ONE_IN_ANOTHER = MAP.with_columns(cluster_id=pl.Series([1, 0, 1, 1]))

shows = plain(map_shows_the_clusters)
SHOWS = "cluster_map.map_shows_the_clusters"

CASES = [
    Case(SHOWS, True, "shows 4 of 4 prompts", lambda: shows(MAP, ASSIGNED)),
    Case(SHOWS, True, "shows 3 of 4 prompts", lambda: shows(MAP.head(3), ASSIGNED)),
    Case(SHOWS, True, "shows 0 of 0 prompts", lambda: shows(MAP.clear(), ASSIGNED.clear())),
    Case(SHOWS, False, "1 points are of no prompt", lambda: shows(MAP, ASSIGNED.head(3))),
    Case(SHOWS, False, "1 points have another cluster", lambda: shows(ONE_IN_ANOTHER, ASSIGNED)),
    Case(SHOWS, False, "1 points are off the map", lambda: shows(MAP.with_columns(x=pl.col("x") + 0.05), ASSIGNED)),
    Case(SHOWS, False, "4 points are off the map", lambda: shows(MAP.with_columns(y=float("nan")), ASSIGNED)),
    Case(SHOWS, False, "1 points are of a prompt", lambda: shows(pl.concat([MAP, MAP.head(1)]), ASSIGNED)),
    Case(SHOWS, False, "shows 1 of 4 prompts; the others", lambda: shows(MAP.head(1), ASSIGNED)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_cluster_map_checks(case: Case) -> None:
    case.hold()
