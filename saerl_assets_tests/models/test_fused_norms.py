"""Fused norms compute what the model's own do, and replace no others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModel, PretrainedConfig
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from saerl_assets.models.fused_norms import fuse_norms
from saerl_assets_tests.models.test_reader import CONFIGS

IDS = torch.arange(24).view(2, 12)


def random_model(config: PretrainedConfig, dtype: torch.dtype = torch.float32) -> Any:  # noqa: ANN401
    torch.manual_seed(0)
    model = AutoModel.from_config(config, dtype=dtype).eval()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name and weight.ndim == 1:
                weight.uniform_(-1.0, 2.0)
    return model


@pytest.mark.parametrize(
    ("architecture", "n_replaced"),
    [("llama", 9), ("mistral", 9), ("qwen2", 9), ("qwen3", 17), ("gemma", 0), ("gemma2", 0), ("gpt2", 0)],
)
def test_the_model_computes_the_same(architecture: str, n_replaced: int) -> None:
    model = random_model(CONFIGS[architecture])
    with torch.inference_mode():
        before = model(IDS).last_hidden_state
        assert fuse_norms(model) == n_replaced
        after = model(IDS).last_hidden_state
    assert torch.allclose(before, after, atol=1e-5, rtol=1e-5)


def test_half_precision_is_no_further_from_the_truth_than_before() -> None:
    truth, model = random_model(CONFIGS["llama"]), random_model(CONFIGS["llama"], torch.bfloat16)
    truth.load_state_dict({name: weight.float() for name, weight in model.state_dict().items()})
    with torch.inference_mode():
        expected = truth(IDS).last_hidden_state
        error_before = (model(IDS).last_hidden_state - expected).norm()
        assert fuse_norms(model) == 9
        error_after = (model(IDS).last_hidden_state - expected).norm()
    assert error_after < 1.2 * error_before


def test_a_norm_that_only_looks_the_same_stays_as_it_is() -> None:
    class Scaled(LlamaRMSNorm):
        def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
            return super().forward(hidden_states) * 1.5

    model = torch.nn.ModuleList([Scaled(8), LlamaRMSNorm(8)])
    assert fuse_norms(model) == 1
    assert torch.allclose(model[0](torch.ones(1, 8)), torch.tensor(1.5))
