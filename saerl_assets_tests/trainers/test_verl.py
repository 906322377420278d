from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl
import pyarrow.parquet as pq
import pytest

from saerl_assets.domain.errors import SaerlError
from saerl_assets.trainers.export import ExportRequest, write_export
from saerl_assets.trainers.verl import hydra_overrides

if TYPE_CHECKING:
    from pathlib import Path


def request_of(n: int = 4, *, extra: str = "{}") -> ExportRequest:
    rows = pl.DataFrame(
        {
            "epoch": [0] * n,
            "step": [at // 2 for at in range(n)],
            "slot": [at % 2 for at in range(n)],
            "prompt_id": [f"p{at}" for at in range(n)],
            "messages": [json.dumps([{"role": "user", "content": f"{at}?"}]) for at in range(n)],
            "is_chat": [False] * n,
            "answer": [str(at) for at in range(n)],
            "topic": [None, "sums"] * (n // 2),
            "cluster_id": [3] * n,
            "difficulty": [0.5] * n,
            "extra": [extra] * n,
            "is_padding": [False] * n,
        },
        schema_overrides={"cluster_id": pl.UInt32, "step": pl.UInt32},
    )
    return ExportRequest(rows, "m" * 64, "some-v1", "clustered", 2, "s" * 64, {})


def rows_of(folder: Path) -> list[dict[str, object]]:
    return list(pq.read_table(folder / "train.parquet").to_pylist())


def test_rows_have_verls_schema(tmp_path: Path) -> None:
    write_export("verl", request_of(), tmp_path / "a")
    rows = rows_of(tmp_path / "a")
    assert rows[2] == {
        "data_source": "some-v1",
        "prompt": [{"role": "user", "content": "2?"}],
        "ability": "general",
        "reward_model": {"style": "rule", "ground_truth": "2"},
        "extra_info": {
            "index": 2,
            "prompt_id": "p2",
            "epoch": 0,
            "step": 1,
            "slot": 0,
            "cluster_id": 3,
            "difficulty": 0.5,
            "topic": None,
            "is_padding": False,
            "extra": "{}",
        },
    }
    assert rows[1]["ability"] == "sums"


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ('{"data_source": "openai/gsm8k"}', "openai/gsm8k"),
        ('{"data_source": null}', "some-v1"),
        ('{"data_source": ""}', "some-v1"),
        ('{"other": {"data_source": "x"}}', "some-v1"),
    ],
)
def test_the_rows_own_data_source_is_kept(extra: str, expected: str, tmp_path: Path) -> None:
    write_export("verl", request_of(extra=extra), tmp_path / "a")
    assert {row["data_source"] for row in rows_of(tmp_path / "a")} == {expected}


def test_a_missing_answer_names_the_prompt(tmp_path: Path) -> None:
    request = request_of()
    one = request.rows.with_columns(answer=pl.when(pl.col("prompt_id") != "p1").then(pl.col("answer")))
    with pytest.raises(SaerlError, match="Prompt p1 has no answer") as caught:
        write_export("verl", replace(request, rows=one), tmp_path / "a")
    assert caught.value.code == "answer_missing"
    assert "data.answer" in caught.value.remedy
    none = request.rows.with_columns(answer=pl.lit(None, dtype=pl.String))
    with pytest.raises(SaerlError, match="Prompt p0 and 3 others have no answer"):
        write_export("verl", replace(request, rows=none), tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_overrides_keep_the_order_and_fit_into_a_shell_word_each(tmp_path: Path) -> None:
    write_export("verl", request_of(), tmp_path / "a")
    lines = (tmp_path / "a" / "overrides.txt").read_text().split()
    assert lines == hydra_overrides(2, experiment=f"some-v1-clustered-{'m' * 12}")
    settings = dict(line.split("=") for line in lines)
    assert settings["data.shuffle"] == "False"
    assert settings["data.filter_overlong_prompts"] == "False"
    assert settings["data.train_max_samples"] == "-1"
    assert settings["data.train_batch_size"] == settings["actor_rollout_ref.actor.ppo_mini_batch_size"] == "2"
    assert settings["critic.ppo_mini_batch_size"] == "2"
    assert settings["critic.shuffle"] == settings["actor_rollout_ref.actor.shuffle"] == "False"
    assert settings["trainer.total_epochs"] == "1"


def test_checkpoints_of_two_manifests_or_arms_have_two_names(tmp_path: Path) -> None:
    """verl resumes by itself from whatever has the experiment's name."""
    request = request_of()
    others = [request, replace(request, manifest_id="n" * 64), replace(request, arm="shuffle")]
    names = []
    for at, other in enumerate(others):
        write_export("verl", other, tmp_path / str(at))
        lines = (tmp_path / str(at) / "overrides.txt").read_text().split()
        names += [line for line in lines if line.startswith("trainer.experiment_name=")]
        assert names[at] in (tmp_path / str(at) / "README.md").read_text()
    assert len(set(names)) == 3
