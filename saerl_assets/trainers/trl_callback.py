"""The callback that holds a training with TRL's GRPO trainer to the order of an export.

Belongs here: what is looked at before a training, while it runs and when it resumes. Does not belong here: the export
(trl), which settings are wrong (trl_settings), the file of the log (training_log).

Written against TRL 1.16 and transformers 5.23. What is relied on there:

- `GRPOTrainer._get_train_sampler` (`RepeatSampler`) gives each generation batch `num_generations` times and
  `steps_per_generation * num_iterations` times over; `_prepare_inputs` generates from the first of these, permutes the
  completions and cuts them into `steps_per_generation` parts.
- `_calculate_rewards` calls every reward function once a generation, with the rows' columns, in the loader's order.
- `Trainer._inner_training_loop` calls `on_train_begin` with the loader and with the state as the checkpoint has
  it; `_save_checkpoint` writes what `ExportableState.state` says into `trainer_state.json`.
- Generation takes place between `on_step_begin` and `on_step_end`, evaluation never does.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from saerl_assets.domain.errors import SaerlError
from saerl_assets.trainers.export import check_export
from saerl_assets.trainers.training_log import append_lines, start_log
from saerl_assets.trainers.trl import FORMAT, other_trainer
from saerl_assets.trainers.trl_settings import Args, wrong_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from transformers import TrainerControl, TrainerState

Rewards: TypeAlias = "Sequence[float | None]"

_LOOKED_AT = 1_000_000
"""Rows of the loader that are compared before a training: all of most, a fraction of a second of any. Every later
batch is compared when its turn comes."""

_SETTINGS_REMEDY = "Take the settings from saerl_assets.trainers.trl.load and leave them as they are."


class OrderCallback(TrainerCallback, ExportableState):
    """Stops a `GRPOTrainer` that would not train in the order of an export, and logs every reward.

    When the training begins, it looks at the settings, at the data set and at what the trainer's own loader will hand
    out, and it refuses a checkpoint of another manifest or arm. From then on it compares the prompts of every step with
    the batch that is due, before the step is taken. Rewards go to `saerl_log.jsonl` in the output folder.

        order = OrderCallback(path)
        GRPOTrainer(..., reward_funcs=order.watch(my_reward), callbacks=[order])

    Args:
        path: The folder of the export.

    Raises:
        SaerlError: `not_an_export`, `export_changed`, `other_trainer`.
    """

    _args: Args  # from the beginning of a training on

    def __init__(self, path: str | Path) -> None:
        self._folder = Path(path)
        self._record = check_export(self._folder)
        if self._record.trainer != FORMAT.name:
            raise other_trainer(self._folder, self._record.trainer)
        order = FORMAT.read_order(self._folder)
        self._prompt_ids: list[str] = order["prompt_id"].to_list()
        self._epochs: list[int] = order["epoch"].to_list()
        self._n_rewards = 0
        self._watched_at: list[int] = []
        self._n_iterations = 1
        self._batch: int | None = None  # the one that is trained on, while a step is being taken
        self._n_taken = 0  # parts of the step that are done
        self._seen: dict[int, list[str]] = {}  # by reward function
        self._rewards: dict[int, list[float | None]] = {}
        self._log = Path()

    def state(self) -> dict[str, Any]:
        """What goes into `trainer_state.json` of every checkpoint: which order it was trained in, and up to now how."""
        return {"args": {"path": str(self._folder)}, "attributes": {"order": self._identity()}}

    def watch(self, rewards: Callable[..., Any] | Sequence[Any]) -> list[Any]:
        """The reward functions, for `reward_funcs`, so that their prompts are compared and their rewards logged.

        They are called as before. A reward model in the list stays as it is; it cannot be watched, and the rewards of
        the log are null then.

        Raises:
            SaerlError: `nothing_to_watch` if there is no function.
        """
        wanted: list[Any] = list(rewards) if isinstance(rewards, list | tuple) else [rewards]
        watched = [reward if _is_model(reward) else self._watched(at, reward) for at, reward in enumerate(wanted)]
        if all(_is_model(reward) for reward in wanted):
            raise SaerlError(
                "nothing_to_watch",
                "There is no reward function, and a reward model does not tell which prompts it was given.",
                where="reward_funcs",
                remedy="Call the reward model in a function of prompts and completions, and pass that.",
            )
        self._n_rewards = len(wanted)
        self._watched_at = [at for at, reward in enumerate(wanted) if not _is_model(reward)]
        return watched

    def on_train_begin(
        self,
        args: Args,
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002 - transformers' signature
        **objects: Any,  # noqa: ANN401 - model, optimizer, loader and so on
    ) -> None:
        """Compares what the trainer is about to do with the order.

        Raises:
            SaerlError: `order_not_kept` naming the settings, `other_dataset` naming the first row that differs,
                `other_manifest` for a checkpoint, `not_watched`.
        """
        self._args = args
        self._check_settings(args, state)
        self._check_dataset(objects["train_dataloader"])
        self._check_loader(objects["train_dataloader"])
        self._check_checkpoint(state)
        if not self._watched_at:
            raise SaerlError(
                "not_watched",
                "The reward functions are not watched, so nothing shows which prompts a step takes.",
                where="reward_funcs",
                remedy="Write reward_funcs=order.watch(my_reward), where order is this callback.",
            )
        if state.is_world_process_zero:
            self._log = start_log(Path(str(args.output_dir)), state.global_step // self._n_iterations)

    def on_step_begin(self, args: Args, state: TrainerState, control: TrainerControl, **_: object) -> None:  # noqa: ARG002
        """Notes which batch is due."""
        self._batch = state.global_step // self._n_iterations
        self._n_taken = 0
        self._seen, self._rewards = {}, {}

    def on_substep_end(self, args: Args, state: TrainerState, control: TrainerControl, **_: object) -> None:  # noqa: ARG002
        """Checks after each part of a step that it was of this batch.

        Raises:
            SaerlError: `out_of_order` if the trainer took the completions of another batch once more.
        """
        self._check_generated(state.global_step)

    def on_step_end(self, args: Args, state: TrainerState, control: TrainerControl, **_: object) -> None:  # noqa: ARG002
        """Logs the batch.

        Raises:
            SaerlError: As `on_substep_end`.
        """
        self._check_generated(state.global_step - 1)
        batch, self._batch = self._batch, None
        if batch is not None and (state.global_step - 1) % self._n_iterations == 0:
            self._write(state, batch)

    def _check_generated(self, step: int) -> None:
        """In the first iteration over a batch, what is taken was generated before in the same step."""
        self._n_taken += 1
        n_due = math.ceil(self._n_taken / self._args.steps_per_generation) * self._n_here()
        if step % self._n_iterations == 0 and any(len(self._seen.get(at, [])) != n_due for at in self._watched_at):
            raise self._out_of_order(f"step {step} took completions that are not of batch {self._batch}")

    def _identity(self) -> dict[str, str | int]:
        record = self._record
        return {
            "manifest_id": record.manifest_id,
            "arm": record.arm,
            "batch_size": record.batch_size,
            "order_digest": record.order_digest,
            "num_iterations": self._n_iterations,
        }

    def _watched(self, at: int, reward: Callable[..., Any]) -> Callable[..., Any]:
        """A reward function that shows what it was given and what it gave."""

        def watched(**columns: object) -> Rewards:
            self._see(at, columns)
            found: Rewards = list(reward(**columns))
            self._note(at, found)
            return found

        async def watched_async(**columns: object) -> Rewards:
            self._see(at, columns)
            found: Rewards = list(await reward(**columns))
            self._note(at, found)
            return found

        is_async = inspect.iscoroutinefunction(_plain(reward)) or inspect.iscoroutinefunction(_plain(reward).__call__)
        shown: Callable[..., Any] = watched_async if is_async else watched
        name = getattr(_plain(reward), "__name__", type(reward).__name__)  # TRL calls its metrics by it
        shown.__name__, shown.__doc__ = name, reward.__doc__
        return shown

    def _see(self, at: int, columns: Mapping[str, Any]) -> None:
        """Compares the prompts of a generation with those that are due."""
        if self._batch is None:  # an evaluation
            return
        args, found = self._args, [str(prompt_id) for prompt_id in columns["prompt_id"]]
        n_parts = args.gradient_accumulation_steps // args.steps_per_generation
        part = len(self._seen.get(at, [])) // self._n_here()
        expected = (
            [self._prompt_ids[row] for row in self._rows_of(self._batch * n_parts + part)] if part < n_parts else []
        )
        if found != expected:
            pairs = enumerate(itertools.zip_longest(found, expected, fillvalue="no prompt"))
            number, (given, wanted) = next((number, pair) for number, pair in pairs if pair[0] != pair[1])
            problem = f"completion {number} of {len(found)} generated for batch {self._batch} is for prompt {given}"
            raise self._out_of_order(f"{problem}, and should be for {wanted}")
        self._seen.setdefault(at, []).extend(found)

    def _note(self, at: int, rewards: Rewards) -> None:
        if self._batch is not None:
            self._rewards.setdefault(at, []).extend(rewards)

    def _n_here(self) -> int:
        """Completions of this process in one generation."""
        return int(self._args.generation_batch_size) // int(self._args.world_size)

    def _rows_of(self, generation: int) -> list[int]:
        """Rows of the export of which this process has the completions of a generation, in the loader's order."""
        args, n_here = self._args, self._n_here()
        size = args.generation_batch_size // args.num_generations
        rows = [row for row in range(generation * size, (generation + 1) * size) for _ in range(args.num_generations)]
        return rows[args.process_index * n_here : (args.process_index + 1) * n_here]

    def _check_settings(self, args: Args, state: TrainerState) -> None:
        self._n_iterations = args.num_iterations
        wrong = wrong_settings(args, self._record, resumes=state.global_step > 0)
        if wrong:
            said = "; ".join(f"{name} is {found} and must be {wanted}" for name, found, wanted in wrong)
            raise self._not_kept(f"These settings do not keep the order: {said}.", _SETTINGS_REMEDY)

    def _check_dataset(self, loader: Any) -> None:  # noqa: ANN401 - any loader
        dataset = loader.dataset
        if not hasattr(dataset, "select_columns") or not hasattr(dataset, "__len__"):
            problem = f"The data set is streamed ({type(dataset).__name__}), so its rows cannot be compared."
            raise self._not_kept(problem, "Give the trainer the data set of saerl_assets.trainers.trl.load.")
        remedy = (
            "Give the trainer the data set of saerl_assets.trainers.trl.load with all its rows and with prompt_id; "
            "leave prompts out by batches.max_prompt_tokens of the spec."
        )
        if "prompt_id" not in dataset.column_names:
            raise SaerlError("other_dataset", "The data set has no prompt_id.", where=str(self._folder), remedy=remedy)
        found = dataset.select_columns("prompt_id").with_format("arrow")[:]["prompt_id"].to_pylist()
        if found != self._prompt_ids:
            pairs = enumerate(itertools.zip_longest(found, self._prompt_ids, fillvalue="no prompt"))
            row, (given, wanted) = next((row, pair) for row, pair in pairs if pair[0] != pair[1])
            problem = (
                f"The trainer's data set has {len(found)} rows and the export {len(self._prompt_ids)}; row {row} is "
                f"{given} and should be {wanted}."
            )
            raise SaerlError("other_dataset", problem, where=str(self._folder), remedy=remedy)

    def _check_loader(self, loader: Any) -> None:  # noqa: ANN401 - any loader
        found = itertools.islice(itertools.chain.from_iterable(loader.batch_sampler), _LOOKED_AT)
        for at, (row, wanted) in enumerate(itertools.zip_longest(found, self._planned_rows())):
            if row != wanted:
                problem = (
                    f"Completion {at} that the trainer's loader hands out is for row {row}, and should be for row "
                    f"{wanted}."
                )
                remedy = "Use GRPOTrainer's own sampler, one process per device, and the settings of "
                raise self._not_kept(problem, f"{remedy}saerl_assets.trainers.trl.load.")

    def _planned_rows(self) -> Iterator[int]:
        """What the loader should hand out, as far as it is looked at."""
        n_each = self._args.steps_per_generation
        n_parts = self._args.gradient_accumulation_steps // n_each
        generations = range(self._record.n_steps * n_parts)
        repeated = ([self._rows_of(generation)] * (n_each * self._n_iterations) for generation in generations)
        rows = itertools.chain.from_iterable(itertools.chain.from_iterable(repeated))
        return itertools.islice(rows, _LOOKED_AT)

    def _check_checkpoint(self, state: TrainerState) -> None:
        """What the checkpoint says is compared; a training that starts anew finds what `state` of this object said."""
        if state.global_step == 0:
            return
        callbacks: Any = state.stateful_callbacks  # read from JSON: a dictionary by class
        found = callbacks.get(type(self).__name__, {}).get("attributes", {}).get("order", {})
        place = f"checkpoint at step {state.global_step}"
        if not found:
            remedy = "Start anew, or resume a checkpoint that was written with this callback."
            problem = "Nothing in it tells which manifest it was trained on."
            raise SaerlError("checkpoint_without_manifest", problem, where=place, remedy=remedy)
        wrong = {
            name: (found.get(name), wanted) for name, wanted in self._identity().items() if found.get(name) != wanted
        }
        if wrong:
            name, (given, wanted) = next(iter(wrong.items()))
            remedy = "Resume with the export that it was trained on, or start anew in another output folder."
            problem = f"It was trained with {name} {_short(given)}, and this export has {_short(wanted)}."
            raise SaerlError("other_manifest", problem, where=place, remedy=remedy)
        if state.global_step % self._n_iterations:
            remedy = f"Resume a checkpoint whose step is a multiple of num_iterations, {self._n_iterations}."
            problem = "It lies amid the iterations over one batch, and TRL would begin them anew."
            raise SaerlError("order_not_kept", problem, where=place, remedy=remedy)

    def _write(self, state: TrainerState, batch: int) -> None:
        """Adds a batch to the log, the completions of all processes."""
        from accelerate.utils import gather_object

        seen = self._seen[self._watched_at[0]]
        rewards = [self._reward_of(completion) for completion in range(len(seen))]
        found = gather_object(list(zip(seen, rewards, strict=True)))
        if state.is_world_process_zero:
            fixed = {
                "manifest_id": self._record.manifest_id,
                "step": batch,
                "epoch": self._epochs[batch * self._record.batch_size],
            }
            append_lines(self._log, [fixed | {"prompt_id": one, "reward": reward} for one, reward in found])

    def _reward_of(self, completion: int) -> float | None:
        """What the trainer makes of the functions' rewards, see `GRPOTrainer._calculate_rewards`: the weighted sum."""
        if len(self._rewards) < self._n_rewards:
            return None
        weights = self._args.reward_weights or [1.0] * self._n_rewards
        found = [(weight, self._rewards[at][completion]) for at, weight in enumerate(weights)]
        known = [weight * float(reward) for weight, reward in found if reward is not None and not math.isnan(reward)]
        return sum(known) if known else None

    def _not_kept(self, problem: str, remedy: str) -> SaerlError:
        return SaerlError("order_not_kept", problem, where=str(self._folder), remedy=remedy)

    def _out_of_order(self, what: str) -> SaerlError:
        problem = f"The training left the order: {what}."
        return SaerlError("out_of_order", problem, where=str(self._folder), remedy=_SETTINGS_REMEDY)


def _is_model(reward: object) -> bool:
    """Whether it is a reward model, or a model's name."""
    return isinstance(reward, str) or hasattr(reward, "forward")


def _plain(reward: Any) -> Any:  # noqa: ANN401 - any callable
    while isinstance(reward, functools.partial):
        reward = reward.func
    return reward


def _short(value: object) -> str:
    return value[:12] if isinstance(value, str) else str(value)
