"""The SAE before its first step, and the settings that depend on the length of a run."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saerl_assets.models.token_stream import measure_spread
from saerl_assets.models.training_setup import (
    DEAD_WINDOW_FRACTION,
    LEAST_EXPECTED_FIRINGS,
    MAX_DEAD_WINDOW_TOKENS,
    dead_window,
    initial_sae,
    make_trainer,
)
from saerl_assets_tests.models.sparse_data import ARCHITECTURES, SPEC, K, sparse_data


@given(
    n_latents=st.integers(8, 1 << 18),
    k=st.integers(1, 512),
    n_steps=st.integers(1, 10**7),
    batch_tokens=st.integers(16, 1 << 16),
)
def test_the_dead_window_fits_every_run(n_latents: int, k: int, n_steps: int, batch_tokens: int) -> None:
    spec = SPEC.model_copy(update={"n_latents": n_latents, "k": min(k, n_latents)})
    window = dead_window(spec, n_steps, batch_tokens)
    least = LEAST_EXPECTED_FIRINGS * n_latents / spec.k / batch_tokens
    most = max(DEAD_WINDOW_FRACTION * n_steps, least)
    assert window >= 1
    assert least - 0.5 <= window <= max(most + 0.5, 1)
    assert window * batch_tokens <= max(MAX_DEAD_WINDOW_TOKENS, least * batch_tokens) + batch_tokens


def test_the_dead_window_of_the_default_run_is_a_twentieth() -> None:
    assert dead_window(SPEC.model_copy(update={"n_latents": 4096, "k": 32}), 400, 1024) == 20


@pytest.mark.parametrize("n_latents", [8, 9, 33, 80])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_first_decoder_rows_point_at_data(architecture: str, n_latents: int) -> None:
    data, spec = sparse_data(), SPEC.model_copy(update={"architecture": architecture, "n_latents": n_latents})
    spread = measure_spread(data, where="")
    sae = initial_sae(data, spread, spec, seed=1, device="cpu")
    directions = torch.nn.functional.normalize(data - spread.mean, dim=-1)
    likeness = torch.nn.functional.normalize(sae.W_dec.detach(), dim=-1) @ directions.T
    assert float(likeness.max(dim=1).values.min()) > 0.99
    torch.testing.assert_close(sae.b_dec.detach(), spread.mean * spread.scale)
    if architecture == "matryoshka":
        widths = sae.cfg.matryoshka_widths
        assert widths[-1] == n_latents
        assert len(widths) >= 2
        assert all(narrow < wide for narrow, wide in itertools.pairwise(widths))


def test_jumprelu_starts_at_the_l0_that_it_aims_at() -> None:
    data, spec = sparse_data(), SPEC.model_copy(update={"architecture": "jumprelu"})
    spread = measure_spread(data, where="")
    sae = initial_sae(data, spread, spec, seed=1, device="cpu")
    trainer = make_trainer(sae, spec, spread, n_steps=10, batch_tokens=128, device="cpu")
    with torch.no_grad():
        acts = sae.encode(trainer.activation_scaler(sparse_data(seed=1)))
    assert float((acts > 0).sum(dim=-1).float().mean()) == pytest.approx(K, rel=0.1)
    assert 0.0 < sae.bandwidth < float(sae.threshold.detach().mean())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_auxiliary_loss_wakes_latents_within_a_short_run(architecture: str) -> None:
    n_steps, data = 200, sparse_data(n_atoms=400)
    spec, spread = SPEC.model_copy(update={"architecture": architecture}), measure_spread(data, where="")
    sae = initial_sae(data, spread, spec, seed=1, device="cpu")
    with torch.no_grad():
        sae.b_enc[::2] -= 0.8  # below what any pre-activation reaches
    trainer = make_trainer(sae, spec, spread, n_steps=n_steps, batch_tokens=128, device="cpu")
    generator = torch.Generator().manual_seed(0)
    has_died, has_woken = torch.zeros(SPEC.n_latents, dtype=torch.bool), torch.zeros(SPEC.n_latents, dtype=torch.bool)
    for _ in range(n_steps):
        acts = trainer.step(data[torch.randint(len(data), (128,), generator=generator)]).feature_acts
        has_woken |= has_died & (acts > 0).any(dim=0)
        has_died |= trainer.dead_neurons
        trainer.n_training_steps += 1
    assert has_died[::2].all()
    assert float(has_woken[::2].float().mean()) > 0.5
