"""The catalogue when what it keeps, or what it points at, is no longer what was registered."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.spec import digest, parse_spec
from saerl_assets.storage.catalog import Catalog
from saerl_assets.storage.home import Home
from saerl_assets.storage.sources import resolve_source
from saerl_assets.storage.warehouse import Warehouse

KEY = "sums-v1"
SPEC = f"""
key = "{KEY}"
[data]
source = "path:data.jsonl"
[labels.level]
column = "level"
source = "path:labels.jsonl"
"""


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """With one version, whose files lie in the folder of the test."""
    (tmp_path / "data.jsonl").write_text('{"prompt": "a"}\n')
    (tmp_path / "labels.jsonl").write_text('{"prompt": "a", "level": 1}\n')
    made = Catalog(Warehouse(Home(tmp_path / "home").create()))
    made.register(parse_spec(SPEC, "x.toml"), tmp_path)
    return made


def write(catalog: Catalog, column: str, change: Callable[[str], str]) -> None:
    """Changes the version's row behind the catalogue's back."""
    with catalog.warehouse.writing("a test") as connection:
        found = connection.table("versions").pl()[column].item()
        statement = {
            "spec": "UPDATE versions SET spec = ?",
            "spec_digest": "UPDATE versions SET spec_digest = ?",
            "resolved": "UPDATE versions SET resolved = ?",
        }[column]
        connection.execute(statement, [change(found)])


def edited(change: Callable[[dict[str, object]], object]) -> Callable[[str], str]:
    def change_text(text: str) -> str:
        document = json.loads(text)
        change(document)
        return json.dumps(document)

    return change_text


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("spec", lambda text: text[: len(text) // 2]),
        ("spec", lambda text: text.replace('"seed":0', '"seed":1')),
        ("spec", lambda _: ""),
        ("spec", lambda _: "[1, 2]"),
        ("spec", lambda _: "[" * 100_000),
        ("spec_digest", lambda _: "0" * 64),
        ("resolved", lambda text: text[:-5]),
        ("resolved", lambda _: "null"),
        ("resolved", edited(lambda document: document.pop("folder"))),
        ("resolved", edited(lambda document: document.update(sources={"data": {"kind": "jsonl"}}))),
        ("resolved", edited(lambda document: document.update(sources=[1]))),
        ("resolved", edited(lambda document: document.update(choices=[1]))),
    ],
)
def test_a_damaged_version_is_told_and_can_be_deleted(
    catalog: Catalog, tmp_path: Path, column: str, change: Callable[[str], str]
) -> None:
    write(catalog, column, change)
    with pytest.raises(SaerlError) as caught:
        catalog.get(KEY)
    assert caught.value.code == "version_damaged"
    assert f"saerl delete {KEY}" in caught.value.remedy
    with pytest.raises(SaerlError, match="version_damaged"):
        catalog.register(parse_spec(SPEC, "x.toml"), tmp_path)
    assert catalog.keys() == [KEY]
    catalog.delete(KEY)
    assert catalog.register(parse_spec(SPEC, "x.toml"), tmp_path).key == KEY


def test_a_whole_spec_of_another_release_is_told_apart_from_a_damaged_one(catalog: Catalog) -> None:
    from saerl_assets.domain.spec import digest

    with catalog.warehouse.writing("a test") as connection:
        spec = json.loads(connection.table("versions").pl()["spec"].item()) | {"a_later_setting": 1}
        connection.execute("UPDATE versions SET spec = ?, spec_digest = ?", [json.dumps(spec), digest(spec)])
    with pytest.raises(SaerlError, match="version_other_release"):
        catalog.get(KEY)


@pytest.mark.parametrize(("name", "file"), [("data", "data.jsonl"), ("labels.level", "labels.jsonl")])
def test_a_source_that_has_changed_is_refused_with_the_difference(
    catalog: Catalog, tmp_path: Path, name: str, file: str
) -> None:
    version = catalog.get(KEY)
    catalog.verify_sources(version)
    then = version.sources[name]
    with (tmp_path / file).open("a") as opened:
        opened.write('{"prompt": "b", "level": 2}\n')
    now = resolve_source(f"path:{file}", tmp_path)
    with pytest.raises(SaerlError) as caught:
        catalog.verify_sources(version)
    error = caught.value
    assert (error.code, error.where) == ("source_changed", str(tmp_path / file))
    for part in (name, f"{then.n_bytes} bytes", f"{now.n_bytes} bytes", then.digest[:12], now.digest[:12]):
        assert part in error.problem
    assert "Put the old file back" in error.remedy
    assert "version of its own" in error.remedy
    with pytest.raises(SaerlError, match="another data"):
        catalog.register(parse_spec(SPEC, "x.toml"), tmp_path)


def test_a_spec_that_an_earlier_release_registered_is_the_same_though_it_knew_fewer_settings(
    catalog: Catalog, tmp_path: Path
) -> None:
    row = catalog.warehouse.rows("versions", dataset_version=KEY).row(0, named=True)
    document = json.loads(row["spec"])
    del document["difficulty"]["max_rank"]
    with catalog.warehouse.writing("as an earlier release wrote it") as connection:
        connection.execute("UPDATE versions SET spec = ?, spec_digest = ?", [json.dumps(document), digest(document)])
    again = catalog.register(parse_spec(SPEC, "x.toml"), tmp_path)
    assert again.digest == digest(document) != row["spec_digest"]
    with pytest.raises(SaerlError, match="another spec"):
        catalog.register(parse_spec(SPEC + "[difficulty]\nmax_rank = 0.5\n", "x.toml"), tmp_path)


def test_a_source_is_told_by_its_bytes_and_not_by_its_time(catalog: Catalog, tmp_path: Path) -> None:
    version = catalog.get(KEY)
    content = (tmp_path / "data.jsonl").read_bytes()
    (tmp_path / "data.jsonl").unlink()
    with pytest.raises(SaerlError, match="source_missing"):
        catalog.verify_sources(version)
    (tmp_path / "data.jsonl").write_bytes(content)
    catalog.verify_sources(version)
    (tmp_path / "data.jsonl").write_bytes(content.replace(b"a", b"b"))
    with pytest.raises(SaerlError, match="source_changed"):
        catalog.verify_sources(version)
