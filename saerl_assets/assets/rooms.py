"""The rooms of the graph: what every asset of a group has in common.

Belongs here: groups, owners, kinds and how an output of a table is declared. Does not belong here: assets.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dagster as dg
import polars as pl

from saerl_assets.partitions import DATASET_VERSIONS
from saerl_assets.storage.schema import tables

GPU_POOL = "gpu"
"""Pool of the assets that read a model; `dagster.yaml` gives it one slot."""

OWNERS = {
    "data": "team:data-platform",
    "features": "team:interpretability",
    "signals": "team:research",
    "batches": "team:rl",
    "records": "team:data-platform",
}


def table_asset(
    group: str, *kinds: str, pool: str | None = None, deps: Sequence[str] = ()
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """`@dg.asset` for a table: the function's name is the table's, its docstring what the UI shows.

    Args:
        group: The group.
        kinds: What it is made with, beside DuckDB.
        pool: The pool that it waits for.
        deps: Assets that it needs without taking their values.
    """
    return dg.asset(
        group_name=group,
        owners=[OWNERS[group]],
        kinds={"duckdb", *kinds},
        partitions_def=DATASET_VERSIONS,
        code_version="1",
        pool=pool,
        deps=list(deps),
    )


def outs(group: str, kinds: Mapping[str, tuple[str, ...]], value: type = pl.DataFrame) -> dict[str, dg.AssetOut]:
    """Outputs of `@dg.multi_asset`: one asset per table, described by the table's own grain."""
    return {
        name: dg.AssetOut(
            dagster_type=value,
            description=tables()[name].grain,
            group_name=group,
            owners=[OWNERS[group]],
            kinds={"duckdb", *extra},
            code_version="1",
            is_required=True,
        )
        for name, extra in kinds.items()
    }
