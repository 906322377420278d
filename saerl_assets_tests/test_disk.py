"""Files and folders are whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from saerl_assets.disk import disk_error, folder_digest, new_file, new_folder, placed, write_whole
from saerl_assets.domain.errors import SaerlError


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "target"
    with new_folder(target) as place:
        (place / "a").write_text("1")
        assert not target.exists()
    assert (target / "a").read_text() == "1"
    with pytest.raises(ZeroDivisionError), new_folder(target) as place:
        (place / "b").write_text(str(1 / 0))
    assert [file.name for file in target.iterdir()] == ["a"]
    with new_folder(target) as place:
        (place / "c").write_text("3")
    assert [file.name for file in target.iterdir()] == ["c"]
    assert [entry.name for entry in target.parent.iterdir()] == ["target"]


def test_a_folder_with_the_same_bytes_stays(tmp_path: Path) -> None:
    target = tmp_path / "target"
    inodes = set()
    for _ in range(2):
        with new_folder(target) as place:
            (place / "a").write_text("1")
        inodes.add(target.stat().st_ino)
    assert len(inodes) == 1


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    with pytest.raises(SaerlError) as caught, new_folder(tmp_path / "target"):
        raise OSError(28, "No space left on device")
    assert caught.value.code == "disk_full"
    with pytest.raises(SaerlError), new_file(tmp_path / "target"):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []
    assert disk_error(OSError(13, "no"), tmp_path).code == "not_writable"


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    write_whole(tmp_path / "a" / "note", "old")
    write_whole(tmp_path / "a" / "note", b"new")
    assert [(file.name, file.read_text()) for file in (tmp_path / "a").iterdir()] == [("note", "new")]


def test_the_digest_of_a_folder_sees_names_and_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "a").write_text("1")
    first = folder_digest(folder)
    (folder / "a").write_text("2")
    second = folder_digest(folder)
    (folder / "a").rename(folder / "b")
    assert len({first, second, folder_digest(folder)}) == 3


@pytest.mark.parametrize("name", ["a\x00b", "x" * 5_000, "x/" * 4_000, "~nobody-of-that-name/x", "\ud800"])
def test_what_no_file_can_be_called_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(SaerlError) as caught:
        placed(name, tmp_path)
    assert caught.value.code == "path_invalid"
    str(caught.value).encode()
    assert len(str(caught.value)) < 500


def test_a_place_is_absolute_and_need_not_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert placed("a/b.jsonl", tmp_path) == tmp_path / "a" / "b.jsonl"
    assert placed("/elsewhere/x", tmp_path) == Path("/elsewhere/x")
    assert placed("~/x", tmp_path) == tmp_path / "me" / "x"
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(SaerlError, match="path_invalid"):
        placed("loop", tmp_path)
