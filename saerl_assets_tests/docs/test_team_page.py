"""The programs of docs/team.md, run as they stand there."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from saerl_assets.partitions import DATASET_VERSIONS
from saerl_assets.storage.home import find_home
from saerl_assets.storage.warehouse import Warehouse
from saerl_assets_tests.docs.test_commands import blocks


def program(word: str) -> str:
    """The one Python block of the page that has a word in it."""
    (found,) = [block.text for block in blocks("python") if block.page.name == "team.md" and word in block.text]
    return found


def test_what_a_lake_no_longer_needs_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAERL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SAERL_WAREHOUSE", "ducklake:lake.ducklake")
    home = find_home().create()
    rows = pl.DataFrame({"prompt_id": [f"p{n}" for n in range(50)], "cluster_id": 1, "similarity": 0.5})
    for _ in range(4):
        Warehouse(home).store("cluster_assignments", rows, "x-v1")

    def n_files() -> int:
        return len(list(home.root.rglob("cluster_assignments/*.parquet")))

    before, text = n_files(), program("ducklake_expire_snapshots")
    exec(text, {})  # noqa: S102 - our own page
    assert n_files() == before, "all of it is younger than a week"
    exec(text.replace("INTERVAL 7 DAY", "INTERVAL 0 SECOND"), {})  # noqa: S102 - our own page
    assert 0 < n_files() < before
    assert Warehouse(home).rows("cluster_assignments", dataset_version="x-v1").height == 50


@pytest.mark.filterwarnings("ignore:AssetExecutionContext.run_id is deprecated")  # Dagster's own use of it
@pytest.mark.filterwarnings("ignore:Function `PipesMessageReader.expected_writer_count`")  # the same
@pytest.mark.slow
def test_a_step_elsewhere_says_what_it_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With srun replaced by a script that leaves its own option out: there is no Slurm here."""
    bash = shutil.which("bash")
    for name, does in (("srun", 'shift; exec "$@"'), ("python", f'exec {sys.executable} "$@"')):
        (tmp_path / name).write_text(f"#!{bash}\n{does}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "train.py").write_text(program("open_dagster_pipes"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    page: dict[str, Any] = {"__name__": "page"}
    code = compile(program("PipesSubprocessClient"), "team.md", "exec", dont_inherit=True)
    exec(code, page)  # noqa: S102 - our own page
    with dg.DagsterInstance.ephemeral() as instance:
        assert DATASET_VERSIONS.name
        instance.add_dynamic_partitions(DATASET_VERSIONS.name, ["math-v1"])
        client = dg.PipesSubprocessClient()
        done = dg.materialize([page["policy"]], partition_key="math-v1", instance=instance, resources={"pipes": client})
        assert done.success
        (made,) = done.asset_materializations_for_node("policy")
        assert made.metadata["reward"].value == 0.62
        logged = [event.user_message for event in instance.all_logs(done.run_id)]
    assert any("training on math-v1" in line for line in logged)
