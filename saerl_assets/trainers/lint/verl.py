"""verl 0.9: what in its Hydra configuration breaks the order.

Belongs here: rules, each with the place in verl's source that it was read from. Does not belong here: what is
written for verl (trainers.verl).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from saerl_assets.trainers.lint.rules import WHATEVER, Rule, TrainerRules, View, with_export
from saerl_assets.trainers.lint.trl import at_most, same_or_none

if TYPE_CHECKING:
    from saerl_assets.trainers.export import ExportRecord

_TOTAL_STEPS = "trainer.total_training_steps"


def _one_pass(view: View) -> object:
    return WHATEVER if view.value(_TOTAL_STEPS) is not None else 1


def _checkpoints(view: View, export: ExportRecord) -> object:
    """The name under which checkpoints are this manifest's own, unless nothing is resumed or the folder is its own."""
    manifest = export.manifest_id[:12]
    if view.value("trainer.resume_mode") == "disable" or manifest in str(view.value("trainer.default_local_dir")):
        return WHATEVER
    return f"{export.dataset_version}-{export.arm}-{manifest}"


def _names_the_manifest(value: object, right: object) -> bool:
    return str(right).rpartition("-")[2] in str(value)


def _left_or_off(value: object, _: object) -> bool:
    return value is None or value is False


def _all_rows(value: object, right: object) -> bool:
    return isinstance(value, int) and (value <= 0 or (isinstance(right, int) and 0 < right <= value))


def _one_file(value: object, _: object) -> bool:
    """Also where it is written as a list of which the parts cannot be read."""
    names = value if isinstance(value, list) else str(value).split(",")
    return len(names) < 2


RULES = TrainerRules(
    name="verl",
    title="verl 0.9",
    defaults={
        "data.shuffle": True,
        "data.train_batch_size": 1024,
        "data.train_max_samples": -1,
        "data.filter_overlong_prompts": False,
        "actor_rollout_ref.actor.ppo_mini_batch_size": 256,
        "actor_rollout_ref.actor.ppo_epochs": 1,
        "actor_rollout_ref.actor.shuffle": False,
        "algorithm.filter_groups.enable": False,
        "trainer.experiment_name": "gsm8k",
        "trainer.resume_mode": "auto",
        "trainer.total_epochs": 30,
        "trainer.v1.trainer_mode": "sync",
        "trainer.v1.sampler.sync_refill_failed_groups": False,
    },
    rules=(
        Rule(
            "data.shuffle",
            right=False,
            why="The sampler is a random one (verl/trainer/ppo/utils.py, create_rl_sampler). Row order is the only "
            "way to give verl an order.",
        ),
        Rule(
            "data.train_batch_size",
            right=with_export(lambda _, export: export.batch_size),
            why="A step takes another number of prompts than the {batch_size} of a batch.",
        ),
        Rule(
            "actor_rollout_ref.actor.ppo_mini_batch_size",
            right=lambda view: view.number("data.train_batch_size"),
            why="Both count prompts. If they differ, one batch is several optimizer steps "
            "(trainer/ppo/v1/trainer_base.py).",
        ),
        Rule(
            "critic.ppo_mini_batch_size",
            right=lambda view: view.number("data.train_batch_size"),
            why="The critic takes one batch in several steps; left out, it follows the actor "
            "(trainer/config/critic/critic.yaml).",
            fits=same_or_none,
        ),
        Rule(
            "data.train_max_samples",
            right=lambda view: -1 if view.export is None else view.export.n_rows,
            why="Only so many rows are taken, at random where data.shuffle is on (utils/dataset/rl_dataset.py, "
            "_read_files_and_tokenize).",
            remedy="Set data.train_max_samples=-1.",
            fits=_all_rows,
        ),
        Rule(
            "data.filter_overlong_prompts",
            right=False,
            why="Rows are dropped after batches were cut, and every later row moves into another batch "
            "(utils/dataset/rl_dataset.py, maybe_filter_out_long_prompts). Filter by batches.max_prompt_tokens of "
            "the spec.",
        ),
        Rule(
            "data.gen_batch_size",
            right=lambda view: view.number("data.train_batch_size"),
            why="Prompts are fetched in other numbers than a batch has (trainer/ppo/v1/trainer_base.py, "
            "_init_dataloader).",
            remedy="Leave it out.",
            fits=same_or_none,
        ),
        Rule(
            "data.train_files",
            right=None,
            why="Files are joined end to end (rl_dataset.py, _read_files_and_tokenize), so batches hold rows of "
            "others.",
            remedy="Give the export's file alone.",
            fits=_one_file,
            reads_text=True,
        ),
        Rule(
            "data.custom_cls.path",
            right=None,
            why="Rows come from a data set class of your own (rl_dataset.py, get_dataset_class), which this cannot "
            "look into.",
            remedy="See that it keeps the order of rows.",
            level="caution",
            reads_text=True,
        ),
        Rule(
            "algorithm.filter_groups.enable",
            right=False,
            why="Dynamic sampling drops groups and takes later prompts in their place "
            "(trainer/ppo/v1/replay_buffer.py).",
        ),
        Rule(
            "trainer.v1.sampler.sync_refill_failed_groups",
            right=False,
            why="Groups that failed are replaced by later prompts (trainer/ppo/v1/replay_buffer.py).",
        ),
        Rule(
            "trainer.v1.sampler.custom_sampler.path",
            right=None,
            why="A replay buffer of your own chooses what is trained on, which this cannot look into.",
            remedy="See that it hands out batches as they come.",
            level="caution",
        ),
        Rule(
            "trainer.v1.trainer_mode",
            right="sync",
            why="The asynchronous trainers hand out single prompts and train on what is finished first "
            "(trainer/ppo/v1/trainer_base.py, _init_dataloader).",
        ),
        Rule(
            "program",
            right=None,
            why="It hands out single prompts and trains on what is finished first.",
            remedy="Start verl.trainer.main_ppo.",
            fits=lambda value, _: "fully_async" not in str(value),
        ),
        Rule(
            "trainer.total_epochs",
            right=_one_pass,
            why="All planned epochs are in the file, one after the other; another pass repeats the order.",
        ),
        Rule(
            _TOTAL_STEPS,
            right=with_export(lambda view, export: WHATEVER if view.value(_TOTAL_STEPS) is None else export.n_steps),
            why="The export has {n_steps} batches; behind the last one verl begins the file again.",
            fits=at_most,
        ),
        Rule(
            "actor_rollout_ref.actor.shuffle",
            right=False,
            why="Rows are shuffled between the mini-batches of a step.",
            level="caution",
        ),
        Rule(
            "critic.shuffle",
            right=False,
            why="Rows are shuffled between the mini-batches of the critic's step.",
            fits=_left_or_off,
            level="caution",
        ),
        Rule(
            "trainer.experiment_name",
            right=with_export(_checkpoints),
            why="verl resumes by itself from a checkpoint of that name, at its row number, whatever manifest it is of "
            "(trainer.resume_mode=auto).",
            fits=_names_the_manifest,
            level="caution",
        ),
        Rule(
            "actor_rollout_ref.actor.ppo_epochs",
            right=1,
            why="Every batch is trained on that many times in a row. The order of batches stays.",
            level="caution",
        ),
    ),
    words=(r"\bverl[./](trainer|experimental)\b",),
    marks=(
        "actor_rollout_ref.*",
        "data.train_files",
        "data.train_batch_size",
        "data.train_max_samples",
        "data.filter_overlong_prompts",
        "algorithm.adv_estimator",
        "trainer.total_epochs",
    ),
    style="hydra",
)
