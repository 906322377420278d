"""A reader that needs no model, and an SAE that fits it.

Belongs here: stand-ins for tests. Does not belong here: tests.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from hypothesis import strategies as st

from saerl_assets.models.saes import TopKEncoder
from saerl_assets.models.texts import Text, TokenIds

D_MODEL, N_LATENTS, K, N_VOCABULARY = 8, 24, 3, 64


class LookUp:
    """A reader whose activations are a function of the token alone, and that notes its passes."""

    def __init__(self, layers: Sequence[int] = (5,), too_many_tokens: int | None = None) -> None:
        generator = torch.Generator().manual_seed(1)
        self.tables = {layer: torch.randn(N_VOCABULARY, D_MODEL, generator=generator) for layer in layers}
        self.too_many_tokens = too_many_tokens
        self.passes: list[list[int]] = []
        """Lengths of the texts of each pass that was asked for."""

    def read(self, token_ids: Sequence[TokenIds]) -> dict[int, torch.Tensor]:
        lengths = [len(ids) for ids in token_ids]
        assert min(lengths) > 0
        self.passes.append(lengths)
        if self.too_many_tokens is not None and len(lengths) * max(lengths) >= self.too_many_tokens:
            raise torch.OutOfMemoryError
        flat = torch.from_numpy(np.concatenate(token_ids).astype(np.int64))
        return {layer: table[flat] for layer, table in self.tables.items()}


def encoder(seed: int = 0) -> TopKEncoder:
    generator = torch.Generator().manual_seed(seed)
    weights = {
        "W_enc": torch.randn(D_MODEL, N_LATENTS, generator=generator),
        "W_dec": torch.randn(N_LATENTS, D_MODEL, generator=generator),
        "b_enc": torch.randn(N_LATENTS, generator=generator),
        "b_dec": torch.randn(D_MODEL, generator=generator),
    }
    return TopKEncoder({"architecture": "topk", "k": K, "apply_b_dec_to_input": True}, weights, "cpu")


def texts_strategy(min_tokens: int = 0) -> st.SearchStrategy[list[Text]]:
    """Texts with ids in no order, some of them without tokens, some with tokens that do not count."""
    token_ids = st.lists(st.integers(0, N_VOCABULARY - 1), min_size=min_tokens, max_size=12)
    rows = st.lists(st.tuples(token_ids, st.integers(0, 14)), min_size=1, max_size=20)
    return rows.map(
        lambda found: [Text(f"{place * 7 % 20:04d}", ids, first) for place, (ids, first) in enumerate(found)]
    )
