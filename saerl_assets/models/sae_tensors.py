"""The tensors of an SAE under `sae_lens`'s names, held against each other.

Belongs here: which tensor has which shape, in every format. Does not belong here: reading files (`sae_files`), what a
format means (`sae_formats`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import torch

from saerl_assets.models.sae_files import corrupt

LINEAR = ("W_enc", "W_dec", "b_enc", "b_dec")
"""What a linear encoder and decoder consist of."""

TENSORS = (*LINEAR, "threshold", "b_gate", "b_mag", "r_mag")
"""All that architectures of `sae_lens` consist of."""


def named_tensors(
    raw: Mapping[str, torch.Tensor],
    names: Mapping[str, str],
    file: Path,
    *,
    transposed: Collection[str] = (),
    spread: Collection[str] = (),
) -> dict[str, torch.Tensor]:
    """The tensors that an SAE consists of.

    They are `W_enc` [d_in, d_sae], `W_dec` [d_sae, d_in], `b_dec` [d_in]; all others are [d_sae].

    Args:
        raw: What the file holds; what is not named is left out.
        names: By `sae_lens`'s name the file's.
        file: Where they are, for the message.
        transposed: Those of `sae_lens`'s names whose matrix the file holds transposed.
        spread: Those that may be one number for all latents.

    Raises:
        SaerlError: `sae_corrupt` for a tensor that is missing, has another shape or holds no floating-point numbers.
    """
    if missing := [theirs for theirs in names.values() if theirs not in raw]:
        raise corrupt(file, f"It lacks {', '.join(missing)}.")
    for ours, theirs in names.items():
        tensor, n_dimensions = raw[theirs], 2 if ours.startswith("W_") else 1
        if not tensor.is_floating_point():
            raise corrupt(
                file, f"{theirs} holds {str(tensor.dtype).removeprefix('torch.')}, no floating-point numbers."
            )
        is_spread = ours in spread and tensor.ndim == 0
        if (tensor.ndim != n_dimensions or 0 in tensor.shape) and not is_spread:
            kind = "matrix" if n_dimensions == 2 else "vector"
            raise corrupt(file, f"{theirs} has shape {list(tensor.shape)}, where a {kind} belongs.")
    found = {ours: raw[theirs].T if ours in transposed else raw[theirs] for ours, theirs in names.items()}
    d_sae, d_in = found["W_dec"].shape
    shapes = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
    for ours, theirs in names.items():
        wanted = shapes.get(ours, (d_sae,))
        if found[ours].ndim == 0:
            found[ours] = found[ours].expand(d_sae).clone()
        elif found[ours].shape != wanted:
            wanted = wanted[::-1] if ours in transposed else wanted
            decoder = f"{names['W_dec']} of shape {list(raw[names['W_dec']].shape)}"
            raise corrupt(
                file, f"{theirs} has shape {list(raw[theirs].shape)}; beside {decoder} it has {list(wanted)}."
            )
    return found
