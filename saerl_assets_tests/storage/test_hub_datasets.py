"""Datasets of the hub and in folders, without a network."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from saerl_assets.domain.errors import SaerlError
from saerl_assets.storage.hub_datasets import HubName, read_hub, resolve_commit
from saerl_assets.storage.sources import ResolvedSource, estimate_rows, read_source, resolve_source

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("org/name", HubName("org/name", "main", None, "train")),
        ("org/name@v1", HubName("org/name", "v1", None, "train")),
        ("org/name@refs/convert/parquet#test", HubName("org/name", "refs/convert/parquet", None, "test")),
        ("openai/gsm8k#main/test", HubName("openai/gsm8k", "main", "main", "test")),
    ],
)
def test_names_have_revision_configuration_and_split(text: str, name: HubName) -> None:
    assert HubName.parse(text) == name
    assert HubName.parse(name.pinned(COMMIT)) == HubName(name.name, COMMIT, name.configuration, name.split)


class _Offline:
    def dataset_info(self, name: str, revision: str) -> Any:  # noqa: ANN401
        message = f"no network for {name}@{revision}"
        raise ConnectionError(message)


class _Online:
    def dataset_info(self, name: str, revision: str) -> Any:  # noqa: ANN401
        assert (name, revision) == ("org/name", "main")
        return SimpleNamespace(sha=COMMIT)


def hub(monkeypatch: pytest.MonkeyPatch, api: type) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "HfApi", api)


def test_a_revision_is_resolved_to_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, _Online)
    assert resolve_source("hf:org/name#test", tmp_path) == ResolvedSource("hf", f"org/name@{COMMIT}#test", COMMIT, 0)


def test_a_commit_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, _Offline)
    assert resolve_commit(HubName.parse(f"org/name@{COMMIT}")) == COMMIT


def test_without_a_network_the_local_cache_answers_or_the_error_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub(monkeypatch, _Offline)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SaerlError, match="hub_offline") as caught:
        resolve_commit(HubName.parse("org/name"))
    assert caught.value.where == "hf:org/name@main"
    references = tmp_path / "datasets--org--name" / "refs"
    references.mkdir(parents=True)
    (references / "main").write_text(COMMIT)
    assert resolve_commit(HubName.parse("org/name")) == COMMIT


def test_a_name_that_the_hub_does_not_know_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import HFValidationError

    class Refusing:
        def dataset_info(self, name: str, revision: str) -> Any:  # noqa: ANN401
            raise HFValidationError(name + revision)

    hub(monkeypatch, Refusing)
    with pytest.raises(SaerlError, match="hub_unknown"):
        resolve_commit(HubName.parse("a/b/c"))


def test_a_missing_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(SaerlError, match="pip install datasets"):
        list(read_hub(f"org/name@{COMMIT}#train"))


def test_rows_of_the_hub_are_read_at_their_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[object] = []

    def load_dataset(*names: str | None, **options: str) -> datasets.Dataset:
        asked.append((names, options))
        return datasets.Dataset.from_list([{"prompt": "a"}, {"prompt": None}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    rows = list(read_source(ResolvedSource("hf", f"openai/gsm8k@{COMMIT}#main/test", COMMIT, 0)))
    assert asked == [(("openai/gsm8k", "main"), {"split": "test", "revision": COMMIT})]
    assert [(row.position, row.line, row.value) for row in rows] == [
        (0, 1, {"prompt": "a"}),
        (1, 2, {"prompt": None}),
    ]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for what `datasets` keeps, in place of the user's own."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path


def test_a_folder_with_a_checkout_is_a_source(cache: Path) -> None:
    data = cache / "checkout" / "data"
    data.mkdir(parents=True)
    rows = [{"prompt": [{"role": "user", "content": f"p{n}"}], "info": {"n": n}} for n in range(3)]
    pl.DataFrame(rows).write_parquet(data / "train-00000-of-00001.parquet")
    pl.DataFrame(rows[:1]).write_parquet(data / "test-00000-of-00001.parquet")
    source = resolve_source("hf:checkout", cache)
    assert (source.kind, estimate_rows(source)) == ("hf_folder", 0)
    found = list(read_source(source))
    assert [row.value for row in found] == rows
    assert [row.line for row in found] == [1, 2, 3]
    assert len(list(read_source(resolve_source("hf:checkout#test", cache)))) == 1
    with pytest.raises(SaerlError, match="hub_unreadable"):
        list(read_source(resolve_source("hf:checkout#validation", cache)))


def test_a_folder_that_was_saved_is_a_source(cache: Path) -> None:
    from datasets import Dataset, DatasetDict, disable_progress_bars

    disable_progress_bars()
    one = Dataset.from_list([{"prompt": "a"}, {"prompt": "b"}])
    one.save_to_disk(str(cache / "one"))
    DatasetDict({"train": one, "test": one.select([0])}).save_to_disk(str(cache / "several"))
    assert [row.value for row in read_source(resolve_source("hf:one", cache))] == [
        {"prompt": "a"},
        {"prompt": "b"},
    ]
    assert len(list(read_source(resolve_source("hf:several#test", cache)))) == 1
    with pytest.raises(SaerlError, match="there are train, test"):
        list(read_source(resolve_source("hf:several#dev", cache)))
