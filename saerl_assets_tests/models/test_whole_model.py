"""The whole model: every block's output, and what becomes of its predictions when a layer is changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import GPT2Config, LlamaConfig

from saerl_assets.models.sources import locate_model
from saerl_assets.models.whole_model import WholeModel

TEXTS = [[5, 3, 9, 1, 7], [2, 8], [4, 4, 6]]
KINDS: dict[str, Any] = {
    "Llama": LlamaConfig(
        vocab_size=20, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2
    ),
    "GPT2": GPT2Config(vocab_size=20, n_embd=16, n_layer=3, n_head=2, n_positions=32),
}


@pytest.fixture(params=KINDS)
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, WholeModel]:
    """The model of transformers, and ours from the files that it saved."""
    torch.manual_seed(0)
    model: Any = getattr(
        transformers, f"{request.param}LMHeadModel" if request.param == "GPT2" else "LlamaForCausalLM"
    )(KINDS[request.param]).eval()
    model.save_pretrained(tmp_path / "model")
    files = locate_model("path:model", cache=tmp_path / "cache", folder=tmp_path)
    return model, WholeModel.load(files, dtype="float32", device="cpu")


@torch.inference_mode()
def test_every_block_is_the_full_models(saved: tuple[Any, WholeModel]) -> None:
    model, whole = saved
    found = whole.states(TEXTS)
    assert len(found) == whole.n_blocks == 3
    for block in range(whole.n_blocks - 1):  # of the last one transformers gives the normed output
        alone = [model(torch.tensor([ids]), output_hidden_states=True).hidden_states[block + 1][0] for ids in TEXTS]
        assert torch.allclose(found[block], torch.cat(alone), atol=1e-5)


@torch.inference_mode()
def test_predictions_are_the_full_models_and_follow_a_change(saved: tuple[Any, WholeModel]) -> None:
    model, whole = saved
    logits, targets = whole.predictions(TEXTS, 1, None)
    alone = torch.cat([model(torch.tensor([ids])).logits[0, :-1] for ids in TEXTS])
    assert torch.allclose(logits, alone, atol=1e-5)
    assert targets.tolist() == [token for ids in TEXTS for token in ids[1:]]
    same, _ = whole.predictions(TEXTS, 1, lambda states: states.clone())
    assert torch.equal(same, logits)
    doubled, _ = whole.predictions(TEXTS, 1, lambda states: states * -2)
    assert not torch.allclose(doubled, logits, atol=1e-2)
    again, _ = whole.predictions(TEXTS, 1, None)
    assert torch.equal(again, logits), "a change does not stay"


@torch.inference_mode()
def test_what_is_before_a_position_stays_as_it_is(saved: tuple[Any, WholeModel]) -> None:
    _, whole = saved
    all_states, later = whole.states(TEXTS), whole.states(TEXTS, 2)
    places = torch.cat([torch.arange(len(ids)) for ids in TEXTS])
    for block in range(whole.n_blocks):
        assert torch.equal(later[block], all_states[block][places >= 2])
    as_it_is, _ = whole.predictions(TEXTS, 1, None)
    changed, _ = whole.predictions(TEXTS, 1, torch.zeros_like, 2)
    has_next = torch.cat([torch.arange(len(ids) - 1) for ids in TEXTS])
    differs = (changed - as_it_is).abs().amax(dim=-1) > 1e-5
    assert differs.tolist() == (has_next >= 2).tolist()


def test_a_bare_decoder_has_no_predictions(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model: Any = transformers.LlamaModel(KINDS["Llama"])
    model.save_pretrained(tmp_path / "model")
    files = locate_model("path:model", cache=tmp_path / "cache", folder=tmp_path)
    assert not WholeModel.load(files, dtype="float32", device="cpu").predicts
