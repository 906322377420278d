"""The warehouse on real DuckDB files, with real other processes in its way."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from pathlib import Path

import duckdb
import polars as pl
import pytest

from saerl_assets.domain.errors import SaerlError
from saerl_assets.storage.home import Home
from saerl_assets.storage.locks import holder, is_locked
from saerl_assets.storage.package_data import sql_folder
from saerl_assets.storage.schema import tables
from saerl_assets.storage.warehouse import Warehouse


def assignments(*rows: tuple[str, int]) -> pl.DataFrame:
    return pl.DataFrame({"prompt_id": [r[0] for r in rows], "cluster_id": [r[1] for r in rows]}).with_columns(
        similarity=pl.lit(0.5)
    )


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(Home(tmp_path / "home").create())


def test_a_version_is_replaced_and_its_neighbours_are_untouched(warehouse: Warehouse) -> None:
    warehouse.store("cluster_assignments", assignments(("a", 1), ("b", 2)), "x-v1")
    warehouse.store("cluster_assignments", assignments(("a", 9)), "y-v1")
    warehouse.store("cluster_assignments", assignments(("c", 3)), "x-v1")
    assert warehouse.rows("cluster_assignments", dataset_version="x-v1")["prompt_id"].to_list() == ["c"]
    assert warehouse.rows("cluster_assignments", dataset_version="y-v1")["cluster_id"].to_list() == [9]


def test_a_growing_table_keeps_the_first_row_of_a_key(warehouse: Warehouse) -> None:
    def states(value: float) -> pl.DataFrame:
        return pl.DataFrame({"reading_id": ["r"], "text_id": ["t"], "mean": [[value]], "last": [[value]]})

    assert warehouse.store("prompt_states", states(1.0)) == 1
    assert warehouse.store("prompt_states", states(2.0)) == 0
    assert warehouse.rows("prompt_states")["mean"].to_list() == [[1.0]]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (assignments(("a", 1), ("a", 2)), "same key"),
        (assignments(("a", 1)).drop("similarity"), "lack the columns"),
        (assignments(("a", 1)).with_columns(other=pl.lit(1)), "does not know"),
        (assignments(("a", -1)), "does not fit"),
        (assignments(("a", 1)).with_columns(similarity=pl.lit(None, pl.Float64)), "have no similarity"),
    ],
)
def test_rows_that_break_the_table_are_refused_and_the_old_ones_stay(
    warehouse: Warehouse, frame: pl.DataFrame, message: str
) -> None:
    warehouse.store("cluster_assignments", assignments(("old", 1)), "x-v1")
    with pytest.raises(SaerlError, match=message):
        warehouse.store("cluster_assignments", frame, "x-v1")
    assert warehouse.rows("cluster_assignments")["prompt_id"].to_list() == ["old"]


def test_a_transaction_that_fails_leaves_nothing(warehouse: Warehouse) -> None:
    warehouse.store("cluster_assignments", assignments(("old", 1)), "x-v1")

    def fail_after_deleting() -> None:
        with warehouse.writing("a test") as connection:
            connection.execute("DELETE FROM cluster_assignments")
            connection.execute("SELECT * FROM no_such_table")

    with pytest.raises(SaerlError):
        fail_after_deleting()
    assert warehouse.rows("cluster_assignments").height == 1


def test_values_never_become_sql(warehouse: Warehouse) -> None:
    hostile = "x'; DROP TABLE prompts; --"
    warehouse.store("cluster_assignments", assignments((hostile, 1)), hostile)
    assert warehouse.rows("cluster_assignments", dataset_version=hostile)["prompt_id"].to_list() == [hostile]
    assert warehouse.rows("prompts").is_empty()


def test_every_statement_in_sql_prepares_against_the_schema(warehouse: Warehouse) -> None:
    warehouse.store("cluster_assignments", assignments(("a", 1)), "x-v1")
    files = sorted((sql_folder() / "views").glob("*.sql"))
    assert files
    with warehouse.writing("a test") as connection:
        for file in files:
            connection.execute(file.read_text())
            connection.execute("SELECT * FROM query_table(?) LIMIT 0", [file.stem])


def test_every_column_of_the_ddl_is_understood(warehouse: Warehouse) -> None:
    warehouse.store("cluster_assignments", assignments(("a", 1)), "x-v1")
    for table in tables().values():
        described = warehouse.query("SELECT column_name FROM (DESCRIBE FROM query_table(?))", [table.name])
        assert described["column_name"].to_list() == [column.name for column in table.columns], table.name
        assert set(table.key) <= {column.name for column in table.columns}, table.name


def test_ddl_keeps_to_what_a_lake_catalogue_takes() -> None:
    for table in tables().values():
        statement = table.ddl.upper().split("CREATE TABLE")[1]
        for refused in ("PRIMARY KEY", "UNIQUE", "CHECK", "ENUM", "CREATE INDEX", "SEQUENCE", "ON CONFLICT"):
            assert refused not in statement, (table.name, refused)


def _write_many(root: str, version: str, times: int) -> None:
    warehouse = Warehouse(Home(Path(root)))
    for number in range(times):
        warehouse.store("cluster_assignments", assignments(*((f"p{i}", number) for i in range(50))), version)
        assert warehouse.rows("cluster_assignments", dataset_version=version).height == 50


@pytest.mark.slow
def test_four_processes_write_and_read_at_once_and_nothing_is_lost(warehouse: Warehouse) -> None:
    spawn = multiprocessing.get_context("spawn")
    versions = [f"v{i}" for i in range(4)]
    workers = [spawn.Process(target=_write_many, args=(str(warehouse.home.root), key, 5)) for key in versions]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    assert warehouse.rows("cluster_assignments").height == 200


@pytest.mark.slow
def test_waiting_for_a_program_that_opened_the_file_without_our_lock(warehouse: Warehouse) -> None:
    warehouse.store("cluster_assignments", assignments(("a", 1)), "x-v1")
    script = "import duckdb, sys, time; c = duckdb.connect(sys.argv[1]); print('open', flush=True); time.sleep(4)"
    notices: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-c", script, str(warehouse.home.warehouse)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        Warehouse(warehouse.home, notices.append).store("cluster_assignments", assignments(("b", 1)), "x-v1")
    assert notices
    assert str(other.pid) in notices[0]


@pytest.mark.slow
def test_a_killed_writer_leaves_no_lock_and_no_rows(warehouse: Warehouse) -> None:
    warehouse.store("cluster_assignments", assignments(("old", 1)), "x-v1")
    script = (
        "import sys, time, pathlib\n"
        "from saerl_assets.storage.home import Home\n"
        "from saerl_assets.storage.warehouse import Warehouse\n"
        "with Warehouse(Home(pathlib.Path(sys.argv[1]))).writing('being killed') as connection:\n"
        "    connection.execute('DELETE FROM cluster_assignments')\n"
        "    print('inside', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(warehouse.home.root)], stdout=subprocess.PIPE, text=True
    ) as victim:
        assert victim.stdout is not None
        victim.stdout.readline()
        assert is_locked(warehouse.home.warehouse_lock)
        assert f"process {victim.pid}" in holder(warehouse.home.warehouse_lock)
        assert "being killed" in holder(warehouse.home.warehouse_lock)
        victim.kill()
    assert not is_locked(warehouse.home.warehouse_lock)
    assert warehouse.rows("cluster_assignments")["prompt_id"].to_list() == ["old"]


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    home = Home(tmp_path / "home").create()
    home.warehouse.write_text("not a database, but long enough to be taken for one by nobody at all " * 20)
    with pytest.raises(SaerlError, match=r"warehouse\.duckdb") as caught:
        Warehouse(home).rows("prompts")
    assert caught.value.code == "warehouse_unreadable"


def test_no_warehouse_yet_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SaerlError, match="saerl register"):
        Warehouse(Home(tmp_path).create()).rows("prompts")


def test_a_warehouse_of_another_release_is_refused(tmp_path: Path) -> None:
    home = Home(tmp_path / "home").create()
    with duckdb.connect(str(home.warehouse)) as connection:
        connection.execute("CREATE TABLE prompts (something_else INTEGER)")
    with pytest.raises(SaerlError) as caught:
        Warehouse(home).store("cluster_assignments", assignments(("a", 1)), "x-v1")
    assert caught.value.code == "warehouse_other_release"


def test_two_readers_at_once(warehouse: Warehouse) -> None:
    warehouse.store("cluster_assignments", assignments(("a", 1)), "x-v1")
    with warehouse.reading() as one, warehouse.reading() as two:
        assert one.execute("SELECT count(*) FROM cluster_assignments").fetchone() == (1,)
        assert two.execute("SELECT count(*) FROM cluster_assignments").fetchone() == (1,)
