"""ms-swift 4.6: what in the arguments or the YAML file of `swift rlhf` breaks the order.

Belongs here: rules, each with the place in ms-swift's source that it was read from. Does not belong here:
what is written for ms-swift (trainers.ms_swift).
"""

from __future__ import annotations

from saerl_assets.trainers.lint.rules import WHATEVER, Rule, TrainerRules, View, with_export
from saerl_assets.trainers.lint.trl import (
    PROCESSES,
    STEP_SIZE,
    at_most,
    grpo_generation_batch,
    grpo_steps_per_generation,
    same_or_none,
)


def _one_pass(view: View) -> object:
    steps, epochs = view.value("max_steps"), view.value("max_epochs")
    return WHATEVER if (isinstance(steps, int) and steps > 0) or epochs is not None else 1


def _one_whole_data_set(value: object, _: object) -> bool:
    names = value if isinstance(value, list) else [value]
    return len(names) < 2 and not any("#" in str(name) for name in names)


RULES = TrainerRules(
    name="ms_swift",
    title="ms-swift 4.6, GRPO",
    defaults={
        "rlhf_type": "dpo",
        "dataset_shuffle": True,
        "split_dataset_ratio": 0.0,
        "dynamic_sample": False,
        "async_generate": False,
        "strict": False,
        "num_train_epochs": 3.0,
        "max_steps": -1,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "num_generations": 8,
        "num_iterations": 1,
        "ignore_data_skip": False,
    },
    rules=(
        Rule(
            "rlhf_type",
            right="grpo",
            why="The export is for GRPO: messages and a solution.",
        ),
        Rule(
            "dataset_shuffle",
            right=False,
            why="The data set is shuffled when it is loaded (swift/dataset/loader.py, load_dataset) and again by the "
            "sampler (swift/rlhf_trainers/grpo_trainer.py, _prepare_algorithm_params).",
        ),
        Rule(
            "split_dataset_ratio",
            right=0,
            why="Rows are split off for validation (swift/dataset/dataset_meta.py), so every later row moves.",
        ),
        Rule(
            "interleave_prob",
            right=None,
            why="Data sets are drawn from at random (swift/dataset/loader.py, interleave_datasets).",
            remedy="Leave it out.",
        ),
        Rule(
            "dataset",
            right=None,
            why="Several data sets are joined, and NAME#N takes N rows (swift/dataset/dataset_syntax.py), so rows are "
            "not in their batches any more.",
            remedy="Give the export's file alone, without #.",
            fits=_one_whole_data_set,
            reads_text=True,
        ),
        Rule(
            "truncation_strategy",
            right="left",
            why="With 'delete', prompts over max_length are replaced by others (swift/rlhf_trainers/grpo_trainer.py, "
            "resample_encode_failed_inputs). Filter by batches.max_prompt_tokens of the spec.",
            fits=lambda value, _: value != "delete",
        ),
        Rule(
            "dynamic_sample",
            right=False,
            why="Groups without a spread of rewards are replaced by other prompts (grpo_trainer.py, "
            "_dynamic_sampling).",
        ),
        Rule(
            "async_generate",
            right=False,
            why="Every step trains on the batch before its own: on the first one twice, on the last one never "
            "(swift/rlhf_trainers/rollout_mixin.py, _prefetch and _fast_infer).",
        ),
        Rule(
            "strict",
            right=True,
            why="A row that ms-swift cannot read is dropped with a line in the log, and every later row moves.",
            level="caution",
        ),
        Rule(
            "steps_per_generation",
            right=grpo_steps_per_generation,
            why="What is generated at once is then not one optimizer step; on several processes prompts move between "
            "steps.",
            fits=same_or_none,
        ),
        Rule(
            "generation_batch_size",
            right=grpo_generation_batch,
            why="It sets steps_per_generation (rlhf_trainers/args_mixin.py); what is generated at once is then not "
            "one optimizer step, and on several processes prompts move between steps.",
            fits=same_or_none,
        ),
        *STEP_SIZE,
        Rule(
            "num_train_epochs",
            right=_one_pass,
            why="All planned epochs are in the file, one after the other; another pass repeats the order.",
        ),
        Rule(
            "max_epochs",
            right=1,
            why="All planned epochs are in the file, one after the other; another pass repeats the order.",
            fits=same_or_none,
        ),
        Rule(
            "max_steps",
            right=with_export(
                lambda view, export: export.n_steps if at_most(1, view.value("max_steps")) else WHATEVER,
            ),
            why="The export has {n_steps} batches; behind the last one the trainer begins the file again.",
            fits=at_most,
        ),
        Rule(
            "ignore_data_skip",
            right=False,
            why="A resumed training starts at the first row again instead of at the step that it stopped at.",
        ),
        Rule(
            "num_iterations",
            right=1,
            why="Every batch is trained on that many times in a row, so one batch is several optimizer steps. The "
            "order of batches stays.",
            level="caution",
        ),
    ),
    words=(r"\bswift\s+rlhf\b", r"\bswift[./]cli[./]rlhf\b"),
    marks=(
        "rlhf_type",
        "dataset_shuffle",
        "split_dataset_ratio",
        "tuner_type",
        "train_type",
        "external_plugins",
        "dynamic_sample",
        "truncation_strategy",
    ),
    processes=(*PROCESSES, "NPROC_PER_NODE", "NNODES"),
)
