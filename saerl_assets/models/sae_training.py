"""Training a sparse autoencoder on a version's own activations, with `sae_lens`'s trainer.

Belongs here: the data order, the settings that make it work at small budgets, checkpoints, the history. Does not belong
here: the trainer and the architectures, which are `sae_lens`'s.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch

from saerl_assets.domain.progress import Progress
from saerl_assets.domain.spec import SaeSpec

DEAD_WINDOW_FRACTION = 0.05
"""Share of the run after which a silent latent counts as dead: short, so that the auxiliary loss can act."""
WARM_UP_FRACTION, DECAY_FRACTION = 0.05, 0.3
DECODER_NORM = 0.1
N_CHECKPOINTS = 4
N_HISTORY_ROWS = 60


@dataclass(frozen=True)
class TrainedSae:
    """A SAELens directory and how training went: step, tokens, loss, explained_variance, l0, dead_fraction."""

    folder: Path
    history: pl.DataFrame


def train_sae(
    activations: torch.Tensor,
    spec: SaeSpec,
    *,
    layer: int,
    seed: int,
    folder: Path,
    device: str,
    progress: Progress,
) -> TrainedSae:
    """Trains one SAE; killed and started again with the same arguments it goes on from its last checkpoint.

    Args:
        activations: [n_tokens, d_in], attention sinks left out.
        spec: Architecture, width, budget.
        layer: For the SAE's metadata.
        seed: Of the initial weights and the order of tokens.
        folder: Where checkpoints and the finished SAE are put.
        device: Where it is trained.
        progress: Told tokens, loss, explained variance, L0 and dead fraction.
    """
    # Scaled so that a token's norm is sqrt(d_in) on average, and folded back into the weights afterwards: the learning
    # rate then means the same for every model (Bricken et al. 2023, Towards Monosemanticity, 'Autoencoder training').
    scale = activations.shape[1] ** 0.5 / float(activations.float().norm(dim=-1).mean())
    batch_tokens = min(spec.batch_tokens, len(activations))
    n_steps = max(spec.training_tokens // batch_tokens, 1)
    torch.manual_seed(seed)
    sae = _initial_sae(activations, spec, layer=layer, scale=scale, device=device)
    order = _TokenOrder(activations, scale, batch_tokens, seed)
    trainer = _trainer(sae, spec, order, n_steps, batch_tokens, device)
    history = _resume(trainer, folder)
    order.skip_to(trainer.n_training_steps)
    every = max(n_steps // N_HISTORY_ROWS, 1)
    checkpoint_every = max(n_steps // (N_CHECKPOINTS + 1), 1)
    while trainer.n_training_steps < n_steps:
        output = trainer.step(next(order))
        trainer.n_training_steps += 1
        step = trainer.n_training_steps
        if step % every == 0 or step == n_steps:
            history.append(_measure(trainer, output, step, batch_tokens))
            last = history[-1]
            progress(
                step * batch_tokens,
                n_steps * batch_tokens,
                unit="training tokens",
                note=f"loss {last['loss']:.3f}, explained variance {last['explained_variance']:.2f}, "
                f"L0 {last['l0']:.0f}, dead {last['dead_fraction']:.0%}",
            )
        if step % checkpoint_every == 0 and step < n_steps:
            _checkpoint(trainer, folder, history)
    sae.fold_activation_norm_scaling_factor(scale)
    trainer.set_final_sae_metadata()
    finished = folder / "sae"
    sae.save_inference_model(str(finished))
    return TrainedSae(finished, pl.DataFrame(history))


class _TokenOrder:
    """Batches of tokens, shuffled anew every pass over them: `sae_lens`'s data provider."""

    def __init__(self, activations: torch.Tensor, scale: float, batch_tokens: int, seed: int) -> None:
        self._activations, self._scale, self._batch = activations, scale, batch_tokens
        self._generator = torch.Generator().manual_seed(seed)
        self._batches = self._shuffled()

    def __iter__(self) -> Iterator[torch.Tensor]:
        return self

    def __next__(self) -> torch.Tensor:
        return self._activations[next(self._batches)].float() * self._scale

    def skip_to(self, step: int) -> None:
        """Leaves out the batches that a resumed run has seen."""
        for _ in range(step):
            next(self._batches)

    def _shuffled(self) -> Iterator[torch.Tensor]:
        while True:
            order = torch.randperm(len(self._activations), generator=self._generator)
            yield from torch.split(order, self._batch)[: len(order) // self._batch]


def _initial_sae(activations: torch.Tensor, spec: SaeSpec, *, layer: int, scale: float, device: str) -> Any:  # noqa: ANN401 - sae_lens's own class
    """A training SAE whose bias is the data's mean and whose decoder rows point at data."""
    from sae_lens import (
        BatchTopKTrainingSAE,
        BatchTopKTrainingSAEConfig,
        TopKTrainingSAE,
        TopKTrainingSAEConfig,
    )

    kinds: dict[str, tuple[Any, Any]] = {
        "topk": (TopKTrainingSAE, TopKTrainingSAEConfig),
        "batchtopk": (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig),
    }
    make, configure = kinds[spec.architecture]
    config = configure(
        d_in=activations.shape[1],
        d_sae=spec.n_latents,
        k=spec.k,
        decoder_init_norm=DECODER_NORM,
        device=device,
        dtype="float32",
    )
    config.metadata.hook_name = f"blocks.{layer}.hook_resid_post"
    sae = make(config)
    with torch.no_grad():
        mean = activations.float().mean(dim=0) * scale
        chosen = torch.randint(len(activations), (spec.n_latents,), generator=torch.Generator().manual_seed(1))
        rows = activations[chosen].float() * scale - mean
        rows = torch.nn.functional.normalize(rows + 1e-6 * torch.randn_like(rows), dim=-1) * DECODER_NORM
        sae.b_dec.copy_(mean)
        sae.W_dec.copy_(rows)
        sae.W_enc.copy_(rows.T)
    return sae


def _trainer(sae: Any, spec: SaeSpec, order: _TokenOrder, n_steps: int, batch_tokens: int, device: str) -> Any:  # noqa: ANN401
    from sae_lens import SAETrainer
    from sae_lens.config import LoggingConfig, SAETrainerConfig

    return SAETrainer(
        SAETrainerConfig(
            total_training_samples=n_steps * batch_tokens,
            train_batch_size_samples=batch_tokens,
            device=device,
            lr=spec.learning_rate,
            lr_end=spec.learning_rate / 10,
            lr_warm_up_steps=int(n_steps * WARM_UP_FRACTION),
            lr_decay_steps=int(n_steps * DECAY_FRACTION),
            dead_feature_window=max(int(n_steps * DEAD_WINDOW_FRACTION), 1),
            feature_sampling_window=n_steps + 1,
            n_checkpoints=0,
            checkpoint_path=None,
            save_final_checkpoint=False,
            logger=LoggingConfig(log_to_wandb=False),
        ),
        sae,
        order,
    )


def _measure(trainer: Any, output: Any, step: int, batch_tokens: int) -> dict[str, float]:  # noqa: ANN401
    with torch.no_grad():
        acts = output.feature_acts.to_dense() if output.feature_acts.is_sparse else output.feature_acts
        residual = (output.sae_in - output.sae_out).pow(2).sum()
        spread = (output.sae_in - output.sae_in.mean(dim=0)).pow(2).sum()
        return {
            "step": step,
            "tokens": step * batch_tokens,
            "loss": float(output.loss),
            "explained_variance": float(1 - residual / spread),
            "l0": float((acts > 0).float().sum(dim=-1).mean()),
            "dead_fraction": float(trainer.dead_neurons.float().mean()),
        }


def _checkpoint(trainer: Any, folder: Path, history: list[dict[str, float]]) -> None:  # noqa: ANN401
    """Appears whole: written beside, then renamed."""
    part, target = folder / "checkpoint.part", folder / "checkpoint"
    shutil.rmtree(part, ignore_errors=True)
    trainer.save_checkpoint("state", base_path=part)
    (part / "history.json").write_text(json.dumps(history))
    shutil.rmtree(target, ignore_errors=True)
    part.replace(target)


def _resume(trainer: Any, folder: Path) -> list[dict[str, float]]:  # noqa: ANN401
    """Restores the last checkpoint, if there is one; returns its history."""
    state = folder / "checkpoint" / "state"
    if not state.is_dir():
        return []
    trainer.load_trainer_state(state)
    trainer.sae.load_weights_from_checkpoint(state)
    found: list[dict[str, float]] = json.loads((folder / "checkpoint" / "history.json").read_text())
    return found
