"""SAEs of other formats, each against its formula written out from what its own library does."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from saerl_assets.domain.errors import SaerlError
from saerl_assets.models.sae_sources import fetch_sae
from saerl_assets.models.saes import Encoder, check_layer, load_encoder
from saerl_assets_tests.models.random_saes import (
    ACTIVATIONS,
    D_IN,
    N_LATENTS,
    K,
    dense,
    random_sae,
    saved,
    with_config,
)
from saerl_assets_tests.tiny import write_sae

Tensors = Mapping[str, torch.Tensor]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def top_k(pre: torch.Tensor) -> torch.Tensor:
    """The K largest positive values of a row, by sorting; 0 elsewhere."""
    kth_largest = pre.sort(dim=-1).values[:, -K, None]
    return torch.where(pre >= kth_largest, pre, 0).clamp(min=0)


def fetched(place: Path, tmp_path: Path) -> Encoder:
    found = fetch_sae(f"path:{place}", folder=tmp_path, into=tmp_path / "into")
    assert found == tmp_path / "into"
    return load_encoder(found, "cpu")


# ---------------------------------------------------------------- dictionary_learning


def linear() -> dict[str, torch.Tensor]:
    """Its encoder and decoder as nn.Linear, whose weights are [out, in]."""
    return {
        "encoder.weight": random(N_LATENTS, D_IN),
        "encoder.bias": random(N_LATENTS),
        "decoder.weight": random(D_IN, N_LATENTS),
    }


def matrices() -> dict[str, torch.Tensor]:
    return {
        "W_enc": random(D_IN, N_LATENTS),
        "b_enc": random(N_LATENTS),
        "W_dec": random(N_LATENTS, D_IN, seed=1),
        "b_dec": random(D_IN),
    }


def unit_standard(t: Tensors) -> torch.Tensor:
    norms: torch.Tensor = t["decoder.weight"].norm(dim=0)
    pre = (ACTIVATIONS - t["bias"]) @ t["encoder.weight"].T + t["encoder.bias"]
    return pre.relu() * norms


def gated(t: Tensors) -> torch.Tensor:
    shared = (ACTIVATIONS - t["decoder_bias"]) @ t["encoder.weight"].T
    return (shared + t["gate_bias"] > 0) * (t["r_mag"].exp() * shared + t["mag_bias"]).relu()


def above_threshold(pre: torch.Tensor, t: Tensors) -> torch.Tensor:
    return pre.relu() * (pre.relu() > t["threshold"])


DICTIONARIES: dict[str, tuple[dict[str, torch.Tensor], Callable[[Tensors], torch.Tensor], str]] = {
    "AutoEncoder": (linear() | {"bias": random(D_IN)}, unit_standard, "bias"),
    "AutoEncoderNew": (
        linear() | {"decoder.bias": random(D_IN)},
        lambda t: (ACTIVATIONS @ t["encoder.weight"].T + t["encoder.bias"]).relu(),
        "decoder.bias",
    ),
    "GatedAutoEncoder": (
        {
            "encoder.weight": random(N_LATENTS, D_IN),
            "decoder.weight": random(D_IN, N_LATENTS),
            "decoder_bias": random(D_IN),
            "r_mag": random(N_LATENTS) * 0.3,
            "gate_bias": random(N_LATENTS, seed=1),
            "mag_bias": random(N_LATENTS, seed=2),
        },
        gated,
        "decoder_bias",
    ),
    "AutoEncoderTopK": (
        linear() | {"b_dec": random(D_IN), "k": torch.tensor(K), "threshold": torch.tensor(3.0)},
        lambda t: top_k((ACTIVATIONS - t["b_dec"]) @ t["encoder.weight"].T + t["encoder.bias"]),
        "b_dec",
    ),
    "BatchTopKSAE": (
        linear() | {"b_dec": random(D_IN), "k": torch.tensor(K), "threshold": torch.tensor(3.0)},
        lambda t: above_threshold((ACTIVATIONS - t["b_dec"]) @ t["encoder.weight"].T + t["encoder.bias"], t),
        "b_dec",
    ),
    "MatryoshkaBatchTopKSAE": (
        matrices() | {"k": torch.tensor(K), "threshold": torch.tensor(3.0), "group_sizes": torch.tensor([8, 16])},
        lambda t: above_threshold((ACTIVATIONS - t["b_dec"]) @ t["W_enc"] + t["b_enc"], t),
        "b_dec",
    ),
    "JumpReluAutoEncoder": (
        matrices() | {"threshold": random(N_LATENTS).abs()},
        lambda t: above_threshold(ACTIVATIONS @ t["W_enc"] + t["b_enc"], t),
        "b_dec",
    ),
}


def write_dictionary(folder: Path, name: str, *, buffer: object = None, **trainer: object) -> Path:
    folder.mkdir()
    torch.save(DICTIONARIES[name][0], folder / "ae.pt")
    config = {"trainer": {"dict_class": name, "layer": 3, "lm_name": "org/model", "k": K} | trainer, "buffer": buffer}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("name", DICTIONARIES)
def test_an_sae_of_dictionary_learning(tmp_path: Path, name: str) -> None:
    tensors, formula, bias = DICTIONARIES[name]
    encoder = fetched(write_dictionary(tmp_path / "d", name), tmp_path)
    expected = formula(tensors)
    assert 0 < (expected > 0).float().mean() < 1
    torch.testing.assert_close(dense(encoder), expected, atol=1e-4, rtol=1e-5)
    decoder = tensors["W_dec"] if "W_dec" in tensors else tensors["decoder.weight"].T
    if name == "AutoEncoder":
        decoder = decoder / decoder.norm(dim=1, keepdim=True)
    rebuilt = expected @ decoder + tensors[bias]
    torch.testing.assert_close(encoder.reconstruct(ACTIVATIONS), rebuilt, atol=1e-3, rtol=1e-4)
    assert (encoder.hook_name, encoder.model_name) == ("blocks.3.hook_resid_post", "org/model")
    assert encoder.k == (K if name == "AutoEncoderTopK" else None)
    assert encoder.l0 == (K if "TopK" in name else None)
    assert encoder.prepend_bos is None


@pytest.mark.parametrize(
    ("trainer", "buffer", "layer"),
    [
        ({"submodule_name": "resid_post_layer_3"}, {"io": "out"}, 3),
        ({"submodule_name": "resid_pre_layer_3"}, {"io": "out"}, 2),
        ({}, {"io": "in"}, 2),
        ({}, {"io": "out"}, 3),
        ({"submodule_name": "mlp_out_layer_3"}, {"io": "out"}, None),
        ({"layer": None}, {}, "any"),
    ],
)
def test_where_an_sae_of_dictionary_learning_reads(
    tmp_path: Path, trainer: dict[str, object], buffer: object, layer: int | str | None
) -> None:
    encoder = fetched(write_dictionary(tmp_path / "d", "BatchTopKSAE", buffer=buffer, **trainer), tmp_path)
    passed = []
    for candidate in range(5):
        try:
            check_layer(encoder, candidate, "here")
        except SaerlError:
            continue
        passed.append(candidate)
    assert passed == (list(range(5)) if layer == "any" else [] if layer is None else [layer])


@pytest.mark.parametrize(("name", "aimed_at"), [("JumpReluAutoEncoder", 40), ("BatchTopKSAE", K)])
def test_the_l0_that_its_makers_measured_goes_before_the_one_they_aimed_at(
    tmp_path: Path, name: str, aimed_at: int
) -> None:
    folder = write_dictionary(tmp_path / "d", name, target_l0=40)
    assert fetched(folder, tmp_path).l0 == aimed_at
    (folder / "eval_results.json").write_text(json.dumps({"l0": 37.5}))
    assert fetched(folder, tmp_path).l0 == 37.5


def test_a_class_that_is_no_sae_is_refused(tmp_path: Path) -> None:
    folder = write_dictionary(tmp_path / "d", "AutoEncoder", dict_class="IdentityDict")
    with pytest.raises(SaerlError, match=r"IdentityDict is not read.*BatchTopKSAE") as caught:
        fetched(folder, tmp_path)
    assert caught.value.code == "sae_unsupported"
    assert not (tmp_path / "into").exists()


def test_a_class_that_is_not_the_files_is_refused(tmp_path: Path) -> None:
    folder = write_dictionary(tmp_path / "d", "AutoEncoder", dict_class="BatchTopKSAE")
    with pytest.raises(SaerlError, match="b_dec, threshold") as caught:
        fetched(folder, tmp_path)
    assert caught.value.code == "sae_corrupt"


# ---------------------------------------------------------------- sparsify


def sparsify_tensors() -> dict[str, torch.Tensor]:
    return {
        "encoder.weight": random(N_LATENTS, D_IN),
        "encoder.bias": random(N_LATENTS),
        "W_dec": random(N_LATENTS, D_IN, seed=1),
        "b_dec": random(D_IN),
    }


def write_sparsify(folder: Path, dtype: torch.dtype = torch.float32, **config: object) -> Path:
    folder.mkdir(parents=True)
    save_file({name: tensor.to(dtype) for name, tensor in sparsify_tensors().items()}, folder / "sae.safetensors")
    own = {"k": K, "d_in": D_IN, "expansion_factor": 3, "num_latents": 0, "normalize_decoder": True}
    (folder / "cfg.json").write_text(json.dumps(own | config))
    return folder


@pytest.mark.parametrize("normalises", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_sae_of_sparsify_always_subtracts_its_bias(tmp_path: Path, dtype: torch.dtype, *, normalises: bool) -> None:
    tensors = {name: tensor.to(dtype).float() for name, tensor in sparsify_tensors().items()}
    encoder = fetched(write_sparsify(tmp_path / "layers.5", dtype, normalize_decoder=normalises), tmp_path)
    expected = top_k((ACTIVATIONS - tensors["b_dec"]) @ tensors["encoder.weight"].T + tensors["encoder.bias"])
    torch.testing.assert_close(dense(encoder), expected, atol=1e-4, rtol=1e-5)
    rebuilt = expected @ tensors["W_dec"] + tensors["b_dec"]
    torch.testing.assert_close(encoder.reconstruct(ACTIVATIONS), rebuilt, atol=1e-3, rtol=1e-4)
    assert (encoder.k, encoder.hook_name) == (K, "blocks.5.hook_resid_post")


def test_a_signed_sae_of_sparsify_has_two_directions_for_each_latent(tmp_path: Path) -> None:
    tensors = sparsify_tensors()
    encoder = fetched(write_sparsify(tmp_path / "layers.5", signed=True), tmp_path)
    pre = (ACTIVATIONS - tensors["b_dec"]) @ tensors["encoder.weight"].T + tensors["encoder.bias"]
    signed = top_k(pre.abs()) * pre.sign()
    found = dense(encoder)
    assert (signed < 0).any()
    torch.testing.assert_close(found[:, :N_LATENTS] - found[:, N_LATENTS:], signed, atol=1e-4, rtol=1e-5)
    rebuilt = signed @ tensors["W_dec"] + tensors["b_dec"]
    torch.testing.assert_close(encoder.reconstruct(ACTIVATIONS), rebuilt, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(
    ("folder", "hook"),
    [
        ("run/layers.5", "blocks.5.hook_resid_post"),
        ("run/h.5/seed1", "blocks.5.hook_resid_post"),
        ("run/gpt_neox.layers.5", "blocks.5.hook_resid_post"),
        ("run/layers.5.mlp", "layers.5.mlp"),
        ("run/embed_tokens", "embed_tokens"),
        ("run/mine", None),
    ],
)
def test_a_folder_of_sparsify_is_named_after_what_it_reads(tmp_path: Path, folder: str, hook: str | None) -> None:
    write_sparsify(tmp_path / folder)
    (tmp_path / "run" / "config.json").write_text(json.dumps({"model": "org/model", "ctx_len": 2048}))
    encoder = fetched(tmp_path / folder, tmp_path)
    assert (encoder.hook_name, encoder.model_name) == (hook, "org/model")
    if hook and hook.startswith("blocks"):
        check_layer(encoder, 5, "here")
    elif hook:
        with pytest.raises(SaerlError, match="sae_wrong_place"):
            check_layer(encoder, 5, "here")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"transcode": True}, "transcoder"),
        ({"skip_connection": True}, "transcoder"),
        ({"activation": "groupmax"}, "groupmax"),
    ],
)
def test_what_sparsify_has_beside_topk_is_refused(tmp_path: Path, config: dict[str, Any], words: str) -> None:
    with pytest.raises(SaerlError, match=words) as caught:
        fetched(write_sparsify(tmp_path / "layers.5", **config), tmp_path)
    assert caught.value.code == "sae_unsupported"


# ---------------------------------------------------------------- Qwen-Scope


def write_qwen(folder: Path, name: str = "layer12.sae.pt") -> tuple[Path, dict[str, torch.Tensor]]:
    folder.mkdir(parents=True, exist_ok=True)
    found = matrices()
    tensors = found | {"W_enc": found["W_enc"].T.contiguous(), "W_dec": found["W_dec"].T.contiguous()}
    torch.save(tensors, folder / name)
    return folder / name, tensors


def test_a_file_of_qwen_scope(tmp_path: Path) -> None:
    blob, tensors = write_qwen(tmp_path / "blobs", "0123abcd")
    file = tmp_path / f"models--Qwen--SAE-Res-Qwen3-1.7B-Base-W32K-L0_{K}" / "snapshots" / "0" / "layer12.sae.pt"
    file.parent.mkdir(parents=True)
    file.symlink_to(blob)  # as the hub's cache has it
    encoder = fetched(file, tmp_path)
    expected = top_k(ACTIVATIONS @ tensors["W_enc"].T + tensors["b_enc"])
    torch.testing.assert_close(dense(encoder), expected, atol=1e-4, rtol=1e-5)
    rebuilt = expected @ tensors["W_dec"].T + tensors["b_dec"]
    torch.testing.assert_close(encoder.reconstruct(ACTIVATIONS), rebuilt, atol=1e-3, rtol=1e-4)
    assert (encoder.k, encoder.hook_name) == (K, "blocks.12.hook_resid_post")
    assert encoder.model_name == "Qwen/Qwen3-1.7B-Base"


def test_a_file_of_qwen_scope_without_its_k_says_what_to_do(tmp_path: Path) -> None:
    file, _ = write_qwen(tmp_path / "downloads")
    with pytest.raises(SaerlError, match="L0_50") as caught:
        fetched(file, tmp_path)
    assert caught.value.code == "sae_without_k"


def test_a_folder_of_qwen_scope_asks_for_a_file(tmp_path: Path) -> None:
    write_qwen(tmp_path / "L0_3", "layer0.sae.pt")
    write_qwen(tmp_path / "L0_3", "layer1.sae.pt")
    with pytest.raises(SaerlError, match=r"path:L0_3/layer0\.sae\.pt") as caught:
        fetched(tmp_path / "L0_3", tmp_path)
    assert caught.value.code == "sae_unknown_format"


# ---------------------------------------------------------------- SAELens


def test_latents_that_fire_in_both_directions_become_two(tmp_path: Path) -> None:
    reference = random_sae("abstopk", normalize_activations="layer_norm")
    reference.save_model(tmp_path / "sae")
    encoder = fetched(tmp_path / "sae", tmp_path)
    with torch.no_grad():
        signed = reference.encode(ACTIVATIONS)
        rebuilt = reference.decode(signed)
    found = dense(encoder)
    assert (signed < 0).any()
    assert torch.equal(found[:, :N_LATENTS] - found[:, N_LATENTS:], signed)
    torch.testing.assert_close(encoder.reconstruct(ACTIVATIONS), rebuilt, atol=1e-5, rtol=1e-5)
    assert (encoder.architecture, encoder.n_latents, encoder.k) == ("topk", 2 * N_LATENTS, K)


@pytest.mark.parametrize("kind", ["batchtopk", "matryoshka"])
def test_a_training_checkpoint_becomes_the_sae_that_it_stands_for(tmp_path: Path, kind: str) -> None:
    training = random_sae(kind)
    training.save_model(tmp_path / "sae")
    encoder = fetched(tmp_path / "sae", tmp_path)
    training.save_inference_model(tmp_path / "reference")
    assert torch.equal(dense(encoder), dense(load_encoder(tmp_path / "reference", "cpu")))
    assert (encoder.architecture, encoder.l0) == ("jumprelu", K)


def test_a_saelens_directory_is_read_where_it_is(tmp_path: Path) -> None:
    saved(tmp_path / "sae", "gated")
    (tmp_path / "sae" / "config.json").write_text("{}")
    assert fetch_sae("path:sae", folder=tmp_path, into=tmp_path / "into") == tmp_path / "sae"
    assert not (tmp_path / "into").exists()


# ---------------------------------------------------------------- faults


def test_the_same_files_convert_to_the_same_bytes(tmp_path: Path) -> None:
    folder = write_dictionary(tmp_path / "d", "BatchTopKSAE")
    first, second = (fetch_sae(f"path:{folder}", folder=tmp_path, into=tmp_path / into) for into in ("a", "b"))
    for name in ("cfg.json", "sae_weights.safetensors"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert "SHA-256" in json.loads((first / "cfg.json").read_text())["metadata"]["converted_from"]


class Payload:
    """Unpickling it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("how", [torch.save, lambda found, file: file.write_bytes(pickle.dumps(found))])
@pytest.mark.parametrize("kind", ["dictionary_learning", "qwen"])
def test_a_pickle_that_wants_to_run_code_is_refused_before_it_runs(
    tmp_path: Path, kind: str, how: Callable[[object, Path], object]
) -> None:
    if kind == "qwen":
        place, file = tmp_path / "L0_3" / "layer0.sae.pt", tmp_path / "L0_3" / "layer0.sae.pt"
        file.parent.mkdir()
    else:
        place = write_dictionary(tmp_path / "d", "AutoEncoder")
        file = place / "ae.pt"
    how({**matrices(), "more": Payload(tmp_path / "it-ran")}, file)
    with pytest.raises(SaerlError, match="nothing in it was run") as caught:
        fetched(place, tmp_path)
    assert (caught.value.code, caught.value.where) == ("sae_unsafe", str(file))
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "it-ran").exists()
    pickle.loads(pickle.dumps(Payload(tmp_path / "it-ran")))  # noqa: S301 - the payload itself works
    assert (tmp_path / "it-ran").exists()


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-300]), "sae_corrupt"),
        (lambda file: file.write_bytes(b""), "sae_corrupt"),
        (lambda file: file.write_bytes(b"neither"), "sae_unsafe"),
        (lambda file: file.unlink(), "sae_without_weights"),
        (lambda file: (file.parent / "config.json").unlink(), "sae_without_config"),
        (lambda file: (file.parent / "config.json").write_text("{}"), "sae_corrupt"),
        (
            lambda file: torch.save(DICTIONARIES["AutoEncoder"][0] | {"bias": torch.full((D_IN,), torch.nan)}, file),
            "sae_not_finite",
        ),
        (lambda file: torch.save(DICTIONARIES["AutoEncoder"][0] | {"bias": torch.zeros(3)}, file), "sae_corrupt"),
        (lambda file: torch.save([torch.zeros(3)], file), "sae_corrupt"),
    ],
)
def test_a_damaged_dictionary_is_named(tmp_path: Path, damage: Callable[[Path], object], code: str) -> None:
    folder = write_dictionary(tmp_path / "d", "AutoEncoder")
    damage(folder / "ae.pt")
    with pytest.raises(SaerlError) as caught:
        fetched(folder, tmp_path)
    assert caught.value.code == code
    assert str(folder) in caught.value.where
    assert not (tmp_path / "into").exists()


@pytest.mark.parametrize("name", ["an empty folder", "notes.txt"])
def test_what_is_no_sae_is_told_the_formats(tmp_path: Path, name: str) -> None:
    place = tmp_path / name
    if place.suffix:
        place.write_text("hello")
    else:
        place.mkdir()
    with pytest.raises(SaerlError, match="Give a SAELens directory") as caught:
        fetched(place, tmp_path)
    assert (caught.value.code, caught.value.where) == ("sae_unknown_format", str(place))


def test_nothing_there_is_told_the_formats(tmp_path: Path) -> None:
    with pytest.raises(SaerlError, match="Give a SAELens directory") as caught:
        fetch_sae("path:nowhere", folder=tmp_path, into=tmp_path / "into")
    assert caught.value.code == "sae_missing"


def test_an_sae_in_place_is_held_against_the_same_rules(tmp_path: Path) -> None:
    write_sae(tmp_path / "sae")
    with_config(tmp_path / "sae", architecture="transcoder")
    with pytest.raises(SaerlError, match="does not reconstruct"):
        fetch_sae("path:sae", folder=tmp_path, into=tmp_path / "into")
