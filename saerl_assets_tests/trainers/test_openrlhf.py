from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow.parquet as pq
import pytest

from saerl_assets.domain.errors import SaerlError
from saerl_assets.trainers.export import ExportRequest, check_export, write_export
from saerl_assets.trainers.openrlhf import ppo_arguments
from saerl_assets.trainers.openrlhf_launcher import main, openrlhf_arguments
from saerl_assets.trainers.openrlhf_order import check_source, keep_order

if TYPE_CHECKING:
    from collections.abc import Sized


def request_of(*, is_chat: bool = False, n: int = 4) -> ExportRequest:
    turns = [{"role": "system", "content": "Be brief."}] if is_chat else []
    rows = pl.DataFrame(
        {
            "epoch": [0] * n,
            "step": [at // 2 for at in range(n)],
            "slot": [at % 2 for at in range(n)],
            "prompt_id": [f"p{at}" for at in range(n)],
            "messages": [json.dumps([*turns, {"role": "user", "content": f"{at}?"}]) for at in range(n)],
            "is_chat": [is_chat] * n,
            "answer": [str(at) if at else None for at in range(n)],
            "topic": [None, "sums"] * (n // 2),
            "cluster_id": [3] * n,
            "difficulty": [0.5] * n,
            "extra": ["{}"] * n,
            "is_padding": [False] * n,
        },
        schema_overrides={"cluster_id": pl.UInt32, "step": pl.UInt32},
    )
    return ExportRequest(rows, "m" * 64, "some-v1", "clustered", 2, "s" * 64, {})


def test_the_label_says_all_that_is_known_of_the_row(tmp_path: Path) -> None:
    write_export("openrlhf", request_of(), tmp_path / "a")
    rows = pq.read_table(tmp_path / "a" / "train.parquet").to_pylist()
    assert rows[1] == {
        "prompt": "1?",
        "label": {
            "answer": "1",
            "prompt_id": "p1",
            "epoch": 0,
            "step": 0,
            "slot": 1,
            "cluster_id": 3,
            "difficulty": 0.5,
            "topic": "sums",
            "is_padding": False,
            "extra": "{}",
        },
        "answer": "1",
    }
    assert rows[0]["label"]["answer"] is rows[0]["answer"] is None


def test_chats_are_messages(tmp_path: Path) -> None:
    write_export("openrlhf", request_of(is_chat=True), tmp_path / "a")
    prompts = pq.read_table(tmp_path / "a" / "train.parquet")["prompt"].to_pylist()
    assert prompts[2] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2?"}]


def test_the_arguments_are_for_this_batch_size(tmp_path: Path) -> None:
    write_export("openrlhf", request_of(), tmp_path / "a")
    assert (tmp_path / "a" / "args.txt").read_text().splitlines() == ppo_arguments(2, 4)
    settings = dict(pair.split() for pair in ppo_arguments(32, 96, n_samples_per_prompt=4) if " " in pair)
    assert settings["--rollout.batch_size"] == settings["--rollout.vllm_generate_batch_size"] == "32"
    assert settings["--train.batch_size"] == "128"
    assert settings["--data.max_samples"] == "96"
    assert settings["--train.num_episodes"] == "1"


def test_the_users_arguments_come_last(tmp_path: Path) -> None:
    write_export("openrlhf", request_of(), tmp_path / "a")
    given = openrlhf_arguments(tmp_path / "a", ["--train.seed", "3"])
    assert given[:2] == ["--data.prompt_dataset", str((tmp_path / "a" / "train.parquet").resolve())]
    assert given[-2:] == ["--train.seed", "3"]
    assert "--data.apply_chat_template" in given
    assert "--data.apply_chat_template" not in openrlhf_arguments(tmp_path / "a", [], chat_template=False)


class PromptDataset:
    """As OpenRLHF's, without its tokenizer."""

    def __init__(self, rows: list[dict[str, Any]], strategy: Strategy) -> None:
        self.rows, self.strategy, self.input_template = rows, strategy, None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: int) -> tuple[str, str, Any, None]:
        return "default", self.rows[at]["prompt"], self.rows[at]["label"], None


class Strategy:
    """As OpenRLHF's `DeepspeedStrategy`: its loader is in order or the other way round."""

    def __init__(self, args: SimpleNamespace) -> None:
        self.args, self.printed = args, ""

    def print(self, text: str) -> None:
        self.printed += text

    def setup_dataloader(
        self, replay_buffer: Sized, batch_size: int, pin_memory: bool = False, shuffle: bool = True, *further: str
    ) -> SimpleNamespace:
        order = list(range(len(replay_buffer)))
        given = (batch_size, pin_memory, further)
        return SimpleNamespace(sampler=order[::-1] if shuffle else order, given=given)


def preprocess_data(
    data: dict[str, Any], input_template: None = None, input_key: str = "", label_key: str = "", template: None = None
) -> tuple[Any, Any]:
    assert input_template is template is None
    return data[input_key], data[label_key]


@pytest.fixture
def strategy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Strategy:
    write_export("openrlhf", request_of(), tmp_path / "a")
    for name in ("openrlhf", "openrlhf.datasets", "openrlhf.datasets.prompts_dataset"):
        module = ModuleType(name)
        module.preprocess_data = preprocess_data  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
    space = SimpleNamespace
    data = space(
        prompt_dataset=str(tmp_path / "a" / "train.parquet"),
        prompt_probs=None,
        max_samples=4,
        input_key="prompt",
        label_key="label",
        apply_chat_template=False,
    )
    return Strategy(
        space(
            data=data,
            rollout=space(batch_size=2, vllm_generate_batch_size=None, n_samples_per_prompt=8),
            train=space(batch_size=16, num_episodes=1),
            algo=space(dynamic_filtering_enable=False),
            ckpt=space(path=str(tmp_path / "checkpoints"), load_enable=False),
        )
    )


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(folder / "train.parquet").to_pylist())


def test_only_the_loader_of_training_prompts_is_put_in_order(strategy: Strategy, tmp_path: Path) -> None:
    prompts = PromptDataset(rows_of(tmp_path / "a"), strategy)
    assert strategy.setup_dataloader(prompts, 1).sampler == [3, 2, 1, 0]
    keep_order(strategy, tmp_path / "a", check_export(tmp_path / "a"))
    loader = strategy.setup_dataloader(prompts, 1, True, True, "collate")
    assert (loader.sampler, loader.given) == ([0, 1, 2, 3], (1, True, ("collate",)))
    assert "4 prompts in 2 batches of 2, in the order of manifest mmmmmmmmmmmm" in strategy.printed
    others = [1, 2]
    assert strategy.setup_dataloader(others, 1, True, True).sampler == [1, 0]
    evaluation = PromptDataset(rows_of(tmp_path / "a")[:3], strategy)
    assert strategy.setup_dataloader(evaluation, 1, True, False).sampler == [0, 1, 2]


def test_rows_that_are_not_the_exports_are_refused(strategy: Strategy, tmp_path: Path) -> None:
    keep_order(strategy, tmp_path / "a", check_export(tmp_path / "a"))
    rows = rows_of(tmp_path / "a")
    with pytest.raises(SaerlError, match=r"At place 1 it yields row 1, which is not prompt p1\..*order_lost"):
        strategy.setup_dataloader(PromptDataset([rows[0], rows[2], rows[1], rows[3]], strategy), 1)
    with pytest.raises(SaerlError, match="It yields 3 prompts where the export has 4"):
        strategy.setup_dataloader(PromptDataset(rows[:3], strategy), 1)


def test_an_export_that_changes_before_the_loader_is_built_is_refused(strategy: Strategy, tmp_path: Path) -> None:
    keep_order(strategy, tmp_path / "a", check_export(tmp_path / "a"))
    prompts = PromptDataset(rows_of(tmp_path / "a"), strategy)
    write_export("openrlhf", replace(request_of(), manifest_id="n" * 64), tmp_path / "a")
    with pytest.raises(SaerlError, match="other_manifest"):
        strategy.setup_dataloader(prompts, 1)


def test_every_argument_that_breaks_the_order_is_named(strategy: Strategy, tmp_path: Path) -> None:
    strategy.args.rollout.batch_size = 3
    strategy.args.algo.dynamic_filtering_enable = True
    strategy.args.train.num_episodes = 2
    with pytest.raises(SaerlError, match="settings_break_order") as caught:
        keep_order(strategy, tmp_path / "a", check_export(tmp_path / "a"))
    for name in ("--rollout.batch_size is 3", "--algo.dynamic_filtering_enable", "--train.num_episodes is 2"):
        assert name in caught.value.problem
    assert not (tmp_path / "checkpoints").exists()


def test_checkpoints_of_another_order_are_not_resumed(strategy: Strategy, tmp_path: Path) -> None:
    keep_order(strategy, tmp_path / "a", check_export(tmp_path / "a"))
    (tmp_path / "checkpoints" / "_actor").mkdir()
    strategy.args.ckpt.load_enable = True
    keep_order(strategy, tmp_path / "a", check_export(tmp_path / "a"))
    reversed_rows = request_of().rows.with_columns(pl.col("step", "slot").reverse())
    write_export("openrlhf", replace(request_of(), rows=reversed_rows, manifest_id="n" * 64), tmp_path / "b")
    strategy.args.data.prompt_dataset = str(tmp_path / "b" / "train.parquet")
    with pytest.raises(SaerlError, match="other_manifest"):
        keep_order(strategy, tmp_path / "b", check_export(tmp_path / "b"))
    strategy.args.ckpt.load_enable = False
    keep_order(strategy, tmp_path / "b", check_export(tmp_path / "b"))


def test_a_folder_that_is_no_openrlhf_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SaerlError, match=r"Expected: this file\..*openrlhf_changed") as caught:
        check_source(tmp_path)
    assert caught.value.where == str(tmp_path / "trainer" / "ppo_trainer.py")
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer" / "ppo_trainer.py").write_text("def prepare_datasets(strategy, tokenizer):\n    pass\n")
    with pytest.raises(SaerlError, match="prepare_datasets makes the prompts' loader"):
        check_source(tmp_path)


def test_the_launcher_says_what_is_wrong_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_export("openrlhf", request_of(), tmp_path / "a")
    write_export("parquet", request_of(), tmp_path / "b")
    with pytest.raises(SystemExit, match="other_manifest"):
        main(["--export", str(tmp_path / "a"), "--manifest", "n" * 64])
    with pytest.raises(SystemExit, match=r"saerl export some-v1 --to openrlhf \[other_trainer\]"):
        main(["--export", str(tmp_path / "b")])
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SystemExit, match="openrlhf_missing"):
        main(["--export", str(tmp_path / "a")])
