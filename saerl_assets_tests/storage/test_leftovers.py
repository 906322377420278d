"""What a home may be rid of: only what nothing refers to, nothing that is young, nothing that a run is using."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from saerl_assets.cli import main
from saerl_assets.domain.spec import parse_spec
from saerl_assets.resources.home import HomeResource
from saerl_assets.storage.home import Home
from saerl_assets.storage.leftovers import Leftover, find_leftovers, remove
from saerl_assets_tests.tiny import as_toml, tiny_spec

DAY = 86_400.0


def file(path: Path, *, days: float = 30.0, n_bytes: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * n_bytes)
    then = time.time() - days * DAY
    os.utime(path, (then, then))
    for folder in path.parents:
        if folder.name == "home":
            break
        os.utime(folder, (then, then))
    return path


@pytest.fixture
def home(fresh_home: HomeResource, tmp_path: Path) -> Home:
    """A home with one version, one manifest, one SAE and one set of centroids."""
    (tmp_path / "prompts.jsonl").write_text('{"question": "a"}\n')
    fresh_home.catalog().register(parse_spec(as_toml(tiny_spec("here-v1", labels=None)), "x"), tmp_path)
    warehouse, home = fresh_home.warehouse(), fresh_home.open()
    artifacts = pl.DataFrame(
        {
            "kind": "sae",
            "name": "layer 1",
            "digest": "used",
            "path": "artifacts/sae/used",
            "n_bytes": 1,
            "made_by": "sae_weights",
            "intact": True,
        }
    )
    warehouse.store("artifacts", artifacts, "here-v1")
    manifest = pl.DataFrame(
        {
            "manifest_id": "f" * 64,
            "parent_manifest_id": pl.Series([None], dtype=pl.String),
            "planner": "clustered",
            "n_arms": 1,
            "n_epochs": 1,
            "n_steps": 1,
            "n_prompts": 1,
            "inputs_digest": "x",
        }
    ).with_columns(created_at=pl.lit("2026-01-01").str.to_datetime())
    warehouse.store("manifests", manifest, "here-v1")
    return home


def found(home: Home, *, busy: set[str] | None = None, days: float = 7.0) -> list[Leftover]:
    warehouse = HomeResource(root=str(home.root)).warehouse()
    return find_leftovers(home, warehouse, busy=busy or set(), older_than_days=days)


def keep_and_leave(home: Home) -> tuple[list[Path], list[Path]]:
    """Files that must stay, and the files or folders that can go."""
    kept = [
        file(home.artifacts / "sae" / "used" / "weights"),
        file(home.artifacts / "recipes" / "sae-x.json"),
        file(home.exports / ("f" * 16) / "clustered" / "trl" / "train.parquet"),
        file(home.reports / "here-v1.html"),
        file(home.inbox / "taken" / "gone-v1" / "prompts.jsonl"),
        file(home.inbox / "rejected" / "bad.docx"),
        file(home.root / "work" / "busy-v1" / "shards" / "0.parquet"),
        file(home.artifacts / "sae" / "young" / "weights", days=1.0),
        file(home.notes / "here-v1.json"),
    ]
    left = [
        file(home.artifacts / "sae" / "unused" / "weights").parent,
        file(home.artifacts / "centroids" / "old" / "c").parent,
        file(home.artifacts / "sae" / ".half.abc" / "weights").parent,
        file(home.exports / ("0" * 16) / "clustered" / "trl" / "train.parquet").parents[2],
        file(home.reports / "gone-v1.html"),
        file(home.root / "work" / "here-v1" / "shards" / "0.parquet").parents[1],
        file(home.root / "work" / "gone-v1" / "x").parent,
    ]
    return kept, left


def test_only_what_nothing_needs_can_go(home: Home) -> None:
    kept, left = keep_and_leave(home)
    listed = found(home, busy={"busy-v1"})
    assert {leftover.path for leftover in listed} == set(left)
    assert all(leftover.why and leftover.n_bytes == 100 for leftover in listed)
    assert remove(listed) == 100 * len(left)
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in left)
    assert found(home, busy={"busy-v1"}) == []


def test_a_folder_is_as_young_as_the_newest_file_in_it(home: Home) -> None:
    file(home.artifacts / "sae" / "unused" / "weights")
    assert len(found(home)) == 1
    file(home.artifacts / "sae" / "unused" / "more", days=0.5)
    assert found(home) == []
    assert len(found(home, days=0.1)) == 1


def test_a_home_without_a_warehouse_has_only_work_to_lose(fresh_home: HomeResource) -> None:
    home = fresh_home.open()
    assert find_leftovers(home, fresh_home.warehouse(), busy=set(), older_than_days=0.0) == []
    assert not home.warehouse.exists()


def test_gc_lists_first_and_removes_when_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAERL_HOME", str(home.root))
    _, left = keep_and_leave(home)
    listed = CliRunner().invoke(main, ["gc"])
    assert listed.exit_code == 0, listed.output
    assert "8 can go, which frees 800" in listed.output.replace("\n", " ")
    assert "next: saerl gc --yes" in listed.output
    assert all(path.exists() for path in left)
    told = json.loads(CliRunner().invoke(main, ["gc", "--json"]).output)
    assert (len(told["leftovers"]), told["n_bytes"], told["freed_bytes"]) == (8, 800, 0)
    done = CliRunner().invoke(main, ["gc", "--yes"])
    assert "removed 8: that freed 800" in done.output
    assert not any(path.exists() for path in left)
    assert "Nothing that is older than 7 days can go." in CliRunner().invoke(main, ["gc"]).output
