"""Somebody else's Dagster project, as `create-dagster` lays it out: assets of its own, and the graph by YAML.

Belongs here: writing its files. Does not belong here: tests.

Everything in it that could collide does: it has an asset `prompts`, a job `build_version`, resources `home` and
`io_manager`, an executor and a pool of its own.
"""

from __future__ import annotations

from pathlib import Path

PREFIX = "team/rl"
FILES = {
    "pyproject.toml": """
[project]
name = "acme"
version = "1.0"
requires-python = ">=3.11"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "acme"
code_location_name = "acme"
""",
    "acme/__init__.py": "",
    "acme/definitions.py": """
from pathlib import Path

from dagster import Definitions, definitions, load_from_defs_folder


@definitions
def defs() -> Definitions:
    return load_from_defs_folder(path_within_project=Path(__file__).parent)
""",
    "acme/paging.py": """
from saerl_assets.automation.alerts import Alert

PAGED: list[Alert] = []


def page(alert: Alert) -> None:
    PAGED.append(alert)
""",
    "acme/defs/__init__.py": "",
    "acme/defs/saerl/defs.yaml": f"""
type: saerl_assets.SaerlComponent

attributes:
  home: .saerl
  warehouse: data/prompts.duckdb
  key_prefix: {PREFIX}
  pool: a100
  compute:
    device: cpu
    token_budget: 2048
  on_failure: acme.paging:page
""",
    "acme/defs/training.py": """
import dagster as dg
import polars as pl

from saerl_assets.partitions import DATASET_VERSIONS




@dg.asset(group_name="data")
def prompts() -> int:
    \"\"\"An asset of their own with a name that the graph has too.\"\"\"
    return 1


@dg.asset(
    ins={"batch_manifest": dg.AssetIn(["team", "rl", "batch_manifest"])},
    partitions_def=DATASET_VERSIONS,
    io_manager_key="kept",
)
def training_steps(context: dg.AssetExecutionContext, home: dg.ResourceParam[str], batch_manifest: pl.DataFrame) -> int:
    \"\"\"What their trainer makes of a manifest.\"\"\"
    assert home == "theirs"
    steps = batch_manifest.filter(pl.col("arm") == "clustered").select("epoch", "step").n_unique()
    context.add_output_metadata({"n_steps": steps})
    return steps


build_version = dg.define_asset_job("build_version", selection=[prompts])


@dg.definitions
def defs() -> dg.Definitions:
    return dg.Definitions(
        assets=[prompts, training_steps],
        jobs=[build_version],
        resources={"home": "theirs", "kept": dg.mem_io_manager, "io_manager": dg.mem_io_manager},
        executor=dg.multiprocess_executor,
    )
""",
}


def write_project(folder: Path) -> Path:
    """Writes the project; returns its folder."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.lstrip(), encoding="utf-8")
    return folder
