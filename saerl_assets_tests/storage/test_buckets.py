"""Folders in a bucket: whole or not there, in a folder of this machine and in an S3 server on loopback."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from saerl_assets.automation.summary import run_version
from saerl_assets.domain.errors import SaerlError
from saerl_assets.resources.home import HomeResource
from saerl_assets.storage.artifacts import ArtifactStore
from saerl_assets.storage.buckets import MANIFEST, Bucket
from saerl_assets.storage.home import Home, find_home
from saerl_assets.storage.shards import ShardStore
from saerl_assets_tests.servers import BUCKET, running_s3
from saerl_assets_tests.tiny import KEY, TinyWorld

KILLED = """
import os, signal, sys
from pathlib import Path
from saerl_assets.storage import buckets

at = buckets.Bucket._at

def die(self, *parts):
    if parts[-1] == buckets.MANIFEST:
        os.kill(os.getpid(), signal.SIGKILL)
    return at(self, *parts)

buckets.Bucket.has = lambda self, name: False
buckets.Bucket._at = die
buckets.Bucket(sys.argv[1]).put("sae/one", Path(sys.argv[2]))
"""
"""A writer that dies when all files are there but the one that says so."""


@pytest.fixture(params=["file", "s3"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket."""
    if request.param == "file":
        yield Bucket(str(tmp_path / "bucket"))
        return
    with running_s3() as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        yield Bucket(f"s3://{BUCKET}/{tmp_path.name}/home")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of an SAE and one below a folder."""
    made = tmp_path / "made"
    (made / "more").mkdir(parents=True)
    (made / "weights").write_bytes(os.urandom(1000))
    (made / "more" / "cfg.json").write_text("{}")
    return made


def same(one: Path, other: Path) -> bool:
    def content(place: Path) -> dict[str, bytes]:
        return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}

    return content(one) == content(other)


def test_a_folder_comes_back_as_it_was_put(bucket: Bucket, folder: Path, tmp_path: Path) -> None:
    assert not bucket.has("sae/one")
    assert not bucket.fetch("sae/one", tmp_path / "back")
    assert not (tmp_path / "back").exists()
    bucket.put("sae/one", folder)
    bucket.put("sae/one", folder)
    bucket.put("sae/two", folder)
    assert bucket.names("sae") == {"one", "two"}
    assert bucket.fetch("sae/one", tmp_path / "back")
    assert same(tmp_path / "back", folder)
    assert set(json.loads(bucket.text(f"sae/one/{MANIFEST}") or "")) == {"weights", "more/cfg.json"}
    bucket.remove("sae/one")
    bucket.remove("sae/never")
    assert bucket.names("sae") == {"two"}


def test_small_objects(bucket: Bucket) -> None:
    assert bucket.text("recipes/one.json") is None
    bucket.put_text("recipes/one.json", "{}")
    assert bucket.text("recipes/one.json") == "{}"


def test_a_writer_that_is_killed_before_the_last_object_leaves_nothing_that_is_there(
    bucket: Bucket, folder: Path, tmp_path: Path
) -> None:
    died = subprocess.run([sys.executable, "-c", KILLED, bucket.url, str(folder)], check=False, timeout=120)
    assert died.returncode == -signal.SIGKILL
    assert bucket.text("sae/one/more/cfg.json") == "{}", "otherwise this shows nothing"
    assert not bucket.has("sae/one")
    assert bucket.names("sae") == set()
    bucket.put("sae/one", folder)
    assert bucket.fetch("sae/one", tmp_path / "back")
    assert same(tmp_path / "back", folder)


def test_an_object_that_was_changed_or_lost_is_refused(bucket: Bucket, folder: Path, tmp_path: Path) -> None:
    bucket.put("sae/one", folder)
    bucket.put_text("sae/one/weights", "other")
    with pytest.raises(SaerlError, match=r"sae/one/weights: The object is not what was put there"):
        bucket.fetch("sae/one", tmp_path / "back")
    bucket.remove("sae/one/weights")
    with pytest.raises(SaerlError, match="bucket_changed"):
        bucket.fetch("sae/one", tmp_path / "back")
    assert not (tmp_path / "back").exists(), "nothing half fetched is taken for whole"


@pytest.mark.parametrize("bucket", ["file"], indirect=True)
@pytest.mark.parametrize("written", ['{"weights": "00', "[]", "null", "7", ""])
def test_a_list_that_was_not_written_whole_is_none(bucket: Bucket, folder: Path, tmp_path: Path, written: str) -> None:
    bucket.put("sae/one", folder)
    bucket.put_text(f"sae/one/{MANIFEST}", written)
    assert not bucket.fetch("sae/one", tmp_path / "back")
    bucket.put("sae/one", folder)
    assert bucket.fetch("sae/one", tmp_path / "back")
    assert same(tmp_path / "back", folder)


@pytest.mark.parametrize("bucket", ["file"], indirect=True)
@pytest.mark.parametrize("name", ["../out", "more/../../out", "/etc/out"])
def test_a_list_cannot_name_files_outside_of_its_folder(
    bucket: Bucket, folder: Path, tmp_path: Path, name: str
) -> None:
    bucket.put("sae/one", folder)
    bucket.put_text("sae/out", "from elsewhere")
    bucket.put_text(f"sae/one/{MANIFEST}", json.dumps({name: hashlib.sha256(b"from elsewhere").hexdigest()}))
    with pytest.raises(SaerlError, match="bucket_changed"):
        bucket.fetch("sae/one", tmp_path / "home" / "back")
    assert not (tmp_path / "home").exists()


def test_what_was_lost_in_the_bucket_is_put_there_again(bucket: Bucket, folder: Path, tmp_path: Path) -> None:
    """As the message says: delete the object, and have the asset make it again."""
    one, two = (ArtifactStore(Home(tmp_path / name, bucket=bucket).create()) for name in ("one", "two"))
    digest, path = one.put("sae", folder)
    bucket.put_text(f"{path}/weights", "other")
    with pytest.raises(SaerlError, match="bucket_changed"):
        two.find("sae", digest)
    bucket.remove(f"{path}/weights")
    assert one.find("sae", digest).is_dir()
    assert same(two.find("sae", digest), folder)


def test_an_artefact_that_is_older_than_the_bucket_is_put_there_when_it_is_used(
    bucket: Bucket, folder: Path, tmp_path: Path
) -> None:
    digest, path = ArtifactStore(Home(tmp_path / "one").create()).put("sae", folder)
    assert not bucket.has(path)
    ArtifactStore(Home(tmp_path / "one", bucket=bucket)).find("sae", digest)
    assert same(ArtifactStore(Home(tmp_path / "two", bucket=bucket).create()).find("sae", digest), folder)


def test_an_artefact_is_fetched_by_a_home_that_never_had_it(bucket: Bucket, folder: Path, tmp_path: Path) -> None:
    one, two = (ArtifactStore(Home(tmp_path / name, bucket=bucket).create()) for name in ("one", "two"))
    digest, _ = one.put("sae", folder)
    one.remember("sae", "recipe", {"digest": digest})
    assert two.recall("sae", "recipe") == {"digest": digest}
    assert same(two.find("sae", digest), folder)
    with pytest.raises(SaerlError, match="artifact_missing"):
        two.find("sae", "0" * 64)


def test_another_machine_goes_on_with_the_shards(bucket: Bucket, tmp_path: Path) -> None:
    rows = {"rows": pa.table({"text_id": ["a", "b"]})}
    homes = [Home(tmp_path / name, bucket=bucket).create() for name in ("one", "two")]
    stores = [ShardStore.of(home, home.work("x-v1") / "shards" / "e") for home in homes]
    stores[0].write("first", rows)
    stores[0].write("second", rows)
    bucket.put_text("work/x-v1/shards/e/second/rows.parquet", "damaged")
    assert stores[1].has("first", ["rows"])
    assert not stores[1].has("second", ["rows"]), "it is made again"
    assert stores[1].finished(["rows"]) == ["first"]
    stores[1].write("second", rows)
    third = Home(tmp_path / "three", bucket=bucket).create()
    assert ShardStore.of(third, third.work("x-v1") / "shards" / "e").finished(["rows"]) == ["first", "second"]
    ShardStore.of(homes[1], homes[1].work("x-v1") / "shards").remove()
    assert bucket.names("work/x-v1/shards/e") == set()


@pytest.mark.slow
@pytest.mark.parametrize("bucket", ["s3"], indirect=True)
def test_a_version_is_built_on_from_a_home_that_has_nothing_but_the_tables(
    bucket: Bucket, tiny_world: TinyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAERL_BUCKET", bucket.url)
    first, second = (HomeResource(root=str(tmp_path / name)) for name in ("first", "second"))
    tiny_world.register(first)
    done = run_version(first, KEY)
    assert done.success, done.failure
    assert bucket.names(f"work/{KEY}/shards") == set(), "shards go once their rows are stored"
    shutil.copy(first.open().warehouse, second.open().warehouse)
    tiny_world.register(second, "later-v1", parent=KEY, sae=None)
    later = run_version(second, "later-v1")
    assert later.success, later.failure
    (made,) = second.warehouse().rows("sae_weights", dataset_version="later-v1")["digest"].unique()
    assert [made] == first.warehouse().rows("sae_weights", dataset_version=KEY)["digest"].unique().to_list()
    assert (second.open().artifacts / "sae" / made).is_dir(), "it was fetched"
    assert second.warehouse().rows("artifacts", dataset_version="later-v1")["intact"].all()


def test_a_store_that_is_not_known_or_lacks_its_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SaerlError, match="bucket_unsupported"):
        Bucket("floppy://a").has("x")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(SaerlError, match="pip install gcsfs"):
        Bucket("gs://a/b").has("x")


def test_a_store_that_does_not_answer_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ENDPOINT_URL": "http://127.0.0.1:1", "ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "y"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    bucket = Bucket("s3://nowhere/x")
    store = ArtifactStore(Home(tmp_path / "home", bucket=bucket).create())
    for ask in (lambda: bucket.has("x"), lambda: store.recall("sae", "recipe"), lambda: store.find("sae", "0" * 64)):
        with pytest.raises(SaerlError, match="bucket_refused") as caught:
            ask()
        assert caught.value.passing, "an SAE is not trained anew because the store is away"


def test_a_setting_with_a_key_in_it_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(SaerlError, match="AWS_ACCESS_KEY_ID") as caught:
        find_home(tmp_path / "home", bucket="s3://AKIA:quiet@bucket/x")
    assert "quiet" not in str(caught.value)


def test_the_setting_comes_from_the_environment_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_home(tmp_path / "home").bucket is None
    monkeypatch.setenv("SAERL_BUCKET", "s3://bucket/team/")
    assert find_home(tmp_path / "home").bucket == Bucket("s3://bucket/team")
    assert find_home(tmp_path / "home", bucket="../shared").bucket == Bucket(str(tmp_path / "shared"))
