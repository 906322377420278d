"""The command line on a home that may be read and not written: what only reads works, the rest says what to do."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from saerl_assets.cli import EXIT_USER_ERROR
from saerl_assets.resources.home import HomeResource
from saerl_assets_tests.test_cli import call
from saerl_assets_tests.tiny import KEY

NOBODY = 65_534


@pytest.fixture
def read_only(tiny_home: HomeResource, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the built home without permission to write; root, whom nothing stops, is nobody meanwhile."""
    place = Path(tempfile.mkdtemp(prefix="saerl-read-only-"))  # pytest's own folders are closed to others
    try:
        shutil.copytree(tiny_home.open().root, place / "home")
        for path in [place, *place.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        monkeypatch.setenv("SAERL_HOME", str(place / "home"))
        monkeypatch.setenv("DAGSTER_HOME", str(place / "home" / "dagster"))
        monkeypatch.chdir(place)
        was = os.geteuid()
        if was == 0:
            os.seteuid(NOBODY)
        try:
            yield place / "home"
        finally:
            os.seteuid(was)
    finally:
        for path in [place, *place.rglob("*")]:
            path.chmod(0o755)
        shutil.rmtree(place)


READING = [
    ("init",), ("versions",), ("versions", "--json"), ("manifest", KEY), ("sql", "SELECT count(*) FROM prompts"),
]  # fmt: skip
WRITING = [
    ("show", KEY), ("plan", KEY), ("run", KEY), ("run", KEY, "--all"), ("export", KEY, "--to", "trl"), ("gc",),
    ("gc", "--yes"), ("delete", KEY, "--yes"), ("manifest", KEY, "--rollback"), ("labels", "add", KEY, "log.jsonl"),
]  # fmt: skip


@pytest.mark.usefixtures("read_only")
@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_what_only_reads_works(words: tuple[str, ...]) -> None:
    result = call(*words)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("words", WRITING, ids=" ".join)
def test_what_writes_says_what_to_do(read_only: Path, words: tuple[str, ...]) -> None:
    before = {path: path.stat().st_size for path in read_only.rglob("*") if path.is_file()}
    result = call(*words)
    if result.exit_code == 0:  # some of them only look, and may find that they need not write
        assert words[0] in {"show", "plan", "gc"}
    else:
        assert result.exit_code == EXIT_USER_ERROR, result.output
        assert re.search(
            r"what to do: .+ \[(home_not_writable|not_writable|no_manifest|source_missing|model_missing)\]",
            result.output,
        )
    assert {path: path.stat().st_size for path in read_only.rglob("*") if path.is_file()} == before


def test_doctor_says_that_the_home_cannot_be_written(read_only: Path) -> None:
    result = call("doctor")
    assert result.exit_code == EXIT_USER_ERROR
    assert re.search(rf"!! +home +{re.escape(str(read_only))}", result.output), result.output
