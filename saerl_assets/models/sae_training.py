"""Training a sparse autoencoder on a version's own activations, with `sae_lens`'s trainer.

Belongs here: the loop, what it refuses and what it tells. Does not belong here: the trainer and the losses, which are
`sae_lens`'s; the settings that make training work at small budgets (training_setup); the order of the data
(token_stream); what is on disk (sae_checkpoints).
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
import torch

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.progress import Progress, silent
from saerl_assets.domain.spec import SaeSpec
from saerl_assets.models.sae_checkpoints import (
    SAE_FOLDER,
    HistoryRow,
    read_history,
    recipe_digest,
    restore_checkpoint,
    save_checkpoint,
    save_finished,
)
from saerl_assets.models.token_stream import TokenOrder, measure_spread
from saerl_assets.models.training_setup import N_THRESHOLD_BATCHES, initial_sae, make_trainer, ready_for_inference

N_CHECKPOINTS = 8
N_HISTORY_ROWS = 60
HISTORY_SCHEMA = {
    "step": pl.Int64,
    "tokens": pl.Int64,
    "loss": pl.Float64,
    "explained_variance": pl.Float64,
    "l0": pl.Float64,
    "dead_fraction": pl.Float64,
}


@dataclass(frozen=True)
class TrainedSae:
    """A SAELens directory and how its training went."""

    folder: Path
    history: pl.DataFrame
    """HISTORY_SCHEMA, measured on training batches; dead are the latents that were silent for the dead window."""


def train_sae(
    activations: torch.Tensor,
    spec: SaeSpec,
    *,
    layer: int,
    seed: int,
    folder: Path,
    device: str,
    progress: Progress = silent,
) -> TrainedSae:
    """Trains one SAE.

    Killed and started again with the same arguments it goes on from its last checkpoint and ends with the same bytes.
    If it had finished, it is found again.

    Args:
        activations: [n_tokens, d_in], attention sinks left out, on the processor.
        spec: Architecture, width, budget.
        layer: For the SAE's metadata.
        seed: Of the initial weights and the order of tokens.
        folder: Where checkpoints and the finished SAE are put.
        device: Where it is trained.
        progress: Told tokens, loss, explained variance, L0 and dead fraction.

    Raises:
        SaerlError: `too_few_tokens`, `k_too_large`, `activations_not_finite`, `activations_constant`,
            `training_diverged`.
    """
    _check(activations, spec)
    recipe, finished = recipe_digest(activations, spec, layer, seed), folder / "finished"
    history = read_history(finished, recipe)
    if history is None:
        sae, history = _trained(activations, spec, layer, seed, folder, recipe, device, progress)
        save_finished(sae, finished, recipe, history)
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint, ignore_errors=True)
    return TrainedSae(finished / SAE_FOLDER, pl.DataFrame(history, schema=HISTORY_SCHEMA))


def _trained(
    activations: torch.Tensor,
    spec: SaeSpec,
    layer: int,
    seed: int,
    folder: Path,
    recipe: str,
    device: str,
    progress: Progress,
) -> tuple[Any, list[HistoryRow]]:
    """The finished SAE of `sae_lens`, and its history."""
    spread = measure_spread(activations, where=f"layer {layer}")
    batch_tokens = min(spec.batch_tokens, len(activations))
    n_steps = max(spec.training_tokens // batch_tokens, 1)

    def fresh() -> Any:  # noqa: ANN401 - sae_lens's own class
        sae = initial_sae(activations, spread, spec, seed=seed, device=device)
        sae.cfg.metadata.hook_name = f"blocks.{layer}.hook_resid_post"
        return make_trainer(sae, spec, spread, n_steps=n_steps, batch_tokens=batch_tokens, device=device)

    trainer = fresh()
    try:
        history = restore_checkpoint(trainer, folder, recipe)
    except (OSError, RuntimeError, KeyError, ValueError):  # a damaged checkpoint: from the beginning
        trainer, history = fresh(), []
    trainer.data_provider = TokenOrder(activations, batch_tokens, seed, trainer.n_training_steps)
    _run(trainer, n_steps, folder, recipe, history, progress)
    trainer.set_final_sae_metadata()
    ready_for_inference(trainer.sae, spread.scale, islice(trainer.data_provider, N_THRESHOLD_BATCHES))
    return trainer.sae, history


def _check(activations: torch.Tensor, spec: SaeSpec) -> None:
    if len(activations) <= 1:
        problem = f"There are {len(activations)} tokens to train an SAE on."
        remedy = "Add prompts, or load an SAE: sae.source = 'path:DIR'."
        raise SaerlError("too_few_tokens", problem, where="sae.source", remedy=remedy)
    if spec.k >= spec.n_latents:
        problem = f"An SAE of {spec.n_latents:,} latents of which {spec.k:,} are active is not sparse."
        raise SaerlError("k_too_large", problem, where="sae.k", remedy="Set sae.k below sae.n_latents.")


def _check_loss(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        remedy = "Lower sae.learning_rate, to a third for a start."
        raise SaerlError("training_diverged", f"The loss is {loss} at step {step:,}.", where="sae", remedy=remedy)


def _run(
    trainer: Any,  # noqa: ANN401 - sae_lens's own class
    n_steps: int,
    folder: Path,
    recipe: str,
    history: list[HistoryRow],
    progress: Progress,
) -> None:
    """The loop of `SAETrainer.fit`, with our checkpoints and progress in place of its bar and its log."""
    measure_every, save_every = max(n_steps // N_HISTORY_ROWS, 1), max(n_steps // (N_CHECKPOINTS + 1), 1)
    while trainer.n_training_steps < n_steps:
        output = trainer.step(next(trainer.data_provider))
        trainer.n_training_steps += 1
        step = trainer.n_training_steps
        if step % measure_every == 0 or step == n_steps:
            history.append(_measure(trainer, output))
            _check_loss(history[-1]["loss"], step)
            n_tokens = trainer.cfg.total_training_samples
            progress(trainer.n_training_samples, n_tokens, unit="training tokens", note=_in_words(history[-1]))
        if step % save_every == 0 and step < n_steps:
            save_checkpoint(trainer, folder, recipe, history)


@torch.no_grad()
def _measure(trainer: Any, output: Any) -> HistoryRow:  # noqa: ANN401 - sae_lens's own classes
    residual = (output.sae_in - output.sae_out).pow(2).sum()
    variance = (output.sae_in - output.sae_in.mean(dim=0)).pow(2).sum().clamp(min=1e-12)
    return {
        "step": trainer.n_training_steps,
        "tokens": trainer.n_training_samples,
        "loss": float(output.loss.detach()),
        "explained_variance": float(1 - (residual / variance).detach()),
        "l0": float((output.feature_acts > 0).sum(dim=-1, dtype=torch.float32).mean()),
        "dead_fraction": float(trainer.dead_neurons.float().mean()),
    }


def _in_words(row: HistoryRow) -> str:
    return (
        f"loss {row['loss']:.1f}, explained variance {row['explained_variance']:.3f}, L0 {row['l0']:.0f}, "
        f"dead {row['dead_fraction']:.0%}"
    )
