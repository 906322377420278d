"""From tokens to texts: sparse features and dense states pooled over the tokens that count, as Arrow tables.

Belongs here: segment reductions over packed tokens; no array of texts x latents is ever made. Does not belong here:
the SAE, and which texts are read together.

Texts are pooled a batch at a time on the device. The tables are made on the host from all batches of a shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from saerl_assets.models.device import to_device, to_host
from saerl_assets.models.saes import SparseActivations

LARGEST_USHORT = 65_535
LARGEST_INT = 2**31 - 1


@dataclass(frozen=True)
class PackedTexts:
    """Texts whose tokens lie one after the other, and which of the tokens count. All tensors are on one device."""

    text_of_token: torch.Tensor
    """Index of each token's text, int64 [n_tokens]."""
    place_of_token: torch.Tensor
    """Index of each token within its text, int64 [n_tokens]."""
    last_token: torch.Tensor
    """Index of each text's last token, int64 [n_texts]; -1 in a text without tokens. It is in scope where any is."""
    n_in_scope: torch.Tensor
    """Tokens that are pooled over unless they are sinks, int64 [n_texts]."""
    kept: torch.Tensor
    """Index of each token in scope that is no sink, int64 [n_kept], ascending."""
    n_kept: torch.Tensor
    """Those of each text, int64 [n_texts]."""

    @classmethod
    def pack(
        cls, lengths: NDArray[np.int64], first_in_scope: NDArray[np.int64], norms: torch.Tensor, sink_threshold: float
    ) -> PackedTexts:
        """Packs texts.

        Args:
            lengths: Tokens of each text.
            first_in_scope: Index within the text of the first token that counts, for each text.
            norms: Norm of each token's activations, [n_tokens], on the device.
            sink_threshold: A token with a larger norm is an attention sink and does not count.
        """
        ends = lengths.cumsum()
        text = np.repeat(np.arange(len(lengths)), lengths)
        place = np.arange(len(text)) - (ends - lengths)[text]
        n_in_scope = np.maximum(lengths - first_in_scope, 0)
        device = norms.device
        text_of_token = to_device(text, device)
        is_kept = to_device(place >= first_in_scope[text], device) & (norms <= sink_threshold)
        counts = torch.zeros(len(lengths), dtype=torch.int64, device=device)
        return cls(
            text_of_token,
            to_device(place, device),
            to_device(np.where(lengths > 0, ends - 1, -1), device),
            to_device(n_in_scope, device),
            is_kept.nonzero().flatten(),
            counts.index_add_(0, text_of_token, is_kept.long()),
        )


@dataclass(frozen=True)
class FeatureRows:
    """Sparse rows of texts: for each text its counts, and text after text one entry for each active latent."""

    n_tokens: torch.Tensor
    """int32 [n_texts]"""
    n_sink_tokens: torch.Tensor
    """int32 [n_texts]"""
    n_features: torch.Tensor
    """Active latents, int32 [n_texts]."""
    latent: torch.Tensor
    """int32 [n_entries], ascending within a text"""
    maximum: torch.Tensor
    """float32 [n_entries]"""
    total: torch.Tensor
    """float32 [n_entries]"""
    last: torch.Tensor
    """float32 [n_entries]"""
    n_active: torch.Tensor
    """int32 [n_entries]"""
    argmax_token: torch.Tensor
    """int32 [n_entries]"""


@dataclass(frozen=True)
class StateRows:
    """Dense rows of texts."""

    mean: torch.Tensor
    """float32 [n_texts, d_model]"""
    last: torch.Tensor
    """float32 [n_texts, d_model]"""


Rows = TypeVar("Rows", FeatureRows, StateRows)


def on_host(rows: Rows) -> Rows:
    """The rows on the host, once the device has come so far: see `saerl_assets.models.device.to_host`."""
    return type(rows)(*(to_host(getattr(rows, field.name)) for field in fields(rows)))


def pool_features(sparse: SparseActivations, n_latents: int, texts: PackedTexts) -> FeatureRows:
    """One row per text: its active latents with their largest, summed and last activation, and their tokens.

    `last` is the activation on the text's last token: 0 where the latent is not active there, or where that token is
    a sink. Of several tokens with the largest activation, `argmax_token` is the first.

    Args:
        sparse: Activations of the kept tokens; `token` counts those alone.
        n_latents: Width of the SAE.
        texts: The texts.

    Returns:
        The rows, on the texts' device. A text without tokens that count has no entries.
    """
    n_texts = len(texts.n_kept)
    token = texts.kept.index_select(0, sparse.token)
    # one key per text and latent; stable, so that tokens stay in order within a key
    kind = torch.int32 if n_texts * n_latents <= LARGEST_INT else torch.int64
    key = (texts.text_of_token.index_select(0, token) * n_latents + sparse.latent).to(kind)
    key, order = torch.sort(key, stable=True)
    value, token = sparse.value.index_select(0, order), token.index_select(0, order)
    entries, entry_of, counts = torch.unique_consecutive(key, return_inverse=True, return_counts=True)
    ends = counts.cumsum(0)
    maximum = _reduced(value, counts, "max")
    is_maximum = value == maximum.index_select(0, entry_of)
    n_maxima_before = is_maximum.cumsum(0) - is_maximum.long()
    first_maximum = is_maximum.nonzero().flatten().index_select(0, n_maxima_before.index_select(0, ends - counts))
    text = entries // n_latents
    is_on_last = token.index_select(0, ends - 1) == texts.last_token.index_select(0, text)
    n_features = torch.zeros(n_texts, dtype=torch.int32, device=text.device)
    return FeatureRows(
        n_tokens=texts.n_kept.int(),
        n_sink_tokens=(texts.n_in_scope - texts.n_kept).int(),
        n_features=n_features.index_add_(0, text, torch.ones_like(text, dtype=torch.int32)),
        latent=(entries % n_latents).int(),
        maximum=maximum,
        total=_reduced(value, counts, "sum"),
        last=torch.where(is_on_last, value.index_select(0, ends - 1), 0.0),
        n_active=counts.int(),
        argmax_token=texts.place_of_token.index_select(0, token.index_select(0, first_maximum)).int(),
    )


def pool_states(states: torch.Tensor, kept_states: torch.Tensor, texts: PackedTexts) -> StateRows:
    """One row per text: the mean over the tokens that count, and the last token's state.

    Args:
        states: Activations of all tokens, [n_tokens, d_model].
        kept_states: Those of the kept tokens, [n_kept, d_model].
        texts: The texts.

    Returns:
        The rows, on the texts' device. Without tokens that count the mean is zeros; without any token the last state
        is zeros too.
    """
    mean = _reduced(kept_states.float(), texts.n_kept, "sum") / texts.n_kept.clamp(min=1)[:, None]
    if not len(states):
        return StateRows(mean, torch.zeros_like(mean))
    last = states.index_select(0, texts.last_token.clamp(min=0)).float()
    return StateRows(mean, torch.where((texts.last_token >= 0)[:, None], last, 0.0))


def features_table(text_ids: Sequence[str], parts: Sequence[FeatureRows]) -> pa.Table:
    """The rows of texts, batch after batch, as the columns of table prompt_features but `encoder_id`.

    Counts and places beyond 65,535 are given as that.
    """
    offsets = np.concatenate([[0], np.cumsum(_joined(parts, "n_features"))])

    def column(name: str, kind: type[np.generic]) -> pa.Array:
        return pa.array(_joined(parts, name).view(kind))

    def lists(values: pa.Array) -> pa.ListArray:
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)

    def shorts(name: str) -> pa.Array:
        return pa.array(np.minimum(_joined(parts, name), LARGEST_USHORT).astype(np.uint16))

    return pa.table(
        {
            "text_id": pa.array(text_ids, pa.string()),
            "n_tokens": column("n_tokens", np.uint32),
            "n_sink_tokens": column("n_sink_tokens", np.uint32),
            "feature_ids": lists(column("latent", np.uint32)),
            "max": lists(column("maximum", np.float32)),
            "sum": lists(column("total", np.float32)),
            "last": lists(column("last", np.float32)),
            "n_active": lists(shorts("n_active")),
            "argmax_token": lists(shorts("argmax_token")),
        }
    )


def states_table(text_ids: Sequence[str], parts: Sequence[StateRows]) -> pa.Table:
    """The rows of texts, batch after batch, as the columns of table prompt_states but `reading_id`."""

    def lists(name: str) -> pa.ListArray:
        values = _joined(parts, name)
        offsets = np.arange(len(text_ids) + 1) * (values.shape[1] if values.ndim == 2 else 0)
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values.reshape(-1)))

    return pa.table({"text_id": pa.array(text_ids, pa.string()), "mean": lists("mean"), "last": lists("last")})


def _joined(parts: Sequence[FeatureRows] | Sequence[StateRows], name: str) -> NDArray[np.generic]:
    return np.concatenate([getattr(part, name).numpy() for part in parts])


def _reduced(values: torch.Tensor, lengths: torch.Tensor, how: str) -> torch.Tensor:
    """Reduces consecutive segments along the first axis; an empty one gives 0. Always in the same order."""
    if not len(lengths):
        return values.new_zeros((0, *values.shape[1:]))
    return torch.segment_reduce(values, how, lengths=lengths, axis=0, unsafe=True, initial=0.0)
