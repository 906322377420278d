from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl
import pyarrow.parquet as pq
import pytest
import yaml

from saerl_assets.domain.errors import SaerlError
from saerl_assets.trainers.export import ExportRequest, write_export
from saerl_assets_tests.trainers.test_openrlhf import request_of

if TYPE_CHECKING:
    from pathlib import Path


def answered(*, is_chat: bool = False) -> ExportRequest:
    request = request_of(is_chat=is_chat)
    return replace(request, rows=request.rows.with_columns(pl.col("answer").fill_null("0")))


def test_the_answer_is_what_the_assistant_says(tmp_path: Path) -> None:
    write_export("nemo_rl", answered(), tmp_path / "a")
    table = pq.read_table(tmp_path / "a" / "train.parquet")
    assert table["messages"].to_pylist()[2] == [
        {"role": "user", "content": "2?"},
        {"role": "assistant", "content": "2"},
    ]
    assert "task_name" not in table.column_names
    assert table["prompt_id"].to_pylist() == ["p0", "p1", "p2", "p3"]


def test_a_prompt_of_several_messages_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SaerlError, match="Prompt p0 and 3 others are more than one message of the user") as caught:
        write_export("nemo_rl", answered(is_chat=True), tmp_path / "a")
    assert caught.value.code == "not_single_turn"
    assert not list(tmp_path.iterdir())


def test_the_configuration_is_for_this_batch_size_and_file(tmp_path: Path) -> None:
    write_export("nemo_rl", answered(), tmp_path / "a")
    text = (tmp_path / "a" / "grpo.yaml").read_text()
    config = yaml.safe_load(text)
    assert "m" * 64 in text
    assert config["grpo"]["num_prompts_per_step"] == 2
    assert config["grpo"]["max_num_steps"] == 2
    responses = config["grpo"]["num_prompts_per_step"] * config["grpo"]["num_generations_per_prompt"]
    assert config["policy"]["train_global_batch_size"] == responses
    assert config["data"]["shuffle"] is config["data"]["use_multiple_dataloader"] is False
    assert config["data"]["train"]["split_validation_size"] == 0
    assert config["data"]["train"]["data_path"] == "${oc.env:SAERL_EXPORT}/train.parquet"
    assert config["grpo"]["use_dynamic_sampling"] is config["grpo"]["async_grpo"]["enabled"] is False
