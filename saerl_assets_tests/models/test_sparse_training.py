"""The sparse training step against `sae_lens`'s dense one: the same loss, the same gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sae_lens.saes.sae import TrainStepInput

from saerl_assets.models.sparse_training import DENSE_KINDS, SPARSE_KINDS

D_IN, N_LATENTS, K, N_TOKENS = 12, 40, 5, 24


def _pair(architecture: str, **settings: object) -> tuple[Any, Any]:
    pair = []
    for kinds in (DENSE_KINDS, SPARSE_KINDS):
        make, configure = kinds[architecture]
        torch.manual_seed(0)
        sae = make(configure(d_in=D_IN, d_sae=N_LATENTS, k=K, decoder_init_norm=None, **settings))
        with torch.no_grad():
            sae.W_dec.mul_(torch.linspace(0.5, 2.0, N_LATENTS)[:, None])  # norms must matter for the choice
            sae.b_enc.normal_()
            sae.b_dec.normal_()
        pair.append(sae)
    return pair[0], pair[1]


@pytest.mark.parametrize("architecture", ["topk", "batchtopk"])
@pytest.mark.parametrize("n_dead", [0, 3, 30])
@pytest.mark.parametrize("rescaled", [True, False])
@pytest.mark.parametrize("subtracts_bias", [True, False])
def test_the_sparse_step_has_the_loss_and_gradients_of_the_dense_one(
    architecture: str, n_dead: int, rescaled: bool, subtracts_bias: bool
) -> None:
    dense, sparse = _pair(architecture, rescale_acts_by_decoder_norm=rescaled, apply_b_dec_to_input=subtracts_bias)
    dead = torch.zeros(N_LATENTS, dtype=torch.bool)
    dead[torch.randperm(N_LATENTS, generator=torch.Generator().manual_seed(2))[:n_dead]] = True
    states = torch.randn(N_TOKENS, D_IN, generator=torch.Generator().manual_seed(3))
    results = []
    for sae in (dense, sparse):
        step = TrainStepInput(
            sae_in=states, coefficients={}, dead_neuron_mask=dead, n_training_steps=0, is_logging_step=False
        )
        output = sae.training_forward_pass(step)
        output.loss.backward()
        results.append((output, {name: each.grad for name, each in sae.named_parameters()}))
    (expected, expected_gradients), (found, gradients) = results
    torch.testing.assert_close(found.loss, expected.loss)
    torch.testing.assert_close(found.sae_out, expected.sae_out)
    torch.testing.assert_close(found.feature_acts, expected.feature_acts)
    torch.testing.assert_close(found.hidden_pre, expected.hidden_pre)
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(gradients[name], gradient, msg=name)
    if n_dead:
        assert found.losses["auxiliary_reconstruction_loss"].item() > 0.0
    if architecture == "batchtopk":
        torch.testing.assert_close(sparse.topk_threshold, dense.topk_threshold)


def test_a_step_can_be_repeated_to_the_bit() -> None:
    states = torch.randn(N_TOKENS, D_IN, generator=torch.Generator().manual_seed(3))
    gradients = []
    for _ in range(2):
        _, sae = _pair("topk")
        step = TrainStepInput(states, {}, None, 0, False)
        sae.training_forward_pass(step).loss.backward()
        gradients.append({name: each.grad for name, each in sae.named_parameters()})
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name
