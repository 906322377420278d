"""From files in the inbox and sources that change to registered versions: once, in order, killed at any step."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from saerl_assets.automation.summary import remove_files
from saerl_assets.domain.errors import SaerlError
from saerl_assets.resources.arrivals import Arrivals, Outcome, take_in
from saerl_assets.resources.home import HomeResource
from saerl_assets.storage.catalog import Catalog
from saerl_assets.storage.inbox import Inbox
from saerl_assets.storage.notes import read_notes
from saerl_assets_tests.tiny import as_toml, tiny_spec

ROWS = [{"prompt": f"How much is {n} and {n + 1}?", "answer": str(2 * n + 1)} for n in range(30)]


class World:
    """A home with its inbox, and the partitions that were added."""

    def __init__(self, home: HomeResource) -> None:
        self.home = home
        self.partitions: list[str] = []
        self.inbox = Inbox(home.open())

    def put(self, name: str, rows: list[dict[str, str]] | str = ROWS) -> Path:
        text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
        path = self.inbox.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def take(self, *names: str, watched: list[str] | None = None) -> list[Outcome]:
        arrivals = Arrivals(self.home, self.partitions.append, lambda _: None)
        return list(take_in(arrivals, list(names), watched or []))

    @property
    def keys(self) -> list[str]:
        return self.home.catalog().keys()

    def rejected(self) -> dict[str, str]:
        """Names of the files that were set aside, with their reasons."""
        folder = self.inbox.folder / "rejected"
        reasons = sorted(folder.glob("*.reason.txt")) if folder.is_dir() else []
        return {path.name.removesuffix(".reason.txt"): path.read_text(encoding="utf-8") for path in reasons}


@pytest.fixture
def world(fresh_home: HomeResource) -> World:
    return World(fresh_home)


def spec(key: str, **data: object) -> str:
    return as_toml(tiny_spec(key, labels=None, data={"source": "path:x.jsonl", "prompt": "prompt", **data}))


def test_a_file_without_a_spec_becomes_a_version_with_a_drafted_one(world: World) -> None:
    world.put("My Sums.jsonl")
    (outcome,) = world.take("My Sums.jsonl")
    assert outcome.key == "my-sums-v1"
    version = world.home.version("my-sums-v1")
    taken = world.inbox.folder / "taken" / "my-sums-v1"
    assert version.sources["data"].location == str(taken / "My Sums.jsonl")
    assert version.spec.data.answer == "answer"
    assert not (world.inbox.folder / "My Sums.jsonl").exists()
    assert "Drafted from the first 30 rows" in (taken / "my-sums-v1.toml").read_text()
    assert world.partitions == ["my-sums-v1"]
    assert [(arrival.key, arrival.number) for arrival in world.inbox.arrivals()] == [("my-sums-v1", 1)]
    world.home.catalog().verify_sources(version)


def test_a_second_file_of_the_name_is_the_next_version_with_the_first_as_its_parent(world: World) -> None:
    world.put("sums.jsonl")
    world.take("sums.jsonl")
    world.put("sums.jsonl", ROWS[:20])
    world.take("sums.jsonl")
    assert world.keys == ["sums-v1", "sums-v2"]
    assert world.home.version("sums-v2").spec.parent == "sums-v1"
    assert [arrival.key for arrival in world.inbox.arrivals()] == ["sums-v1", "sums-v2"]


def test_the_default_spec_is_that_of_files_without_their_own(world: World) -> None:
    text = spec("stream-v1").replace('"prompt"\n', '"prompt"\n', 1)
    world.put("default.toml", text.replace("batch_size = 8", "batch_size = 4"))
    world.put("monday.jsonl")
    world.put("tuesday.jsonl", ROWS[:25])
    assert [outcome.key for outcome in world.take("monday.jsonl", "tuesday.jsonl")] == ["stream-v1", "stream-v2"]
    assert world.home.version("stream-v2").spec.batches.batch_size == 4
    assert world.home.version("stream-v2").spec.parent == "stream-v1"
    assert (world.inbox.folder / "default.toml").exists()


def test_a_spec_beside_the_file_is_the_version_that_it_names_with_the_files_that_it_names(world: World) -> None:
    document = tiny_spec("own-v3", data={"source": "path:anything.jsonl", "prompt": "prompt"})
    document["labels"] = {"difficulty": {"column": "hard", "source": "path:hard.jsonl", "prompt": "prompt"}}
    world.put("own.toml", as_toml(document))
    world.put("hard.jsonl", [{"prompt": ROWS[0]["prompt"], "hard": "3"}])
    world.put("own.jsonl")
    assert [seen.name for seen in world.inbox.waiting()] == ["own.jsonl"], "a label file is no data file"
    (outcome,) = world.take("own.jsonl")
    assert outcome.key == "own-v3"
    version = world.home.version("own-v3")
    taken = world.inbox.folder / "taken" / "own-v3"
    assert {name: Path(source.location).name for name, source in version.sources.items()} == {
        "data": "own.jsonl",
        "labels.difficulty": "hard.jsonl",
    }
    assert sorted(path.name for path in taken.iterdir()) == ["arrival.json", "hard.jsonl", "own.jsonl", "own.toml"]
    assert list(world.inbox.waiting()) == []


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("notes.docx", "PK\x03\x04 and so on", "source_type"),
        ("empty.jsonl", "", "source_empty"),
        ("broken.jsonl", "{not json\n{nor this\n", "source_unreadable"),
        ("numbers.csv", "a,b\n1,2\n3,4\n", "no_prompt_column"),
        ("list.json", '{"a": ', "source_broken"),
        ("table.parquet", "PAR1 is not all of it", "source_broken"),
    ],
)
def test_a_file_that_cannot_be_read_is_set_aside_with_its_reason_and_blocks_nobody(
    world: World, name: str, content: str, code: str
) -> None:
    world.put(name, content)
    world.put("good.jsonl")
    bad, good = world.take(name, "good.jsonl")
    assert (bad.key, good.key) == (None, "good-v1")
    reason = world.rejected()[name]
    assert f"code: {code}\n" in reason
    assert "what to do: " in reason
    assert (world.inbox.folder / "rejected" / name).read_text() == content
    assert [seen.name for seen in world.inbox.waiting()] == []


def test_a_bad_spec_is_set_aside_with_its_file_and_names_the_line(world: World) -> None:
    world.put("own.toml", spec("own-v1").replace("batch_size", "bach_size"))
    world.put("own.jsonl")
    (outcome,) = world.take("own.jsonl")
    assert outcome.key is None
    assert "own.toml:" in world.rejected()["own.jsonl"]
    assert "bach_size" in world.rejected()["own.jsonl"]
    assert sorted(path.name for path in (world.inbox.folder / "rejected").iterdir()) == [
        "own.jsonl",
        "own.jsonl.reason.txt",
        "own.toml",
    ]


def test_the_same_bytes_again_make_no_second_version(world: World) -> None:
    world.put("sums.jsonl")
    world.take("sums.jsonl")
    world.put("sums.jsonl")
    (outcome,) = world.take("sums.jsonl")
    assert outcome.key is None
    assert "already_taken" in world.rejected()["sums.jsonl"]
    assert "sums-v1" in world.rejected()["sums.jsonl"]
    assert world.keys == ["sums-v1"]


def test_two_rejected_files_of_one_name_are_both_kept(world: World) -> None:
    for _ in range(2):
        world.put("empty.jsonl", "")
        world.take("empty.jsonl")
    assert sorted(world.rejected()) == ["empty.2.jsonl", "empty.jsonl"]


def test_a_key_that_is_registered_is_refused_with_the_next_one(world: World) -> None:
    for rows in (ROWS, ROWS[:10]):
        world.put("own.toml", spec("own-v1"))
        world.put("own.jsonl", rows)
        world.take("own.jsonl")
    assert world.keys == ["own-v1"]
    assert "'own-v2'" in world.rejected()["own.jsonl"]


def test_an_unknown_parent_is_refused_before_anything_is_moved(world: World) -> None:
    world.put("own.toml", 'parent = "nobody-v1"\n' + spec("own-v1"))
    world.put("own.jsonl")
    world.take("own.jsonl")
    assert "code: unknown_parent" in world.rejected()["own.jsonl"]
    assert not (world.inbox.folder / "taken" / "own-v1").exists()


def test_a_link_is_not_followed(world: World, tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_text(json.dumps(ROWS[0]))
    (world.inbox.folder / "innocent.jsonl").symlink_to(tmp_path / "secret.jsonl")
    world.take("innocent.jsonl")
    assert "code: source_is_link" in world.rejected()["innocent.jsonl"]
    assert (tmp_path / "secret.jsonl").exists()
    assert world.keys == []


@pytest.mark.parametrize("name", ["x.jsonl.part", ".hidden.jsonl", "~lock.jsonl", "y.crdownload", "z.jsonl~"])
def test_unfinished_names_are_not_there_yet(world: World, name: str) -> None:
    world.put(name)
    assert list(world.inbox.waiting()) == []


@pytest.mark.parametrize("name", ["it's; DROP TABLE versions.jsonl", "..jsonl", "ünï cöde.jsonl", "a%2Fb.jsonl"])
def test_hostile_names_stay_in_the_inbox(world: World, name: str) -> None:
    world.put(name)
    names = [seen.name for seen in world.inbox.waiting()]
    outcomes = world.take(*names)
    for outcome in outcomes:
        assert outcome.key is not None
        location = Path(world.home.version(outcome.key).sources["data"].location)
        assert location.is_relative_to(world.inbox.folder / "taken" / outcome.key)


@pytest.mark.parametrize(
    "name",
    [b"arrival.json", b"a" * 249 + b".jsonl", b"x." + b"j" * 240, b"\xff.jsonl", b"\xed\xa0\x80.jsonl"],
    ids=["our own", "long", "long suffix", "not utf-8", "half a pair"],
)
def test_a_name_that_cannot_be_kept_is_set_aside_and_blocks_nobody(world: World, name: bytes) -> None:
    content = json.dumps(ROWS[0])
    (world.inbox.folder / os.fsdecode(name)).write_text(content)
    world.put("good.jsonl")
    outcomes = {outcome.name: outcome for outcome in world.take(*(seen.name for seen in world.inbox.waiting()))}
    assert outcomes.pop("good.jsonl").key == "good-v1"
    (bad,) = outcomes.values()
    assert bad.key is None
    ((kept, reason),) = world.rejected().items()
    assert "code: name_refused" in reason
    assert (world.inbox.folder / "rejected" / kept).read_text() == content
    assert world.inbox.waiting() == []
    assert [path.name for path in (world.inbox.folder / "taken").iterdir()] == ["good-v1"]


@pytest.mark.parametrize(
    "named",
    ["a" * 5_000, "..", ".lock", "labels", "../../warehouse.duckdb", "a\\b", "arrival.json"],
)
def test_a_spec_moves_no_file_but_its_own(world: World, named: str) -> None:
    document = tiny_spec("own-v1", data={"source": "path:x.jsonl", "prompt": "prompt"})
    document["labels"] = {"difficulty": {"column": "hard", "source": f"path:{named}"}}
    world.put("own.toml", as_toml(document))
    world.put("own.jsonl")
    world.put("arrival.json", '{"prompt": "mine", "hard": 1}\n')
    world.put(".lock", "")
    assert [seen.name for seen in world.inbox.waiting() if seen.name != "arrival.json"] == ["own.jsonl"]
    (outcome,) = world.take("own.jsonl")
    assert outcome.key is None, "there is no such data"
    assert (world.inbox.folder / ".lock").exists()
    rest = {path.name for path in (world.inbox.folder / "rejected").iterdir()}
    assert rest - {"arrival.json"} == {"own.jsonl", "own.jsonl.reason.txt", "own.toml"}
    world.put("good.jsonl")
    assert world.take("good.jsonl")[0].key == "good-v1"


def test_a_spec_that_is_nested_too_deeply_blocks_nobody(world: World) -> None:
    world.put("deep.toml", "a = " + "[" * 5_000)
    world.put("deep.jsonl")
    world.put("good.jsonl")
    bad, good = world.take(*(seen.name for seen in world.inbox.waiting()))
    assert (bad.key, good.key) == (None, "good-v1")
    assert "code: spec_syntax" in world.rejected()["deep.jsonl"]


@pytest.mark.parametrize("name", ["own.toml", "hard.jsonl"])
def test_a_link_beside_the_data_is_not_followed_either(world: World, tmp_path: Path, name: str) -> None:
    document = tiny_spec("own-v1", data={"source": "path:x.jsonl", "prompt": "prompt"})
    document["labels"] = {"difficulty": {"column": "hard", "source": "path:hard.jsonl", "prompt": "prompt"}}
    world.put("own.toml", as_toml(document))
    world.put("hard.jsonl", [{"prompt": ROWS[0]["prompt"], "hard": "3"}])
    world.put("own.jsonl")
    (world.inbox.folder / name).rename(tmp_path / name)
    (world.inbox.folder / name).symlink_to(tmp_path / name)
    (outcome,) = world.take("own.jsonl")
    assert outcome.key is None
    assert "code: source_is_link" in world.rejected()["own.jsonl"]
    assert (tmp_path / name).exists()


def test_what_was_begun_and_cannot_be_read_is_told(world: World) -> None:
    world.put("sums.jsonl")
    (world.inbox.folder / ".taking.json").write_text("[1, 2")
    with pytest.raises(SaerlError, match="inbox_damaged"):
        world.take("sums.jsonl")
    (world.inbox.folder / ".taking.json").unlink()
    assert world.take("sums.jsonl")[0].key == "sums-v1"


@pytest.mark.parametrize(
    "training", ["..", ".", "../..", "/etc", "a/b", "it's; --", "\n", "ünï", "a\x00b", "%2E%2E", "-"]
)
def test_a_trainings_name_is_one_folder_whatever_it_is(world: World, tmp_path: Path, training: str) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"prompt_id": "x", "step": 0, "reward": 1}\n')
    place = world.inbox.add_labels("math-v1", log, run_name=training)
    folder = world.inbox.labels_of("math-v1")
    assert place.parent.parent == folder
    assert place.resolve().is_relative_to(folder)
    (found,) = world.inbox.labels("math-v1")
    assert (found.name, found.run_name) == ("log.jsonl", "" if training == "-" else training)


@pytest.mark.parametrize("training", ["x" * 201, "ü" * 100, "\udcff"])
def test_a_trainings_name_that_no_folder_can_have_is_refused(world: World, tmp_path: Path, training: str) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"prompt_id": "x", "step": 0, "reward": 1}\n')
    with pytest.raises(SaerlError, match="name_refused"):
        world.inbox.add_labels("math-v1", log, run_name=training)
    assert not (world.inbox.folder / "taken").exists()


@pytest.mark.parametrize("key", ["..", "../x-v1", "x", "/etc", "", "x-v1\n", "a\x00-v1"])
def test_labels_are_given_to_version_keys_only(world: World, tmp_path: Path, key: str) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"prompt_id": "x", "step": 0, "reward": 1}\n')
    with pytest.raises(SaerlError, match="unknown_version"):
        world.inbox.add_labels(key, log)


# ---------------------------------------------------------------- killed at every step


STEPS: dict[str, tuple[type, str]] = {
    "before it is written down": (Inbox, "claim"),
    "before files are moved": (Inbox, "carry_out"),
    "before it is registered": (Catalog, "register"),
    "before it is recorded": (Inbox, "record"),
    "before it is called done": (Inbox, "disclaim"),
}


class KilledError(BaseException):
    """What a kill looks like from inside: nothing catches it."""


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_an_arrival_is_there_exactly_once(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str, *, after: bool
) -> None:
    owner, method = STEPS[step]
    world.put("sums.jsonl")
    world.put("more.jsonl", ROWS[:12])
    real: Callable[..., object] = getattr(owner, method)

    def dies(self: object, *given: object, **named: object) -> object:
        if after:
            real(self, *given, **named)
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(owner, method, dies)
        with pytest.raises(KilledError):
            world.take("sums.jsonl", "more.jsonl")
    world.put("sums.jsonl", ROWS[:7]) if not (world.inbox.folder / "sums.jsonl").exists() else None
    while names := [seen.name for seen in world.inbox.waiting()]:
        world.take(*names)
    world.take()
    data = {key: world.home.version(key).sources["data"].n_bytes for key in world.keys}
    assert len(set(data.values())) == len(data), "the same data twice"
    assert {"more-v1", "sums-v1"} <= set(data)
    assert set(world.partitions) == set(data)
    assert sorted(arrival.key for arrival in world.inbox.arrivals()) == sorted(data)
    assert world.inbox.claimed() is None
    assert world.rejected() == {}
    for key in data:
        world.home.catalog().verify_sources(world.home.version(key))


# ---------------------------------------------------------------- sources that are watched


def test_a_folder_that_grows_opens_the_next_version_once(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "drops"
    folder.mkdir()
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    text = spec("drops-v1", source=f"path:{folder}", watch=True)
    from saerl_assets.domain.spec import parse_spec

    world.home.catalog().register(parse_spec(text, "x"), tmp_path)
    assert read_notes(world.home.open())["drops-v1"].watch
    (same,) = world.take(watched=["drops-v1"])
    assert same.key == "drops-v1"
    (folder / "b.jsonl").write_text(json.dumps({"prompt": "A new one?", "answer": "yes"}) + "\n")
    (opened,) = world.take(watched=["drops-v1"])
    assert opened.key == "drops-v2"
    version = world.home.version("drops-v2")
    assert version.spec.parent == "drops-v1"
    assert [name for name, _ in version.sources["data"].files] == ["a.jsonl", "b.jsonl"]
    assert world.partitions == ["drops-v2"]
    (again,) = world.take(watched=["drops-v1"])
    assert again.key == "drops-v2"
    assert world.keys == ["drops-v1", "drops-v2"]
    world.home.catalog().verify_sources(world.home.version("drops-v1"))
    assert read_notes(world.home.open())["drops-v2"].parent == "drops-v1"


def test_a_watched_source_that_is_gone_is_told_after_the_others_were_looked_at(world: World, tmp_path: Path) -> None:
    from saerl_assets.domain.spec import parse_spec

    for name in ("gone", "here"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
        text = spec(f"{name}-v1", source=f"path:{tmp_path / name}", watch=True)
        world.home.catalog().register(parse_spec(text, "x"), tmp_path)
    os.remove(tmp_path / "gone" / "a.jsonl")  # noqa: PTH107 - one file
    (tmp_path / "here" / "b.jsonl").write_text(json.dumps(ROWS[1]) + "\n")
    with pytest.raises(SaerlError, match="folder_empty"):
        world.take(watched=["gone-v1", "here-v1"])
    assert world.keys == ["gone-v1", "here-v1", "here-v2"]


def test_the_key_of_a_deleted_version_can_be_used_again_with_other_bytes(world: World) -> None:
    for n_rows in (30, 20):
        world.put("sums.jsonl", ROWS[:n_rows])
        assert world.take("sums.jsonl")[0].key == "sums-v1"
        assert len((world.inbox.folder / "taken" / "sums-v1" / "sums.jsonl").read_text().splitlines()) == n_rows
        assert [arrival.key for arrival in world.inbox.arrivals()] == ["sums-v1"]
        world.home.catalog().delete("sums-v1")
        remove_files(world.home.open(), "sums-v1", [])
        assert world.inbox.arrivals() == []
    kept = sorted(path.name for path in (world.inbox.folder / "taken").iterdir())
    assert kept == ["sums-v1.2.deleted", "sums-v1.deleted"]


def test_deleting_a_version_forgets_its_note(world: World) -> None:
    world.put("sums.jsonl")
    world.take("sums.jsonl")
    world.home.catalog().delete("sums-v1")
    assert read_notes(world.home.open()) == {}
