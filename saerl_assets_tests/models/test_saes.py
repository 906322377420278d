"""Encoders against `sae_lens` itself, and what is wrong with an SAE."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from saerl_assets.domain.errors import SaerlError
from saerl_assets.models import saes
from saerl_assets.models.saes import (
    Encoder,
    JumpReluEncoder,
    SaeLensEncoder,
    TopKEncoder,
    check_layer,
    check_width,
    fetch_sae,
    load_encoder,
)
from saerl_assets_tests.tiny import write_sae

D_IN, N_LATENTS, K = 8, 24, 3
ACTIVATIONS = torch.randn(50, D_IN, generator=torch.Generator().manual_seed(5)) * 3


def saved(folder: Path, kind: str, **settings: object) -> Path:
    """A random SAE of an architecture, written by `sae_lens`."""
    import sae_lens

    names = {"topk": "TopKSAE", "jumprelu": "JumpReLUSAE", "standard": "StandardSAE", "gated": "GatedSAE"}
    make, configure = getattr(sae_lens, names[kind]), getattr(sae_lens, f"{names[kind]}Config")
    config: Any = configure(d_in=D_IN, d_sae=N_LATENTS, **({"k": K} if kind == "topk" else {}), **settings)
    sae: Any = make(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in sorted(sae.named_parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
            if name == "threshold":
                parameter.abs_()
    sae.save_model(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        ("topk", {}, TopKEncoder),
        ("topk", {"apply_b_dec_to_input": False}, TopKEncoder),
        ("topk", {"rescale_acts_by_decoder_norm": True}, TopKEncoder),
        ("topk", {"normalize_activations": "layer_norm"}, SaeLensEncoder),
        ("topk", {"dtype": "bfloat16"}, SaeLensEncoder),
        ("jumprelu", {}, JumpReluEncoder),
        ("jumprelu", {"apply_b_dec_to_input": False}, JumpReluEncoder),
        ("standard", {}, SaeLensEncoder),
        ("gated", {}, SaeLensEncoder),
    ],
)
def test_it_encodes_and_reconstructs_as_sae_lens_does(
    tmp_path: Path, kind: str, settings: dict[str, Any], expected: type[Encoder]
) -> None:
    from sae_lens import SAE

    reference: Any = SAE.load_from_disk(saved(tmp_path / "sae", kind, **settings))
    encoder = load_encoder(tmp_path / "sae", "cpu")
    assert type(encoder) is expected
    assert (encoder.d_in, encoder.n_latents, encoder.architecture) == (D_IN, N_LATENTS, kind)
    with torch.no_grad():
        dense = reference.encode(ACTIVATIONS)
        decoded = reference.decode(dense).float()
    found = encoder.encode(ACTIVATIONS)
    ours = torch.zeros(50, N_LATENTS)
    ours[found.token, found.latent] = found.value
    assert torch.equal(ours, dense.float())  # to the bit
    assert (found.value > 0).all()
    key = found.token * N_LATENTS + found.latent
    assert (key.diff() > 0).all()  # ascending by token and latent, none twice
    torch.testing.assert_close(encoder.reconstruct(ACTIVATIONS), decoded, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["topk", "jumprelu"])
def test_blocks_do_not_change_what_is_encoded(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_encoder(saved(tmp_path, kind), "cpu")
    whole, reconstructed = encoder.encode(ACTIVATIONS), encoder.reconstruct(ACTIVATIONS)
    monkeypatch.setitem(saes.BLOCK_ELEMENTS, "cpu", 7 * N_LATENTS)
    cut = encoder.encode(ACTIVATIONS)
    assert torch.equal(cut.token, whole.token)
    assert torch.equal(cut.latent, whole.latent)
    torch.testing.assert_close(cut.value, whole.value)
    torch.testing.assert_close(encoder.reconstruct(ACTIVATIONS), reconstructed)


def test_no_tokens_encode_to_nothing(tmp_path: Path) -> None:
    encoder = load_encoder(saved(tmp_path, "topk"), "cpu")
    assert len(encoder.encode(torch.zeros(0, D_IN)).value) == 0
    assert encoder.reconstruct(torch.zeros(0, D_IN)).shape == (0, D_IN)


def test_another_width_than_the_models_is_refused(tmp_path: Path) -> None:
    encoder = load_encoder(saved(tmp_path, "topk"), "cpu")
    check_width(encoder, D_IN, "here")
    with pytest.raises(SaerlError, match="width 8, the reader's have 9") as caught:
        check_width(encoder, 9, "here")
    assert caught.value.code == "sae_wrong_width"


@pytest.mark.parametrize(
    ("hook", "layer", "code"),
    [
        (None, 3, None),
        ("blocks.3.hook_resid_post", 3, None),
        ("blocks.4.hook_resid_pre", 3, None),
        ("model.layers.3", 3, None),
        ("blocks.3.hook_resid_post", 4, "sae_wrong_layer"),
        ("blocks.3.hook_resid_pre", 3, "sae_wrong_layer"),
        ("blocks.3.hook_mlp_out", 3, "sae_wrong_place"),
        ("blocks.3.attn.hook_z", 3, "sae_wrong_place"),
    ],
)
def test_an_sae_of_another_layer_or_place_is_refused(
    tmp_path: Path, hook: str | None, layer: int, code: str | None
) -> None:
    config = saved(tmp_path, "topk") / "cfg.json"
    settings = json.loads(config.read_text())
    settings["metadata"]["hook_name"] = hook
    config.write_text(json.dumps(settings))
    encoder = load_encoder(tmp_path, "cpu")
    if code is None:
        check_layer(encoder, layer, "here")
        return
    with pytest.raises(SaerlError) as caught:
        check_layer(encoder, layer, "here")
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        ("no folder", "sae_missing"),
        ("no config", "sae_without_config"),
        ("only a pickle", "sae_without_config"),
        ("a pickle by another name", "sae_corrupt"),
        ("truncated", "sae_corrupt"),
        ("k is no number", "sae_corrupt"),
        ("unknown architecture", "sae_corrupt"),
        ("config is no JSON", "sae_corrupt"),
    ],
)
def test_an_sae_that_cannot_be_read_is_named(tmp_path: Path, damage: str, code: str) -> None:
    folder = tmp_path / "sae"
    if damage != "no folder":
        write_sae(folder)
    weights, config = folder / "sae_weights.safetensors", folder / "cfg.json"
    if damage == "no config":
        config.unlink()
    elif damage == "only a pickle":
        weights.rename(folder / "ae.pt")
    elif damage == "a pickle by another name":
        weights.write_bytes(b"\x80\x04cos\nsystem\n")
    elif damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-40])
    elif damage == "config is no JSON":
        config.write_text("{")
    elif damage in ("k is no number", "unknown architecture"):
        change = {"k": "many"} if damage == "k is no number" else {"architecture": "telepathic"}
        config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(SaerlError) as caught:
        load_encoder(folder, "cpu")
    assert caught.value.code == code
    assert str(folder) in caught.value.where


def test_sources_of_an_sae(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sae(tmp_path / "mine")
    assert fetch_sae("path:mine", folder=tmp_path, into=tmp_path / "into") == tmp_path / "mine"
    with pytest.raises(SaerlError, match="Write train, path:DIR or saelens:release/sae_id"):
        fetch_sae("elsewhere:mine", folder=tmp_path, into=tmp_path / "into")

    from sae_lens import SAE

    asked: list[tuple[str, str]] = []

    def from_pretrained(release: str, sae_id: str) -> object:
        asked.append((release, sae_id))
        if release == "gone":
            raise ValueError("Release gone not found")
        return SAE.load_from_disk(tmp_path / "mine")

    monkeypatch.setattr(SAE, "from_pretrained", from_pretrained)
    found = fetch_sae("saelens:gemma-scope/layer_3/width_16k", folder=tmp_path, into=tmp_path / "into")
    assert asked == [("gemma-scope", "layer_3/width_16k")]
    assert load_encoder(found, "cpu").architecture == "topk"
    with pytest.raises(SaerlError, match="Release gone not found") as caught:
        fetch_sae("saelens:gone/x", folder=tmp_path, into=tmp_path / "other")
    assert caught.value.code == "hub_failed"
    assert not (tmp_path / "other").exists()
