"""Every verb of the command line: what it does, and that a person's mistake is answered in words."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import duckdb
import polars as pl
import pytest
from click.testing import CliRunner, Result

from saerl_assets.cli import EXIT_RUN_FAILED, EXIT_USER_ERROR, main
from saerl_assets.resources.home import HomeResource
from saerl_assets.storage.schema import tables
from saerl_assets.trainers.export import check_export
from saerl_assets_tests.tiny import KEY, MADE_BY_A_RUN, N_PROMPTS, TinyWorld, source_lines, source_rows, write_rows

WRONG_USAGE = 2


def call(*words: str, answer: str | None = None) -> Result:
    """Runs the command; a traceback fails the test."""
    result = CliRunner().invoke(main, list(words), input=answer)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def saerl(*words: str, answer: str | None = None) -> str:
    """What a command that goes well prints."""
    result = call(*words, answer=answer)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*words: str, code: int = EXIT_USER_ERROR, answer: str | None = None) -> str:
    """What a command that is refused prints; a mistake that can be put right comes with its remedy."""
    result = call(*words, answer=answer)
    assert result.exit_code == code, result.output
    if code == EXIT_USER_ERROR and answer is None:
        assert "error: " in result.output
        assert re.search(r"what to do: .+ \[\w+\]", result.output.replace("\n", " ")), result.output
    return result.output


@pytest.fixture
def built(copied_home: HomeResource, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> HomeResource:
    """A home with the tiny version, the one that the commands use; the working directory is empty."""
    monkeypatch.setenv("SAERL_HOME", copied_home.root)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return copied_home


@pytest.fixture
def empty(fresh_home: HomeResource, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> HomeResource:
    """A home without versions, the one that the commands use; the working directory is empty."""
    monkeypatch.setenv("SAERL_HOME", fresh_home.root)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return fresh_home


# ---------------------------------------------------------------- help, init, versions


def test_help_names_every_verb_in_the_order_of_use() -> None:
    listed = re.findall(r"^  (\w+)  ", saerl("--help").partition("Commands:")[2], flags=re.MULTILINE)
    assert listed[:4] == ["init", "register", "plan", "run"]
    assert set(listed) == set(main.commands)
    for verb in main.commands:
        assert "Usage:" in saerl(verb, "--help")


def test_version() -> None:
    assert saerl("--version").startswith("saerl")


def test_init_makes_the_home_that_home_names(tmp_path: Path, empty: HomeResource) -> None:
    other = tmp_path / "elsewhere"
    assert str(other) in saerl("--home", str(other), "init")
    assert (other / "dagster" / "dagster.yaml").is_file()
    assert saerl("--home", str(other), "init") == saerl("--home", str(other), "init")
    assert not Path(empty.root).exists()


def test_a_home_that_cannot_be_made_is_refused(tmp_path: Path, empty: HomeResource) -> None:  # noqa: ARG001
    (tmp_path / "file").write_text("")
    assert "[home_not_writable]" in refused("--home", str(tmp_path / "file" / "home"), "init")


def test_an_empty_home_has_no_versions(empty: HomeResource) -> None:  # noqa: ARG001
    assert "No versions yet" in saerl("versions")
    assert "[warehouse_missing]" in refused("sql", "SHOW TABLES")


def test_versions_lists_them(built: HomeResource) -> None:  # noqa: ARG001
    assert KEY in saerl("versions")
    listed = json.loads(saerl("versions", "--json"))
    assert [(row["dataset_version"], row["n_prompts"]) for row in listed] == [(KEY, N_PROMPTS)]


# ---------------------------------------------------------------- register


def test_registering_twice_is_harmless_and_another_spec_is_refused(tiny_world: TinyWorld, empty: HomeResource) -> None:
    spec = tiny_world.write_spec("twice-v1")
    assert "registered twice-v1" in saerl("register", str(spec))
    before = empty.warehouse().rows("versions")
    assert "registered twice-v1" in saerl("register", str(spec))
    assert empty.warehouse().rows("versions").equals(before)
    tiny_world.write_spec("twice-v1", seed=4)
    told = refused("register", str(spec))
    assert "twice-v2" in told
    assert "saerl delete twice-v1" in told
    assert empty.warehouse().rows("versions").equals(before)


def changed(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (changed("[data]", "[data"), r"bad-v1\.toml.+line 4"),
        (
            changed("batch_size = 8", "bach_size = 8"),
            r"bad-v1\.toml:\d+: Unknown key 'batches.bach_size'.+'batch_size'",
        ),
        (changed("batch_size = 8", "batch_size = 0"), r"bad-v1\.toml:\d+: batches.batch_size = 0"),
        (changed("seed = 3", 'seed = "three"'), r"bad-v1\.toml:\d+: seed = 'three'"),
        (changed("bad-v1", "bad/v1"), r"'bad/v1' is not a version key; write <name>-v<n>"),
        (changed("bad-v1", "it's-v1"), r"is not a version key; write <name>-v<n>"),
        (changed("bad-v1", "bad"), r"is not a version key; write <name>-v<n>"),
        (changed("prompts.jsonl", "nowhere.jsonl"), r"nowhere\.jsonl"),
        (changed("path:prompts.jsonl", "ftp:prompts.jsonl"), r"ftp"),
        (changed("seed = 3", 'parent = "nobody-v1"'), r"nobody-v1"),
        (changed("[data]", "[dota]"), r"'dota'|'data'"),
        (lambda _: "\x00\x01", r"not TOML"),
        (lambda _: "", r"'key'|'data'"),
    ],
)
def test_a_bad_spec_is_answered_with_file_key_and_remedy(
    change: Callable[[str], str], says: str, tiny_world: TinyWorld, empty: HomeResource
) -> None:
    spec = tiny_world.write_spec("bad-v1")
    spec.write_text(change(spec.read_text()))
    assert re.search(says, refused("register", str(spec)).replace("\n", " "))
    assert empty.catalog().keys() == []


def test_a_spec_that_cannot_be_read_is_refused(tiny_world: TinyWorld, empty: HomeResource) -> None:  # noqa: ARG001
    assert "[spec_unreadable]" in refused("register", "nowhere.toml")
    latin = tiny_world.folder / "latin.toml"
    latin.write_bytes(b'key = "caf\xe9-v1"')
    assert "[spec_unreadable]" in refused("register", str(latin))
    refused("register", str(tiny_world.folder), code=WRONG_USAGE)
    refused("register", code=WRONG_USAGE)
    refused("register", "a.toml", "--from", "b.jsonl", code=WRONG_USAGE)


def test_an_empty_data_file_is_refused(tiny_world: TinyWorld, empty: HomeResource) -> None:
    (tiny_world.folder / "empty.jsonl").write_text("")
    spec = tiny_world.write_spec("hollow-v1", data={"source": "path:empty.jsonl"})
    assert "empty.jsonl" in refused("register", str(spec))
    assert empty.catalog().keys() == []


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_a_data_file_becomes_a_spec_that_is_shown_and_registered(suffix: str, empty: HomeResource) -> None:
    rows, path = pl.DataFrame(source_rows()), Path(f"mine.{suffix}")
    writers: dict[str, Callable[[Path], object]] = {
        "jsonl": rows.write_ndjson,
        "csv": rows.write_csv,
        "parquet": rows.write_parquet,
    }
    writers[suffix](path)
    told = saerl("register", "--from", str(path), "--key", "mine-v1")
    written = Path("mine-v1.toml").read_text()
    assert written.strip() in told
    assert 'prompt = "question"' in written
    assert 'answer = "answer"' in written
    assert "registered mine-v1" in told
    assert empty.catalog().keys() == ["mine-v1"]
    assert "[spec_exists]" in refused("register", "--from", str(path), "--key", "mine-v1")


def test_a_draft_can_be_looked_over_first(empty: HomeResource) -> None:
    write_rows(Path("my prompts.jsonl"), source_lines())
    told = saerl("register", "--from", "my prompts.jsonl", "--draft-only")
    assert empty.catalog().keys() == []
    path = re.search(r"saerl register (\S+\.toml)", told)
    assert path
    assert "registered" in saerl("register", path[1])


@pytest.mark.parametrize("source", ["nowhere.jsonl", "here.xyz", "empty.jsonl"])
def test_a_data_file_that_cannot_be_read_is_refused(source: str, empty: HomeResource) -> None:  # noqa: ARG001
    Path("here.xyz").write_text("x")
    Path("empty.jsonl").write_text("")
    assert source in refused("register", "--from", source, "--key", "mine-v1")
    assert not Path("mine-v1.toml").exists()


def test_a_bad_key_for_a_draft_writes_nothing(empty: HomeResource) -> None:
    write_rows(Path("data.jsonl"), source_lines())
    for key in ("../mine-v1", "a/b-v1", 'mine"-v1', "Mine"):
        refused("register", "--from", "data.jsonl", "--key", key)
    assert list(Path().glob("**/*.toml")) == []
    assert not Path("../mine-v1.toml").exists()
    assert empty.catalog().keys() == []


# ---------------------------------------------------------------- plan, run, show


def test_plan_says_what_a_run_would_compute(tiny_world: TinyWorld, empty: HomeResource) -> None:
    tiny_world.register(empty, KEY)
    told = saerl("plan", KEY)
    assert f"{N_PROMPTS} prompts" in told
    assert f"saerl run {KEY}" in told
    figures = json.loads(saerl("plan", KEY, "--json"))
    assert figures["n_prompts"] == N_PROMPTS
    assert figures["n_tokens_to_read"] == figures["n_tokens"]
    assert empty.warehouse().rows("prompts").is_empty(), "planning writes nothing"


def test_plan_knows_what_was_read_before(built: HomeResource) -> None:  # noqa: ARG001
    figures = json.loads(saerl("plan", KEY, "--json"))
    assert figures["n_texts_read_before"] == N_PROMPTS
    assert figures["n_tokens_to_read"] == 0


@pytest.mark.parametrize("verb", ["plan", "run", "show", "delete", "manifest"])
@pytest.mark.parametrize("key", ["nobody-v1", "a/b", "it's", '"; DROP TABLE versions; --', "../x"])
def test_a_version_that_is_not_there_is_refused(verb: str, key: str, built: HomeResource) -> None:  # noqa: ARG001
    told = refused(verb, key)
    assert "[unknown_version]" in told
    assert KEY in told, "it names those that there are"


def test_run_finds_what_is_there(built: HomeResource) -> None:  # noqa: ARG001
    told = saerl("run", KEY)
    assert "found" in told
    assert "made" not in re.sub(r"made again", "", told).split("next:")[0]
    assert f"saerl show {KEY}" in told


def test_run_only_takes_assets_that_exist(built: HomeResource) -> None:  # noqa: ARG001
    told = refused("run", KEY, "--only", "clustres")
    assert "clustres" in told
    assert "cluster_assignments" in told


def test_a_run_that_fails_exits_with_its_own_code(tiny_world: TinyWorld, built: HomeResource) -> None:
    tiny_world.register(built, "broken-v1", reader={"model": "path:nowhere"})
    told = refused("run", "broken-v1", code=EXIT_RUN_FAILED)
    assert "error: intake: " in told
    assert "[model_missing]" in told
    assert "saerl run broken-v1" in told
    assert "missing" in saerl("show", "broken-v1")


def test_show_tells_stages_and_checks(built: HomeResource) -> None:  # noqa: ARG001
    told = saerl("show", KEY)
    assert all(name in told for name in MADE_BY_A_RUN)
    assert "up to date" in told
    found = json.loads(saerl("show", KEY, "--json"))
    assert {stage["asset"] for stage in found["stages"]} == MADE_BY_A_RUN
    assert not any(stage["is_due"] for stage in found["stages"])
    assert {check["result"] for check in found["checks"]} == {"passed"}


# ---------------------------------------------------------------- manifest, export


def replanned(world: TinyWorld, home: HomeResource) -> tuple[str, str]:
    """A second manifest of the tiny version beside the first, as a changed planner would make it."""
    first = str(home.version(KEY).current_manifest_id)
    second = "f" * 64
    with home.warehouse().writing("a second manifest") as connection:
        connection.execute(
            "INSERT INTO manifests SELECT * REPLACE (? AS manifest_id, created_at + INTERVAL 1 SECOND AS created_at) "
            "FROM manifests",
            [second],
        )
        connection.execute("UPDATE versions SET current_manifest_id = ?", [second])
    assert world.folder.exists()
    return first, second


def test_manifests_are_listed_chosen_and_rolled_back(tiny_world: TinyWorld, built: HomeResource) -> None:
    first, second = replanned(tiny_world, built)
    assert all(name[:8] in saerl("manifest", KEY) for name in (first, second))
    saerl("manifest", KEY, "--rollback")
    assert built.version(KEY).current_manifest_id == first
    assert "[no_manifest]" in refused("manifest", KEY, "--rollback")
    saerl("manifest", KEY, "--use", second[:10])
    assert built.version(KEY).current_manifest_id == second
    assert "[unknown_manifest]" in refused("manifest", KEY, "--use", "0123")
    assert first[:12] in refused("manifest", KEY, "--use", "")
    assert "6 at least" in refused("manifest", KEY, "--use", first[:5])
    refused("manifest", KEY, "--use", first, "--rollback", code=WRONG_USAGE)
    assert built.version(KEY).current_manifest_id == second


def test_a_version_without_a_manifest_says_so(tiny_world: TinyWorld, empty: HomeResource) -> None:
    tiny_world.register(empty, KEY)
    assert "no manifest yet" in saerl("manifest", KEY)
    assert "[no_manifest]" in refused("export", KEY, "--to", "trl")


@pytest.mark.parametrize("trainer", ["trl", "verl"])
@pytest.mark.parametrize("arm", ["balanced", "shuffle"])
def test_any_arm_is_exported(trainer: str, arm: str, built: HomeResource, tmp_path: Path) -> None:
    told = saerl("export", KEY, "--to", trainer, "--arm", arm, "--out", str(tmp_path / "out"))
    record = check_export(tmp_path / "out", manifest_id=built.version(KEY).current_manifest_id)
    assert (record.trainer, record.arm, record.dataset_version) == (trainer, arm, KEY)
    assert f"{record.n_rows} rows in {record.n_steps} batches" in told


def test_an_export_goes_below_the_home_unless_told_otherwise(built: HomeResource) -> None:
    told = saerl("export", KEY, "--to", "trl")
    assert str(built.open().exports) in told


def test_exports_that_cannot_be_are_refused(built: HomeResource) -> None:  # noqa: ARG001
    told = refused("export", KEY, "--to", "tlr")
    assert "trl" in told
    assert "verl" in told
    told = refused("export", KEY, "--to", "trl", "--arm", "shufle")
    assert "shuffle" in told
    Path("taken").mkdir()
    Path("taken/notes.txt").write_text("mine")
    assert "taken" in refused("export", KEY, "--to", "trl", "--out", "taken")
    assert Path("taken/notes.txt").read_text() == "mine"
    refused("export", KEY, code=WRONG_USAGE)


# ---------------------------------------------------------------- sql


def test_sql_answers_as_table_csv_json_and_parquet(built: HomeResource) -> None:  # noqa: ARG001
    statement = "SELECT split, count(*) AS n FROM prompts GROUP BY split ORDER BY split"
    assert "evaluation" in saerl("sql", statement)
    csv = saerl("sql", statement, "--format", "csv")
    assert csv.startswith("split,n\nevaluation,")
    expected = [dict(zip(("split", "n"), line.split(","), strict=True)) for line in csv.split()[1:]]
    assert [{**row, "n": str(row["n"])} for row in json.loads(saerl("sql", statement, "--format", "json"))] == expected
    assert "rows written to out.parquet" in saerl("sql", statement, "--format", "parquet", "--out", "out.parquet")
    assert [{**row, "n": str(row["n"])} for row in pl.read_parquet("out.parquet").to_dicts()] == expected
    saerl("sql", statement, "--format", "csv", "--out", "out.csv")
    assert Path("out.csv").read_text().strip() == csv.strip()
    refused("sql", statement, "--format", "parquet", code=WRONG_USAGE)


@pytest.mark.parametrize("style", ["table", "csv", "json"])
def test_sql_shows_lists_too(style: str, built: HomeResource) -> None:  # noqa: ARG001
    assert saerl("sql", "SELECT text_id, feature_ids FROM prompt_features LIMIT 2", "--format", style).strip()


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO labels SELECT * FROM labels",
        "DELETE FROM prompts",
        "DROP TABLE prompts",
        "CREATE TABLE mine (a INTEGER)",
        "UPDATE versions SET description = 'x'",
        "ATTACH 'other.duckdb'",
        "COPY prompts TO 'stolen.csv'",
        "EXPORT DATABASE 'stolen'",
        "SELECT * FROM read_text('secret.txt')",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "SELECT * FROM prompts; DROP TABLE prompts",
        "SELEC 1",
        "SELECT * FROM nowhere",
        "",
    ],
)
def test_sql_only_reads_the_warehouse(statement: str, built: HomeResource) -> None:
    Path("secret.txt").write_text("secret")
    before = built.warehouse().rows("prompts")
    assert "[sql_failed]" in refused("sql", statement)
    assert built.warehouse().rows("prompts").equals(before)
    assert sorted(path.name for path in Path().iterdir()) == ["secret.txt"]


def test_sql_cannot_write_where_there_is_no_folder(built: HomeResource) -> None:  # noqa: ARG001
    for style in ("csv", "json", "parquet"):
        assert "nowhere" in refused("sql", "SELECT 1", "--format", style, "--out", "nowhere/out")


# ---------------------------------------------------------------- delete


def test_delete_removes_everything_and_a_new_beginning_is_one(tiny_world: TinyWorld, built: HomeResource) -> None:
    place = built.open()
    assert "Aborted" in refused("delete", KEY, answer="n\n")
    assert built.catalog().keys() == [KEY]
    assert f"removed {KEY}" in saerl("delete", KEY, "--yes")
    for name in tables():
        assert built.warehouse().rows(name).is_empty(), name
    assert list(place.exports.iterdir()) == []
    assert list(place.reports.iterdir()) == []
    assert built.catalog().keys() == []
    assert "[unknown_version]" in refused("delete", KEY, "--yes")
    tiny_world.register(built, KEY)
    found = json.loads(saerl("show", KEY, "--json"))
    assert all(stage["is_due"] for stage in found["stages"])
    assert {stage["made_at"] for stage in found["stages"]} == {None}
    assert found["checks"] == [], "the results of the version that is gone are gone"


def test_a_parent_cannot_be_deleted_before_its_children(tiny_world: TinyWorld, built: HomeResource) -> None:
    tiny_world.register(built, "child-v1", parent=KEY, sae=None)
    told = refused("delete", KEY, "--yes")
    assert "Delete child-v1 first" in told
    assert not built.warehouse().rows("prompts").is_empty()
    saerl("delete", "child-v1", "--yes")
    assert built.warehouse().rows("prompt_features").height == 2 * N_PROMPTS, "what the parent uses stays"
    saerl("delete", KEY, "--yes")
    assert built.warehouse().rows("prompt_features").is_empty()


# ---------------------------------------------------------------- doctor, damage


def test_doctor_finds_nothing_wrong(built: HomeResource) -> None:
    told = saerl("doctor")
    assert "!!" not in told
    assert built.root in told.replace("\n", "")
    assert KEY in told


def test_a_file_that_is_no_warehouse_is_named(empty: HomeResource) -> None:
    empty.open().warehouse.write_text("this is no database, and long enough to be told apart " * 100)
    for words in (("versions",), ("show", KEY), ("sql", "SHOW TABLES"), ("run", KEY)):
        told = refused(*words)
        assert "warehouse.duckdb" in told
    assert "!!" in refused("doctor", answer="")


def test_a_warehouse_of_another_release_is_named(empty: HomeResource, tiny_world: TinyWorld) -> None:
    with duckdb.connect(str(empty.open().warehouse)) as connection:
        connection.execute("CREATE TABLE prompts (a INTEGER)")
    assert "[warehouse_" in refused("register", str(tiny_world.write_spec(KEY)))
