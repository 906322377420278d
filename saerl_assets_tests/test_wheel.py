"""The wheel, installed elsewhere: it brings its SQL and Dagster's settings, and works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parent.parent

PROGRAM = """
import pathlib, sys
import saerl_assets
from saerl_assets.storage.home import Home
from saerl_assets.storage.package_data import dagster_yaml, sql_folder
from saerl_assets.storage.schema import tables, views
from saerl_assets.storage.warehouse import Warehouse

target = pathlib.Path(sys.argv[1])
for found in (pathlib.Path(saerl_assets.__file__), sql_folder(), dagster_yaml()):
    assert found.is_relative_to(target), found
home = Home(pathlib.Path("home").resolve()).create()
assert (home.dagster / "dagster.yaml").read_text() == dagster_yaml().read_text()
warehouse = Warehouse(home)
with warehouse.writing("a first time"):
    pass
assert len(tables()) > 20 and len(views()) > 4
for name in (*tables(), *views()):
    assert warehouse.rows(name).is_empty(), name
from saerl_assets.definitions import defs
assert len(defs.resolve_asset_graph().get_all_asset_keys()) == len(tables())
print("all is well")
"""


def run(*command: str, folder: Path, **variables: str) -> str:
    environment = {**os.environ, **variables}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_works_without_the_checkout(tmp_path: Path) -> None:
    elsewhere, target = tmp_path / "elsewhere", tmp_path / "target"
    elsewhere.mkdir()
    python = (sys.executable, "-m")
    run(*python, "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), folder=CHECKOUT)
    wheel = next(tmp_path.glob("saerl_assets-*.whl"))
    run(
        *python,
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(target),
        str(wheel),
        folder=tmp_path,
    )
    told = run(sys.executable, "-c", PROGRAM, str(target), folder=elsewhere, PYTHONPATH=str(target))
    assert told.strip() == "all is well"
    assert "saerl register" in run(str(target / "bin" / "saerl"), "--help", folder=elsewhere, PYTHONPATH=str(target))
