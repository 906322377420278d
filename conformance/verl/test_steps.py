"""Whole steps of verl's trainers: what reaches the optimizer is the manifest's batch, in its turn.

verl's own are the trainer's loop body, its replay buffer, the balancing of devices and the cutting into mini-batches.
Stood in for are what needs GPUs or a cluster: the workers, the agents that generate, and the queue between them, which
is a dictionary here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from conftest import BATCH_SIZE, Export, configure, make_trainer, prompt_ids
from tensordict import TensorDict
from verl.trainer.ppo.v1 import replay_buffer, trainer_base
from verl.utils import tensordict_utils

if TYPE_CHECKING:
    from omegaconf import DictConfig

N_GENERATIONS = 2
N_DEVICES = 2


class Queue:
    """TransferQueue's key-value interface, as far as the trainer and its replay buffer use it."""

    def __init__(self) -> None:
        self.tags: dict[str, dict[str, dict[str, Any]]] = {"train": {}}

    def kv_batch_put(self, keys: list[str], partition_id: str, tags: list[dict[str, Any]], **_: Any) -> None:
        for key, tag in zip(keys, tags, strict=True):
            self.tags[partition_id].setdefault(key, {}).update(tag)

    def kv_list(self, partition_id: str | None = None) -> dict[str, dict[str, dict[str, Any]]]:
        return {name: dict(held) for name, held in self.tags.items() if partition_id in (None, name)}

    def kv_clear(self, keys: list[str], partition_id: str) -> None:
        for key in keys:
            self.tags[partition_id].pop(key, None)


class Agents:
    """Answers prompts in an order of their own: of all that wait, one is left for later each time."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.random = np.random.default_rng(0)
        self.prompt_of: dict[str, str] = {}
        self.waiting: list[str] = []

    def generate_sequences(self, batch: TensorDict) -> None:
        uids = list(batch["uid"])
        self.prompt_of |= dict(zip(uids, prompt_ids(batch), strict=True))
        self.waiting += uids
        late = self.random.integers(len(self.waiting))
        self.waiting, done = [self.waiting.pop(late)], list(self.waiting)
        self.finish(done)

    def finish_all(self) -> None:
        self.finish(self.waiting)
        self.waiting = []

    def finish(self, uids: list[str]) -> None:
        for uid in self.random.permutation(uids):
            keys = [f"{uid}_{session}_0" for session in range(N_GENERATIONS)]
            tags = [{"seq_len": int(self.random.integers(5, 50)), "global_steps": 0} for _ in keys]
            self.queue.kv_batch_put([*keys, str(uid)], "train", [*tags, {"status": "finished"}])


class Workers:
    """Devices that note which answers they update on, cut into mini-batches as verl's worker does it."""

    def __init__(self) -> None:
        self._dispatch_info = {"actor": list(range(N_DEVICES))}
        self.updates: list[list[str]] = []

    def update_actor(self, batch: Any) -> dict[str, dict[str, float]]:
        """`TrainingWorker.train_mini_batch` of each device on its part of the batch."""
        n = len(batch.keys) // N_DEVICES
        parts = [batch.keys[at : at + n] for at in range(0, len(batch.keys), n)]
        iterators = [self.mini_batches(part, device, batch.extra_info) for device, part in enumerate(parts)]
        for together in zip(*iterators, strict=True):
            self.updates.append([key.split("_")[0] for part in together for key in part])
        return {"metrics": {"mfu": 0.0}}

    @staticmethod
    def mini_batches(keys: list[str], device: int, told: dict[str, Any]) -> list[list[str]]:
        numbers = TensorDict({"at": torch.arange(len(keys))}, batch_size=[len(keys)])
        cut = tensordict_utils.make_iterator(
            numbers,
            mini_batch_size=told["mini_batch_size"] // N_DEVICES,
            epochs=told["epochs"],
            seed=told["seed"] + device,
            dataloader_kwargs=told["dataloader_kwargs"],
        )
        return [[keys[int(at)] for at in part["at"]] for part in cut]


class Silent:
    """Weights that need no moving."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def train(config: DictConfig, monkeypatch: pytest.MonkeyPatch, n_steps: int | None = None) -> list[set[str]]:
    """Trains; returns the prompts of every optimizer step."""
    queue = Queue()
    agents, workers = Agents(queue), Workers()
    for module in (trainer_base, replay_buffer):
        monkeypatch.setattr(module.tq, "kv_batch_put", queue.kv_batch_put)
        monkeypatch.setattr(module.tq, "kv_list", queue.kv_list)
        monkeypatch.setattr(module.tq, "kv_clear", queue.kv_clear)
    trainer = make_trainer(config)
    trainer.actor_rollout_wg, trainer.agent_loop_manager = workers, agents
    trainer.checkpoint_manager = trainer.llm_server_manager = Silent()
    trainer.reward_loop_manager = Silent()
    trainer.curr_step_profile = False
    trainer.timing_raw = {}
    monkeypatch.setattr(trainer.replay_buffer, "_wait_for_next_poll", lambda *_: agents.finish_all() or 0.0)
    for stage in ("_compute_old_log_prob", "_compute_advantage", "_compute_values", "_update_critic"):
        monkeypatch.setattr(trainer, stage, lambda batch, **_: batch)
    trainer.on_train_begin()
    for step in range(1, 1 + (n_steps or trainer.total_training_steps)):
        trainer.global_steps = step
        batch = trainer.step({}, trainer.timing_raw)
        queue.kv_clear(batch.keys, batch.partition_id)
        trainer.on_step_end()
    return [{agents.prompt_of[uid] for uid in update} for update in workers.updates]


def settings(export: Export, *more: str) -> DictConfig:
    return configure(*export.overrides, f"actor_rollout_ref.rollout.n={N_GENERATIONS}", *more)


@pytest.mark.parametrize("estimator", ["grpo", "gae"])
def test_every_optimizer_step_is_one_batch_of_the_manifest(
    export: Export, estimator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    updates = train(settings(export, f"algorithm.adv_estimator={estimator}"), monkeypatch)
    assert updates == [set(batch) for batch in export.batches]


def test_smaller_mini_batches_are_more_steps_and_their_prompts_are_mixed(
    export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = BATCH_SIZE // 2
    config = settings(export, "algorithm.adv_estimator=grpo", f"actor_rollout_ref.actor.ppo_mini_batch_size={half}")
    updates = train(config, monkeypatch)
    assert len(updates) == 2 * len(export.batches)
    assert [updates[2 * at] | updates[2 * at + 1] for at in range(len(export.batches))] == [
        set(batch) for batch in export.batches
    ]
    halves = [set(batch[at : at + half]) for batch in export.batches for at in (0, half)]
    assert updates != halves, "verl balances a batch before it cuts it"


def test_an_asynchronous_trainer_takes_what_is_finished_first(export: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same agents, whose stragglers the synchronous trainer waits for."""
    config = settings(export, "algorithm.adv_estimator=grpo", "trainer.v1.trainer_mode=colocate_async")
    updates = train(config, monkeypatch, n_steps=6)
    assert len(updates) == 6
    assert updates != [set(batch) for batch in export.batches[:6]]
