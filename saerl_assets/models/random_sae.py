"""An SAE with random weights: the control that says how much of a signal comes from training an SAE at all.

Belongs here: drawing its weights. Does not belong here: training (sae_training).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn.functional import normalize

from saerl_assets.models.sae_files import sae_contents


def write_random_sae(folder: Path, centre: torch.Tensor, *, n_latents: int, k: int, seed: int) -> None:
    """Writes a TopK SAE whose directions were never trained.

    Decoder rows are uniform on the sphere and the encoder is their transpose, which is how training starts (Gao et al.
    2024, arXiv 2406.04093).

    Args:
        folder: A folder that is there; it becomes a SAELens directory.
        centre: Mean of the activations, [d_in]: without it every token would have the same latents.
        n_latents: Its width.
        k: Latents that are active on a token.
        seed: Of the directions.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = normalize(torch.randn(n_latents, len(centre), generator=generator), dim=-1)
    weights = {"W_enc": rows.T, "W_dec": rows, "b_enc": torch.zeros(n_latents), "b_dec": centre}
    sae_contents("topk", weights, {"converted_from": "random weights"}, subtracts_b_dec=True, k=k).save(folder)
