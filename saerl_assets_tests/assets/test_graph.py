"""The graph as the UI shows it, and what loading it costs."""

from __future__ import annotations

import subprocess
import sys

import dagster as dg
import polars as pl
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest

from saerl_assets.assets.rooms import GPU_POOL, OWNERS, outs
from saerl_assets.partitions import DATASET_VERSIONS
from saerl_assets.storage.schema import tables
from saerl_assets_tests.assets.graph_snapshot import COMMAND, RECORDED, as_text, asset_graph

READS_A_MODEL = {
    "control_saes",
    "outcomes",
    "prompt_features",
    "prompt_states",
    "rollouts",
    "sae_health",
    "sae_weights",
    "sentence_embeddings",
    "trial_evaluations",
    "trial_summary",
}


def test_the_graph_is_the_one_that_was_recorded() -> None:
    assert as_text(asset_graph()) == RECORDED.read_text(encoding="utf-8"), f"if this is intended: {COMMAND}"


@pytest.mark.parametrize(("name", "asset"), asset_graph().items())
def test_every_asset_says_what_it_is(name: str, asset: dict[str, object]) -> None:
    grain = str(asset["grain"])
    assert grain.startswith("One row per ")
    assert grain.endswith(".")
    assert asset["owners"] == [OWNERS[str(asset["group"])]]
    assert "duckdb" in set(asset["kinds"])  # type: ignore[call-overload]
    assert asset["partitions"] == "dataset_version"
    assert (asset["pools"] == [GPU_POOL]) == (name in READS_A_MODEL)


def test_every_asset_says_of_which_version_its_method_is() -> None:
    said = {name: asset["code_version"] for name, asset in asset_graph().items()}
    assert {name for name, version in said.items() if not (isinstance(version, str) and version.isdecimal())} == set()


def test_a_raised_method_shows_what_it_made_before_as_outdated() -> None:
    def versions(code_version: str) -> dg.Definitions:
        raised = outs("records", {"manifests": (), "versions": ()}, code_versions={"versions": code_version})

        @dg.multi_asset(outs=raised, partitions_def=DATASET_VERSIONS)
        def both() -> tuple[pl.DataFrame, pl.DataFrame]:
            return pl.DataFrame(), pl.DataFrame()

        return dg.Definitions([both], resources={"io_manager": dg.mem_io_manager})

    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(str(DATASET_VERSIONS.name), ["a-v1"])
        job = versions("1").resolve_implicit_global_asset_job_def()
        assert job.execute_in_process(instance=instance, partition_key="a-v1").success
        for code_version, outdated in (("1", []), ("2", ["versions"])):
            graph = versions(code_version).resolve_asset_graph()
            seen = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))  # what the UI asks
            found = [name for name in ("manifests", "versions") if seen.get_stale_causes(dg.AssetKey(name), "a-v1")]
            assert found == outdated
    with pytest.raises(ValueError, match="no output: prompts"):
        outs("records", {"versions": ()}, code_versions={"prompts": "2"})


def test_assets_are_named_after_the_tables_that_they_fill() -> None:
    assert set(asset_graph()) == set(tables())


def test_every_check_says_what_it_holds() -> None:
    checks = {
        f"{name}.{check}": told for name, asset in asset_graph().items() for check, told in asset["checks"].items()
    }
    assert checks
    assert [name for name, told in checks.items() if not told["description"].endswith(".")] == []


HELP = "from click.testing import CliRunner; from saerl_assets.cli import main; CliRunner().invoke(main, ['--help'])"


@pytest.mark.parametrize(
    ("statement", "banned"),
    [
        ("import saerl_assets.definitions", {"torch", "transformers", "sae_lens", "sklearn", "matplotlib"}),
        (HELP, {"dagster", "polars", "duckdb", "torch", "numpy", "pydantic"}),
    ],
)
def test_loading_does_not_import_what_is_heavy(statement: str, banned: set[str]) -> None:
    program = f"{statement}; import sys; print(' '.join(sorted({banned!r} & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
