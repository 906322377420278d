from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from saerl_assets.trainers.export import write_export
from saerl_assets.trainers.plain import loader_settings
from saerl_assets_tests.trainers.test_openrlhf import request_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("is_chat", [False, True])
def test_both_hold_the_same_rows(is_chat: bool, tmp_path: Path) -> None:
    request = request_of(is_chat=is_chat)
    write_export("jsonl", request, tmp_path / "a")
    write_export("parquet", request, tmp_path / "b")
    lines = (tmp_path / "a" / "train.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert rows == pq.read_table(tmp_path / "b" / "train.parquet").to_pylist()
    assert rows[1] == {
        "messages": json.loads(request.rows["messages"][1]),
        "answer": "1",
        "prompt_id": "p1",
        "epoch": 0,
        "step": 0,
        "slot": 1,
        "cluster_id": 3,
        "difficulty": 0.5,
        "topic": "sums",
        "is_padding": False,
        "extra": "{}",
    }


def test_text_of_any_kind_survives_in_lines(tmp_path: Path) -> None:
    request = request_of()
    said = 'π "quoted"\n\\ \u2028 \U0001f600'
    column = json.dumps([{"role": "user", "content": said}])
    rows = request.rows.with_columns(messages=request.rows["messages"].clear().extend_constant(column, 4))
    write_export("jsonl", type(request)(rows, *list(vars(request).values())[1:]), tmp_path / "a")
    lines = (tmp_path / "a" / "train.jsonl").read_text(encoding="utf-8").split("\n")
    assert len(lines) == 5
    assert json.loads(lines[3])["messages"][0]["content"] == said


@pytest.mark.parametrize("trainer", ["jsonl", "parquet"])
def test_the_settings_are_for_this_batch_size(trainer: str, tmp_path: Path) -> None:
    write_export(trainer, request_of(), tmp_path / "a")
    assert json.loads((tmp_path / "a" / "loader.json").read_text()) == loader_settings(2)
    assert loader_settings(2)["shuffle"] is False
