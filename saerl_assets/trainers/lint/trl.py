"""TRL 1.16: what in GRPOConfig, DPOConfig and the arguments of `trl grpo` and `trl dpo` breaks the order.

Belongs here: rules, each with the place in TRL's or transformers' source that it was read from. Does not
belong here: what is written for TRL (trainers.trl, trainers.trl_dpo).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from saerl_assets.trainers.lint.rules import WHATEVER, Rule, TrainerRules, View, with_export

if TYPE_CHECKING:
    from saerl_assets.trainers.export import ExportRecord

PROCESSES = ("num_processes", "nproc_per_node", "nnodes")


def one_pass(view: View) -> object:
    """One epoch, unless the number of steps is what ends the training."""
    return WHATEVER if _steps(view) > 0 else 1


def _steps(view: View) -> int:
    value = view.value("max_steps")
    return value if isinstance(value, int) else 0


def at_most(value: object, right: object) -> bool:
    """Of two numbers."""
    return isinstance(value, int | float) and isinstance(right, int | float) and value <= right


def same_or_none(value: object, right: object) -> bool:
    """Equal, or left to the trainer."""
    return value is None or value == right


def grpo_steps_per_generation(view: View) -> object:
    """As many as are accumulated, so that what is generated at once is one optimizer step."""
    return view.number("gradient_accumulation_steps")


def grpo_generation_batch(view: View) -> object:
    """Completions of one optimizer step; on an unknown number of processes any multiple of one process's share."""
    share = view.number("per_device_train_batch_size") * view.number("gradient_accumulation_steps")
    n_processes, value = view.processes(), view.value("generation_batch_size")
    if n_processes is None and isinstance(value, int) and value % share == 0:
        return WHATEVER
    return share * (n_processes or 1)


def grpo_accumulation(view: View, export: ExportRecord) -> object:
    """Steps to accumulate so that one optimizer step is one batch of the export."""
    return _accumulation(view, export.batch_size * view.number("num_generations"))


def dpo_accumulation(view: View, export: ExportRecord) -> object:
    """The same for pairs, which are not repeated."""
    return _accumulation(view, export.batch_size)


def _accumulation(view: View, n_rows: int) -> object:
    """What to accumulate for `n_rows` a step; what is there, if some number of processes makes it right."""
    per_device, accumulated = view.number("per_device_train_batch_size"), view.number("gradient_accumulation_steps")
    n_processes = view.processes()
    if n_processes is None and n_rows % (per_device * accumulated) == 0:
        return accumulated
    share = per_device * (n_processes or 1)
    return n_rows // share if n_rows % share == 0 else f"a number so that {share} * it == {n_rows}"


def needed_processes(rows_a_step: str) -> object:
    """The number of processes that makes the sizes right, where the launcher does not say how many there are."""

    def right(view: View, export: ExportRecord) -> object:
        n_rows = export.batch_size * (view.number("num_generations") if rows_a_step == "completions" else 1)
        share = view.number("per_device_train_batch_size") * view.number("gradient_accumulation_steps")
        if view.processes() is not None or n_rows % share or n_rows == share:
            return WHATEVER
        return n_rows // share

    return with_export(right)


_SHARED = (
    Rule(
        "num_train_epochs",
        right=one_pass,
        why="All planned epochs are in the file, one after the other; another pass repeats the first order.",
    ),
    Rule(
        "max_steps",
        right=with_export(lambda view, export: export.n_steps if _steps(view) > 0 else WHATEVER),
        why="The export has {n_steps} batches; behind the last one the trainer begins the file again.",
        fits=at_most,
    ),
    Rule(
        "ignore_data_skip",
        right=False,
        why="A resumed training starts at the first row again instead of at the step that it stopped at "
        "(transformers/trainer.py, _inner_training_loop).",
    ),
    Rule(
        "auto_find_batch_size",
        right=False,
        why="It halves per_device_train_batch_size when memory runs out, and with it what one step takes; TRL 1.16 "
        "refuses it for GRPO (trl/trainer/grpo_config.py, __post_init__).",
    ),
    Rule(
        "dataloader_in_order",
        right=True,
        why="With workers, batches overtake one another (torch.utils.data.DataLoader, in_order).",
    ),
    Rule(
        "accelerator_config.split_batches",
        right=False,
        why="per_device_train_batch_size is then that of all processes together (transformers/training_args.py), so a "
        "step takes another number of rows.",
    ),
    Rule(
        "train_dataset",
        right=[],
        why="The data set is reordered or cut before the trainer has it, so rows are not in their batches any more.",
        remedy="Pass the export's data set as it is loaded; filter and order in the spec instead.",
    ),
    Rule(
        "test_split_size",
        right=None,
        why="The mixture is split by train_test_split, which shuffles (trl/scripts/utils.py, get_dataset).",
        remedy="Leave it out.",
    ),
    Rule(
        "datasets",
        right=[],
        why="Several data sets are joined end to end (trl/scripts/utils.py, get_dataset), so batches hold rows of "
        "others.",
        fits=lambda value, _: not isinstance(value, list) or len(value) < 2,
        remedy="Give the export alone.",
    ),
)

STEP_SIZE = (
    Rule(
        "gradient_accumulation_steps",
        right=with_export(grpo_accumulation),
        why="One optimizer step takes per_device_train_batch_size * processes * gradient_accumulation_steps "
        "completions, which is not a batch of {batch_size} prompts with num_generations each.",
    ),
    Rule(
        "num_processes",
        right=needed_processes("completions"),
        why="With these sizes one optimizer step is one batch of {batch_size} prompts on exactly {right} processes.",
        remedy="Start {right} processes, or change gradient_accumulation_steps.",
        level="caution",
    ),
)
"""One optimizer step of GRPO is one batch. ms-swift has the same settings, for its trainer is TRL's."""

GRPO = TrainerRules(
    name="trl",
    title="TRL 1.16, GRPOTrainer",
    defaults={
        "shuffle_dataset": True,
        "num_train_epochs": 3.0,
        "max_steps": -1,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "num_generations": 8,
        "num_iterations": 1,
        "ignore_data_skip": False,
        "dataloader_in_order": True,
        "accelerator_config.split_batches": False,
        "auto_find_batch_size": False,
        "remove_unused_columns": False,
        "train_dataset": [],
        "datasets": [],
    },
    rules=(
        Rule(
            "shuffle_dataset",
            right=False,
            why="RepeatSampler permutes all rows (trl/trainer/utils.py); a streaming data set is shuffled through a "
            "buffer (trl/trainer/grpo_trainer.py, get_train_dataloader).",
        ),
        Rule(
            "steps_per_generation",
            right=grpo_steps_per_generation,
            why="TRL permutes completions within what it generates at once (grpo_trainer.py, _prepare_inputs). If "
            "that is not one optimizer step, prompts move between steps.",
            fits=same_or_none,
        ),
        Rule(
            "generation_batch_size",
            right=grpo_generation_batch,
            why="It sets steps_per_generation (grpo_config.py, __post_init__), and TRL permutes completions within "
            "what it generates at once. If that is not one optimizer step, prompts move between steps.",
            fits=same_or_none,
        ),
        *STEP_SIZE,
        Rule(
            "num_iterations",
            right=1,
            why="Every batch is trained on that many times in a row (grpo_trainer.py, _get_train_sampler), so one "
            "batch is several optimizer steps. The order of batches stays.",
            level="caution",
        ),
        Rule(
            "remove_unused_columns",
            right=False,
            why="The reward function and the log then lack prompt_id and the other columns.",
            level="caution",
        ),
        *_SHARED,
    ),
    words=(r"\bGRPO(Config|Trainer)\b", r"\btrl\s+grpo\b", r"\btrl[./]scripts[./]grpo\b"),
    marks=("shuffle_dataset",),
    hints=(
        "num_generations",
        "steps_per_generation",
        "generation_batch_size",
        "max_completion_length",
        "num_iterations",
        "scale_rewards",
    ),
    processes=PROCESSES,
)

DPO = TrainerRules(
    name="trl_dpo",
    title="TRL 1.16, DPOTrainer",
    defaults={
        "train_sampling_strategy": "random",
        "max_length": 1024,
        "truncation_mode": "keep_start",
        "num_train_epochs": 3.0,
        "max_steps": -1,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "ignore_data_skip": False,
        "dataloader_in_order": True,
        "accelerator_config.split_batches": False,
        "auto_find_batch_size": False,
        "train_dataset": [],
        "datasets": [],
    },
    rules=(
        Rule(
            "train_sampling_strategy",
            right="sequential",
            why="The sampler is a random one, or groups by length (transformers/trainer.py, _get_train_sampler).",
        ),
        Rule(
            "max_length",
            right=lambda view: None if view.value("truncation_mode") == "keep_start" else WHATEVER,
            why="Pairs whose prompt alone has max_length tokens are dropped, and every later pair moves into another "
            "batch (trl/trainer/dpo_trainer.py, _prepare_dataset).",
            remedy="Set max_length=None, or keep batches.max_prompt_tokens of the spec below it.",
            level="caution",
        ),
        Rule(
            "gradient_accumulation_steps",
            right=with_export(dpo_accumulation),
            why="One optimizer step takes per_device_train_batch_size * processes * gradient_accumulation_steps "
            "pairs, which is not a batch of {batch_size}.",
        ),
        Rule(
            "num_processes",
            right=needed_processes("pairs"),
            why="With these sizes one optimizer step is one batch of {batch_size} pairs on exactly {right} processes.",
            remedy="Start {right} processes, or change gradient_accumulation_steps.",
            level="caution",
        ),
        *_SHARED,
    ),
    words=(r"\bDPO(Config|Trainer)\b", r"\btrl\s+dpo\b", r"\btrl[./]scripts[./]dpo\b"),
    marks=(
        "train_sampling_strategy",
        "precompute_ref_log_probs",
        "truncation_mode",
        "label_smoothing",
        "f_divergence_type",
        "ld_alpha",
    ),
    processes=PROCESSES,
)
