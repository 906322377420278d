"""Artefacts by digest, shards that survive damage, and the home they are in."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from saerl_assets.domain.errors import SaerlError
from saerl_assets.storage.artifacts import ArtifactStore
from saerl_assets.storage.home import Home, find_home
from saerl_assets.storage.shards import ShardStore


def test_an_artifact_that_was_changed_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "weights").write_text("w")
    store = ArtifactStore(Home(tmp_path / "home").create())
    digest, path = store.put("sae", source)
    assert store.put("sae", source) == (digest, path)
    assert (store.find("sae", digest) / "weights").read_text() == "w"
    (tmp_path / "home" / path / "weights").write_text("x")
    with pytest.raises(SaerlError, match="changed"):
        store.find("sae", digest)
    with pytest.raises(SaerlError, match="gone"):
        store.find("sae", "0" * 64)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "of another shard", "of another encoder", "missing"])
def test_a_damaged_shard_is_computed_again(tmp_path: Path, damage: str) -> None:
    store = ShardStore(tmp_path / "shards")
    rows = {"prompt_features": pa.table({"text_id": ["a", "b"]})}
    store.write("one", rows)
    store.write("two", rows)
    assert store.has("one", ["prompt_features"])
    file = store.files("prompt_features", ["one"])[0]
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-20])
    elif damage == "of another shard":
        file.write_bytes(store.files("prompt_features", ["two"])[0].read_bytes())
    elif damage == "of another encoder":
        other = ShardStore(tmp_path / "other")
        other.write("one", rows)
        file.write_bytes(other.files("prompt_features", ["one"])[0].read_bytes())
    elif damage == "flipped":
        content = bytearray(file.read_bytes())
        content[content.index(b"ab") if b"ab" in content else 40] ^= 0xFF
        file.write_bytes(content)
    else:
        file.unlink()
    assert not store.has("one", ["prompt_features"])
    assert store.has("two", ["prompt_features"])


def test_the_home_is_found_upwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAERL_HOME", raising=False)
    (tmp_path / ".saerl").mkdir()
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert find_home().root == tmp_path / ".saerl"
    monkeypatch.setenv("SAERL_HOME", str(tmp_path / "other"))
    assert find_home().root == tmp_path / "other"
    assert find_home(tmp_path / "named").root == tmp_path / "named"


def test_a_home_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SaerlError, match="--home") as caught:
        Home(tmp_path / "file" / "home").create()
    assert caught.value.code == "home_not_writable"


def test_a_new_home_brings_dagsters_settings(tmp_path: Path) -> None:
    home = Home(tmp_path / "home").create()
    assert "telemetry" in (home.dagster / "dagster.yaml").read_text()
