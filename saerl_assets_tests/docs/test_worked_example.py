"""The worked example of docs/adding-a-noun.md, put into a copy of the package: it is built, checked and asked for."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from saerl_assets.resources.home import HomeResource
from saerl_assets_tests.tiny import KEY, N_PROMPTS

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = CHECKOUT / "docs" / "adding-a-noun.md"


def files_of(page: str) -> dict[str, str]:
    """The blocks of a page that follow the name of a file."""
    return dict(re.findall(r"^`([\w/]+\.\w+)`\n\n```\w+\n(.*?)^```", page, re.MULTILINE | re.DOTALL))


def with_the_example(folder: Path) -> Path:
    """A copy of the package with the example's files, listed as the page says."""
    for name in ("saerl_assets", "sql"):
        shutil.copytree(CHECKOUT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(CHECKOUT / "dagster.yaml", folder / "dagster.yaml")
    for name, text in files_of(PAGE.read_text(encoding="utf-8")).items():
        assert not (folder / name).exists(), name
        (folder / name).write_text(text, encoding="utf-8")
    for name, listed in (
        ("definitions.py", "saerl_assets.assets"),
        ("checks/__init__.py", "saerl_assets.checks"),
    ):
        path = folder / "saerl_assets" / name
        text, n_changes = re.subn(
            r"^(ASSET_MODULES|CHECK_MODULES: list\[ModuleType\]) = \[$",
            r"\g<0>\n    topics,",
            path.read_text(),
            flags=re.M,
        )
        assert n_changes == 1
        path.write_text(
            text.replace(f"\nfrom {listed} import (", f"\nfrom {listed} import topics\nfrom {listed} import (", 1)
        )
    return folder


def saerl(package: Path, home: HomeResource, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(package), "SAERL_HOME": home.root}
    command = (sys.executable, "-m", "saerl_assets.cli", *arguments)
    done = subprocess.run(command, cwd=package, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_example_becomes_a_table_with_a_figure_and_a_check(tmp_path: Path, copied_home: HomeResource) -> None:
    package = with_the_example(tmp_path / "copy")
    assert "topics" in saerl(package, copied_home, "run", KEY, "--only", "topics")
    rows = json.loads(
        saerl(package, copied_home, "sql", f"FROM topics WHERE dataset_version = '{KEY}'", "--format", "json")
    )
    assert {row["topic"] for row in rows} == {"sum", "double", "spell", "compare"}
    assert sum(row["n_prompts"] for row in rows) == N_PROMPTS
    assert all(0 <= row["mean_difficulty_rank"] <= 1 for row in rows)
    shown = json.loads(saerl(package, copied_home, "show", KEY, "--json"))
    assert ["topics.every_prompt_is_counted", "passed", "Every prompt is counted."] in [
        list(check.values()) if isinstance(check, dict) else check for check in shown["checks"]
    ]


def test_the_example_is_written_as_the_package_is(tmp_path: Path) -> None:
    ruff = (sys.executable, "-m", "ruff")
    settings = ("--config", str(CHECKOUT / "pyproject.toml"))
    for name, text in files_of(PAGE.read_text(encoding="utf-8")).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    ours = ("--config", 'lint.isort.known-first-party = ["saerl_assets"]', "--ignore", "INP001")
    for command in ((*ruff, "check", *settings, *ours), (*ruff, "format", "--check", *settings)):
        done = subprocess.run((*command, "."), cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
