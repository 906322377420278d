"""Random SAEs on disk, written by `sae_lens` itself.

Belongs here: making the files. Does not belong here: tests.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from saerl_assets.models.saes import Encoder

D_IN, N_LATENTS, K = 8, 24, 3
ACTIVATIONS = torch.randn(50, D_IN, generator=torch.Generator().manual_seed(5)) * 3
CLASSES = {
    "topk": "TopKSAE",
    "abstopk": "AbsTopKSAE",
    "jumprelu": "JumpReLUSAE",
    "standard": "StandardSAE",
    "gated": "GatedSAE",
    "matching_pursuit": "MatchingPursuitSAE",
    "batchtopk": "BatchTopKTrainingSAE",
    "matryoshka": "MatryoshkaBatchTopKTrainingSAE",
}


def saved(folder: Path, kind: str, **settings: object) -> Path:
    """A random SAE of an architecture, written by `sae_lens`."""
    random_sae(kind, **settings).save_model(folder)
    return folder


def random_sae(kind: str, **settings: object) -> Any:  # noqa: ANN401 - sae_lens's own class
    """A random SAE of an architecture."""
    import sae_lens

    make, configure = getattr(sae_lens, CLASSES[kind]), getattr(sae_lens, f"{CLASSES[kind]}Config")
    own: dict[str, object] = {"k": K} if "topk" in kind or kind == "matryoshka" else {}
    if kind == "matryoshka":
        own["matryoshka_widths"] = [8, N_LATENTS]
    sae: Any = make(configure(d_in=D_IN, d_sae=N_LATENTS, **own, **settings))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in sorted(sae.named_parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
            if name == "threshold":
                parameter.abs_()
            if kind == "matching_pursuit" and name == "W_dec":
                parameter.div_(parameter.norm(dim=1, keepdim=True))
        if hasattr(sae, "topk_threshold"):
            sae.topk_threshold.fill_(2.0)
    return sae


def with_config(folder: Path, **changes: object) -> Path:
    """Changes a cfg.json; None takes a key out."""
    file = folder / "cfg.json"
    config = {name: value for name, value in (json.loads(file.read_text()) | changes).items() if value is not None}
    file.write_text(json.dumps(config))
    return folder


def dense(encoder: Encoder, activations: torch.Tensor = ACTIVATIONS) -> torch.Tensor:
    """All activations [n_tokens, n_latents]."""
    found = encoder.encode(activations)
    out = torch.zeros(len(activations), encoder.n_latents)
    out[found.token, found.latent] = found.value
    return out
