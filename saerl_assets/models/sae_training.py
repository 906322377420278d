"""Training a sparse autoencoder on a version's own activations, with `sae_lens`'s trainer.

Belongs here: the data order and the settings that make training work at small budgets. Does not belong here:
the trainer and the losses, which are `sae_lens`'s; the step's arithmetic (sparse_training); what is on disk
(sae_checkpoints).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch.nn.functional import normalize

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

DEAD_WINDOW_FRACTION = 0.05
"""Share of the run after which a latent that has not fired counts as dead. The auxiliary loss revives only
dead ones, so a window near the length of the run revives none: with `sae_lens`'s default of 1,000 steps 62%
died in 500 steps."""
WARM_UP_FRACTION, DECAY_FRACTION = 0.05, 0.3
DECODER_NORM = 0.1
TIE_BREAKING_NOISE = 0.01
"""Length of the noise on unit rows of the decoder: tokens that begin many prompts are otherwise the same
latent twice."""
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
    """HISTORY_SCHEMA, measured on training batches; dead are the latents that were silent for
    DEAD_WINDOW_FRACTION."""


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

    Killed and started again with the same arguments it goes on from its last checkpoint and ends with the
    same bytes. If it had finished, it is found again.

    Args:
        activations: [n_tokens, d_in], attention sinks left out, on the processor.
        spec: Architecture, width, budget.
        layer: For the SAE's metadata.
        seed: Of the initial weights and the order of tokens.
        folder: Where checkpoints and the finished SAE are put.
        device: Where it is trained.
        progress: Told tokens, loss, explained variance, L0 and dead fraction.

    Raises:
        SaerlError: `too_few_tokens`.
    """
    if len(activations) <= 1:
        problem = f"There are {len(activations)} tokens to train an SAE on."
        remedy = "Add prompts, or load an SAE: sae.source = 'path:DIR'."
        raise SaerlError("too_few_tokens", problem, where="sae.source", remedy=remedy)
    recipe, finished = recipe_digest(activations, spec, layer, seed), folder / "finished"
    history = read_history(finished, recipe)
    if history is None:
        sae, history = _trained(activations, spec, layer, seed, folder, recipe, device, progress)
        save_finished(sae, finished, recipe, history)
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint, ignore_errors=True)
    return TrainedSae(finished / SAE_FOLDER, pl.DataFrame(history, schema=HISTORY_SCHEMA))


class TokenOrder(Iterator[torch.Tensor]):
    """Batches of tokens, shuffled anew every pass over them: the data provider of `sae_lens`'s trainer.

    Each batch is a function of the seed and its number, so a resumed run sees the batches that an undisturbed
    one would.
    """

    def __init__(self, activations: torch.Tensor, batch_tokens: int, seed: int, first_step: int = 0) -> None:
        self._activations, self._batch_tokens, self._seed = activations, batch_tokens, seed
        self._step = first_step
        self._shuffled: tuple[int, torch.Tensor] = (-1, torch.zeros(0))

    def __next__(self) -> torch.Tensor:
        turn, place = divmod(self._step, len(self._activations) // self._batch_tokens)
        if turn != self._shuffled[0]:
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + turn)
            self._shuffled = turn, torch.randperm(len(self._activations), generator=generator)
        self._step += 1
        chosen = self._shuffled[1][place * self._batch_tokens : (place + 1) * self._batch_tokens]
        return self._activations[chosen].float()


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
    # Scaled so that a token lies sqrt(d_in) from the mean on average, and folded back into the weights
    # afterwards, with sae_lens's own means: the learning rate then fits every model. (sae_lens measures from
    # 0 instead, where a model whose mean is large leaves training next to nothing to see.)
    mean = activations.mean(dim=0, dtype=torch.float32)
    scale = activations.shape[1] ** 0.5 / float((activations.float() - mean).norm(dim=-1).mean().clamp(min=1e-6))
    batch_tokens = min(spec.batch_tokens, len(activations))
    n_steps = max(spec.training_tokens // batch_tokens, 1)

    def fresh() -> Any:  # noqa: ANN401 - sae_lens's own class
        sae = _initial_sae(activations, spec, n_steps=n_steps, seed=seed, scale=scale, device=device)
        sae.cfg.metadata.hook_name = f"blocks.{layer}.hook_resid_post"
        trainer = _trainer(sae, spec, n_steps, batch_tokens, device)
        trainer.activation_scaler.scaling_factor = scale
        return trainer

    trainer = fresh()
    try:
        history = restore_checkpoint(trainer, folder, recipe)
    except (OSError, RuntimeError, KeyError, ValueError):  # a damaged checkpoint: from the beginning
        trainer, history = fresh(), []
    trainer.data_provider = TokenOrder(activations, batch_tokens, seed, trainer.n_training_steps)
    _run(trainer, n_steps, folder, recipe, history, progress)
    trainer.sae.fold_activation_norm_scaling_factor(scale)
    trainer.set_final_sae_metadata()
    return trainer.sae, history


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
            n_tokens = trainer.cfg.total_training_samples
            progress(trainer.n_training_samples, n_tokens, unit="training tokens", note=_in_words(history[-1]))
        if step % save_every == 0 and step < n_steps:
            save_checkpoint(trainer, folder, recipe, history)


def _initial_sae(
    activations: torch.Tensor, spec: SaeSpec, *, n_steps: int, seed: int, scale: float, device: str
) -> Any:  # noqa: ANN401 - sae_lens's own class
    """A training SAE whose bias is the data's mean and whose decoder rows point at data.

    From rows that point at random it takes four times the tokens to the same explained variance, and more
    latents die.
    """
    from saerl_assets.models.sparse_training import DENSE_KINDS, SPARSE_KINDS

    make, configure = (DENSE_KINDS if device.startswith("mps") else SPARSE_KINDS)[spec.architecture]
    generator = torch.Generator().manual_seed(seed)
    more = {"topk_threshold_lr": _threshold_rate(n_steps)} if spec.architecture == "batchtopk" else {}
    sae = make(
        configure(
            d_in=activations.shape[1],
            d_sae=spec.n_latents,
            k=spec.k,
            normalize_activations="expected_average_only_in",
            decoder_init_norm=DECODER_NORM,
            device=device,
            dtype="float32",
            **more,
        )
    )
    mean = activations.mean(dim=0, dtype=torch.float32) * scale
    chosen = torch.randperm(len(activations), generator=generator)[torch.arange(spec.n_latents) % len(activations)]
    noise = torch.randn((spec.n_latents, activations.shape[1]), generator=generator)
    rows = normalize(activations[chosen].float() * scale - mean, dim=-1)
    rows = normalize(rows + TIE_BREAKING_NOISE * normalize(noise, dim=-1), dim=-1) * DECODER_NORM
    with torch.no_grad():
        sae.b_dec.copy_(mean)
        sae.W_dec.copy_(rows)
        sae.W_enc.copy_(rows.T)
    return sae


def _threshold_rate(n_steps: int) -> float:
    """Rate at which BatchTopK's threshold for inference follows the batches: it arrives within the run.

    It starts at 0; with `sae_lens`'s 0.01 an SAE of k = 32 had an L0 of 402 after 48 steps.
    """
    return min(max(20 / n_steps, 0.01), 0.5)


def _trainer(sae: Any, spec: SaeSpec, n_steps: int, batch_tokens: int, device: str) -> Any:  # noqa: ANN401
    from sae_lens import SAETrainer
    from sae_lens.config import LoggingConfig, SAETrainerConfig

    warm_up_steps = int(n_steps * WARM_UP_FRACTION)
    return SAETrainer(
        SAETrainerConfig(
            total_training_samples=n_steps * batch_tokens,
            train_batch_size_samples=batch_tokens,
            device=device,
            lr=spec.learning_rate,
            lr_end=spec.learning_rate / 10,
            lr_warm_up_steps=warm_up_steps if warm_up_steps > 1 else 0,
            lr_decay_steps=int(n_steps * DECAY_FRACTION),
            dead_feature_window=max(int(n_steps * DEAD_WINDOW_FRACTION), 1),
            feature_sampling_window=n_steps + 1,
            n_checkpoints=0,
            checkpoint_path=None,
            save_final_checkpoint=False,
            logger=LoggingConfig(log_to_wandb=False),
        ),
        sae,
        iter(()),
    )


@torch.no_grad()
def _measure(trainer: Any, output: Any) -> HistoryRow:  # noqa: ANN401 - sae_lens's own classes
    residual = (output.sae_in - output.sae_out).pow(2).sum()
    variance = (output.sae_in - output.sae_in.mean(dim=0)).pow(2).sum()
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
