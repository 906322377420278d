"""How well an SAE fits activations.

Belongs here: the figures. Does not belong here: the verdict, which is the domain's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from saerl_assets.models.saes import Encoder


@dataclass(frozen=True)
class Fit:
    """Figures over a sample of tokens, attention sinks left out."""

    explained_variance: float
    l0: float
    n_tokens: int
    n_sink_tokens: int


@torch.inference_mode()
def measure_fit(encoder: Encoder, activations: Iterable[torch.Tensor], sink_threshold: float) -> Fit:
    """Explained variance and L0 of an encoder.

    Explained variance is 1 - sum |x - x'|^2 / sum |x - mean(x)|^2 over all tokens and dimensions.

    Args:
        encoder: The SAE.
        activations: Blocks [n_tokens, d_in].
        sink_threshold: Norm above which a token is left out.
    """
    residual = squares = 0.0
    total: torch.Tensor | None = None
    n_tokens = n_sinks = n_active = 0
    for block in activations:
        states = block.float()
        kept = states[states.norm(dim=-1) <= sink_threshold]
        n_sinks += len(states) - len(kept)
        if not len(kept):
            continue
        n_tokens += len(kept)
        n_active += len(encoder.encode(kept).value)
        residual += float((kept - encoder.reconstruct(kept)).double().pow(2).sum())
        squares += float(kept.double().pow(2).sum())
        total = kept.double().sum(dim=0) if total is None else total + kept.double().sum(dim=0)
    if total is None:
        return Fit(0.0, 0.0, 0, n_sinks)
    spread = squares - float(total.pow(2).sum()) / n_tokens
    return Fit(1.0 - residual / max(spread, 1e-12), n_active / n_tokens, n_tokens, n_sinks)
