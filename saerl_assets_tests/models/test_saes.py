"""Encoders against `sae_lens` itself, and what is wrong with an SAE."""

from __future__ import annotations

from collections.abc import Callable
from math import nan
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from saerl_assets.domain.errors import SaerlError
from saerl_assets.models import saes
from saerl_assets.models.saes import (
    Encoder,
    JumpReluEncoder,
    SaeLensEncoder,
    TopKEncoder,
    check_layer,
    check_width,
    load_encoder,
)
from saerl_assets_tests.models.random_saes import ACTIVATIONS, D_IN, N_LATENTS, K, dense, saved, with_config
from saerl_assets_tests.tiny import write_sae


@pytest.mark.parametrize(
    ("kind", "choices", "expected"),
    [
        ("topk", {}, TopKEncoder),
        ("topk", {"apply_b_dec_to_input": False}, TopKEncoder),
        ("topk", {"rescale_acts_by_decoder_norm": True}, TopKEncoder),
        ("topk", {"normalize_activations": "layer_norm"}, SaeLensEncoder),
        ("topk", {"normalize_activations": "constant_norm_rescale"}, SaeLensEncoder),
        ("topk", {"dtype": "bfloat16"}, SaeLensEncoder),
        ("jumprelu", {}, JumpReluEncoder),
        ("jumprelu", {"apply_b_dec_to_input": False}, JumpReluEncoder),
        ("standard", {}, JumpReluEncoder),
        ("standard", {"normalize_activations": "layer_norm"}, SaeLensEncoder),
        ("gated", {}, SaeLensEncoder),
        ("matching_pursuit", {"max_iterations": 3}, SaeLensEncoder),
    ],
)
def test_it_encodes_and_reconstructs_as_sae_lens_does(
    tmp_path: Path, kind: str, choices: dict[str, Any], expected: type[Encoder]
) -> None:
    from sae_lens import SAE

    reference: Any = SAE.load_from_disk(saved(tmp_path / "sae", kind, **choices))
    encoder = load_encoder(tmp_path / "sae", "cpu")
    assert type(encoder) is expected
    assert (encoder.d_in, encoder.n_latents, encoder.architecture) == (D_IN, N_LATENTS, kind)
    assert encoder.k == (K if kind == "topk" else None)
    with torch.no_grad():
        theirs = reference.encode(ACTIVATIONS)
        decoded = reference.decode(theirs).float()
    assert torch.equal(dense(encoder), theirs.float())  # to the bit
    assert (theirs > 0).any()
    found = encoder.encode(ACTIVATIONS)
    assert (found.value > 0).all()
    key = found.token * N_LATENTS + found.latent
    assert (key.diff() > 0).all()  # ascending by token and latent, none twice
    torch.testing.assert_close(encoder.reconstruct(ACTIVATIONS), decoded, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["topk", "jumprelu", "matching_pursuit"])
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


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from([torch.bfloat16, torch.float16, torch.float32]))
def test_every_number_format_encodes_as_its_values_in_float32(tmp_path: Path, seed: int, dtype: torch.dtype) -> None:
    if not (tmp_path / "sae").exists():
        write_sae(tmp_path / "sae", d_in=D_IN, k=K)
    encoder = load_encoder(tmp_path / "sae", "cpu")
    activations = (torch.randn(9, D_IN, generator=torch.Generator().manual_seed(seed)) * 5).to(dtype)
    assert torch.equal(dense(encoder, activations), dense(encoder, activations.float()))
    assert torch.equal(encoder.reconstruct(activations), encoder.reconstruct(activations.float()))


def test_the_bias_for_tf32_takes_the_subtraction_over(tmp_path: Path) -> None:
    encoder = load_encoder(saved(tmp_path, "topk"), "cpu")
    assert isinstance(encoder, TopKEncoder)
    shifted = encoder._pre_activations(ACTIVATIONS)
    folded = torch.addmm(encoder._bias_of_unshifted, ACTIVATIONS, encoder._w_enc)
    torch.testing.assert_close(folded, shifted, atol=1e-4, rtol=1e-4)


def test_tf32_is_on_for_the_product_alone() -> None:
    before, during = torch.get_float32_matmul_precision(), []

    def fail() -> None:
        with saes._tf32():
            during.append(torch.get_float32_matmul_precision())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert during == ["high"]
    assert torch.get_float32_matmul_precision() == before != "high"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_gpu_encodes_as_the_processor_does(tmp_path: Path, dtype: torch.dtype) -> None:
    saved(tmp_path, "topk")
    activations = ACTIVATIONS.to(dtype)
    there = load_encoder(tmp_path, "cuda").encode(activations.cuda()).to(torch.device("cpu"))
    here = load_encoder(tmp_path, "cpu").encode(activations)
    assert torch.equal(there.latent, here.latent)
    torch.testing.assert_close(there.value, here.value, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize(("model", "is_centred"), [("gpt2-small", True), ("llama-3-8b", False)])
def test_an_sae_of_centred_weights_never_sees_the_mean(tmp_path: Path, model: str, *, is_centred: bool) -> None:
    plain = load_encoder(saved(tmp_path, "topk"), "cpu")
    metadata = {
        "sae_lens_version": "6.0.0",
        "model_name": model,
        "model_from_pretrained_kwargs": {"center_writing_weights": True},
    }
    encoder = load_encoder(with_config(tmp_path, metadata=metadata), "cpu")
    mean = ACTIVATIONS.mean(dim=1, keepdim=True)
    seen = ACTIVATIONS - mean if is_centred else ACTIVATIONS
    assert torch.equal(dense(encoder), dense(plain, seen))
    rebuilt = plain.reconstruct(seen) + (mean if is_centred else 0)
    torch.testing.assert_close(encoder.reconstruct(ACTIVATIONS), rebuilt)


@pytest.mark.parametrize(
    ("limits", "first"), [(None, 0), ([None], 0), ([100], 0), ([5, None], 5), ([1, -1], 1), ([2, 128, 1], 2)]
)
def test_positions_that_it_was_not_trained_on_are_known(tmp_path: Path, limits: object, first: int) -> None:
    for name, kind in (("plain", "topk"), ("other", "gated")):
        own = {"sae_lens_version": "6.0.0", "seqpos_slice": limits, "exclude_special_tokens": first > 0}
        found = load_encoder(with_config(saved(tmp_path / name, kind), metadata=own), "cpu")
        assert (found.first_position, found.lacks_special_tokens) == (first, first > 0)


def test_what_its_makers_say_is_told(tmp_path: Path) -> None:
    metadata = {
        "sae_lens_version": "6.0.0",
        "hook_name": "blocks.3.hook_resid_post",
        "model_name": "gpt2",
        "prepend_bos": False,
        "l0": 17,
    }
    encoder = load_encoder(with_config(saved(tmp_path, "jumprelu"), metadata=metadata), "cpu")
    assert (encoder.hook_name, encoder.model_name) == ("blocks.3.hook_resid_post", "gpt2")
    assert (encoder.prepend_bos, encoder.l0, encoder.k) == (False, 17.0, None)
    silent = load_encoder(with_config(tmp_path, metadata={"sae_lens_version": "6.0.0"}), "cpu")
    assert (silent.hook_name, silent.model_name, silent.prepend_bos, silent.l0) == (None, None, None, None)


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("topk", {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}}),
        ("jumprelu", {"architecture": "jumprelu", "normalize_activations": "none"}),
        ("standard", {}),
    ],
)
def test_a_config_from_before_sae_lens_6_is_understood(tmp_path: Path, kind: str, own: dict[str, Any]) -> None:
    saved(tmp_path, kind)
    new = load_encoder(tmp_path, "cpu")
    (tmp_path / "cfg.json").write_text("{}")
    flat: dict[str, Any] = {
        "d_in": D_IN,
        "d_sae": N_LATENTS,
        "dtype": "torch.float32",
        "hook_point": "blocks.4.hook_resid_pre",
        "model_name": "gpt2-small",
        "normalize_activations": False,
    }
    with_config(tmp_path, **(flat | own))
    old = load_encoder(tmp_path, "cpu")
    assert torch.equal(dense(old), dense(new))
    assert (old.architecture, old.k, old.model_name) == (kind, new.k, "gpt2-small")
    assert (old.hook_name, old.prepend_bos) == ("blocks.4.hook_resid_pre", True)


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
        ("blocks.3.hook_out", 3, None),
        ("blocks.4.hook_in", 3, None),
        ("model.layers.3", 3, None),
        ("model.layers.3.output", 3, None),
        ("blocks.3.hook_resid_post", 4, "sae_wrong_layer"),
        ("blocks.3.hook_resid_pre", 3, "sae_wrong_layer"),
        ("blocks.0.hook_resid_pre", 0, "sae_wrong_place"),
        ("hook_embed", 0, "sae_wrong_place"),
        ("blocks.3.hook_resid_mid", 3, "sae_wrong_place"),
        ("blocks.3.hook_mlp_out", 3, "sae_wrong_place"),
        ("blocks.3.attn.hook_z", 3, "sae_wrong_place"),
    ],
)
def test_an_sae_of_another_layer_or_place_is_refused(
    tmp_path: Path, hook: str | None, layer: int, code: str | None
) -> None:
    metadata = {"sae_lens_version": "6.0.0", "hook_name": hook}
    encoder = load_encoder(with_config(saved(tmp_path, "topk"), metadata=metadata), "cpu")
    if code is None:
        check_layer(encoder, layer, "here")
        return
    with pytest.raises(SaerlError) as caught:
        check_layer(encoder, layer, "here")
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": "transcoder"}, "does not reconstruct what it reads"),
        ({"architecture": "jumprelu_skip_transcoder"}, "does not reconstruct what it reads"),
        ({"architecture": "temporal"}, "depends on the tokens before"),
        ({"architecture": "abstopk"}, "fire in both directions"),
        ({"architecture": "telepathic"}, "not known"),
        ({"normalize_activations": "expected_average_only_in"}, "do not hold the scale"),
        ({"normalize_activations": "covariance_whitening"}, "do not hold the scale"),
        ({"activation_fn_str": "tanh-relu"}, "tanh-relu"),
    ],
)
def test_what_cannot_be_encoded_token_by_token_is_refused(
    tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    write_sae(tmp_path / "sae")
    with pytest.raises(SaerlError, match=words) as caught:
        load_encoder(with_config(tmp_path / "sae", **changes), "cpu")
    assert caught.value.code == "sae_unsupported"
    assert str(tmp_path / "sae") in caught.value.where


def change_weights(file: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


DAMAGES: dict[str, tuple[str, Callable[[Path, Path], object]]] = {
    "no config": ("sae_without_config", lambda config, _: config.unlink()),
    "no weights": ("sae_without_weights", lambda _, weights: weights.unlink()),
    "only a pickle": ("sae_without_weights", lambda _, weights: weights.rename(weights.parent / "ae.bin")),
    "a pickle by another name": ("sae_corrupt", lambda _, weights: weights.write_bytes(b"\x80\x04cos\nsystem\n")),
    "truncated": ("sae_corrupt", lambda _, weights: weights.write_bytes(weights.read_bytes()[:-40])),
    "k is no number": ("sae_corrupt", lambda config, _: with_config(config.parent, k="many")),
    "k is too large": ("sae_corrupt", lambda config, _: with_config(config.parent, k=1000)),
    "config is no JSON": ("sae_corrupt", lambda config, _: config.write_text("{")),
    "config is a list": ("sae_corrupt", lambda config, _: config.write_text("[]")),
    "W_dec is of another shape": (
        "sae_corrupt",
        lambda _, weights: change_weights(weights, lambda found: found.update(W_dec=found["W_dec"][1:].clone())),
    ),
    "b_enc is of another shape": (
        "sae_corrupt",
        lambda _, weights: change_weights(weights, lambda found: found.update(b_enc=found["b_enc"][:1].clone())),
    ),
    "NaN": ("sae_not_finite", lambda _, weights: change_weights(weights, lambda found: found["b_enc"][3:].fill_(nan))),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_sae_that_cannot_be_read_is_named(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "sae"
    write_sae(folder)
    code, do_damage = DAMAGES[damage]
    do_damage(folder / "cfg.json", folder / "sae_weights.safetensors")
    with pytest.raises(SaerlError) as caught:
        load_encoder(folder, "cpu")
    assert caught.value.code == code
    assert str(folder) in caught.value.where
    assert caught.value.remedy


@pytest.mark.parametrize("place", ["nowhere", "sae/cfg.json"])
def test_what_is_no_folder_is_refused(tmp_path: Path, place: str) -> None:
    write_sae(tmp_path / "sae")
    with pytest.raises(SaerlError) as caught:
        load_encoder(tmp_path / place, "cpu")
    assert caught.value.code == "sae_missing"
