"""The sparse training step against `sae_lens`'s dense one: the same loss, the same gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sae_lens.saes.sae import TrainStepInput, TrainStepOutput

from saerl_assets.models.sparse_training import DENSE_KINDS, SPARSE_KINDS

D_IN, N_LATENTS, K, N_TOKENS = 12, 40, 5, 24
SETTINGS: dict[str, dict[str, Any]] = {
    "topk": {"k": K},
    "batchtopk": {"k": K},
    "matryoshka": {"k": K, "matryoshka_widths": [4, 10, N_LATENTS]},
    "jumprelu": {
        "jumprelu_sparsity_loss_mode": "quadratic",
        "target_l0": K,
        "jumprelu_init_threshold": 2.0,
        "jumprelu_bandwidth": 1.0,
        "pre_act_loss_coefficient": 0.1,
    },
}


def pair(architecture: str, **settings: object) -> tuple[Any, Any]:
    made = []
    for kinds in (DENSE_KINDS, SPARSE_KINDS):
        make, configure = kinds[architecture]
        torch.manual_seed(0)
        sae = make(
            configure(d_in=D_IN, d_sae=N_LATENTS, decoder_init_norm=None, **{**SETTINGS[architecture], **settings})
        )
        with torch.no_grad():
            sae.W_dec.mul_(torch.linspace(0.5, 2.0, N_LATENTS)[:, None])  # norms must matter for the choice
            sae.b_enc.normal_()
            sae.b_dec.normal_()
        made.append(sae)
    return made[0], made[1]


def random_states(seed: int = 3) -> torch.Tensor:
    return torch.randn(N_TOKENS, D_IN, generator=torch.Generator().manual_seed(seed))


def step(
    sae: Any,  # noqa: ANN401 - sae_lens's own class
    states: torch.Tensor,
    dead: torch.Tensor | None = None,
) -> tuple[TrainStepOutput, dict[str, Any]]:
    output = sae.training_forward_pass(TrainStepInput(states, {"l0": 0.7}, dead, 0, is_logging_step=False))
    sae.zero_grad()
    output.loss.backward()
    return output, {name: each.grad for name, each in sae.named_parameters()}


def assert_same(architecture: str, n_dead: int, **settings: object) -> None:
    dense, sparse = pair(architecture, **settings)
    dead = torch.zeros(N_LATENTS, dtype=torch.bool)
    dead[torch.randperm(N_LATENTS, generator=torch.Generator().manual_seed(2))[:n_dead]] = True
    for seed in (3, 4, 5):  # the threshold of a batch is a guess at the next one's
        expected, expected_gradients = step(dense, random_states(seed), dead)
        found, gradients = step(sparse, random_states(seed), dead)
        for name, loss in expected.losses.items():
            torch.testing.assert_close(found.losses[name], loss, msg=name)
        assert found.losses.keys() >= expected.losses.keys()
        for name in ("loss", "sae_out", "feature_acts", "hidden_pre"):
            torch.testing.assert_close(getattr(found, name), getattr(expected, name), msg=name)
        for name, gradient in expected_gradients.items():
            # Sums of float32 in another order: processors differ in the last bits, up to 1e-5 of the value.
            torch.testing.assert_close(gradients[name], gradient, rtol=3e-5, atol=1e-5, msg=name)
        for name, buffer in dense.named_buffers():
            torch.testing.assert_close(dict(sparse.named_buffers())[name], buffer, msg=name)
    if n_dead:
        assert found.losses["pre_act_loss" if architecture == "jumprelu" else "auxiliary_reconstruction_loss"] > 0.0


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "matryoshka"])
@pytest.mark.parametrize("n_dead", [0, 3, 30])
@pytest.mark.parametrize("rescaled", [True, False])
@pytest.mark.parametrize("subtracts_bias", [True, False])
def test_the_sparse_step_has_the_loss_and_gradients_of_the_dense_one(
    architecture: str, n_dead: int, rescaled: bool, subtracts_bias: bool
) -> None:
    assert_same(architecture, n_dead, rescale_acts_by_decoder_norm=rescaled, apply_b_dec_to_input=subtracts_bias)


@pytest.mark.parametrize("n_dead", [0, 3])
@pytest.mark.parametrize("to_input", [True, False])
@pytest.mark.parametrize("threshold", [-1.0, 0.0, 2.0, 30.0])
def test_the_sparse_step_of_jumprelu_has_the_loss_and_gradients_of_the_dense_one(
    n_dead: int, to_input: bool, threshold: float
) -> None:
    assert_same("jumprelu", n_dead, jumprelu_ste_to_input=to_input, jumprelu_init_threshold=threshold)
    assert_same("jumprelu", 0, pre_act_loss_coefficient=None, apply_b_dec_to_input=False)


@pytest.mark.parametrize("architecture", list(SETTINGS))
def test_a_step_can_be_repeated_to_the_bit(architecture: str) -> None:
    gradients = []
    for _ in range(2):
        _, sae = pair(architecture)
        gradients.append(step(sae, random_states())[1])
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name
