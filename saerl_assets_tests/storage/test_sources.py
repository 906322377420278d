"""Sources: found, named by content, read row by row; a bad row is a row, a bad file is an error."""

from __future__ import annotations

import json
import math
import os
import tracemalloc
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.fields import SourceRow
from saerl_assets.storage import sources
from saerl_assets.storage.sources import ResolvedSource, estimate_rows, read_source, resolve_source, still_there

TASKS = """
seed = 1
n_rows = 5
[[families]]
name = "gcd"
settings = [{ max_value = 20 }, { max_value = 200 }]
"""


def write(folder: Path, name: str, content: bytes | str) -> ResolvedSource:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return resolve_source(f"path:{name}", folder)


def read(folder: Path, name: str, content: bytes | str) -> list[SourceRow]:
    return list(read_source(write(folder, name, content)))


def problems(rows: list[SourceRow]) -> list[tuple[int, int, str | None]]:
    return [(row.position, row.line, row.problem[0] if row.problem else None) for row in rows]


def test_json_lines_with_bom_crlf_and_blank_lines(tmp_path: Path) -> None:
    rows = read(tmp_path, "x.jsonl", b'\xef\xbb\xbf{"prompt": "\xc3\xa9"}\r\n\r\n  \n{"prompt": "b"}')
    assert [row.value for row in rows] == [{"prompt": "é"}, {"prompt": "b"}]
    assert problems(rows) == [(0, 1, None), (1, 4, None)]


def test_a_broken_line_is_a_row_with_a_problem(tmp_path: Path) -> None:
    lines = [
        b'{"prompt": "fine"}',
        b'{"prompt": "half',
        b"[1, 2]",
        b'"text"',
        b'{"prompt": "\xff\xfe"}',
        b'{"n": ' + b"9" * 5_000 + b"}",
        b"[" * 100_000,
        b'{"prompt": "fine again"}',
    ]
    rows = read(tmp_path, "x.jsonl", b"\n".join(lines))
    assert problems(rows) == [
        (0, 1, None),
        (1, 2, "broken_json"),
        (2, 3, "not_an_object"),
        (3, 4, "not_an_object"),
        (4, 5, "not_utf8"),
        (5, 6, "broken_json"),
        (6, 7, "broken_json"),
        (7, 8, None),
    ]
    reasons = [row.problem[1] if row.problem else "" for row in rows]
    assert "Line 2 is not JSON" in reasons[1]
    assert "column 12" in reasons[1]
    assert "Byte 13 of line 5" in reasons[4]
    assert rows[1].raw == '{"prompt": "half'
    assert rows[4].raw == '{"prompt": "\\xff\\xfe"}'
    assert max(len(row.raw) for row in rows) == 2_000


VALUES = st.dictionaries(
    st.text(st.characters(codec="utf-8"), max_size=5),
    st.text(st.characters(codec="utf-8")) | st.integers(-(2**60), 2**60) | st.none() | st.lists(st.booleans()),
    max_size=3,
)


@given(
    rows=st.lists(VALUES, min_size=1, max_size=5),
    ascii_only=st.booleans(),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_json_lines_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, *, rows: list[dict[str, object]], ascii_only: bool, end: str
) -> None:
    folder = tmp_path_factory.mktemp("jsonl")
    text = end.join(json.dumps(row, ensure_ascii=ascii_only) for row in rows)
    assert [row.value for row in read(folder, "x.jsonl", text)] == rows


def test_a_json_list_and_json_lines_under_the_wrong_name(tmp_path: Path) -> None:
    listed = read(tmp_path, "x.json", '\n [{"prompt": "a"},\n 3,\n {"prompt": "b"}]')
    assert problems(listed) == [(0, 1, None), (1, 2, "not_an_object"), (2, 3, None)]
    lined = read(tmp_path, "y.json", '{"prompt": "a"}\n{"prompt": "b"}\n')
    assert [row.value for row in lined] == [{"prompt": "a"}, {"prompt": "b"}]


@pytest.mark.parametrize("content", ['[{"prompt": "a"}', '{\n "data": [\n]}', b'["\xff"]'])
def test_a_json_file_that_is_neither_is_an_error(tmp_path: Path, content: str | bytes) -> None:
    with pytest.raises(SaerlError, match="source_broken"):
        read(tmp_path, "x.json", content)


def test_parquet_with_nested_values(tmp_path: Path) -> None:
    values = [
        {"prompt": [{"role": "user", "content": "a"}], "info": {"n": 1, "day": date(2024, 5, 1)}, "x": 0.5},
        {"prompt": None, "info": None, "x": math.nan},
    ]
    pl.DataFrame(values).write_parquet(tmp_path / "x.parquet")
    rows = list(read_source(resolve_source("path:x.parquet", tmp_path)))
    assert rows[0].value == values[0]
    assert rows[1].value is not None
    assert rows[1].value["prompt"] is None
    assert rows[1].value["info"] is None
    assert problems(rows) == [(0, 1, None), (1, 2, None)]


def test_parquet_is_read_in_batches_across_row_groups(tmp_path: Path) -> None:
    pl.DataFrame({"n": range(5_000)}).write_parquet(tmp_path / "x.parquet", row_group_size=1_700)
    rows = read_source(resolve_source("path:x.parquet", tmp_path))
    assert all(row.value == {"n": place} and row.line == place + 1 for place, row in enumerate(rows))


def test_reading_takes_a_row_at_a_time(tmp_path: Path) -> None:
    line = json.dumps({"prompt": "x" * 1_000}) + "\n"
    source = write(tmp_path, "x.jsonl", line * 20_000)
    tracemalloc.start()
    assert sum(1 for _ in read_source(source)) == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < source.n_bytes / 10


@pytest.mark.parametrize(
    ("name", "content", "code", "remedy"),
    [
        ("x.jsonl", b"", "source_empty", "rows"),
        ("x.txt", b"why?", "source_type", ".parquet"),
        ("x", b"why?", "source_type", ".jsonl"),
        ("x.jsonl", b"PAR1....", "source_type", ".parquet"),
        ("x.jsonl", b"\x1f\x8b\x08\x00", "source_type", "gunzip"),
        ("x.csv", b"PK\x03\x04....", "source_type", "CSV"),
        ("x.csv", "a,b".encode("utf-16"), "source_type", "UTF-8"),
        ("x.parquet", b'{"prompt": "a"}', "source_broken", "again"),
        ("x.parquet", b"PAR1" + bytes(50) + b"PAR1", "source_broken", "again"),
    ],
)
def test_a_file_that_cannot_be_a_source_is_an_error(
    tmp_path: Path, name: str, content: bytes, code: str, remedy: str
) -> None:
    with pytest.raises(SaerlError) as caught:
        write(tmp_path, name, content)
    assert (caught.value.code, caught.value.where) == (code, str(tmp_path / name))
    assert remedy in caught.value.remedy


def test_parquet_that_breaks_off_within_its_rows_is_an_error(tmp_path: Path) -> None:
    pl.DataFrame({"prompt": [f"prompt {n}" for n in range(500)]}).write_parquet(tmp_path / "x.parquet")
    content = bytearray((tmp_path / "x.parquet").read_bytes())
    content[4:200] = bytes(196)
    with pytest.raises(SaerlError, match="source_broken"):
        read(tmp_path, "x.parquet", bytes(content))


@pytest.mark.parametrize(
    ("source", "code", "remedy"),
    [
        ("prompts.jsonl", "source_syntax", "path:prompts.jsonl"),
        ("s3:bucket/x.jsonl", "source_syntax", "path:FILE"),
        ("path:", "source_syntax", "path:FILE"),
        ("path:promts.jsonl", "source_missing", "'prompts.jsonl'?"),
        ("path:nowhere/x.jsonl", "source_missing", "spec's folder"),
        ("path:folder", "folder_empty", "Put data files into it"),
        ("gym:folder", "source_is_folder", "Name a file"),
        ("gym:promts.jsonl", "source_missing", "'prompts.jsonl'?"),
        ("hf:a b", "source_syntax", "hf:org/name"),
    ],
)
def test_a_source_that_is_not_there_is_an_error(tmp_path: Path, source: str, code: str, remedy: str) -> None:
    write(tmp_path, "prompts.jsonl", '{"prompt": "a"}')
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "unfinished.csv.part").write_text("prompt\na\n")
    with pytest.raises(SaerlError) as caught:
        resolve_source(source, tmp_path)
    assert caught.value.code == code
    assert remedy in caught.value.remedy


def test_a_file_without_permission_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path, "x.jsonl", '{"prompt": "a"}')
    monkeypatch.setattr(os, "access", lambda *_: False)  # the tests may run as root, who may read anything
    with pytest.raises(SaerlError, match="source_unreadable"):
        resolve_source("path:x.jsonl", tmp_path)
    with pytest.raises(SaerlError, match="source_unreadable"):
        read_source(source)


def test_a_file_that_went_away_is_an_error(tmp_path: Path) -> None:
    source = write(tmp_path, "x.jsonl", '{"prompt": "a"}')
    (tmp_path / "x.jsonl").unlink()
    with pytest.raises(SaerlError, match="source_missing"):
        read_source(source)


def test_a_source_is_named_by_its_bytes(tmp_path: Path) -> None:
    one = write(tmp_path, "x.jsonl", '{"prompt": "a"}')
    assert one == ResolvedSource("jsonl", str(tmp_path / "x.jsonl"), one.digest, 15)
    assert (
        one.digest == "b4199e33255db273122080f3c56057b131bb9625a9f11f2cdfd0c503fb7c8d61"
    )  # sha256sum of the file: recorded with versions
    assert write(tmp_path, "x.jsonl", '{"prompt": "b"}').digest != one.digest
    assert ResolvedSource(**json.loads(json.dumps(vars(one)))) == one  # how versions keep it


def test_reasoning_gym_tasks_are_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tasks.toml").write_text(TASKS)
    source = resolve_source("gym:tasks.toml", tmp_path)
    assert source == resolve_source("gym:tasks.toml", tmp_path)
    rows = list(read_source(source))
    assert len(rows) == estimate_rows(source) == 5
    assert rows[3].value is not None
    assert {"prompt", "answer", "family", "level"} <= rows[3].value.keys()
    assert (rows[3].position, rows[3].line) == (3, 4)
    monkeypatch.setattr(sources, "version", lambda _: "0.0.0")
    assert resolve_source("gym:tasks.toml", tmp_path).digest != source.digest


@pytest.mark.parametrize("content", ["seed =", "seed = 1\nrows = 5\n"])
def test_a_broken_task_mix_is_told_with_its_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "tasks.toml").write_text(content)
    with pytest.raises(SaerlError, match="tasks_invalid") as caught:
        resolve_source("gym:tasks.toml", tmp_path)
    assert str(tmp_path / "tasks.toml") in caught.value.where


@pytest.mark.parametrize("n_rows", [1, 7, 60_000])
def test_rows_are_estimated_without_reading_them(tmp_path: Path, n_rows: int) -> None:
    jsonl = write(tmp_path, "x.jsonl", "".join(f'{{"prompt": "{n:06d}"}}\n' for n in range(n_rows)))
    csv = write(tmp_path, "x.csv", "prompt\n" + "".join(f"{n:06d}\n" for n in range(n_rows)))
    pl.DataFrame({"prompt": range(n_rows)}).write_parquet(tmp_path / "x.parquet")
    assert estimate_rows(resolve_source("path:x.parquet", tmp_path)) == n_rows
    assert estimate_rows(jsonl) == pytest.approx(n_rows, rel=0.01)
    assert estimate_rows(csv) == pytest.approx(n_rows, rel=0.01)
    assert estimate_rows(write(tmp_path, "x.json", "[{}]")) == 0


def test_a_folder_is_its_data_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "b.jsonl").write_text('{"prompt": "third"}\n')
    (folder / "a.jsonl").write_text('{"prompt": "first"}\n\nbroken\n')
    (folder / "notes.txt").write_text("no data")
    (folder / "c.jsonl.part").write_text('{"prompt": "unfinished"}\n')
    source = resolve_source("path:folder", tmp_path)
    assert (source.kind, [name for name, _ in source.files]) == ("folder", ["a.jsonl", "b.jsonl"])
    rows = list(read_source(source))
    assert [(row.position, row.line, (row.value or {}).get("prompt")) for row in rows] == [
        (0, 1, "first"),
        (1, 3, None),
        (2, 4, "third"),
    ]
    assert estimate_rows(source) >= 3


def test_a_folder_that_grows_keeps_what_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"prompt": "first"}\n')
    then = resolve_source("path:folder", tmp_path)
    (folder / "b.jsonl").write_text('{"prompt": "second"}\n')
    assert resolve_source("path:folder", tmp_path).digest != then.digest
    assert still_there(then, "path:folder", tmp_path) == then
    assert len(list(read_source(then))) == 1
    (folder / "a.jsonl").write_text('{"prompt": "other"}\n')
    assert still_there(then, "path:folder", tmp_path).digest != then.digest
    (folder / "a.jsonl").unlink()
    with pytest.raises(SaerlError, match="source_missing"):
        still_there(then, "path:folder", tmp_path)
