"""Settings of TRL's GRPO trainer under which it would not train in the order of an export.

Belongs here: what of a `GRPOConfig` decides which prompts a step takes. Does not belong here: settings that keep the
order (trl), looking at anything but settings (trl_callback).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from saerl_assets.trainers.export import ExportRecord

Args: TypeAlias = Any
"""A `GRPOConfig`. Its own types leave open what `__post_init__` fills in."""


class Setting(NamedTuple):
    """A setting under which a training would not follow the order."""

    name: str
    found: object
    wanted: str


def wrong_settings(args: Args, record: ExportRecord, *, resumes: bool = False) -> list[Setting]:
    """The settings of a `GRPOConfig` under which optimizer steps would not be the batches of an export.

    Args:
        args: The `GRPOConfig`.
        record: Of the export.
        resumes: Whether the training goes on from a checkpoint.
    """
    n_accumulated, n_processes = args.gradient_accumulation_steps, args.world_size
    n_completions = args.per_device_train_batch_size * n_processes * n_accumulated
    n_wanted, n_steps = record.batch_size * args.num_generations, record.n_steps * args.num_iterations
    product = f"per_device_train_batch_size * {n_processes} processes * gradient_accumulation_steps"
    divides = n_accumulated % args.steps_per_generation == 0 and args.num_iterations == 1
    as_many = f"{n_accumulated}, as gradient_accumulation_steps is" + (", or a divisor" * (args.num_iterations == 1))
    a_batch = f"{n_wanted}, {record.batch_size} prompts with {args.num_generations} completions each"
    in_order = args.dataloader_in_order or not args.dataloader_num_workers
    splits = args.accelerator_config.split_batches
    wrong = [
        (args.shuffle_dataset, "shuffle_dataset", args.shuffle_dataset, "False"),
        (
            args.steps_per_generation != n_accumulated and not divides,
            "steps_per_generation",
            args.steps_per_generation,
            as_many,
        ),
        (n_completions != n_wanted, product, n_completions, a_batch),
        (args.max_steps <= 0 and args.num_train_epochs > 1, "num_train_epochs", args.num_train_epochs, "1"),
        (args.max_steps > n_steps, "max_steps", args.max_steps, f"{n_steps} at most"),
        (args.auto_find_batch_size, "auto_find_batch_size", True, "False"),
        (args.remove_unused_columns, "remove_unused_columns", True, "False"),
        (args.n_gpu > 1, "n_gpu", args.n_gpu, "1 for each process, as `accelerate launch` starts them"),
        (not in_order, "dataloader_in_order", args.dataloader_in_order, "True"),
        (splits and n_processes > 1, "accelerator_config.split_batches", splits, "False"),
        (resumes and args.ignore_data_skip, "ignore_data_skip", True, "False"),
        (
            args.restore_callback_states_from_checkpoint,
            "restore_callback_states_from_checkpoint",
            True,
            "False",
        ),
    ]
    return [Setting(name, found, wanted) for is_wrong, name, found, wanted in wrong if is_wrong]
