"""CSV: typed columns without losing notation, rows over several lines, broken rows."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.fields import SourceRow
from saerl_assets.storage.csv_files import read_csv


def read(folder: Path, content: str | bytes) -> list[SourceRow]:
    path = folder / "x.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_csv(path))


def test_columns_become_numbers_or_truth_values_only_as_a_whole(tmp_path: Path) -> None:
    rows = read(
        tmp_path,
        "prompt,level,share,right,answer,code,mixed,none\r\n"
        "a,1,0.5,True,1.50,007,1,\r\n"
        '"b, ""quoted""",-2,1e-05,false,2,12,x,\r\n'
        "c,,3,,3,1,2,\r\n",
    )
    columns = {name: [row.value[name] for row in rows if row.value] for name in rows[0].value or {}}
    assert columns == {
        "prompt": ["a", 'b, "quoted"', "c"],
        "level": [1, -2, None],
        "share": [0.5, 1e-05, 3],
        "right": [True, False, None],
        "answer": ["1.50", "2", "3"],
        "code": ["007", "12", "1"],
        "mixed": ["1", "x", "2"],
        "none": [None, None, None],
    }


@pytest.mark.parametrize("cell", ["nan", "inf", "1_000", " 1", "+1", "1.0e5", "٣"])
def test_what_json_would_not_write_keeps_a_column_text(tmp_path: Path, cell: str) -> None:
    assert [row.value for row in read(tmp_path, f"x\n1\n{cell}\n")] == [{"x": "1"}, {"x": cell}]


def test_rows_over_several_lines_bom_and_blank_lines(tmp_path: Path) -> None:
    rows = read(tmp_path, b'\xef\xbb\xbfprompt,"the\nanswer"\n"first\nsecond",1\n\n"third",2\n')
    assert [row.value for row in rows] == [
        {"prompt": "first\nsecond", "the\nanswer": 1},
        {"prompt": "third", "the\nanswer": 2},
    ]
    assert [(row.position, row.line) for row in rows] == [(0, 3), (1, 6)]


def test_broken_rows_are_rows_with_a_problem(tmp_path: Path) -> None:
    rows = read(tmp_path, b'prompt,answer\nfine,1\nfew\ntoo,many,cells\nb\xff\xfed,4\n"quo"te,5\nlast,6\n')
    found = [(row.position, row.line, row.problem[0] if row.problem else None) for row in rows]
    assert found == [
        (0, 2, None),
        (1, 3, "broken_csv"),
        (2, 4, "broken_csv"),
        (3, 5, "not_utf8"),
        (4, 6, "broken_csv"),
        (5, 7, None),
    ]
    assert rows[2].raw == "too,many,cells"
    assert rows[5].value == {"prompt": "last", "answer": 6}  # what broken rows hold decides no column's type


def test_a_quote_that_is_never_closed_is_an_error_and_not_a_lost_half(tmp_path: Path) -> None:
    with pytest.raises(SaerlError, match="source_broken") as caught:
        read(tmp_path, 'prompt,answer\na,1\nb,"2\nc,3\nd,4\n')
    assert caught.value.where.endswith("x.csv:3")


@pytest.mark.parametrize("header", [b"a,b,a", b"\n", b'"a', b'"a"b,c', b"a,b,\xff"])
def test_a_header_that_names_no_columns_is_an_error(tmp_path: Path, header: bytes) -> None:
    with pytest.raises(SaerlError, match="source_broken") as caught:
        read(tmp_path, header + b"\n1,2,3\n")
    assert str(caught.value).isprintable()


def test_a_column_without_a_name_gets_one(tmp_path: Path) -> None:
    assert read(tmp_path, ",prompt\n0,a\n")[0].value == {"column_0": 0, "prompt": "a"}


def test_long_cells_are_read(tmp_path: Path) -> None:
    assert read(tmp_path, f"prompt\n{'x' * 200_000}\n")[0].value == {"prompt": "x" * 200_000}


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5))
def test_text_comes_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, str]]
) -> None:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("one", "other"), *cells, ("text", "text")])
    rows = read(tmp_path_factory.mktemp("csv"), text.getvalue())
    assert [tuple((row.value or {}).values()) for row in rows[:-1]] == cells
