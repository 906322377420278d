"""NeMo-RL: what in its YAML configuration breaks the order.

Belongs here: rules, each with the place in NeMo-RL's source that it was read from. Does not belong here: what
is written for NeMo-RL (trainers.nemo_rl).
"""

from __future__ import annotations

from saerl_assets.trainers.lint.rules import WHATEVER, Rule, TrainerRules, View, with_export

_SPLIT = "data.train.split_validation_size"


def _no_split(view: View) -> object:
    """What is split off has to be nothing; where the file names a parent, the parent's 0.05 stays unless it is said."""
    settings = view.document.settings
    says = any(name.startswith("data.train") or name == _SPLIT for name in settings)
    return 0 if _SPLIT in settings or ("defaults" in settings and says) else WHATEVER


RULES = TrainerRules(
    name="nemo_rl",
    title="NeMo-RL (source as of 2026), GRPO",
    defaults={
        "data.shuffle": True,
        _SPLIT: 0.05,
        "data.use_multiple_dataloader": False,
        "grpo.num_prompts_per_step": 32,
        "grpo.num_generations_per_prompt": 16,
        "grpo.max_num_epochs": 1,
        "grpo.use_dynamic_sampling": False,
        "grpo.async_grpo.enabled": False,
        "policy.train_global_batch_size": 512,
    },
    rules=(
        Rule(
            "data.shuffle",
            right=False,
            why="The data loader shuffles (nemo_rl/algorithms/grpo.py, setup); the example configurations have it on.",
        ),
        Rule(
            _SPLIT,
            right=_no_split,
            why="Rows are split off at random for validation (nemo_rl/data/datasets/raw_dataset.py, "
            "split_train_validation); examples/configs/grpo_math_1B.yaml, which recipes build on, splits off "
            "0.05.",
        ),
        Rule(
            "data.default.split_validation_size",
            right=lambda view: 0 if "data.default.split_validation_size" in view.document.settings else WHATEVER,
            why="Rows are split off at random for validation, from every data set that does not say otherwise.",
            aliases=("data.train.*.split_validation_size",),
        ),
        Rule(
            "data.train",
            right=[],
            why="Several data sets are joined (nemo_rl/data/utils.py, setup_response_data), so batches hold rows of "
            "others.",
            remedy="Give the export alone.",
            fits=lambda value, _: not isinstance(value, list) or len(value) < 2,
        ),
        Rule(
            "data.use_multiple_dataloader",
            right=False,
            why="Every data set has a loader of its own, and batches are put together from them "
            "(nemo_rl/data/dataloader.py).",
        ),
        Rule(
            "grpo.use_dynamic_sampling",
            right=False,
            why="Prompts whose rewards do not differ are discarded and later ones taken (nemo_rl/algorithms/grpo.py).",
        ),
        Rule(
            "grpo.async_grpo.enabled",
            right=False,
            why="Batches are generated ahead and trained on from a buffer (nemo_rl/algorithms/grpo.py).",
        ),
        Rule(
            "grpo.max_num_epochs",
            right=1,
            why="All planned epochs are in the file, one after the other; another pass repeats the order.",
        ),
        Rule(
            "policy.train_global_batch_size",
            right=lambda view: (
                view.number("grpo.num_prompts_per_step") * view.number("grpo.num_generations_per_prompt")
            ),
            why="It counts samples. If it is not grpo.num_prompts_per_step * grpo.num_generations_per_prompt, one "
            "batch is several optimizer steps.",
        ),
        Rule(
            "grpo.num_prompts_per_step",
            right=with_export(lambda _, export: export.batch_size),
            why="A step takes another number of prompts than the {batch_size} of a batch.",
        ),
    ),
    words=(r"\brun_grpo\w*\.py\b",),
    marks=("grpo.*", "policy.*", "loss_fn.*", "data.train.*", "data.max_input_seq_length", "cluster.gpus_per_node"),
    style="hydra",
)
