"""What an asset, a check and somebody else's asset get of a table, as Dagster itself asks for it."""

from collections.abc import Iterator

import dagster as dg
import polars as pl
import pytest

from saerl_assets.partitions import DATASET_VERSIONS
from saerl_assets.placement import Placement, place
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.tables import WarehouseTables

SIZES = {"one-v1": 1, "two-v1": 2}
PLACEMENT = Placement.parse("rl")


@dg.asset(name="cluster_assignments", partitions_def=DATASET_VERSIONS)
def assignments(context: dg.AssetExecutionContext) -> pl.DataFrame:
    """As many rows as the version is to have."""
    n = SIZES[context.partition_key]
    return pl.DataFrame({"prompt_id": [f"p{i}" for i in range(n)], "cluster_id": [0] * n, "similarity": [0.5] * n})


@dg.asset(name="labels", partitions_def=DATASET_VERSIONS, io_manager_key="theirs")
def of_one_version(cluster_assignments: pl.DataFrame) -> int:
    """An asset with the same partitions."""
    return cluster_assignments.height


@dg.asset(name="versions", io_manager_key="theirs")
def of_all_versions(cluster_assignments: dict[str, pl.DataFrame]) -> dict[str, int]:
    """An asset without partitions."""
    return {version: rows.height for version, rows in cluster_assignments.items()}


@dg.asset_check(asset="cluster_assignments")
def seen_rows(cluster_assignments: pl.DataFrame) -> dg.AssetCheckResult:
    """A check, which has no partitions."""
    return dg.AssetCheckResult(passed=True, metadata={"n_rows": cluster_assignments.height})


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        made.add_dynamic_partitions(str(DATASET_VERSIONS.name), list(SIZES))
        yield made


@pytest.fixture
def definitions(fresh_home: HomeResource, instance: dg.DagsterInstance) -> dg.Definitions:
    ours = place(assignments, PLACEMENT)
    theirs = [
        asset.with_attributes(asset_key_replacements={dg.AssetKey("cluster_assignments"): ours.key})
        for asset in (of_one_version, of_all_versions)
    ]
    found = dg.Definitions(
        assets=[ours, *theirs],
        asset_checks=[place(seen_rows, PLACEMENT)],
        resources={"rl_tables": WarehouseTables(home=fresh_home), "theirs": dg.mem_io_manager},
    )
    job = found.resolve_implicit_global_asset_job_def()
    for key, size in SIZES.items():
        done = job.execute_in_process(instance=instance, partition_key=key, asset_selection=[ours.key])
        (check,) = done.get_asset_check_evaluations()
        assert check.metadata["n_rows"].value == size, "the check saw the rows of its run's version alone"
    return found


def test_an_asset_with_the_same_partitions_gets_its_version(
    definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    job = definitions.resolve_implicit_global_asset_job_def()
    for key, size in SIZES.items():
        done = job.execute_in_process(instance=instance, partition_key=key, asset_selection=[of_one_version.key])
        assert done.output_for_node("labels") == size


def test_an_asset_without_partitions_gets_every_version_by_its_key(
    definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    job = definitions.resolve_implicit_global_asset_job_def()
    done = job.execute_in_process(instance=instance, asset_selection=[of_all_versions.key])
    assert done.output_for_node("versions") == SIZES


def test_a_check_gets_the_version_of_its_run(definitions: dg.Definitions, instance: dg.DagsterInstance) -> None:
    check = dg.AssetCheckKey(PLACEMENT.key("cluster_assignments"), "seen_rows")
    job = definitions.resolve_implicit_global_asset_job_def().get_subset(
        asset_selection=set(), asset_check_selection={check}
    )
    for key, size in SIZES.items():
        done = job.execute_in_process(instance=instance, partition_key=key)
        (found,) = done.get_asset_check_evaluations()
        assert found.metadata["n_rows"].value == size
