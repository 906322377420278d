"""The registry of published SAEs, out of the hub's local cache and without a network, each against its formula."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from saerl_assets.domain.errors import SaerlError
from saerl_assets.models.sae_sources import fetch_sae
from saerl_assets.models.saes import load_encoder
from saerl_assets_tests.models.random_saes import ACTIVATIONS, D_IN, N_LATENTS, K, dense, saved, with_config

COMMIT = "0123456789abcdef0123456789abcdef01234567"
GENERATOR = torch.Generator().manual_seed(3)
W_ENC, B_ENC = torch.randn(D_IN, N_LATENTS, generator=GENERATOR), torch.randn(N_LATENTS, generator=GENERATOR)
W_DEC, B_DEC = torch.randn(N_LATENTS, D_IN, generator=GENERATOR), torch.randn(D_IN, generator=GENERATOR)
THRESHOLD = torch.rand(N_LATENTS, generator=GENERATOR) * 4
LINEAR = {
    "encoder.weight": W_ENC.T.contiguous(),
    "encoder.bias": B_ENC,
    "decoder.weight": W_DEC.T.contiguous(),
}
Publish = Callable[..., Path]


def empty_snapshot(hub: Path, repository: str) -> Path:
    """An empty folder for a repository in the hub's cache."""
    cached = hub / f"models--{repository.replace('/', '--')}"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(COMMIT)
    (cached / "snapshots" / COMMIT).mkdir(parents=True)
    return cached / "snapshots" / COMMIT


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, with nothing in it; no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.fixture
def shrunk(hub: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Makes a release of the registry one of small SAEs and gives an empty folder for them in the hub's cache."""
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    def shrink(release: str, n_latents: int = N_LATENTS) -> Path:
        found = get_pretrained_saes_directory()[release]
        small = replace(found, config_overrides={"d_in": D_IN, "d_sae": n_latents})
        monkeypatch.setitem(get_pretrained_saes_directory(), release, small)
        return empty_snapshot(hub, found.repo_id)

    return shrink


@pytest.fixture
def publish(hub: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Puts a release of one SAE into the registry and an empty folder for it into the hub's cache."""
    from sae_lens.loading.pretrained_saes_directory import PretrainedSAELookup, get_pretrained_saes_directory

    def put(repository: str, path: str, conversion: str | None, **more: Any) -> Path:  # noqa: ANN401
        release = PretrainedSAELookup(
            release="tiny",
            repo_id=repository,
            model="tiny",
            conversion_func=conversion,
            saes_map={"one/average_l0_71": path},
            expected_var_explained={},
            expected_l0=more.get("l0", {}),
            neuronpedia_id={},
            norm_scaling_factor=more.get("scale", {}),
            config_overrides=more.get("overrides"),
        )
        monkeypatch.setitem(get_pretrained_saes_directory(), "tiny", release)
        snapshot = empty_snapshot(hub, repository)
        (snapshot / path).parent.mkdir(parents=True, exist_ok=True)
        return snapshot

    return put


def jump_relu(pre: torch.Tensor, threshold: torch.Tensor | float) -> torch.Tensor:
    return pre.relu() * (pre > threshold)


def test_gemma_scope(publish: Publish, tmp_path: Path) -> None:
    snapshot = publish(
        "google/gemma-scope-2b-pt-res",
        "layer_3/width_16k/average_l0_71",
        "gemma_2",
        overrides={"d_in": D_IN, "d_sae": N_LATENTS},
        l0={"one/average_l0_71": 71},
    )
    folder = snapshot / "layer_3/width_16k/average_l0_71"
    folder.mkdir()
    own = {"W_enc": W_ENC, "W_dec": W_DEC, "b_enc": B_ENC, "b_dec": B_DEC, "threshold": THRESHOLD}
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in own.items()}
    np.savez(folder / "params.npz", **arrays)
    found = fetch_sae("saelens:tiny/one/average_l0_71", folder=tmp_path, into=tmp_path / "into")
    encoder = load_encoder(found, "cpu")
    expected = jump_relu(ACTIVATIONS @ W_ENC + B_ENC, THRESHOLD)
    torch.testing.assert_close(dense(encoder), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(encoder.reconstruct(ACTIVATIONS), expected @ W_DEC + B_DEC, atol=1e-4, rtol=1e-5)
    assert (encoder.hook_name, encoder.model_name) == ("blocks.3.hook_resid_post", "gemma-2-2b")
    assert (encoder.l0, encoder.prepend_bos) == (71, True)


@pytest.mark.parametrize(
    ("kind", "more", "subtracted", "threshold"),
    [
        ("BatchTopKSAE", {"b_dec": B_DEC, "threshold": torch.tensor(2.0), "k": torch.tensor(K)}, B_DEC, 2.0),
        ("AutoEncoder", {"bias": B_DEC}, B_DEC, 0.0),
    ],
)
def test_dictionary_learning_as_andyrdt_publishes_it(
    publish: Publish,
    tmp_path: Path,
    kind: str,
    more: dict[str, torch.Tensor],
    subtracted: torch.Tensor,
    threshold: float,
) -> None:
    snapshot = publish("andyrdt/saes-tiny", "resid_post_layer_7/trainer_1", "dictionary_learning_1")
    folder = snapshot / "resid_post_layer_7/trainer_1"
    folder.mkdir()
    torch.save(LINEAR | more, folder / "ae.pt")
    trainer = {
        "dict_class": kind,
        "layer": 7,
        "lm_name": "org/m",
        "k": K,
        "activation_dim": D_IN,
        "dict_size": N_LATENTS,
    }
    (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {"ctx_len": 128}}))
    found = fetch_sae("saelens:tiny/one/average_l0_71", folder=tmp_path, into=tmp_path / "into")
    encoder = load_encoder(found, "cpu")
    expected = jump_relu((ACTIVATIONS - subtracted) @ W_ENC + B_ENC, threshold)
    torch.testing.assert_close(dense(encoder), expected, atol=1e-5, rtol=1e-5)
    assert encoder.hook_name == "blocks.7.hook_resid_post"
    assert encoder.l0 == 71  # from the id: the registry does not say


def write_llama_scope(snapshot: Path) -> None:
    folder = snapshot / "L15R-8x"
    (folder / "checkpoints").mkdir(parents=True)
    save_file(LINEAR | {"decoder.bias": B_DEC}, folder / "checkpoints" / "final.safetensors")
    own = {
        "d_model": D_IN,
        "d_sae": N_LATENTS,
        "jump_relu_threshold": 0.5,
        "dataset_average_activation_norm": {"in": 4.0},
        "hook_point_in": "blocks.15.hook_resid_post",
    }
    (folder / "hyperparams.json").write_text(json.dumps(own))


def test_llama_scope_scales_its_input(publish: Publish, tmp_path: Path) -> None:
    scale = D_IN**0.5 / 4.0
    snapshot = publish("fnlp/Tiny", "L15R-8x", "llama_scope", scale={"one/average_l0_71": scale})
    write_llama_scope(snapshot)
    found = fetch_sae("saelens:tiny/one/average_l0_71", folder=tmp_path, into=tmp_path / "into")
    encoder = load_encoder(found, "cpu")
    expected = jump_relu(ACTIVATIONS * scale @ W_ENC + B_ENC, 0.5 * scale)
    assert not torch.equal(expected > 0, jump_relu(ACTIVATIONS @ W_ENC + B_ENC, 0.5) > 0)  # the scale matters
    torch.testing.assert_close(dense(encoder), expected, atol=1e-5, rtol=1e-5)
    rebuilt = (expected @ W_DEC + B_DEC) / scale
    torch.testing.assert_close(encoder.reconstruct(ACTIVATIONS), rebuilt, atol=1e-4, rtol=1e-5)
    assert encoder.hook_name == "blocks.15.hook_resid_post"


def test_a_scale_that_nobody_knows_is_not_taken_for_1(publish: Publish, tmp_path: Path) -> None:
    write_llama_scope(publish("fnlp/Tiny", "L15R-8x", "llama_scope"))
    with pytest.raises(SaerlError, match="do not hold the scale") as caught:
        fetch_sae("saelens:tiny/one/average_l0_71", folder=tmp_path, into=tmp_path / "into")
    assert (caught.value.code, caught.value.where) == ("sae_unsupported", "saelens:tiny/one/average_l0_71")
    assert not (tmp_path / "into").exists()


def test_goodfire(shrunk: Publish, tmp_path: Path) -> None:
    snapshot = shrunk("goodfire-llama-3.1-8b-instruct")
    linear = {name.replace("coder.", "coder_linear."): tensor for name, tensor in LINEAR.items()}
    torch.save(linear | {"decoder_linear.bias": B_DEC}, snapshot / "Llama-3.1-8B-Instruct-SAE-l19.pth")
    found = fetch_sae("saelens:goodfire-llama-3.1-8b-instruct/layer_19", folder=tmp_path, into=tmp_path / "into")
    encoder = load_encoder(found, "cpu")
    expected = (ACTIVATIONS @ W_ENC + B_ENC).relu()  # a bias in nn.Linear's place: nothing is subtracted before
    torch.testing.assert_close(dense(encoder), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(encoder.reconstruct(ACTIVATIONS), expected @ W_DEC + B_DEC, atol=1e-4, rtol=1e-5)
    assert (encoder.architecture, encoder.k, encoder.l0) == ("standard", None, 91)
    assert (encoder.hook_name, encoder.model_name) == ("blocks.19.hook_resid_post", "meta-llama/Llama-3.1-8B-Instruct")


def test_qwen_scope(shrunk: Publish, tmp_path: Path) -> None:
    n_active, n_latents = 50, 150  # the repository's name says how many are active
    snapshot = shrunk("qwen-scope-3-1.7b-base-w32k-l50", n_latents)
    generator = torch.Generator().manual_seed(4)
    w_enc, b_enc = torch.randn(n_latents, D_IN, generator=generator), torch.randn(n_latents, generator=generator)
    w_dec = torch.randn(D_IN, n_latents, generator=generator)
    file = snapshot / "layer12.sae.pt"
    torch.save({"W_enc": w_enc, "W_dec": w_dec, "b_enc": b_enc, "b_dec": B_DEC}, file)
    source = "saelens:qwen-scope-3-1.7b-base-w32k-l50/layer12"
    encoder = load_encoder(fetch_sae(source, folder=tmp_path, into=tmp_path / "into"), "cpu")
    pre = ACTIVATIONS @ w_enc.T + b_enc  # b_dec is not subtracted
    kth_largest = pre.sort(dim=-1).values[:, -n_active, None]
    expected = torch.where(pre >= kth_largest, pre, 0.0).relu()
    torch.testing.assert_close(dense(encoder), expected, atol=1e-5, rtol=1e-5)
    rebuilt = expected @ w_dec.T + B_DEC
    torch.testing.assert_close(encoder.reconstruct(ACTIVATIONS), rebuilt, atol=1e-3, rtol=1e-5)
    assert (encoder.architecture, encoder.k, encoder.l0) == ("topk", n_active, n_active)
    assert (encoder.hook_name, encoder.model_name) == ("blocks.12.hook_resid_post", "Qwen/Qwen3-1.7B-Base")
    file_alone = fetch_sae(
        f"path:{named_after_its_repository(tmp_path, file)}", folder=tmp_path, into=tmp_path / "file"
    )
    assert torch.equal(dense(load_encoder(file_alone, "cpu")), dense(encoder))


def named_after_its_repository(tmp_path: Path, file: Path) -> Path:
    """The same file as somebody has it who downloaded the repository by hand."""
    folder = tmp_path / "SAE-Res-Qwen3-1.7B-Base-W32K-L0_50"
    folder.mkdir()
    return Path(shutil.copy(file, folder))


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize(
    ("release", "sae_id", "file"),
    [
        ("goodfire-llama-3.1-8b-instruct", "layer_19", "Llama-3.1-8B-Instruct-SAE-l19.pth"),
        ("qwen-scope-3-1.7b-base-w32k-l50", "layer12", "layer12.sae.pt"),
    ],
)
def test_a_published_pickle_that_wants_to_run_code_is_refused_before_it_runs(
    shrunk: Publish, tmp_path: Path, release: str, sae_id: str, file: str
) -> None:
    pickled = shrunk(release) / file
    torch.save(LINEAR | {"W_enc": Payload(tmp_path / "it-ran")}, pickled)
    source = f"saelens:{release}/{sae_id}"
    with pytest.raises(SaerlError, match="nothing in it was run") as caught:
        fetch_sae(source, folder=tmp_path, into=tmp_path / "into")
    assert (caught.value.code, caught.value.where) == ("sae_unsafe", source)
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "it-ran").exists()
    assert not (tmp_path / "into").exists()
    torch.load(pickled, weights_only=False)
    assert (tmp_path / "it-ran").exists(), "the payload itself works"


def test_a_repository_of_saelens_directories(publish: Publish, tmp_path: Path) -> None:
    snapshot = publish("someone/saes", "blocks.2", None)
    saved(snapshot / "blocks.2", "topk")
    with_config(snapshot / "blocks.2", metadata={"sae_lens_version": "6.0.0", "hook_name": "blocks.2.hook_resid_pre"})
    found = fetch_sae("saelens:someone/saes/blocks.2", folder=tmp_path, into=tmp_path / "into")
    encoder, reference = load_encoder(found, "cpu"), load_encoder(snapshot / "blocks.2", "cpu")
    assert torch.equal(dense(encoder), dense(reference))
    assert (encoder.hook_name, encoder.k, encoder.l0) == ("blocks.2.hook_resid_pre", K, None)
    converted = json.loads((found / "cfg.json").read_text())["metadata"]["converted_from"]
    assert converted == "saelens:someone/saes/blocks.2"


def test_latents_of_both_directions_become_two_here_too(publish: Publish, tmp_path: Path) -> None:
    saved(publish("someone/saes", "one", None) / "one", "abstopk")
    found = fetch_sae("saelens:someone/saes/one", folder=tmp_path, into=tmp_path / "into")
    encoder = load_encoder(found, "cpu")
    assert (encoder.architecture, encoder.n_latents) == ("topk", 2 * N_LATENTS)


def test_without_a_network_it_says_what_to_do(publish: Publish, tmp_path: Path) -> None:
    publish("fnlp/Tiny", "L15R-8x", "llama_scope")
    with pytest.raises(SaerlError, match="path:DIR") as caught:
        fetch_sae("saelens:tiny/one/average_l0_71", folder=tmp_path, into=tmp_path / "into")
    assert (caught.value.code, caught.value.where) == ("hub_failed", "saelens:tiny/one/average_l0_71")
    assert not (tmp_path / "into").exists()


@pytest.mark.parametrize("source", ["saelens:gone/x", "saelens:tiny/x"])
def test_a_release_or_id_that_is_not_published_is_named(publish: Publish, tmp_path: Path, source: str) -> None:
    publish("fnlp/Tiny", "L15R-8x", "llama_scope")
    with pytest.raises(SaerlError, match="not found") as caught:
        fetch_sae(source, folder=tmp_path, into=tmp_path / "into")
    assert caught.value.code == "hub_failed"


@pytest.mark.parametrize("source", ["elsewhere:mine", "saelens:release", "mine"])
def test_what_names_no_source_is_told_the_schemes(tmp_path: Path, source: str) -> None:
    with pytest.raises(SaerlError, match="Write train, path:DIR or saelens:release/sae_id") as caught:
        fetch_sae(source, folder=tmp_path, into=tmp_path / "into")
    assert caught.value.code == "unknown_sae_source"
