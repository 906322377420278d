"""Moving a warehouse to a lake and back: every row, or an error that says why and a home that is as it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import polars as pl
import pytest
from click.testing import CliRunner

from saerl_assets.cli import main
from saerl_assets.domain.errors import SaerlError
from saerl_assets.resources.home import HomeResource
from saerl_assets.storage import transfer
from saerl_assets.storage.home import Home, find_home
from saerl_assets.storage.schema import tables
from saerl_assets.storage.transfer import move_tables, target_home, use_warehouse
from saerl_assets.storage.warehouse import Warehouse
from saerl_assets_tests.servers import BUCKET, running_postgres, running_s3, why_no_postgres
from saerl_assets_tests.tiny import KEY


@pytest.fixture(params=["file", "postgres"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """A lake that does not exist yet."""
    if request.param == "file":
        yield "ducklake:lake.ducklake", "files"
        return
    if why := why_no_postgres():
        pytest.skip(why)
    with running_postgres() as server, running_s3() as variables:
        for name, value in {**variables, "PGPASSWORD": server.password}.items():
            monkeypatch.setenv(name, value)
        yield f"ducklake:postgres:{server.database('lake')}", f"s3://{BUCKET}/moved"


def everything(home: HomeResource) -> dict[str, pl.DataFrame]:
    return {name: home.warehouse().rows(name) for name in tables()}


def made_up(n_rows: int = 300) -> pl.DataFrame:
    """Rows of every kind that can go wrong: no numbers, signed zeros, empty lists, text of every script."""
    return pl.DataFrame(
        {
            "reading_id": ["r"] * n_rows,
            "text_id": [f"t{i}-é中\n'\"" for i in range(n_rows)],
            "mean": [[float("nan"), -0.0, 1e-38, float("inf")] if i % 2 else [] for i in range(n_rows)],
            "last": [[i / 3] for i in range(n_rows)],
        }
    )


def refuse(then: Callable[[], object], code: str) -> str:
    with pytest.raises(SaerlError) as caught:
        then()
    assert caught.value.code == code
    return str(caught.value)


@pytest.mark.slow
def test_a_built_home_moves_to_a_lake_and_back_by_the_command(
    copied_home: HomeResource, place: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    copied_home.warehouse().store("prompt_states", made_up())
    before, root = everything(copied_home), copied_home.open().root
    monkeypatch.setenv("SAERL_HOME", str(root))
    went = CliRunner().invoke(main, ["migrate", place[0], "--data-path", place[1], "--json"])
    assert went.exit_code == 0, went.output
    said = json.loads(went.stdout)
    assert said["used"]
    assert said["from"] == str(root / "warehouse.duckdb")
    assert {each["table"]: each["n_rows"] for each in said["tables"]} == {n: rows.height for n, rows in before.items()}
    assert copied_home.open().lake is not None
    assert "password" not in copied_home.open().warehouse_settings.read_text().split("\n", 1)[1]
    moved = everything(copied_home)
    assert all(moved[name].equals(rows) for name, rows in before.items())
    assert copied_home.version(KEY).current_manifest_id
    shown = CliRunner().invoke(main, ["show", KEY])
    assert shown.exit_code == 0, shown.output

    copied_home.warehouse().store("prompt_states", made_up(310))
    refused = CliRunner().invoke(main, ["migrate", "local"])
    assert refused.exit_code == 1
    assert "migration_target_in_use" in refused.output, "the file of before has other rows"
    assert copied_home.open().lake is not None
    (root / "warehouse.duckdb").rename(root / "before.duckdb")
    came = CliRunner().invoke(main, ["migrate", "local"])
    assert came.exit_code == 0, came.output
    assert copied_home.open().lake is None
    assert not copied_home.open().warehouse_settings.exists()
    back = everything(copied_home)
    assert back["prompt_states"].height == before["prompt_states"].height + 10
    assert all(back[name].equals(rows) for name, rows in before.items() if name != "prompt_states")


def test_an_interrupted_move_goes_on_and_the_home_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "ROWS_IN_TRANSACTION", 100)
    monkeypatch.setattr(transfer, "ROWS_IN_BATCH", 50)
    home = find_home(tmp_path / "home").create()
    source = Warehouse(home)
    source.store("prompt_states", made_up(1000))
    source.store("cluster_assignments", assignments(), "x-v1")
    target = Warehouse(target_home(home, "ducklake:lake.ducklake", "files"))
    whole, calls = transfer._append, []

    def interrupted(connection: duckdb.DuckDBPyConnection, part: object, table: object, n_before: int) -> int:
        calls.append(n_before)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return whole(connection, part, table, n_before)  # type: ignore[arg-type]

    monkeypatch.setattr(transfer, "_append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        move_tables(source, target, list[str]().append, lambda: use_warehouse(target.home))
    assert 0 < target.rows("prompt_states").height < 1000
    assert find_home(home.root).lake is None
    monkeypatch.setattr(transfer, "_append", whole)
    moved = {each.table: each for each in move_tables(source, target, list[str]().append)}
    assert moved["cluster_assignments"].was_there
    assert not moved["prompt_states"].was_there
    assert target.rows("prompt_states").equals(source.rows("prompt_states"))
    assert all(each.was_there for each in move_tables(source, target, list[str]().append)), "the third time"


def test_rows_of_somebody_else_are_never_replaced(tmp_path: Path) -> None:
    source = Warehouse(find_home(tmp_path / "home").create())
    source.store("prompt_states", made_up(10))
    target = Warehouse(target_home(source.home, "ducklake:lake.ducklake", "files"))
    target.store("cluster_assignments", assignments(), "x-v1")
    said = refuse(lambda: move_tables(source, target, list[str]().append), "migration_target_in_use")
    assert "cluster_assignments" in said
    assert target.rows("prompt_states").is_empty()
    assert target.rows("cluster_assignments").height == 3
    refuse(lambda: move_tables(source, Warehouse(source.home), list[str]().append), "migration_same")


def test_rows_that_arrive_changed_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Warehouse(find_home(tmp_path / "home").create())
    source.store("cluster_assignments", assignments(), "x-v1")
    target = Warehouse(target_home(source.home, "ducklake:lake.ducklake", "files"))
    whole = transfer._append

    def damaged(connection: duckdb.DuckDBPyConnection, part: object, table: object, n_before: int) -> int:
        n_rows = whole(connection, part, table, n_before)  # type: ignore[arg-type]
        connection.execute("UPDATE cluster_assignments SET cluster_id = 99 WHERE prompt_id = 'b'")
        return n_rows

    monkeypatch.setattr(transfer, "_append", damaged)
    used: list[Home] = []
    refuse(
        lambda: move_tables(source, target, list[str]().append, lambda: used.append(target.home)), "migration_differs"
    )
    assert not used


def assignments() -> pl.DataFrame:
    return pl.DataFrame({"prompt_id": ["a", "b", "c"], "cluster_id": [1, 2, 3], "similarity": [0.5, 0.25, 1.0]})
