from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest
import yaml

from saerl_assets.domain.errors import SaerlError
from saerl_assets.trainers.export import (
    TRAINERS,
    ExportRequest,
    check_export,
    load_order,
    order_digest,
    whole_batches,
    write_export,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from saerl_assets.trainers.formats import TrainerFormat

N, SIZE = 12, 4
TRAINER_NAMES = sorted(TRAINERS)
SPEC = {"key": "some-v1", "seed": 7}


def request_of(n: int = N, **changes: object) -> ExportRequest:
    place = list(range(n))
    rows = pl.DataFrame(
        {
            "epoch": [at // 8 for at in place],
            "step": [at % 8 // SIZE for at in place],
            "slot": [at % SIZE for at in place],
            "prompt_id": [f"{(at * 7) % 31:032x}" for at in place],
            "messages": [json.dumps([{"role": "user", "content": f"What is {at}?"}]) for at in place],
            "is_chat": [False] * n,
            "answer": [str(at) for at in place],
            "topic": ["sums" if at % 2 else None for at in place],
            "cluster_id": [at % 3 for at in place],
            "difficulty": [at / 4 for at in place],
            "extra": ["{}"] * n,
            "is_padding": [False] * n,
        },
        schema_overrides={"epoch": pl.UInt32, "step": pl.UInt32, "slot": pl.UInt32, "cluster_id": pl.UInt32},
    )
    request = ExportRequest(rows, "m" * 64, "some-v1", "clustered", SIZE, "s" * 64, {"source.data": "d" * 64})
    said = [json.dumps([{"role": "assistant", "content": text}]) for text in ("Yes.", "No.")]
    pairs = rows.select("prompt_id", pl.lit(0, pl.UInt32).alias("pair"), is_chat="is_chat").with_columns(
        chosen=pl.lit(said[0]), rejected=pl.lit(said[1])
    )
    request = replace(request, pairs=pairs, spec=SPEC)
    return replace(request, **changes)  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("trainer", TRAINER_NAMES)
def test_an_export_holds_the_order_and_proves_it(trainer: str, tmp_path: Path) -> None:
    request = request_of()
    written = write_export(trainer, request, tmp_path / "made" / "here")
    expected = hashlib.sha256("".join(f"{name}\n" for name in request.rows["prompt_id"]).encode()).hexdigest()
    assert (written.n_rows, written.n_steps, written.order_digest) == (12, 3, expected)
    order = load_order(tmp_path / "made" / "here", manifest_id="m" * 64)
    assert order.rows() == request.rows.select("epoch", "step", "slot", "prompt_id").rows()
    record = json.loads((tmp_path / "made" / "here" / "manifest.json").read_text())
    assert record["trainer"] == trainer
    assert record["manifest_id"] == "m" * 64
    assert record["dataset_version"] == "some-v1"
    assert record["digests"] == {"source.data": "d" * 64}
    assert record["spec_digest"] == "s" * 64
    assert record["spec"] == SPEC
    assert (record["n_rows"], record["n_steps"]) == (12, 3)
    assert record["order_digest"] == expected
    assert set(record["files"]) == {path.name for path in (tmp_path / "made" / "here").iterdir()} - {"manifest.json"}
    for name, digest in record["files"].items():
        assert hashlib.sha256((tmp_path / "made" / "here" / name).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("trainer", TRAINER_NAMES)
def test_the_same_request_gives_the_same_bytes_in_any_row_order(trainer: str, tmp_path: Path) -> None:
    request = request_of()
    write_export(trainer, request, tmp_path / "a")
    write_export(trainer, replace(request, rows=request.rows.reverse()), tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize("trainer", TRAINER_NAMES)
def test_readme_names_every_setting_that_keeps_the_order(trainer: str, tmp_path: Path) -> None:
    write_export(trainer, request_of(), tmp_path / "a")
    readme = (tmp_path / "a" / "README.md").read_text()
    assert "m" * 64 in readme
    assert "{" not in readme.replace("{}", "")
    settings = (tmp_path / "a" / TRAINERS[trainer].settings_file).read_text()
    keeping = [name for name in setting_names(settings) if any(word in name for word in ORDER_WORDS)]
    assert len(keeping) >= 3
    assert [name for name in keeping if name not in readme and name != "actor_rollout_ref.actor.shuffle"] == []


ORDER_WORDS = ("shuffle", "sampling", "batch_size", "epochs", "episodes", "prompts_per_step")


def setting_names(text: str) -> list[str]:
    """Names of settings in JSON, YAML, Hydra overrides or command-line arguments; of nested ones the last part."""
    if text.startswith("--"):
        return [line.split()[0] for line in text.splitlines()]
    if text.startswith(("{", "#")):
        return list(leaves(yaml.safe_load(text)))
    return [line.split("=")[0] for line in text.split()]


def leaves(tree: dict[str, object]) -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value)
        else:
            yield name


def test_short_batches_are_left_out_and_counted(tmp_path: Path) -> None:
    # A short batch at the end of epoch 0, which would shift all of epoch 1.
    request = request_of()
    rows = request.rows.filter(~((pl.col("epoch") == 0) & (pl.col("step") == 1) & (pl.col("slot") == 3)))
    written = write_export("trl", replace(request, rows=rows), tmp_path / "a")
    assert (written.n_rows, written.n_steps) == (8, 2)
    assert check_export(tmp_path / "a").n_left_out == 3
    assert load_order(tmp_path / "a").select("epoch", "step").unique(maintain_order=True).rows() == [
        (0, 0),
        (1, 0),
    ]
    assert whole_batches(rows, SIZE)["prompt_id"].to_list() == load_order(tmp_path / "a")["prompt_id"].to_list()


def test_only_a_short_batch_is_nothing_to_export(tmp_path: Path) -> None:
    with pytest.raises(SaerlError, match="no_whole_batch"):
        write_export("trl", request_of(3), tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_an_unknown_trainer_is_told_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(SaerlError, match=r"'ver1'.*Did you mean 'verl'\? Known trainers: trl, trl_dpo, verl") as caught:
        write_export("ver1", request_of(), tmp_path / "a")
    assert caught.value.code == "unknown_trainer"


def test_a_prompt_that_is_gone_is_named(tmp_path: Path) -> None:
    request = request_of()
    rows = request.rows.with_columns(
        messages=pl.when(pl.int_range(pl.len()) == 2).then(None).otherwise(pl.col("messages"))
    )
    with pytest.raises(SaerlError, match=f"Prompt {rows['prompt_id'][2]}"):
        write_export("trl", replace(request, rows=rows), tmp_path / "a")


def damage_data(folder: Path, form: TrainerFormat) -> str:
    path = folder / form.data_file
    if path.suffix == ".jsonl":
        path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    else:
        pl.read_parquet(path).reverse().write_parquet(path)
    return path.name


def damage_settings(folder: Path, form: TrainerFormat) -> str:
    path = folder / form.settings_file
    path.write_text(path.read_text() + "\n")
    return path.name


def damage_record(folder: Path, form: TrainerFormat) -> str:  # noqa: ARG001
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace("m" * 64, "n" * 64))
    return path.name


def damage_spec(folder: Path, form: TrainerFormat) -> str:  # noqa: ARG001
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"seed": 7', '"seed": 8'))
    return path.name


def break_record(folder: Path, form: TrainerFormat) -> str:  # noqa: ARG001
    (folder / "manifest.json").write_text("[1, 2]")
    return "manifest.json"


def lose_readme(folder: Path, form: TrainerFormat) -> str:  # noqa: ARG001
    (folder / "README.md").unlink()
    return "README.md"


@pytest.mark.parametrize("trainer", TRAINER_NAMES)
@pytest.mark.parametrize(
    "damage", [damage_data, damage_settings, damage_record, damage_spec, break_record, lose_readme]
)
def test_an_export_edited_by_hand_is_refused(
    trainer: str, damage: Callable[[Path, TrainerFormat], str], tmp_path: Path
) -> None:
    write_export(trainer, request_of(), tmp_path / "a")
    (tmp_path / "a" / "notes.txt").write_text("mine")
    check_export(tmp_path / "a")
    file = damage(tmp_path / "a", TRAINERS[trainer])
    with pytest.raises(SaerlError, match="export_changed") as caught:
        check_export(tmp_path / "a")
    assert caught.value.where.endswith(file)
    with pytest.raises(SaerlError, match="export_changed"):
        load_order(tmp_path / "a")


NEED_ANSWERS = {"verl", "nemo_rl"}


@pytest.mark.parametrize("trainer", TRAINER_NAMES)
def test_a_missing_answer_is_refused_where_the_trainer_needs_one_and_kept_elsewhere(
    trainer: str, tmp_path: Path
) -> None:
    request = request_of()
    fifth = request.rows["prompt_id"][5]
    answer = pl.when(pl.col("prompt_id") != fifth).then(pl.col("answer"))
    request = replace(request, rows=request.rows.with_columns(answer=answer))
    if trainer in NEED_ANSWERS:
        with pytest.raises(SaerlError, match=f"Prompt {fifth} has no answer, which {trainer} needs as") as caught:
            write_export(trainer, request, tmp_path / "a")
        assert caught.value.code == "answer_missing"
        assert not list(tmp_path.iterdir())
    else:
        write_export(trainer, request, tmp_path / "a")
        assert load_order(tmp_path / "a")["prompt_id"].to_list() == request.rows["prompt_id"].to_list()


def test_rows_and_record_edited_together_are_refused(tmp_path: Path) -> None:
    """Whoever also corrects the digests of the files still has the order against them."""
    write_export("trl", request_of(), tmp_path / "a")
    record = check_export(tmp_path / "a")
    damage_data(tmp_path / "a", TRAINERS["trl"])
    data = hashlib.sha256((tmp_path / "a" / "train.parquet").read_bytes()).hexdigest()
    forged = replace(record, files=record.files | {"train.parquet": data})
    (tmp_path / "a" / "manifest.json").write_text(forged.to_json())
    with pytest.raises(SaerlError, match="not the one that the export was written with"):
        check_export(tmp_path / "a")


@pytest.mark.parametrize("trainer", TRAINER_NAMES)
def test_an_export_of_another_manifest_is_refused(trainer: str, tmp_path: Path) -> None:
    write_export(trainer, request_of(), tmp_path / "a")
    with pytest.raises(SaerlError, match="of manifest mmmmmmmmmmmm, not of nnnnnnnnnnnn") as caught:
        load_order(tmp_path / "a", manifest_id="n" * 64)
    assert caught.value.code == "other_manifest"


def test_a_folder_that_is_no_export_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SaerlError, match="not_an_export"):
        check_export(tmp_path)
    with pytest.raises(SaerlError, match="not_an_export"):
        check_export(tmp_path / "nowhere")


def test_an_old_export_is_replaced_and_an_equal_one_stays(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    write_export("trl", request_of(), folder)
    inode = folder.stat().st_ino
    write_export("trl", request_of(), folder)
    assert folder.stat().st_ino == inode
    damage_data(folder, TRAINERS["trl"])
    write_export("trl", request_of(), folder)
    assert check_export(folder).n_rows == N
    write_export("trl", request_of(8), folder)
    assert check_export(folder).n_rows == 8
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_other_peoples_files_are_never_overwritten(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "train.parquet").write_text("precious")
    export = tmp_path / "export"
    write_export("trl", request_of(), export)
    (export / "checkpoint-100").mkdir()
    (tmp_path / "file").write_text("precious")
    for folder in (work, export, tmp_path / "file"):
        with pytest.raises(SaerlError, match="not_an_export"):
            write_export("trl", request_of(8), folder)
    assert (work / "train.parquet").read_text() == "precious"
    assert (export / "checkpoint-100").is_dir()
    assert check_export(export).n_rows == N


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a"
    write_export("trl", request_of(), folder)
    before = contents(folder)

    def full(_request: ExportRequest, made: Path) -> None:
        (made / "train.parquet").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(TRAINERS, "trl", replace(TRAINERS["trl"], write=full))
    with pytest.raises(SaerlError, match="disk_full"):
        write_export("trl", request_of(8), folder)
    assert contents(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SaerlError, match="not_writable"):
        write_export("trl", request_of(), tmp_path / "file" / "a")


def test_order_digest_tells_ids_apart_from_their_concatenation() -> None:
    assert order_digest(["ab", "c"]) != order_digest(["a", "bc"])


@pytest.mark.slow
@pytest.mark.parametrize("trainer", TRAINER_NAMES)
def test_datasets_which_all_trainers_read_with_yields_the_order(trainer: str, tmp_path: Path) -> None:
    from datasets import load_dataset

    request = request_of()
    write_export(trainer, request, tmp_path / "a")
    path = tmp_path / "a" / TRAINERS[trainer].data_file
    kind = "json" if path.suffix == ".jsonl" else "parquet"
    rows = list(load_dataset(kind, data_files=str(path), split="train", cache_dir=str(tmp_path / "cache")))
    said = [row | row.get("extra_info", {}) | (row.get("label") or {}) for row in rows]
    found = [row.get("prompt_id") or row["saerl_prompt_id"] for row in said]
    assert found == request.rows["prompt_id"].to_list()
    for name in ("epoch", "step", "slot", "cluster_id", "difficulty", "topic", "is_padding", "extra"):
        assert [row[name] for row in said] == request.rows[name].to_list()
    prompt = rows[5].get("prompt") or rows[5]["messages"]
    assert (prompt if isinstance(prompt, str) else prompt[0]["content"]) == "What is 5?"
