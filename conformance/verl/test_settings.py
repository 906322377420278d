"""Every key that an export overrides is one that verl has, in 0.9 as in 0.8; verl's defaults are as the README says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import verl
from conftest import BATCH_SIZE, Export, configure
from hydra import compose, initialize_config_dir, initialize_config_module
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf
from verl.trainer.ppo.utils import need_critic

OLDER = Path(sys.prefix) / "beside" / "verl" / "trainer" / "config"
"""The configuration of verl 0.8, see beside.txt."""


def read(version: str, overrides: list[str]) -> DictConfig:
    if version == "0.9":
        return configure(*overrides)
    with initialize_config_dir(str(OLDER), version_base=None):
        return compose("ppo_trainer", overrides=overrides)


def settings_of(export: Export) -> dict[str, Any]:
    lines = (export.folder / "overrides.txt").read_text().split()
    return dict(line.split("=") for line in lines)


def test_the_version_is_the_one_that_is_spoken_of() -> None:
    assert verl.__version__.startswith("0.9.")


@pytest.mark.parametrize("version", ["0.9", "0.8"])
@pytest.mark.parametrize("estimator", ["grpo", "gae"])
def test_verl_has_every_key_and_takes_every_value(version: str, estimator: str, export: Export) -> None:
    config = read(version, [*export.overrides, f"algorithm.adv_estimator={estimator}"])
    assert need_critic(config) == (estimator == "gae")
    for key, value in settings_of(export).items():
        assert str(OmegaConf.select(config, key)) == value, key
    assert config.critic.ppo_mini_batch_size == config.actor_rollout_ref.actor.ppo_mini_batch_size == BATCH_SIZE
    assert export.manifest_id[:12] in config.trainer.default_local_dir


@pytest.mark.parametrize("version", ["0.9", "0.8"])
def test_verl_would_refuse_a_key_that_it_does_not_have(version: str, export: Export) -> None:
    with pytest.raises(ConfigCompositionException):
        read(version, [*export.overrides, "data.keep_order=True"])


DEFAULTS = {
    "data.shuffle": True,
    "data.train_max_samples": -1,
    "data.filter_overlong_prompts": False,
    "data.truncation": "error",
    "algorithm.adv_estimator": "gae",
    "trainer.total_epochs": 30,
    "trainer.resume_mode": "auto",
    "actor_rollout_ref.actor.shuffle": False,
}
DEFAULTS_0_9 = DEFAULTS | {
    "data.gen_batch_size": None,
    "trainer.v1.trainer_mode": "sync",
    "trainer.v1.sampler.sync_refill_failed_groups": False,
    "algorithm.filter_groups.enable": False,
    "reward.custom_reward_function.path": None,
}


@pytest.mark.parametrize(("version", "defaults"), [("0.9", DEFAULTS_0_9), ("0.8", DEFAULTS)])
def test_defaults_are_as_the_readme_says(version: str, defaults: dict[str, Any]) -> None:
    config = read(version, [])
    found = {key: OmegaConf.select(config, key, throw_on_missing=True) for key in defaults}
    assert found == defaults


def test_a_critic_follows_the_actor_where_nothing_is_said() -> None:
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=["actor_rollout_ref.actor.ppo_mini_batch_size=3"])
    assert config.critic.ppo_mini_batch_size == 3
