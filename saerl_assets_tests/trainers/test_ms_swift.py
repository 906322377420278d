from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest
import yaml

from saerl_assets.trainers.export import load_order, write_export
from saerl_assets.trainers.ms_swift import grpo_arguments
from saerl_assets_tests.trainers.test_openrlhf import request_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("is_chat", [False, True])
def test_rows_have_messages_and_solution_and_no_prompt_id_of_ours(is_chat: bool, tmp_path: Path) -> None:
    write_export("ms_swift", request_of(is_chat=is_chat), tmp_path / "a")
    rows = pq.read_table(tmp_path / "a" / "train.parquet").to_pylist()
    assert rows[1]["messages"][-1] == {"role": "user", "content": "1?"}
    assert len(rows[1]["messages"]) == 1 + is_chat
    assert [row["solution"] for row in rows] == [None, "1", "2", "3"]
    assert [row["saerl_prompt_id"] for row in rows] == ["p0", "p1", "p2", "p3"]
    assert not {"prompt_id", "dataset", "channel", "label"} & set(rows[0])
    assert load_order(tmp_path / "a")["prompt_id"].to_list() == ["p0", "p1", "p2", "p3"]


def test_the_arguments_make_a_step_of_a_batch(tmp_path: Path) -> None:
    write_export("ms_swift", request_of(), tmp_path / "a")
    settings = yaml.safe_load((tmp_path / "a" / "grpo.yaml").read_text())
    assert settings == grpo_arguments(2)
    a_step = settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"]
    assert a_step == 2 * settings["num_generations"]
    assert settings["steps_per_generation"] == settings["gradient_accumulation_steps"]
    assert settings["dataset_shuffle"] is settings["dynamic_sample"] is False
    assert settings["strict"] is True
