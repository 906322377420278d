"""The project itself: what every file must have, and what none may."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from saerl_assets.storage.schema import tables
from saerl_assets_tests.assets.graph_snapshot import asset_graph

CHECKOUT = Path(__file__).resolve().parent.parent
MODULES = sorted((CHECKOUT / "saerl_assets").rglob("*.py"))
OF_A_MACHINE = re.compile(rb"(?<![\w>}\])])/(work|root|home/\w+)/")
"""A path of somebody's machine; `<home>/work/` is none."""
NO_NOUN = {"utils", "util", "helpers", "helper", "common", "base", "misc"}


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [CHECKOUT / name for name in listed.stdout.split("\0") if name and (CHECKOUT / name).is_file()]


def test_no_file_names_a_path_of_a_machine() -> None:
    found = {str(path.relative_to(CHECKOUT)): OF_A_MACHINE.search(path.read_bytes()) for path in tracked()}
    assert {name: match[0] for name, match in found.items() if match} == {}


def test_no_file_is_large_or_left_over() -> None:
    large = {
        str(path.relative_to(CHECKOUT)): path.stat().st_size for path in tracked() if path.stat().st_size > 1_000_000
    }
    assert large == {}
    assert [path for path in tracked() if path.suffix in {".duckdb", ".pyc", ".log", ".orig", ".rej"}] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_every_module_says_what_belongs_in_it(path: Path) -> None:
    told = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    if path.parent.name == "saerl_assets" and path.name == "__init__.py":
        return
    assert "Belongs here" in told
    assert path.stem not in NO_NOUN


def test_every_asset_has_a_table_and_every_table_an_asset() -> None:
    assert set(asset_graph()) == set(tables())


def test_every_table_explains_itself() -> None:
    for name, table in tables().items():
        assert re.fullmatch(r"One row per .+\.", table.grain), name
        columns = [column.name for column in table.columns]
        assert set(table.key) <= set(columns), name
        assert len(columns) == len(set(columns)), name
