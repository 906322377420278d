"""What is trained and with which settings: the SAE before its first step, the trainer, the threshold it ends with.

Belongs here: everything that depends on the architecture or on the length of the run. Does not belong here: the loop
and what is on disk (sae_training); the step's arithmetic (sparse_training).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.nn.functional import normalize

from saerl_assets.domain.spec import SaeSpec
from saerl_assets.models.token_stream import Spread

WARM_UP_FRACTION, DECAY_FRACTION = 0.05, 0.3
DECODER_NORM = 0.1
TIE_BREAKING_NOISE = 0.01
"""Length of the noise on unit rows of the decoder: tokens that begin many prompts are otherwise the same latent
twice."""

DEAD_WINDOW_FRACTION = 0.05
"""Share of the run after which a latent that has not fired counts as dead. The auxiliary loss revives only dead ones,
so a window near the length of the run revives none: with `sae_lens`'s default of 1,000 steps 62% died in 500 steps."""
LEAST_EXPECTED_FIRINGS = 4
"""A shorter window, in which the average latent would fire less often than this, takes the rare for the dead."""
MAX_DEAD_WINDOW_TOKENS = 10_000_000
"""The window of Gao et al. 2024 (arXiv 2406.04093), for runs of billions of tokens."""

PREFIX_FRACTIONS = (1 / 32, 3 / 32, 7 / 32, 15 / 32, 1.0)
"""Widths of a Matryoshka SAE's nested prefixes: 2,048 to 65,536 in Bussmann et al. 2025 (arXiv 2503.17547)."""
MATRYOSHKA_REVIVAL = 2.0
"""Weight of its auxiliary loss for every reconstruction in its loss. At 0.2, which `sae_lens` has for five of them, 35%
of the latents died in the demo, most of them in no prefix but the last; at 2 it is 13%."""

BANDWIDTH = 0.2
"""Width of JumpReLU's gradient around a threshold, as a share of the mean threshold at the beginning."""
ASIDE_COST = 0.25
"""What an L0 of twice the aim costs, as a share of the variance of the activations."""
SILENCE_COST = 0.1
"""What it would cost, as such a share, if no latent had any pre-activation at all."""
N_THRESHOLD_TOKENS = 4_096
"""Tokens on which JumpReLU's thresholds at the beginning are measured."""
BLOCK_LATENTS = 2_048
N_THRESHOLD_BATCHES = 8
"""Batches on which BatchTopK's threshold at the end is measured."""


def initial_sae(
    activations: torch.Tensor,
    spread: Spread,
    spec: SaeSpec,
    *,
    seed: int,
    device: str,
    kinds: dict[str, tuple[Any, Any]] | None = None,
) -> Any:  # noqa: ANN401 - sae_lens's own class
    """A training SAE whose bias is the data's mean and whose decoder rows point at data.

    From rows that point at random it takes four times the tokens to the same explained variance, and more latents die.

    Args:
        activations: [n_tokens, d_in], on the processor.
        spread: Of the activations.
        spec: Architecture, width, k.
        seed: Of the tokens that the rows point at.
        device: Where it is made.
        kinds: Classes by architecture; those with the sparse step by default, where the device has its operations.
    """
    from saerl_assets.models.sparse_training import DENSE_KINDS, SPARSE_KINDS

    make, configure = (kinds or (DENSE_KINDS if device.startswith("mps") else SPARSE_KINDS))[spec.architecture]
    generator = torch.Generator().manual_seed(seed)
    mean, rows = spread.mean * spread.scale, _initial_rows(activations, spread, spec.n_latents, generator)
    thresholds = None
    settings: dict[str, Any] = {"k": spec.k}
    if spec.architecture == "jumprelu":
        chosen = torch.randperm(len(activations), generator=generator)[:N_THRESHOLD_TOKENS]
        centred = activations[chosen].float() * spread.scale - mean
        thresholds = _firing_thresholds(centred.to(device), rows.to(device), spec.k)
        settings = _jumprelu_settings(spec, activations.shape[1], float(thresholds.mean()))
    if spec.architecture == "matryoshka":
        widths = sorted({max(int(spec.n_latents * fraction), 1) for fraction in PREFIX_FRACTIONS})
        settings |= {"matryoshka_widths": widths, "aux_loss_coefficient": MATRYOSHKA_REVIVAL * len(widths)}
    sae = make(
        configure(
            d_in=activations.shape[1],
            d_sae=spec.n_latents,
            normalize_activations="expected_average_only_in",
            decoder_init_norm=DECODER_NORM,
            device=device,
            dtype="float32",
            **settings,
        )
    )
    with torch.no_grad():
        sae.b_dec.copy_(mean)
        sae.W_dec.copy_(rows)
        sae.W_enc.copy_(rows.T)
        if thresholds is not None:
            sae.threshold.copy_(thresholds)
    return sae


def make_trainer(sae: Any, spec: SaeSpec, spread: Spread, *, n_steps: int, batch_tokens: int, device: str) -> Any:  # noqa: ANN401
    """`sae_lens`'s trainer, without data, for a run of `n_steps` batches of `batch_tokens`."""
    from sae_lens import SAETrainer
    from sae_lens.config import LoggingConfig, SAETrainerConfig

    warm_up_steps = int(n_steps * WARM_UP_FRACTION)
    trainer = SAETrainer(
        SAETrainerConfig(
            total_training_samples=n_steps * batch_tokens,
            train_batch_size_samples=batch_tokens,
            device=device,
            lr=spec.learning_rate,
            lr_end=spec.learning_rate / 10,
            lr_warm_up_steps=warm_up_steps if warm_up_steps > 1 else 0,
            lr_decay_steps=int(n_steps * DECAY_FRACTION),
            dead_feature_window=dead_window(spec, n_steps, batch_tokens),
            feature_sampling_window=n_steps + 1,
            n_checkpoints=0,
            checkpoint_path=None,
            save_final_checkpoint=False,
            logger=LoggingConfig(log_to_wandb=False),
        ),
        sae,
        iter(()),
    )
    trainer.activation_scaler.scaling_factor = spread.scale
    return trainer


def dead_window(spec: SaeSpec, n_steps: int, batch_tokens: int) -> int:
    """Steps without firing after which a latent counts as dead: at least 1.

    DEAD_WINDOW_FRACTION of the run, within what LEAST_EXPECTED_FIRINGS and MAX_DEAD_WINDOW_TOKENS allow.
    """
    n_tokens = min(DEAD_WINDOW_FRACTION * n_steps * batch_tokens, MAX_DEAD_WINDOW_TOKENS)
    n_tokens = max(n_tokens, LEAST_EXPECTED_FIRINGS * spec.n_latents / spec.k)
    return max(round(n_tokens / batch_tokens), 1)


@torch.no_grad()
def ready_for_inference(sae: Any, scale: float, batches: Iterable[torch.Tensor]) -> None:  # noqa: ANN401
    """Turns a trained SAE, in place, into one for unscaled activations of single tokens.

    BatchTopK's threshold becomes the mean over some batches of the least activation that is chosen (Bussmann et al.
    2024, arXiv 2412.06410, section 3), under the weights at the end: the average that `sae_lens` carries along starts
    at 0 and lags behind, so that an SAE of k = 32 had an L0 of 402 after 48 steps. Decoder norms are folded away, which
    `sae_lens` does for all but JumpReLU when it saves them: activations are then lengths in the model's space.

    Args:
        sae: `sae_lens`'s training SAE.
        scale: That activations were multiplied by in training.
        batches: Activations as they were trained on, not scaled: [n_tokens, d_in] each.
    """
    if hasattr(sae, "topk_threshold"):
        chosen = [acts[acts > 0] for acts in (sae.encode(batch.to(sae.device) * scale) for batch in batches)]
        least = [float(acts.min()) for acts in chosen if len(acts)]
        sae.topk_threshold.fill_(sum(least) / max(len(least), 1))
    sae.fold_activation_norm_scaling_factor(scale)
    if sae.cfg.architecture() == "jumprelu":
        sae.fold_W_dec_norm()


def _initial_rows(
    activations: torch.Tensor, spread: Spread, n_latents: int, generator: torch.Generator
) -> torch.Tensor:
    """Decoder rows [n_latents, d_in] that point from the mean at tokens, with a little noise."""
    chosen = torch.randperm(len(activations), generator=generator)[torch.arange(n_latents) % len(activations)]
    noise = torch.randn((n_latents, activations.shape[1]), generator=generator)
    rows = normalize(activations[chosen].float() - spread.mean, dim=-1)
    return normalize(rows + TIE_BREAKING_NOISE * normalize(noise, dim=-1), dim=-1) * DECODER_NORM


def _firing_thresholds(centred: torch.Tensor, rows: torch.Tensor, k: int) -> torch.Tensor:
    """Thresholds [n_latents] above which each latent fires on its share of the tokens, so that L0 starts at k."""
    n_above = min(max(round(len(centred) * k / len(rows)), 1), len(centred) - 1)
    parts = [(centred @ block.T).topk(n_above + 1, dim=0).values[-1] for block in torch.split(rows, BLOCK_LATENTS)]
    return torch.cat(parts).clamp(min=0.0)


def _jumprelu_settings(spec: SaeSpec, d_in: int, threshold: float) -> dict[str, Any]:
    """The quadratic loss around a target L0, which brings every token's L0 to k.

    It is c * 2 / k * (L0 - k)^2, the form of Gemma Scope 2 and, up to the factor, of Rajamanoharan et al. 2024 (arXiv
    2407.14435, appendix). Gradients pass the thresholds on to the encoder (Anthropic's variant): with gradients for the
    thresholds alone L0 ends a fifth below the aim. Dead latents are drawn towards their thresholds by the loss on their
    pre-activations (Conerly et al. 2025, https://transformer-circuits.pub/2025/january-update), not by an auxiliary
    reconstruction.

    Coefficients are in units of the variance, which is d_in after scaling, so that they hold for every model and width.
    """
    return {
        "jumprelu_sparsity_loss_mode": "quadratic",
        "target_l0": spec.k,
        "l0_coefficient": ASIDE_COST * d_in / (2 * spec.k),
        "jumprelu_bandwidth": max(BANDWIDTH * threshold, 1e-6),
        "jumprelu_ste_to_input": True,
        "pre_act_loss_coefficient": SILENCE_COST * d_in / (spec.n_latents * max(threshold, 1e-6) * DECODER_NORM),
    }
