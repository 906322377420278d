"""Centre, scale and order of the activations that an SAE is trained on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saerl_assets.models import token_stream
from saerl_assets.models.token_stream import TokenOrder, measure_spread


def test_a_pass_over_the_tokens_sees_each_once_and_the_next_in_another_order() -> None:
    tokens = torch.arange(20, dtype=torch.float32)[:, None]
    order = TokenOrder(tokens, 5, seed=1)
    first = torch.cat([next(order) for _ in range(4)]).flatten().tolist()
    second = torch.cat([next(order) for _ in range(4)]).flatten().tolist()
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second


@given(
    n_tokens=st.integers(1, 40), batch_tokens=st.integers(1, 40), first_step=st.integers(0, 30), seed=st.integers(0, 9)
)
def test_a_late_start_sees_the_batches_of_an_early_one(
    n_tokens: int, batch_tokens: int, first_step: int, seed: int
) -> None:
    tokens, size = torch.arange(n_tokens)[:, None], min(batch_tokens, n_tokens)
    early, late = TokenOrder(tokens, size, seed), TokenOrder(tokens, size, seed, first_step)
    for _ in range(first_step):
        next(early)
    for _ in range(3):
        batch = next(early)
        assert len(batch) == size
        assert batch.dtype == torch.float32
        np.testing.assert_array_equal(next(late), batch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("block_tokens", [7, 1_000])
def test_the_spread_brings_tokens_to_their_distance_whatever_the_blocks(
    dtype: torch.dtype, block_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_stream, "BLOCK_TOKENS", block_tokens)
    activations = (torch.randn(500, 16, generator=torch.Generator().manual_seed(0)) * 30 + 100).to(dtype)
    spread = measure_spread(activations, where="here")
    wide = activations.double()
    torch.testing.assert_close(spread.mean, wide.mean(dim=0).float())
    assert spread.mean.dtype == torch.float32
    distances = ((wide - wide.mean(dim=0)) * spread.scale).norm(dim=-1)
    assert float(distances.mean()) == pytest.approx(4.0)


def test_a_small_spread_around_a_large_mean_is_no_constant() -> None:
    activations = 1e3 + 0.1 * torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    assert measure_spread(activations, where="here").scale == pytest.approx(10.0, rel=0.1)
