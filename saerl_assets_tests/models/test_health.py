"""Figures of an SAE's fit against formulas written out, and SAEs of another layer or model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from saerl_assets.models.health import find_fired, measure_fit, measure_layer_profile, measure_splice_loss
from saerl_assets.models.saes import Encoder, load_encoder
from saerl_assets.models.sources import locate_model
from saerl_assets.models.texts import Text
from saerl_assets.models.whole_model import WholeModel
from saerl_assets_tests.tiny import D_MODEL, source_rows, write_fitted_sae, write_model, write_sae

NEVER = float("inf")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a head, and SAEs for it."""
    made = tmp_path_factory.mktemp("health")
    write_model(made / "model", has_head=True)
    for layer in range(3):
        write_fitted_sae(made / f"layer{layer}", made / "model", layer=layer)
    write_sae(made / "random")
    write_sae(made / "lossless", k=D_MODEL)
    return made


@pytest.fixture(scope="module")
def model(folder: Path) -> WholeModel:
    files = locate_model("path:model", cache=folder / "cache", folder=folder)
    return WholeModel.load(files, dtype="float32", device="cpu")


def texts(n: int = 40) -> list[Text]:
    asked = [np.frombuffer(row["question"].encode(), np.uint8).astype(np.int32) for row in source_rows(n)]
    made = [Text(str(place), token_ids) for place, token_ids in enumerate(asked)]
    return sorted(made, key=lambda text: len(text.token_ids))


def encoder_of(folder: Path, name: str) -> Encoder:
    return load_encoder(folder / name, "cpu")


def test_the_fit_is_its_formula_and_leaves_out_sinks(folder: Path) -> None:
    encoder = encoder_of(folder, "random")
    states = torch.randn(60, D_MODEL, generator=torch.Generator().manual_seed(0)) + 1
    states[7] *= 100
    usual = states[torch.arange(60) != 7]
    fit = measure_fit(encoder, [states[:25], states[25:]], sink_threshold=60.0)
    residual = (usual - encoder.reconstruct(usual)).pow(2).sum()
    assert fit.explained_variance == pytest.approx(
        float(1 - residual / (usual - usual.mean(dim=0)).pow(2).sum()), abs=1e-5
    )
    assert (fit.n_tokens, fit.n_sink_tokens) == (59, 1)
    sparse = encoder.encode(usual)
    assert fit.l0 == pytest.approx(len(sparse.value) / 59)
    assert fit.fired.nonzero().flatten().tolist() == sorted(set(sparse.latent.tolist()))
    fired, n_tokens = find_fired(encoder, [states[:25], states[25:]], 60.0)
    assert torch.equal(fired, fit.fired)
    assert n_tokens == 59


def test_nothing_to_measure_is_no_fit(folder: Path) -> None:
    fit = measure_fit(encoder_of(folder, "random"), [torch.ones(3, D_MODEL)], sink_threshold=0.1)
    assert (fit.explained_variance, fit.l0, fit.n_tokens, fit.n_sink_tokens) == (0.0, 0.0, 0, 3)
    assert not fit.fired.any()


@pytest.mark.parametrize("layer", range(3))
def test_an_sae_fits_its_own_layer_best(layer: int, folder: Path, model: WholeModel) -> None:
    profile = measure_layer_profile(
        model, encoder_of(folder, f"layer{layer}"), texts(), sink_multiple=10.0, token_budget=128
    )
    assert len(profile) == 3
    assert max(range(3), key=profile.__getitem__) == layer


def test_what_is_kept_whole_costs_no_prediction(folder: Path, model: WholeModel) -> None:
    lossless = measure_splice_loss(
        model, encoder_of(folder, "lossless"), texts(), layer=1, sink_threshold=NEVER, token_budget=128
    )
    assert lossless.spliced == pytest.approx(lossless.clean, abs=1e-4)
    assert lossless.n_tokens == sum(len(text.token_ids) - 1 for text in texts())
    alone = [cross_entropy(*model.predictions([text.token_ids], 1, None), reduction="sum") for text in texts()]
    assert lossless.clean == pytest.approx(float(sum(alone)) / lossless.n_tokens, abs=1e-4)


def test_a_loss_of_detail_lies_between_and_sinks_stay(folder: Path, model: WholeModel) -> None:
    encoder = encoder_of(folder, "layer1")
    everything = measure_splice_loss(model, encoder, texts(), layer=1, sink_threshold=NEVER, token_budget=64)
    assert len({everything.clean, everything.spliced, everything.ablated}) == 3
    nothing = measure_splice_loss(model, encoder, texts(), layer=1, sink_threshold=0.0, token_budget=64)
    assert nothing.clean == nothing.spliced == nothing.ablated
