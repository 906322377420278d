"""Training an SAE: it learns, sae_lens opens what it saves, and what nothing can be learned from is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from saerl_assets.disk import folder_digest
from saerl_assets.domain.errors import SaerlError
from saerl_assets.models import sae_training
from saerl_assets.models.health import measure_fit
from saerl_assets.models.sae_training import train_sae
from saerl_assets.models.saes import load_encoder
from saerl_assets.models.token_stream import TokenOrder
from saerl_assets_tests.models.sparse_data import ARCHITECTURES, D_IN, N_STEPS, SPEC, K, sparse_data, train

SAVES_EVERY = N_STEPS // (sae_training.N_CHECKPOINTS + 1)


def interrupt(*_args: object, **_kwargs: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_explains_data_that_it_has_not_seen_and_sae_lens_agrees(tmp_path: Path, architecture: str) -> None:
    from sae_lens import SAE

    trained = train(tmp_path, architecture=architecture, training_tokens=40_000)
    unseen = sparse_data(seed=1)
    encoder = load_encoder(trained.folder, "cpu")
    fit = measure_fit(encoder, [unseen], sink_threshold=1e9)
    assert fit.explained_variance > 0.8
    assert fit.l0 == pytest.approx(K, rel=0.25)
    assert trained.history["loss"][-1] < trained.history["loss"][0]
    opened = SAE.load_from_disk(str(trained.folder))
    assert opened.cfg.architecture() == ("topk" if architecture == "topk" else "jumprelu")
    assert opened.cfg.metadata.hook_name == "blocks.5.hook_resid_post"
    torch.testing.assert_close(opened.W_dec.norm(dim=-1), torch.ones(SPEC.n_latents))
    with torch.no_grad():
        left = (opened(unseen) - unseen).pow(2).sum() / (unseen - unseen.mean(dim=0)).pow(2).sum()
        found = encoder.encode(unseen)
        torch.testing.assert_close(opened.encode(unseen)[found.token, found.latent], found.value)
    assert 1 - float(left) == pytest.approx(fit.explained_variance, abs=1e-4)


@pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka"])
@pytest.mark.parametrize("n_steps", [1, 4])
def test_the_threshold_has_arrived_after_however_short_a_run(tmp_path: Path, architecture: str, n_steps: int) -> None:
    trained = train(tmp_path, architecture=architecture, training_tokens=n_steps * SPEC.batch_tokens)
    fit = measure_fit(load_encoder(trained.folder, "cpu"), [sparse_data(seed=1)], sink_threshold=1e9)
    assert fit.l0 == pytest.approx(K, rel=0.15)


def test_the_history_counts_up_and_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []

    def progress(done: int, total: int, *, unit: str, note: str = "") -> None:
        told.append((done, total, f"{unit}: {note}"))

    trained = train_sae(sparse_data(), SPEC, layer=5, seed=3, folder=tmp_path, device="cpu", progress=progress)
    assert trained.history.schema == sae_training.HISTORY_SCHEMA
    assert trained.history["explained_variance"][-1] > trained.history["explained_variance"][0]
    done = [tokens for tokens, _, _ in told]
    assert done == trained.history["tokens"].to_list() == sorted(done)
    assert told[-1][0] == told[-1][1] == SPEC.training_tokens
    assert all(word in told[-1][2] for word in ("loss", "explained variance", "L0", "dead"))


def test_a_resumed_run_does_not_begin_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped_at, n_batches, draw = 17, 0, TokenOrder.__next__

    def stopping(self: TokenOrder) -> torch.Tensor:
        nonlocal n_batches
        n_batches += 1
        if n_batches == stopped_at:
            raise KeyboardInterrupt
        return draw(self)

    monkeypatch.setattr(TokenOrder, "__next__", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path)
    train(tmp_path)
    n_kept = (stopped_at - 1) // SAVES_EVERY * SAVES_EVERY
    assert n_batches == stopped_at + N_STEPS - n_kept
    assert not list(tmp_path.glob("checkpoint*"))


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
    for change in ({"learning_rate": 1e-3}, {"architecture": "matryoshka"}, {"k": 4}):
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, data, **change)


def test_half_precision_activations_are_taken(tmp_path: Path) -> None:
    trained = train(tmp_path, sparse_data().bfloat16(), training_tokens=2_000)
    assert load_encoder(trained.folder, "cpu").d_in == D_IN


class LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remembers how many numbers the largest float tensor that was computed holds."""

    n_numbers = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        _types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.is_floating_point():
            self.n_numbers = max(self.n_numbers, result.numel())
        return result


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_step_copies_all_activations(tmp_path: Path, architecture: str) -> None:
    activations = sparse_data(n_tokens=20_000).bfloat16()
    with LargestTensor() as largest:  # type: ignore[no-untyped-call]
        train(tmp_path, activations, training_tokens=256, architecture=architecture)
    assert 0 < largest.n_numbers < activations.numel()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fewer_tokens_than_latents_or_than_a_batch_still_train(tmp_path: Path, architecture: str) -> None:
    few = sparse_data(n_tokens=30)
    trained = train(tmp_path, few, training_tokens=3_000, architecture=architecture)
    assert trained.history["tokens"][-1] == 3_000
    fit = measure_fit(load_encoder(trained.folder, "cpu"), [few], sink_threshold=1e9)
    assert fit.explained_variance > 0.8


@pytest.mark.parametrize("n_tokens", [0, 1])
def test_no_tokens_are_an_error(tmp_path: Path, n_tokens: int) -> None:
    with pytest.raises(SaerlError) as caught:
        train(tmp_path, sparse_data()[:n_tokens])
    assert caught.value.code == "too_few_tokens"


def with_one(value: float) -> torch.Tensor:
    return sparse_data().index_fill(0, torch.tensor([1_234]), value)


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (lambda: with_one(torch.nan), "activations_not_finite"),
        (lambda: with_one(1e38).half(), "activations_not_finite"),
        (lambda: sparse_data()[:1].expand(3_000, -1), "activations_constant"),
        (lambda: torch.zeros(3_000, D_IN), "activations_constant"),
    ],
)
def test_activations_that_nothing_can_be_learned_from_are_refused(
    tmp_path: Path, bad: Callable[[], torch.Tensor], code: str
) -> None:
    with pytest.raises(SaerlError) as caught:
        train(tmp_path, bad())
    assert caught.value.code == code
    assert "layer 5" in str(caught.value)
    assert ("1,234" in str(caught.value)) == (code == "activations_not_finite")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_as_many_active_latents_as_there_are_is_refused(tmp_path: Path, architecture: str) -> None:
    with pytest.raises(SaerlError) as caught:
        train(tmp_path, architecture=architecture, k=SPEC.n_latents)
    assert caught.value.code == "k_too_large"


def test_a_run_that_diverges_ends_with_an_error(tmp_path: Path) -> None:
    with pytest.raises(SaerlError) as caught:
        train(tmp_path, learning_rate=1e30)
    assert caught.value.code == "training_diverged"
    assert "sae.learning_rate" in str(caught.value)


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
