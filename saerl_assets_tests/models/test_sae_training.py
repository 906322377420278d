"""Training an SAE: it learns, it resumes after a kill to the same bytes, and sae_lens opens what it saves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from saerl_assets.disk import folder_digest
from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.spec import SaeSpec
from saerl_assets.models import sae_training
from saerl_assets.models.health import measure_fit
from saerl_assets.models.sae_training import TokenOrder, TrainedSae, train_sae
from saerl_assets.models.saes import load_encoder

D_IN, N_ATOMS, K = 32, 40, 3
N_STEPS = 50
SPEC = SaeSpec(n_latents=80, k=K, training_tokens=N_STEPS * 128, batch_tokens=128, learning_rate=3e-3)
SAVES_EVERY = N_STEPS // (sae_training.N_CHECKPOINTS + 1)


def sparse_data(n_tokens: int = 3_000, seed: int = 0) -> torch.Tensor:
    """Sums of three of 40 directions, far off centre and scale: what an SAE is made to find."""
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.nn.functional.normalize(
        torch.randn(N_ATOMS, D_IN, generator=torch.Generator().manual_seed(9)), dim=-1
    )
    chosen = torch.rand(n_tokens, N_ATOMS, generator=generator).topk(3).indices
    weights = torch.rand(n_tokens, 3, generator=generator) + 0.5
    return 40.0 * ((atoms[chosen] * weights[..., None]).sum(dim=1) + 2.0)


def train(folder: Path, activations: torch.Tensor | None = None, **changes: object) -> TrainedSae:
    data = sparse_data() if activations is None else activations
    spec = SPEC.model_copy(update=changes)
    return train_sae(data, spec, layer=5, seed=3, folder=folder, device="cpu")


def interrupt(*_args: object, **_kwargs: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("architecture", ["topk", "batchtopk"])
def test_it_explains_data_that_it_has_not_seen_and_sae_lens_agrees(tmp_path: Path, architecture: str) -> None:
    from sae_lens import SAE

    trained = train(tmp_path, architecture=architecture, training_tokens=40_000)
    unseen = sparse_data(seed=1)
    fit = measure_fit(load_encoder(trained.folder, "cpu"), [unseen], sink_threshold=1e9)
    assert fit.explained_variance > 0.8
    assert fit.l0 == pytest.approx(K, abs=0.6)
    assert trained.history["loss"][-1] < trained.history["loss"][0]
    opened = SAE.load_from_disk(str(trained.folder))
    assert opened.cfg.architecture() == {"topk": "topk", "batchtopk": "jumprelu"}[architecture]
    assert opened.cfg.metadata.hook_name == "blocks.5.hook_resid_post"
    with torch.no_grad():
        left = (opened(unseen) - unseen).pow(2).sum() / (unseen - unseen.mean(dim=0)).pow(2).sum()
    assert 1 - float(left) == pytest.approx(fit.explained_variance, abs=1e-4)


def test_the_history_counts_up_and_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []

    def progress(done: int, total: int, *, unit: str, note: str = "") -> None:
        told.append((done, total, f"{unit}: {note}"))

    trained = train_sae(sparse_data(), SPEC, layer=5, seed=3, folder=tmp_path, device="cpu", progress=progress)
    assert trained.history.schema == sae_training.HISTORY_SCHEMA
    assert trained.history["explained_variance"][-1] > trained.history["explained_variance"][0]
    assert [done for done, _, _ in told] == trained.history["tokens"].to_list() == sorted(told_of(told))
    assert told[-1][0] == told[-1][1] == SPEC.training_tokens
    assert "explained variance" in told[-1][2]


def told_of(told: list[tuple[int, int, str]]) -> list[int]:
    return [done for done, _, _ in told]


@pytest.mark.parametrize(
    ("architecture", "kill_at"), [("topk", 1), ("topk", 17), ("topk", N_STEPS - 1), ("batchtopk", 30)]
)
def test_killed_anywhere_and_started_again_it_ends_with_the_same_bytes(
    architecture: str, kill_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tmp_path / "whole", architecture=architecture)
    n_batches, draw = 0, TokenOrder.__next__

    def dying(self: TokenOrder) -> torch.Tensor:
        nonlocal n_batches
        n_batches += 1
        if n_batches == kill_at:
            raise KeyboardInterrupt
        return draw(self)

    monkeypatch.setattr(TokenOrder, "__next__", dying)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", architecture=architecture)
    resumed = train(tmp_path / "killed", architecture=architecture)
    n_kept = (kill_at - 1) // SAVES_EVERY * SAVES_EVERY
    assert n_batches == kill_at + N_STEPS - n_kept  # it went on from the last checkpoint
    assert folder_digest(resumed.folder) == folder_digest(whole.folder)
    assert resumed.history.equals(whole.history)
    assert not list((tmp_path / "killed").glob("checkpoint*"))


def test_a_damaged_checkpoint_means_from_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(tmp_path / "whole")
    for name in ("sae_weights.safetensors", "trainer_state.pt", "activation_scaler.json"):
        folder = tmp_path / name
        with monkeypatch.context() as patch:
            patch.setattr(sae_training, "save_finished", interrupt)
            with pytest.raises(KeyboardInterrupt):
                train(folder)
        (damaged,) = folder.glob(f"checkpoint-*/state/{name}")
        damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
        assert folder_digest(train(folder).folder) == folder_digest(whole.folder)


def test_what_was_finished_is_found_again_unless_something_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = sparse_data()
    first = train(tmp_path, data)
    monkeypatch.setattr(TokenOrder, "__next__", interrupt)
    assert train(tmp_path, data).history.equals(first.history)
    for changed in (data + 1e-3, data[1:]):
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, changed)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, data, learning_rate=1e-3)


def test_half_precision_activations_are_taken(tmp_path: Path) -> None:
    trained = train(tmp_path, sparse_data().bfloat16(), training_tokens=2_000)
    assert load_encoder(trained.folder, "cpu").d_in == D_IN


def test_fewer_tokens_than_latents_or_than_a_batch_still_train(tmp_path: Path) -> None:
    trained = train(tmp_path, sparse_data(n_tokens=30), training_tokens=100)
    assert trained.history["tokens"][-1] == 90


def test_no_tokens_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(SaerlError) as caught:
        train(tmp_path, torch.zeros(0, D_IN))
    assert caught.value.code == "too_few_tokens"


def test_a_pass_over_the_tokens_sees_each_once_and_the_next_in_another_order() -> None:
    tokens = torch.arange(20, dtype=torch.float32)[:, None]
    order = TokenOrder(tokens, 5, seed=1)
    first = torch.cat([next(order) for _ in range(4)]).flatten().tolist()
    second = torch.cat([next(order) for _ in range(4)]).flatten().tolist()
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    late = TokenOrder(tokens, 5, seed=1, first_step=6)
    np.testing.assert_array_equal(next(late).flatten(), second[10:15])


def test_the_saved_configuration_names_no_place(tmp_path: Path) -> None:
    text = (train(tmp_path, training_tokens=2_000).folder / "cfg.json").read_text()
    assert json.loads(text)["device"] == "cpu"
    assert str(tmp_path) not in text


def test_health_counts_sinks_and_scores_a_wrong_sae_low(tmp_path: Path) -> None:
    trained = load_encoder(train(tmp_path, training_tokens=40_000).folder, "cpu")
    data = sparse_data(seed=2)
    sinks = torch.full((10, D_IN), 1e6)
    fit = measure_fit(trained, [torch.cat([data, sinks])], sink_threshold=1e5)
    assert (fit.n_tokens, fit.n_sink_tokens) == (len(data), 10)
    rotation = torch.linalg.qr(torch.randn(D_IN, D_IN, generator=torch.Generator().manual_seed(4))).Q
    other = measure_fit(trained, [data @ rotation], sink_threshold=1e5)
    assert other.explained_variance < 0.6 * fit.explained_variance


def test_no_tokens_at_all_has_a_defined_fit(tmp_path: Path) -> None:
    trained = load_encoder(train(tmp_path, training_tokens=2_000).folder, "cpu")
    fit = measure_fit(trained, [torch.full((4, D_IN), 1e4)], sink_threshold=1.0)
    assert (fit.explained_variance, fit.l0, fit.n_tokens, fit.n_sink_tokens) == (0.0, 0.0, 0, 4)
