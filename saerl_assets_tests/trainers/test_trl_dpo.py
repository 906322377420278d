from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.preference_pairs import PAIRS_SCHEMA
from saerl_assets.trainers.export import write_export
from saerl_assets.trainers.formats import ExportRequest
from saerl_assets.trainers.trl_dpo import dpo_settings, load


def request_of(n_epochs: int = 2, n_prompts: int = 4, size: int = 2) -> ExportRequest:
    """Prompt number i has i + 1 pairs; an odd epoch goes through the prompts backwards."""
    order = [
        (epoch, at, n_prompts - 1 - at if epoch % 2 else at) for epoch in range(n_epochs) for at in range(n_prompts)
    ]
    rows = pl.DataFrame(
        [
            {
                "epoch": epoch,
                "step": at // size,
                "slot": at % size,
                "prompt_id": f"p{prompt}",
                "messages": json.dumps([{"role": "user", "content": f"Question {prompt}?"}]),
                "is_chat": False,
                "answer": None,
                "topic": "sums" if prompt % 2 else None,
                "cluster_id": prompt % 3,
                "difficulty": prompt / 4,
                "extra": '{"a": [1]}',
                "is_padding": False,
            }
            for epoch, at, prompt in order
        ],
        schema_overrides={"epoch": pl.UInt32, "step": pl.UInt32, "slot": pl.UInt32, "cluster_id": pl.UInt32},
    )
    pairs = pl.DataFrame(
        [
            {
                "prompt_id": f"p{prompt}",
                "pair": pair,
                "chosen": said(f" good {prompt}.{pair}"),
                "rejected": said(f" bad {prompt}.{pair}"),
                "is_chat": False,
                "position": 10 * prompt + pair,
            }
            for prompt in range(n_prompts)
            for pair in range(prompt + 1)
        ],
        schema=PAIRS_SCHEMA,
    )
    return ExportRequest(rows, "m" * 64, "some-v1", "clustered", size, "s" * 64, {}, pairs=pairs)


def said(text: str) -> str:
    return json.dumps([{"role": "assistant", "content": text}])


def written(request: ExportRequest, folder: Path) -> list[dict[str, Any]]:
    write_export("trl_dpo", request, folder)
    rows: list[dict[str, Any]] = pq.read_table(folder / "train.parquet").to_pylist()
    return rows


def test_text_stays_text_and_every_column_is_there(tmp_path: Path) -> None:
    rows = written(request_of(), tmp_path / "a")
    assert rows[1] == {
        "prompt": "Question 1?",
        "chosen": " good 1.0",
        "rejected": " bad 1.0",
        "prompt_id": "p1",
        "pair": 0,
        "epoch": 0,
        "step": 0,
        "slot": 1,
        "cluster_id": 1,
        "difficulty": 0.25,
        "topic": "sums",
        "is_padding": False,
        "extra": '{"a": [1]}',
    }
    types = {str(field.type) for field in pq.read_schema(tmp_path / "a" / "train.parquet")}
    assert types == {"string", "int64", "double", "bool"}


def test_every_epoch_takes_the_next_pair_of_a_prompt(tmp_path: Path) -> None:
    rows = written(request_of(n_epochs=3), tmp_path / "a")
    found = [(row["epoch"], row["prompt_id"], row["pair"], row["chosen"], row["rejected"]) for row in rows]
    expected = [
        (
            epoch,
            f"p{prompt}",
            epoch % (prompt + 1),
            f" good {prompt}.{epoch % (prompt + 1)}",
            f" bad {prompt}.{epoch % (prompt + 1)}",
        )
        for epoch in range(3)
        for prompt in (range(3, -1, -1) if epoch % 2 else range(4))
    ]
    assert found == expected


@pytest.mark.parametrize("what", ["prompt", "pair"])
def test_one_chat_makes_all_of_it_chats(what: str, tmp_path: Path) -> None:
    request = request_of()
    assert request.pairs is not None
    first = pl.col("prompt_id") == "p0"
    request = (
        replace(request, rows=request.rows.with_columns(is_chat=first))
        if what == "prompt"
        else replace(request, pairs=request.pairs.with_columns(is_chat=first))
    )
    rows = written(request, tmp_path / "a")
    assert rows[1]["prompt"] == [{"role": "user", "content": "Question 1?"}]
    assert rows[1]["chosen"] == [{"role": "assistant", "content": " good 1.0"}]
    assert rows[1]["rejected"] == [{"role": "assistant", "content": " bad 1.0"}]
    readme = (tmp_path / "a" / "README.md").read_text()
    assert "are chat messages" in readme
    assert "chat template" in readme


def test_several_messages_after_the_prompt_stay_in_their_order(tmp_path: Path) -> None:
    request = request_of(n_epochs=1, n_prompts=1, size=1)
    answers = [{"role": "assistant", "content": "Two?"}, {"role": "user", "content": "No."}]
    assert request.pairs is not None
    pairs = request.pairs.with_columns(chosen=pl.lit(json.dumps(answers)), is_chat=True)
    rows = written(replace(request, pairs=pairs), tmp_path / "a")
    assert rows[0]["chosen"] == answers


@pytest.mark.parametrize(
    ("pairs", "says", "remedy"),
    [
        (None, "4 of 4 prompts have no pair", "data.chosen and data.rejected"),
        (request_of().pairs.clear(), "4 of 4 prompts have no pair", "data.chosen and data.rejected"),  # type: ignore[union-attr]
        (
            request_of().pairs.filter(pl.col("prompt_id") != "p2"),  # type: ignore[union-attr]
            "1 of 4 prompts have no pair of a chosen and a rejected answer, which DPO learns from; it is p2",
            "Materialise prompts",
        ),
    ],
)
def test_prompts_without_a_pair_are_an_error(
    pairs: pl.DataFrame | None, says: str, remedy: str, tmp_path: Path
) -> None:
    with pytest.raises(SaerlError) as caught:
        write_export("trl_dpo", replace(request_of(), pairs=pairs), tmp_path / "a")
    assert caught.value.code == "pair_missing"
    assert says in caught.value.problem
    assert remedy in caught.value.remedy
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(("size", "n_processes", "per_device"), [(32, 1, 1), (32, 4, 2), (6, 3, 2), (1, 1, 1)])
def test_one_optimizer_step_is_one_batch(size: int, n_processes: int, per_device: int) -> None:
    settings = dpo_settings(size, n_processes=n_processes, per_device_batch_size=per_device)
    assert per_device * n_processes * settings["gradient_accumulation_steps"] == size
    assert settings["per_device_train_batch_size"] == per_device
    assert settings["train_sampling_strategy"] == "sequential"
    assert settings["num_train_epochs"] == 1
    assert settings["max_length"] is None


def test_processes_that_cannot_share_a_batch() -> None:
    with pytest.raises(SaerlError, match="3 processes cannot share a batch of 32"):
        dpo_settings(32, n_processes=3)


def test_the_settings_file_is_for_this_batch_size(tmp_path: Path) -> None:
    write_export("trl_dpo", request_of(), tmp_path / "a")
    assert json.loads((tmp_path / "a" / "dpo_config.json").read_text()) == dpo_settings(2)
    assert "gradient_accumulation_steps == 2" in (tmp_path / "a" / "README.md").read_text()


def test_load_gives_the_order_and_its_settings(tmp_path: Path) -> None:
    request = request_of()
    write_export("trl_dpo", request, tmp_path / "a")
    dataset, settings = load(tmp_path / "a", per_device_batch_size=2)
    assert dataset["prompt_id"][:] == request.rows["prompt_id"].to_list()
    assert settings == dpo_settings(2, per_device_batch_size=2)
    chats, _ = load(tmp_path / "a", as_chat=True)
    assert chats["prompt_id"][:] == request.rows["prompt_id"].to_list()
    assert chats[1]["prompt"] == [{"role": "user", "content": "Question 1?"}]
    assert chats[1]["chosen"] == [{"role": "assistant", "content": "good 1.0"}]
    assert chats[1]["rejected"] == [{"role": "assistant", "content": "bad 1.0"}]


def test_load_refuses_what_is_not_as_it_was_written(tmp_path: Path) -> None:
    write_export("trl", request_of(), tmp_path / "a")
    with pytest.raises(SaerlError, match="This export is for trl") as caught:
        load(tmp_path / "a")
    assert caught.value.code == "other_trainer"
    write_export("trl_dpo", request_of(), tmp_path / "b")
    with (tmp_path / "b" / "dpo_config.json").open("a") as file:
        file.write(" ")
    with pytest.raises(SaerlError, match="export_changed"):
        load(tmp_path / "b")
