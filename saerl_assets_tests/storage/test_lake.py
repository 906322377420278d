"""The warehouse as a lake: its catalogue in a file everywhere; in PostgreSQL, and its rows in S3, elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import duckdb
import polars as pl
import pytest

from saerl_assets.automation.runs import open_instance
from saerl_assets.automation.summary import run_version
from saerl_assets.domain.errors import SaerlError
from saerl_assets.resources.home import HomeResource
from saerl_assets.storage import warehouse as warehouse_module
from saerl_assets.storage.home import Home, find_home
from saerl_assets.storage.lake import connect
from saerl_assets.storage.lake_address import LakeAddress
from saerl_assets.storage.schema import tables, views
from saerl_assets.storage.warehouse import Warehouse
from saerl_assets_tests.servers import BUCKET, Postgres, running_postgres, running_s3, why_no_postgres
from saerl_assets_tests.tiny import KEY, TinyWorld

_numbers = count()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    if why := why_no_postgres():
        pytest.skip(why)
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    with running_s3() as variables:
        yield variables


@pytest.fixture(params=["file", "postgres"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """A lake that does not exist yet: setting and data path."""
    kind = request.param if request.param != "best" else "file" if why_no_postgres() else "postgres"
    if kind == "file":
        return "ducklake:lake.ducklake", "files"
    server: Postgres = request.getfixturevalue("postgres")
    variables: dict[str, str] = request.getfixturevalue("s3")
    for name, value in {**variables, "PGPASSWORD": server.password}.items():
        monkeypatch.setenv(name, value)
    name = f"lake{next(_numbers)}"
    return f"ducklake:postgres:{server.database(name)}", f"s3://{BUCKET}/{name}"


@pytest.fixture
def home(place: tuple[str, str], tmp_path: Path) -> Home:
    return find_home(tmp_path / "home", *place).create()


@pytest.fixture
def warehouse(home: Home) -> Warehouse:
    return Warehouse(home)


def assignments(version: str, n_rows: int = 40) -> pl.DataFrame:
    return pl.DataFrame({"prompt_id": [f"{version}-{i}" for i in range(n_rows)]}).with_columns(
        cluster_id=pl.lit(1), similarity=pl.lit(0.5)
    )


def states(texts: list[str], value: float) -> pl.DataFrame:
    return pl.DataFrame({"reading_id": "r", "text_id": texts}).with_columns(mean=pl.lit([value]), last=pl.lit([value]))


def test_nothing_is_there_at_first_and_that_says_what_to_do(warehouse: Warehouse) -> None:
    assert not warehouse.exists()
    with pytest.raises(SaerlError, match="saerl register"):
        warehouse.rows("prompts")


def test_every_table_and_view_is_there(warehouse: Warehouse) -> None:
    warehouse.store("cluster_assignments", assignments("x-v1"), "x-v1")
    described = "SELECT column_name, column_type FROM (DESCRIBE FROM query_table(?))"
    with warehouse.reading() as connection:
        for name, table in tables().items():
            found = connection.execute(described, [name]).fetchall()
            assert found == [(column.name, column.type) for column in table.columns], name
        for view in views():
            assert connection.execute("SELECT * FROM query_table(?) LIMIT 1", [view]).description, view


def test_rows_are_replaced_by_version_and_growing_tables_keep_the_first(warehouse: Warehouse) -> None:
    warehouse.store("cluster_assignments", assignments("x-v1"), "x-v1")
    warehouse.store("cluster_assignments", assignments("y-v1", 3), "y-v1")
    warehouse.store("cluster_assignments", assignments("again", 15), "x-v1")
    assert warehouse.rows("cluster_assignments", dataset_version="x-v1").height == 15
    assert warehouse.rows("cluster_assignments", dataset_version="y-v1").height == 3
    assert warehouse.store("prompt_states", states(["a", "b"], 1.0)) == 2
    assert warehouse.store("prompt_states", states(["b", "c"], 2.0)) == 1
    assert warehouse.rows("prompt_states")["mean"].to_list() == [[1.0], [1.0], [2.0]]
    assert warehouse.n_retries == 0


def test_a_few_rows_come_back_to_the_last_bit(warehouse: Warehouse, tmp_path: Path) -> None:
    """Rows so few that a lake would keep them in its catalogue by default, as text."""
    thirds = [0.22520718999059186, 0.10005542830374181, 0.0017551015218582413, 1 / 3]
    quality = pl.DataFrame(
        {
            "measure": ["a", "b", "c", "d\0'\"\\\n"],
            "value": [thirds[0], -0.0, None, float("inf")],
            "threshold": [thirds[1], 1e-310, float("nan"), 1 / 3],
            "n_prompts": [0, 1, 2**63 + 1, 2**64 - 1],
            "verdict": ["", "NULL", "[a, b]", " é中 "],
            "explanation": ["x"] * 4,
        },
        schema_overrides={"n_prompts": pl.UInt64},
    )
    held = pl.DataFrame({"reading_id": ["r"] * 2, "text_id": ["a", "b"]}).with_columns(
        mean=pl.Series([thirds, []], dtype=pl.List(pl.Float32)),
        last=pl.Series([[-0.0, float("nan")], [1e-45]], dtype=pl.List(pl.Float32)),
    )
    file = Warehouse(Home(tmp_path / "other").create())
    for each in (warehouse, file):
        each.store("cluster_quality", quality, "x-v1")
        each.store("prompt_states", held)
    for name in ("cluster_quality", "prompt_states"):
        in_lake, in_file = (each.rows(name).to_arrow() for each in (warehouse, file))
        for column in in_file.column_names:
            assert repr(in_lake[column].to_pylist()) == repr(in_file[column].to_pylist()), column


def test_a_block_that_fails_leaves_nothing(warehouse: Warehouse) -> None:
    warehouse.store("cluster_assignments", assignments("x-v1"), "x-v1")

    def fail_after_deleting(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute("DELETE FROM cluster_assignments")
        connection.execute("SELECT * FROM no_such_table")

    with pytest.raises(SaerlError, match="no_such_table"):
        warehouse.transact("a test", fail_after_deleting)
    assert warehouse.rows("cluster_assignments").height == 40


def get_in_the_way(connection: duckdb.DuckDBPyConnection, version: str) -> None:
    """Replaces rows of the same table in a transaction beside the one of `connection`.

    With its catalogue in a file a lake that refused a transaction keeps the file open until the process ends, so there
    the refusal is made up.
    """
    if not connection.execute("SELECT * FROM duckdb_databases() WHERE database_name = 'turns'").fetchall():
        raise duckdb.TransactionException("Transaction conflict - made up by a test")
    other = connection.cursor()
    other.execute("USE warehouse")
    other.begin()
    other.execute("DELETE FROM cluster_assignments WHERE dataset_version = ?", [version])
    other.execute("INSERT INTO cluster_assignments SELECT ?, 'p' || range, 7, 0.5 FROM range(30)", [version])
    other.commit()
    other.close()


def test_a_transaction_that_others_came_in_the_way_of_is_done_again(home: Home) -> None:
    said: list[str] = []
    warehouse = Warehouse(home, said.append)
    warehouse.store("cluster_assignments", assignments("x-v1"), "x-v1")
    warehouse.store("cluster_assignments", assignments("y-v1"), "y-v1")
    seen: list[int] = []
    there = 30 if "postgres" in warehouse.database.place else 40

    def work(connection: duckdb.DuckDBPyConnection) -> int:
        found = connection.execute("SELECT count(*) FROM cluster_assignments WHERE dataset_version = 'y-v1'").fetchone()
        assert found
        seen.append(found[0])
        connection.execute("DELETE FROM cluster_assignments WHERE dataset_version = 'x-v1'")
        connection.execute("INSERT INTO cluster_assignments SELECT 'x-v1', 'q' || range, 9, 0.5 FROM range(25)")
        if len(seen) < 3:
            get_in_the_way(connection, "y-v1")
        return len(seen)

    assert warehouse.transact("x-v1 a test", work, turn="cluster_assignments") == 3
    assert seen == [40, there, there], "each attempt begins with what there is then"
    assert warehouse.n_retries == 2
    assert all("Transaction conflict" in each or "attempting to" in each for each in said), said
    counts = warehouse.rows("cluster_assignments").group_by("dataset_version").len().sort("dataset_version").rows()
    assert counts == [("x-v1", 25), ("y-v1", there)]


def test_it_gives_up_in_words_and_stores_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warehouse_module, "ATTEMPTS", 3)
    monkeypatch.setattr(warehouse_module, "LONGEST_PAUSE_SECONDS", 0.01)
    warehouse = Warehouse(home, list[str]().append)
    warehouse.store("cluster_assignments", assignments("x-v1"), "x-v1")

    def work(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute("DELETE FROM cluster_assignments WHERE dataset_version = 'x-v1'")
        get_in_the_way(connection, "x-v1")

    with pytest.raises(SaerlError) as caught:
        warehouse.transact("x-v1 a test", work, turn="cluster_assignments")
    assert caught.value.code == "lake_busy"
    assert caught.value.passing, "a step is tried again later"
    assert warehouse.n_retries == 2
    assert warehouse.rows("cluster_assignments")["cluster_id"].unique().to_list() == [
        7 if "postgres" in warehouse.database.place else 1
    ]


def test_a_statement_may_open_the_lake_and_nothing_else(warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.store("cluster_assignments", assignments("x-v1"), "x-v1")
    assert warehouse.query("SELECT count(*) AS n FROM cluster_assignments").rows() == [(40,)]
    (tmp_path / "secret.txt").write_text("secret")
    for statement in (
        f"FROM read_text('{tmp_path}/secret.txt')",
        "DELETE FROM cluster_assignments",
        "CREATE TABLE mine (a INTEGER)",
        f"ATTACH '{tmp_path}/mine.duckdb'",
        f"COPY cluster_assignments TO '{tmp_path}/out.parquet'",
        "SELECT 1; SELECT 2",
    ):
        with pytest.raises(SaerlError) as caught:
            warehouse.query(statement)
        assert caught.value.code in {"sql_failed", "warehouse_unreadable"}, statement
    assert warehouse.rows("cluster_assignments").height == 40


def test_a_reader_sees_one_state(warehouse: Warehouse, place: tuple[str, str]) -> None:
    if not place[0].startswith("ducklake:postgres"):
        pytest.skip("a catalogue in a file has one writer or several readers at a time")
    warehouse.store("cluster_assignments", assignments("x-v1"), "x-v1")
    with warehouse.reading() as connection:
        before = connection.execute("SELECT count(*) FROM cluster_assignments").fetchone()
        Warehouse(warehouse.home).store("cluster_assignments", assignments("x-v1", 12), "x-v1")
        assert connection.execute("SELECT count(*) FROM cluster_assignments").fetchone() == before == (40,)
    assert warehouse.rows("cluster_assignments").height == 12


@pytest.mark.slow
@pytest.mark.parametrize("place", ["best"], indirect=True)
def test_a_whole_version_is_the_same_as_in_a_file(
    place: tuple[str, str], tiny_world: TinyWorld, tiny_home: HomeResource, tmp_path: Path
) -> None:
    lake, data_path = place
    home = HomeResource(root=str(tmp_path / "home"))
    home.open().warehouse_settings.write_text(f'warehouse = "{lake}"\ndata_path = "{data_path}"\n')
    tiny_world.register(home)
    summary = run_version(home, KEY)
    assert summary.success, summary.failure
    assert not home.open().warehouse.exists()
    for name in ("prompts", "prompt_features", "cluster_assignments", "difficulty_scores", "batch_manifest"):
        found, wanted = (each.warehouse().rows(name) for each in (home, tiny_home))
        assert found.equals(wanted), name
        assert found.height, name
    again = run_version(home, KEY)
    assert again.success
    home.catalog().delete(KEY)
    assert all(home.warehouse().rows(name).is_empty() for name in ("prompts", "prompt_features", "batch_manifest"))
    with open_instance(home.open().dagster) as instance:
        told = [event.message for run in instance.get_runs() for event in instance.all_logs(run.run_id)]
    hidden = [os.environ.get(name, "-") for name in ("PGPASSWORD", "AWS_SECRET_ACCESS_KEY")]
    assert not [line for line in told for secret in hidden if len(secret) > 1 and secret in line]


WRITER = """
import sys, time, pathlib
from saerl_assets.storage.home import find_home
from saerl_assets.storage.warehouse import Warehouse
with Warehouse(find_home(*sys.argv[1:4])).writing('being killed', 'cluster_assignments') as connection:
    connection.execute("DELETE FROM cluster_assignments")
    connection.execute("INSERT INTO cluster_assignments SELECT 'x-v1', 'k' || range, 1, 0.5 FROM range(1000)")
    print('inside', flush=True)
    time.sleep(60)
"""

ANOTHER = """
import sys
from saerl_assets_tests.storage.test_lake import Warehouse, assignments, find_home
warehouse = Warehouse(find_home(*sys.argv[1:4]), lambda line: print(line, flush=True))
warehouse.store('cluster_assignments', assignments('y-v1', 20), 'y-v1')
"""


@pytest.mark.slow
def test_a_killed_writer_leaves_no_turn_and_no_rows(home: Home, place: tuple[str, str]) -> None:
    said: list[str] = []
    warehouse = Warehouse(home, said.append)
    warehouse.store("cluster_assignments", assignments("x-v1"), "x-v1")
    command = [sys.executable, "-c", WRITER, str(home.root), *place]
    another = [sys.executable, "-c", ANOTHER, str(home.root), *place]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "inside\n"
        waiting = subprocess.Popen(another, stdout=subprocess.PIPE, text=True)
        with waiting:
            assert waiting.stdout is not None
            notice = waiting.stdout.readline()
            assert f"process {victim.pid} on" in notice
            assert "being killed" in notice
            victim.kill()
            assert waiting.wait(30) == 0
    found = warehouse.rows("cluster_assignments").group_by("dataset_version").len().sort("dataset_version").rows()
    assert found == [("x-v1", 40), ("y-v1", 20)]


@pytest.mark.slow
def test_a_server_that_was_restarted_is_met_anew(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", postgres.password)
    address = f"ducklake:postgres:{postgres.database('restarted')}"
    warehouse = Warehouse(find_home(tmp_path / "home", address, "files").create(), list[str]().append)
    warehouse.store("cluster_assignments", assignments("x-v1"), "x-v1")
    postgres.stop()
    with pytest.raises(SaerlError) as caught:
        warehouse.rows("cluster_assignments")
    assert caught.value.code == "lake_unreachable"
    assert caught.value.passing
    postgres.start()
    assert warehouse.rows("cluster_assignments").height == 40
    postgres.stop()
    postgres.start()
    warehouse.store("cluster_assignments", assignments("y-v1"), "y-v1")
    assert warehouse.rows("cluster_assignments").height == 80


def test_a_wrong_password_is_said_without_it(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "open-sesame")
    warehouse = Warehouse(find_home(tmp_path / "home", f"ducklake:postgres:{postgres.address('postgres')}", "files"))
    with pytest.raises(SaerlError) as caught:
        warehouse.exists()
    assert caught.value.code == "lake_refused"
    assert "open-sesame" not in str(caught.value)


@pytest.mark.parametrize(
    ("warehouse", "data_path"),
    [
        ("ducklake:postgres:dbname=lake password=open-sesame", ""),
        ("ducklake:postgres:postgresql://me:open-sesame@host/lake", ""),
        ("ducklake:postgres:dbname=lake PASSWORD = open-sesame", ""),
        ("ducklake:postgres:dbname=lake", "s3://key:open-sesame@bucket/x"),
        ("ducklake:postgres:dbname=lake", "s3://bucket/x?s3_secret_access_key=open-sesame"),
    ],
)
def test_a_secret_in_a_setting_is_refused_and_not_repeated(warehouse: str, data_path: str, tmp_path: Path) -> None:
    with pytest.raises(SaerlError) as caught:
        LakeAddress.parse(warehouse, data_path, tmp_path)
    assert caught.value.code == "lake_invalid"
    assert "open-sesame" not in str(caught.value)


@pytest.mark.parametrize("text", ["ducklake:", "ducklake:postgres:", "ducklake:sqlite:x.db", "ducklake:mysql:db=x"])
def test_what_names_no_catalogue_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(SaerlError, match="lake_invalid"):
        LakeAddress.parse(text, "", tmp_path)
    with pytest.raises(SaerlError, match="lake_invalid"):
        LakeAddress.parse("ducklake:postgres:dbname=x", "ftp://host/x", tmp_path)


def test_a_lake_says_where_its_files_are_and_another_place_is_refused(tmp_path: Path) -> None:
    stored = Warehouse(find_home(tmp_path / "home", "ducklake:lake.ducklake", "files").create())
    stored.store("cluster_assignments", assignments("x-v1"), "x-v1")
    other = find_home(tmp_path / "home", "ducklake:lake.ducklake", "elsewhere")
    with pytest.raises(SaerlError, match="lake_invalid"):
        Warehouse(other).rows("prompts")


def test_the_setting_comes_from_the_environment_or_the_homes_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "home"
    root.mkdir()
    assert find_home(root).lake is None
    (root / "warehouse.toml").write_text('warehouse = "ducklake:postgres:dbname=a"\ndata_path = "s3://b/c"\n')
    lake = find_home(root).lake
    assert lake == LakeAddress("postgres", "dbname=a", "s3://b/c/")
    monkeypatch.setenv("SAERL_WAREHOUSE", "ducklake:mine.ducklake")
    lake = find_home(root).lake
    assert lake is not None
    assert lake.catalogue == str(root / "mine.ducklake")
    (root / "warehouse.toml").write_text("warehouse = [\n")
    monkeypatch.delenv("SAERL_WAREHOUSE")
    with pytest.raises(SaerlError, match="setting_invalid"):
        find_home(root)


def test_nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = LakeAddress.parse("ducklake:lake.ducklake", "files", tmp_path)
    with connect(address, read_only=False) as connection:
        settings = connection.execute(
            "SELECT name, value FROM duckdb_settings() WHERE name LIKE 'auto%_known_extensions'"
        ).fetchall()
        assert sorted(settings) == [("autoinstall_known_extensions", "false"), ("autoload_known_extensions", "false")]
        with pytest.raises(duckdb.Error):
            connection.execute("SELECT * FROM sqlite_scan('x', 'y')")
    monkeypatch.setattr(duckdb, "__version__", "9.9.9")
    with pytest.raises(SaerlError, match="lake_extension_missing"):
        connect(address, read_only=True)
