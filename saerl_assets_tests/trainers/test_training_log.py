from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from saerl_assets.domain.errors import SaerlError
from saerl_assets.trainers.training_log import LOG_FILE, OLD_LOG_FILE, append_lines, start_log

if TYPE_CHECKING:
    from pathlib import Path


def lines(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_a_resumed_log_keeps_what_was_before_and_drops_what_was_lost(tmp_path: Path) -> None:
    path = start_log(tmp_path / "new", 0)
    append_lines(path, [{"step": step} for step in (0, 0, 1, 2)])
    with path.open("a") as file:
        file.write('{"step": 0, "prom')  # killed while it wrote
    assert start_log(tmp_path / "new", 2) == path
    assert lines(path) == [0, 0, 1]
    append_lines(path, [{"step": 2}])
    assert lines(path) == [0, 0, 1, 2]


def test_a_new_training_puts_the_old_log_aside(tmp_path: Path) -> None:
    append_lines(start_log(tmp_path, 0), [{"step": 0}])
    start_log(tmp_path, 0)
    assert lines(tmp_path / LOG_FILE) == []
    assert lines(tmp_path / OLD_LOG_FILE) == [0]


def test_a_training_may_resume_where_no_log_is(tmp_path: Path) -> None:
    assert lines(start_log(tmp_path, 3)) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SaerlError, match="not_writable"):
        start_log(tmp_path / "file", 0)
