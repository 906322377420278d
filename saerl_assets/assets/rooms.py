"""The rooms of the graph: what every asset of a group has in common.

Belongs here: groups, owners, kinds and how an output of a table is declared. Does not belong here: assets.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dagster as dg
import polars as pl

from saerl_assets.partitions import DATASET_VERSIONS
from saerl_assets.storage.schema import tables

FIRST_CODE_VERSION = "1"
"""Code version of an asset whose method is still its first.

Dagster shows every version that was made by another one as outdated ("code version"), and makes nothing by itself. So:
raise an asset's, next to its body, in the same commit that makes the same inputs and the same spec give other rows; say
in the commit what differs. Speed, words, figures and metadata do not count, and neither does a change upstream, which
raises that asset's own.
"""

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
    group: str,
    *kinds: str,
    pool: str | None = None,
    deps: Sequence[str] = (),
    code_version: str = FIRST_CODE_VERSION,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """`@dg.asset` for a table: the function's name is the table's, its docstring what the UI shows.

    Args:
        group: The group.
        kinds: What it is made with, beside DuckDB.
        pool: The pool that it waits for.
        deps: Assets that it needs without taking their values.
        code_version: Of its method; see `FIRST_CODE_VERSION` for when to raise it.
    """
    return dg.asset(
        group_name=group,
        owners=[OWNERS[group]],
        kinds={"duckdb", *kinds},
        partitions_def=DATASET_VERSIONS,
        code_version=code_version,
        pool=pool,
        deps=list(deps),
    )


def outs(
    group: str,
    kinds: Mapping[str, tuple[str, ...]],
    value: type = pl.DataFrame,
    *,
    code_versions: Mapping[str, str] | None = None,
) -> dict[str, dg.AssetOut]:
    """Outputs of `@dg.multi_asset`: one asset per table, described by the table's own grain.

    Args:
        group: The group.
        kinds: By table what it is made with, beside DuckDB.
        value: What the asset returns.
        code_versions: By table its method's, where that is not the first; see `FIRST_CODE_VERSION`.

    Raises:
        ValueError: A code version is of no table of these.
    """
    raised = code_versions or {}
    if raised.keys() - kinds.keys():
        raise ValueError(f"code versions of no output: {', '.join(sorted(raised.keys() - kinds.keys()))}")
    return {
        name: dg.AssetOut(
            dagster_type=value,
            description=tables()[name].grain,
            group_name=group,
            owners=[OWNERS[group]],
            kinds={"duckdb", *extra},
            code_version=raised.get(name, FIRST_CODE_VERSION),
            is_required=True,
        )
        for name, extra in kinds.items()
    }
