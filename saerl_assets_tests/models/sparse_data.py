"""Made-up activations that an SAE can explain, and training one on them in a moment."""

from __future__ import annotations

from pathlib import Path

import torch

from saerl_assets.domain.spec import SaeSpec
from saerl_assets.models.sae_training import TrainedSae, train_sae

ARCHITECTURES = ["topk", "batchtopk", "jumprelu", "matryoshka"]
D_IN, N_ATOMS, K = 32, 40, 3
N_STEPS = 50
SPEC = SaeSpec(n_latents=80, k=K, training_tokens=N_STEPS * 128, batch_tokens=128, learning_rate=3e-3)


def sparse_data(n_tokens: int = 3_000, seed: int = 0, n_atoms: int = N_ATOMS) -> torch.Tensor:
    """Sums of three of so many directions, far off centre and scale: what an SAE is made to find."""
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.nn.functional.normalize(
        torch.randn(n_atoms, D_IN, generator=torch.Generator().manual_seed(9)), dim=-1
    )
    chosen = torch.rand(n_tokens, n_atoms, generator=generator).topk(3).indices
    weights = torch.rand(n_tokens, 3, generator=generator) + 0.5
    return 40.0 * ((atoms[chosen] * weights[..., None]).sum(dim=1) + 2.0)


def train(folder: Path, activations: torch.Tensor | None = None, **changes: object) -> TrainedSae:
    """Trains by SPEC with some changes, on `sparse_data` by default."""
    data = sparse_data() if activations is None else activations
    return train_sae(data, SPEC.model_copy(update=changes), layer=5, seed=3, folder=folder, device="cpu")
