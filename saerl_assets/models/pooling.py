"""From tokens to texts: sparse features and dense states pooled over the tokens that count, as Arrow tables.

Belongs here: segment reductions over packed tokens; no array of texts x latents is ever made. Does not belong here:
the SAE, and which tokens count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from saerl_assets.models.saes import SparseActivations

LARGEST_USHORT = 65_535


@dataclass(frozen=True)
class PackedTexts:
    """Texts whose tokens lie one after the other, and which of the tokens count. All tensors are on one device."""

    text_ids: Sequence[str]
    lengths: torch.Tensor
    """Tokens of each text, int64 [n_texts]."""
    in_scope: torch.Tensor
    """Tokens that are pooled over unless they are sinks, bool [n_tokens]."""
    kept: torch.Tensor
    """Those that are no sinks, bool [n_tokens]."""

    @property
    def text_of_token(self) -> torch.Tensor:
        """Index of each token's text, int64 [n_tokens]."""
        return torch.repeat_interleave(torch.arange(len(self.lengths), device=self.lengths.device), self.lengths)

    @property
    def place_of_token(self) -> torch.Tensor:
        """Index of each token within its text, int64 [n_tokens]."""
        starts = self.lengths.cumsum(0) - self.lengths
        return torch.arange(int(self.lengths.sum()), device=starts.device) - starts.repeat_interleave(self.lengths)


def pool_features(sparse: SparseActivations, n_latents: int, texts: PackedTexts) -> pa.Table:
    """One row per text: its active latents with their largest and summed activation, count, and token of the largest.

    Args:
        sparse: Activations of the kept tokens; `token` counts those alone.
        n_latents: Width of the SAE.
        texts: The texts.

    Returns:
        The columns of table prompt_features but `encoder_id`, one row per text. A text without tokens that count has
        empty lists.
    """
    n_texts, text_of_token = len(texts.text_ids), texts.text_of_token
    token = texts.kept.nonzero().flatten()[sparse.token]
    # one key per text and latent; stable, so that tokens stay in order within a key
    key, order = torch.sort(text_of_token[token] * n_latents + sparse.latent, stable=True)
    value, place = sparse.value[order], texts.place_of_token[token[order]]
    pairs, counts = torch.unique_consecutive(key, return_counts=True)
    maximum = _reduced(value, counts, "max")
    total = _reduced(value, counts, "sum")
    holds_maximum = (value == maximum.repeat_interleave(counts)).nonzero().flatten()
    starts = counts.cumsum(0) - counts
    argmax = place[holds_maximum[torch.searchsorted(holds_maximum, starts)]] if len(starts) else starts
    n_features = torch.bincount(pairs // n_latents, minlength=n_texts)
    offsets = pa.array(np.concatenate([[0], np.cumsum(n_features.cpu().numpy())]), pa.int32())
    in_scope, kept = (
        torch.bincount(text_of_token[chosen], minlength=n_texts) for chosen in (texts.in_scope, texts.kept)
    )

    def lists(values: torch.Tensor, kind: pa.DataType) -> pa.ListArray:
        return pa.ListArray.from_arrays(offsets, _array(values, kind))

    return pa.table(
        {
            "text_id": pa.array(texts.text_ids, pa.string()),
            "n_tokens": _array(kept, pa.uint32()),
            "n_sink_tokens": _array(in_scope - kept, pa.uint32()),
            "feature_ids": lists(pairs % n_latents, pa.uint32()),
            "max": lists(maximum, pa.float32()),
            "sum": lists(total, pa.float32()),
            "n_active": lists(counts.clamp(max=LARGEST_USHORT), pa.uint16()),
            "argmax_token": lists(argmax.clamp(max=LARGEST_USHORT), pa.uint16()),
        }
    )


def pool_states(states: torch.Tensor, texts: PackedTexts) -> pa.Table:
    """One row per text: the mean over the tokens that count, and the last token's state.

    Args:
        states: Activations, float32 [n_tokens, d_model].
        texts: The texts.

    Returns:
        The columns of table prompt_states but `reading_id`. Without tokens that count the mean is zeros; without any
        token the last state is zeros too.
    """
    n_kept = torch.bincount(texts.text_of_token[texts.kept], minlength=len(texts.text_ids))
    summed = _reduced(states * texts.kept[:, None], texts.lengths, "sum")
    last = torch.zeros_like(summed)
    has_tokens = texts.lengths > 0
    last[has_tokens] = states[texts.lengths.cumsum(0)[has_tokens] - 1]
    offsets = pa.array(np.arange(len(texts.text_ids) + 1) * states.shape[1], pa.int32())

    def lists(values: torch.Tensor) -> pa.ListArray:
        return pa.ListArray.from_arrays(offsets, _array(values.flatten(), pa.float32()))

    return pa.table(
        {
            "text_id": pa.array(texts.text_ids, pa.string()),
            "mean": lists(summed / n_kept.clamp(min=1)[:, None]),
            "last": lists(last),
        }
    )


def _reduced(values: torch.Tensor, lengths: torch.Tensor, how: str) -> torch.Tensor:
    """Reduces consecutive segments along the first axis; an empty one gives 0. Always in the same order."""
    if not len(lengths):
        return values.new_zeros((0, *values.shape[1:]))
    return torch.segment_reduce(values, how, lengths=lengths, axis=0, unsafe=True, initial=0.0)


def _array(values: torch.Tensor, kind: pa.DataType) -> pa.Array:
    return pa.array(values.cpu().numpy()).cast(kind)
