"""Model files: from a folder and from the hub's local cache, and digests that are remembered."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from saerl_assets.disk import file_digest
from saerl_assets.domain.errors import SaerlError
from saerl_assets.models import sources
from saerl_assets.models.sources import locate_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's local cache with one model in it, and no network."""
    from huggingface_hub import constants

    repository = tmp_path / "hub" / "models--org--name"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "model.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return snapshot


@pytest.mark.parametrize("revision", [f"@{COMMIT}", "@main", ""])
def test_the_hubs_local_cache_works_without_a_network(hub: Path, tmp_path: Path, revision: str) -> None:
    found = locate_model(f"hf:org/name{revision}", cache=tmp_path / "cache", folder=tmp_path)
    assert found.folder == hub
    assert found.gguf_file is None


@pytest.mark.parametrize("source", ["hf:org/other@main", f"hf:org/name@{COMMIT[::-1]}"])
@pytest.mark.usefixtures("hub")
def test_a_model_that_is_not_there_without_a_network_says_what_to_do(tmp_path: Path, source: str) -> None:
    with pytest.raises(SaerlError, match="path:DIR") as caught:
        locate_model(source, cache=tmp_path / "cache", folder=tmp_path)
    assert caught.value.code == "hub_failed"
    assert caught.value.where == source


def test_a_commit_is_not_asked_for_and_a_branch_is(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def snapshot(_name: str, _revision: str | None, *, offline: bool) -> Path:
        asked.append(offline)
        return hub

    monkeypatch.setattr(sources, "_snapshot", snapshot)
    locate_model(f"hf:org/name@{COMMIT}", cache=tmp_path, folder=tmp_path)
    assert asked == [True]
    locate_model("hf:org/name@main", cache=tmp_path, folder=tmp_path)
    assert asked == [True, False]


def test_the_digest_of_a_large_file_is_remembered_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    compute: Callable[[Path], str] = file_digest

    def counted(file: Path) -> str:
        hashed.append(file.name)
        return compute(file)

    monkeypatch.setattr(sources, "file_digest", counted)
    monkeypatch.setattr(sources, "_LARGE_BYTES", 10)
    (tmp_path / "m.gguf").write_bytes(b"x" * 100)

    def digest() -> str:
        return locate_model("path:m.gguf", cache=tmp_path / "cache", folder=tmp_path).digest

    first = digest()
    assert digest() == first
    assert hashed == ["m.gguf"]
    (tmp_path / "m.gguf").write_bytes(b"y" * 100)
    os.utime(tmp_path / "m.gguf", ns=(1, 1))
    assert digest() != first
    assert hashed == ["m.gguf", "m.gguf"]


def test_two_gguf_files_are_told_apart_by_name(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(name.encode())
    with pytest.raises(SaerlError, match=r"path:FILE\.gguf") as caught:
        locate_model(f"path:{tmp_path}", cache=tmp_path, folder=tmp_path)
    assert caught.value.code == "model_ambiguous"
    assert locate_model("path:b.gguf", cache=tmp_path, folder=tmp_path).gguf_file == "b.gguf"
