"""OpenRLHF 0.11: what on the command line of train_ppo_ray breaks the order.

Belongs here: rules, each with the place in OpenRLHF's source that it was read from. Does not belong here:
what is written for OpenRLHF, and its launcher (trainers.openrlhf).
"""

from __future__ import annotations

from saerl_assets.trainers.lint.rules import WHATEVER, Rule, TrainerRules, View, with_export
from saerl_assets.trainers.lint.trl import same_or_none


def at_most_zero(value: object, _: object) -> bool:
    """A number of steps that means none."""
    return isinstance(value, int) and value <= 0


def _is_of_before(view: View) -> bool:
    """It has arguments as they were before they had dots."""
    return bool({"rollout_batch_size", "prompt_data", "train_batch_size"} & view.document.settings.keys())


RULES = TrainerRules(
    name="openrlhf",
    title="OpenRLHF 0.11",
    defaults={
        "rollout.batch_size": 1024,
        "rollout.n_samples_per_prompt": 1,
        "train.batch_size": 128,
        "train.num_episodes": 1,
        "train.max_epochs": 1,
        "train.async_enable": False,
        "train.partial_rollout_enable": False,
        "critic.freezing_steps": -1,
        "algo.advantage.estimator": "gae",
        "algo.dynamic_filtering_enable": False,
        "data.max_samples": 100_000_000,
        "data.prompt_split": "train",
    },
    rules=(
        Rule(
            "program",
            right=None,
            why="It always shuffles: prepare_datasets passes shuffle=True by position "
            "(openrlhf/trainer/ppo_trainer.py), and no argument changes that.",
            remedy="Start it through saerl's launcher, python -m saerl_assets.trainers.openrlhf_launcher, with the "
            "same arguments.",
            fits=lambda value, _: "saerl" in str(value),
        ),
        Rule(
            "rollout_batch_size",
            right=lambda view: "dotted" if _is_of_before(view) else WHATEVER,
            why="OpenRLHF 0.11 has no such argument: its arguments have dots (openrlhf/cli/train_ppo_ray.py). These "
            "rules do not fit an older release.",
            remedy="Write the arguments as 0.11 has them, such as --rollout.batch_size.",
            aliases=("prompt_data", "train_batch_size"),
        ),
        Rule(
            "rollout.batch_size",
            right=with_export(lambda _, export: export.batch_size),
            why="A step takes another number of prompts than the {batch_size} of a batch.",
        ),
        Rule(
            "train.batch_size",
            right=lambda view: view.number("rollout.batch_size") * view.number("rollout.n_samples_per_prompt"),
            why="It counts samples. If it is not rollout.batch_size * rollout.n_samples_per_prompt, one batch is "
            "several optimizer steps among which its samples are shuffled (openrlhf/trainer/ray/ppo_actor.py, "
            "ppo_train).",
        ),
        Rule(
            "rollout.vllm_generate_batch_size",
            right=lambda view: view.number("rollout.batch_size"),
            why="Prompts are generated in other numbers than a batch has, and short batches are trained on "
            "(ppo_utils/samples_generator.py, generate_samples).",
            remedy="Leave it out.",
            fits=same_or_none,
        ),
        Rule(
            "train.async_enable",
            right=False,
            why="Batches are generated one or more steps ahead of the policy that is trained on them "
            "(openrlhf/trainer/ppo_trainer_async.py). Their order stays.",
            level="caution",
        ),
        Rule(
            "train.partial_rollout_enable",
            right=False,
            why="Generation goes on while the policy changes (openrlhf/trainer/ppo_trainer_async.py), and a batch at "
            "the end of an episode may be short.",
            level="caution",
        ),
        Rule(
            "critic.freezing_steps",
            right=lambda view: -1 if view.value("algo.advantage.estimator") == "gae" else WHATEVER,
            why="With PPO the policy is not trained on the first batches (openrlhf/trainer/ppo_trainer.py), the "
            "easiest ones of a curriculum.",
            fits=at_most_zero,
        ),
        Rule(
            "algo.dynamic_filtering_enable",
            right=False,
            why="Prompts whose reward is out of range are replaced by later ones (ppo_utils/samples_generator.py).",
        ),
        Rule(
            "data.prompt_probs",
            right=None,
            why="Data sets are drawn from at random (openrlhf/datasets/utils.py, blending_datasets).",
            remedy="Leave it out.",
        ),
        Rule(
            "data.prompt_dataset",
            right=None,
            why="Several data sets are joined (openrlhf/datasets/utils.py, blending_datasets), so batches hold rows "
            "of others.",
            remedy="Give the export's file alone.",
            fits=lambda value, _: "," not in str(value),
            reads_text=True,
        ),
        Rule(
            "data.max_samples",
            right=with_export(lambda _, export: export.n_rows),
            why="The file is cut after so many rows; the export has {n_rows}.",
            fits=lambda value, right: isinstance(value, int) and isinstance(right, int) and value >= right,
            remedy="Leave it out.",
        ),
        Rule(
            "train.num_episodes",
            right=1,
            why="All planned epochs are in the file, one after the other; another episode repeats the order.",
        ),
        Rule(
            "train.max_epochs",
            right=1,
            why="Every batch is trained on that many times in a row. The order of batches stays.",
            level="caution",
        ),
    ),
    words=(r"\bopenrlhf\.cli\.\w+", r"\btrain_ppo_ray\b", r"\bopenrlhf_launcher\b"),
    marks=("data.prompt_dataset", "rollout.*", "train.*", "algo.*", "ds.*", "vllm.*", "data.label_key"),
    flags=frozenset({"train.async_enable", "train.partial_rollout_enable", "algo.dynamic_filtering_enable"}),
)
