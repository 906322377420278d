from __future__ import annotations

import json
from typing import TYPE_CHECKING

import polars as pl
import pyarrow.parquet as pq
import pytest

from saerl_assets.domain.errors import SaerlError
from saerl_assets.trainers.export import ExportRequest, write_export
from saerl_assets.trainers.trl import grpo_settings

if TYPE_CHECKING:
    from pathlib import Path


def request_of(messages: list[list[dict[str, str]]], is_chat: list[bool]) -> ExportRequest:
    n = len(messages)
    rows = pl.DataFrame(
        {
            "epoch": [0] * n,
            "step": [at // 2 for at in range(n)],
            "slot": [at % 2 for at in range(n)],
            "prompt_id": [f"p{at}" for at in range(n)],
            "messages": [json.dumps(prompt) for prompt in messages],
            "is_chat": is_chat,
            "answer": ["4", None] * (n // 2),
            "topic": [None, "sums"] * (n // 2),
            "cluster_id": [3] * n,
            "difficulty": [0.5] * n,
            "extra": ['{"metadata": {"a": 1}, "messages": []}'] * n,
            "is_padding": [False] * n,
        },
        schema_overrides={"cluster_id": pl.UInt32, "step": pl.UInt32},
    )
    return ExportRequest(rows, "m" * 64, "some-v1", "clustered", 2, "s" * 64, {})


PLAIN = [[{"role": "user", "content": "2 + 2?\nSay  it."}], [{"role": "user", "content": "π \U0001f600"}]]
CHAT = [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}], PLAIN[1]]


def test_strings_stay_strings(tmp_path: Path) -> None:
    write_export("trl", request_of(PLAIN, [False, False]), tmp_path / "a")
    rows = pq.read_table(tmp_path / "a" / "train.parquet").to_pylist()
    assert rows[0] == {
        "prompt": "2 + 2?\nSay  it.",
        "answer": "4",
        "prompt_id": "p0",
        "epoch": 0,
        "step": 0,
        "slot": 0,
        "cluster_id": 3,
        "difficulty": 0.5,
        "topic": None,
        "is_padding": False,
        "extra": '{"metadata": {"a": 1}, "messages": []}',
    }
    assert rows[1]["prompt"] == "π \U0001f600"
    assert rows[1]["answer"] is None


@pytest.mark.parametrize("is_chat", [[True, True], [True, False], [False, True]])
def test_chats_are_messages_and_one_chat_makes_all_of_them_chats(is_chat: list[bool], tmp_path: Path) -> None:
    write_export("trl", request_of(CHAT, is_chat), tmp_path / "a")
    table = pq.read_table(tmp_path / "a" / "train.parquet")
    assert table["prompt"].to_pylist() == CHAT
    assert "chat messages" in (tmp_path / "a" / "README.md").read_text()


def test_columns_have_the_plain_types_of_datasets(tmp_path: Path) -> None:
    write_export("trl", request_of(CHAT, [True, True]), tmp_path / "a")
    types = {field.name: str(field.type) for field in pq.read_schema(tmp_path / "a" / "train.parquet")}
    assert set(types.values()) == {
        "list<element: struct<role: string, content: string>>",
        "string",
        "int64",
        "double",
        "bool",
    }


@pytest.mark.parametrize(
    ("batch_size", "num_generations", "n_processes"), [(32, 8, 1), (32, 4, 8), (1, 2, 1), (6, 16, 3)]
)
def test_one_optimizer_step_is_one_batch(batch_size: int, num_generations: int, n_processes: int) -> None:
    settings = grpo_settings(batch_size, num_generations=num_generations, n_processes=n_processes)
    a_step = settings["per_device_train_batch_size"] * n_processes * settings["gradient_accumulation_steps"]
    assert a_step == batch_size * num_generations
    assert settings["steps_per_generation"] == settings["gradient_accumulation_steps"]
    assert settings["shuffle_dataset"] is False
    assert settings["num_train_epochs"] == 1


def test_processes_that_cannot_share_a_batch() -> None:
    with pytest.raises(SaerlError, match="3 processes cannot share a batch of 32"):
        grpo_settings(32, n_processes=3)


def test_the_settings_file_is_for_this_batch_size(tmp_path: Path) -> None:
    write_export("trl", request_of(PLAIN, [False, False]), tmp_path / "a")
    assert json.loads((tmp_path / "a" / "grpo_config.json").read_text()) == grpo_settings(2)
    assert "== 2 * num_generations" in (tmp_path / "a" / "README.md").read_text()
