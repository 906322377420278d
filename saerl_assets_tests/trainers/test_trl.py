from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from saerl_assets.domain.errors import SaerlError
from saerl_assets.trainers.export import ExportRequest, load_order, write_export
from saerl_assets.trainers.trl import OrderCallback, grpo_settings, load


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
    ("batch_size", "num_generations", "n_processes", "per_device"),
    [(32, 8, 1, None), (32, 4, 8, None), (1, 2, 1, None), (6, 16, 3, None), (32, 8, 2, 64), (32, 6, 3, 4)],
)
def test_one_optimizer_step_is_one_batch(
    batch_size: int, num_generations: int, n_processes: int, per_device: int | None
) -> None:
    settings = grpo_settings(
        batch_size, num_generations=num_generations, n_processes=n_processes, per_device_batch_size=per_device
    )
    assert settings["per_device_train_batch_size"] == (per_device or num_generations)
    a_step = settings["per_device_train_batch_size"] * n_processes * settings["gradient_accumulation_steps"]
    assert a_step == batch_size * num_generations
    assert settings["steps_per_generation"] == settings["gradient_accumulation_steps"]
    assert settings["shuffle_dataset"] is False
    assert settings["num_train_epochs"] == 1


def test_processes_that_cannot_share_a_batch() -> None:
    with pytest.raises(SaerlError, match="3 processes cannot share a batch of 32"):
        grpo_settings(32, n_processes=3)
    with pytest.raises(SaerlError, match="its 256 completions do not divide into 96 at once"):
        grpo_settings(32, per_device_batch_size=96)


def test_the_settings_file_is_for_this_batch_size(tmp_path: Path) -> None:
    write_export("trl", request_of(PLAIN, [False, False]), tmp_path / "a")
    assert json.loads((tmp_path / "a" / "grpo_config.json").read_text()) == grpo_settings(2)
    assert "== 2 * num_generations" in (tmp_path / "a" / "README.md").read_text()


def test_load_gives_the_order_mapped_into_memory(tmp_path: Path) -> None:
    write_export("trl", request_of(PLAIN, [False, False]), tmp_path / "a")
    dataset, settings = load(tmp_path / "a", num_generations=4, per_device_batch_size=2)
    assert dataset["prompt_id"][:] == load_order(tmp_path / "a")["prompt_id"].to_list()
    assert dataset["prompt"][:] == [prompt[0]["content"] for prompt in PLAIN]
    assert [Path(file["filename"]).suffix for file in dataset.cache_files] == [".arrow"]
    assert settings == grpo_settings(2, num_generations=4, per_device_batch_size=2)


@pytest.mark.parametrize("is_chat", [False, True])
def test_prompts_become_chat_messages_where_they_are_wanted(is_chat: bool, tmp_path: Path) -> None:
    write_export("trl", request_of(PLAIN, [is_chat, is_chat]), tmp_path / "a")
    assert load(tmp_path / "a", as_chat=True).dataset["prompt"][:] == PLAIN


def test_a_changed_or_a_foreign_folder_is_not_trained_on(tmp_path: Path) -> None:
    request = request_of(PLAIN, [False, False])
    write_export("trl", request, tmp_path / "a")
    write_export(
        "verl",
        ExportRequest(**{**vars(request), "rows": request.rows.with_columns(answer=pl.lit("4"))}),
        tmp_path / "b",
    )
    for take in (load, OrderCallback):
        with pytest.raises(SaerlError, match="other_trainer"):
            take(tmp_path / "b")
        with pytest.raises(SaerlError, match="not_an_export"):
            take(tmp_path)
    rows = pl.read_parquet(tmp_path / "a" / "train.parquet")
    rows.reverse().write_parquet(tmp_path / "a" / "train.parquet")
    for take in (load, OrderCallback):
        with pytest.raises(SaerlError, match="export_changed"):
            take(tmp_path / "a")


def test_the_module_needs_neither_trl_nor_torch() -> None:
    blocked = ("trl", "torch", "transformers", "datasets", "accelerate")
    block = f"import sys; sys.modules.update(dict.fromkeys({blocked!r}))"
    code = f"{block}\nfrom saerl_assets.trainers.trl import FORMAT, grpo_settings, load"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_misspelt_name_is_an_error() -> None:
    from saerl_assets.trainers import trl

    with pytest.raises(AttributeError, match="no attribute 'OrderCalback'"):
        _ = trl.OrderCalback


def test_the_readme_shows_what_there_is(tmp_path: Path) -> None:
    write_export("trl", request_of(PLAIN, [False, False]), tmp_path / "a")
    readme = (tmp_path / "a" / "README.md").read_text()
    code = readme.split("```python\n")[1].split("```")[0]
    compile(code, "README.md", "exec")
    first = code.splitlines()[0]
    exec(first, {})  # noqa: S102 - the import as the README writes it
    assert first == "from saerl_assets.trainers.trl import OrderCallback, load"
