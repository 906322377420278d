"""Training an SAE: it learns, it resumes after a kill to the same bytes, and sae_lens opens what it saves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from saerl_assets.domain.progress import silent
from saerl_assets.domain.spec import SaeSpec
from saerl_assets.models.health import measure_fit
from saerl_assets.models.sae_training import TrainedSae, train_sae
from saerl_assets.models.saes import load_encoder
from saerl_assets.storage.files import folder_digest

D_IN, N_ATOMS = 32, 40


def sparse_data(n_tokens: int = 3_000, seed: int = 0) -> torch.Tensor:
    """Sums of three of 40 directions: what an SAE is made to find."""
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.nn.functional.normalize(
        torch.randn(N_ATOMS, D_IN, generator=torch.Generator().manual_seed(9)), dim=-1
    )
    chosen = torch.rand(n_tokens, N_ATOMS, generator=generator).topk(3).indices
    weights = torch.rand(n_tokens, 3, generator=generator) + 0.5
    return (atoms[chosen] * weights[..., None]).sum(dim=1) * 7


def train(folder: Path, architecture: str = "topk", progress: Callable[..., None] = silent) -> TrainedSae:
    spec = SaeSpec(
        architecture=architecture,  # type: ignore[arg-type]
        n_latents=80,
        k=3,
        training_tokens=40_000,
        batch_tokens=128,
        learning_rate=3e-3,
    )
    folder.mkdir(exist_ok=True)
    return train_sae(sparse_data(), spec, layer=5, seed=3, folder=folder, device="cpu", progress=progress)


@pytest.mark.parametrize("architecture", ["topk", "batchtopk"])
def test_it_explains_data_that_it_has_not_seen(tmp_path: Path, architecture: str) -> None:
    from sae_lens import SAE

    trained = train(tmp_path / "work", architecture)
    fit = measure_fit(load_encoder(trained.folder, "cpu"), [sparse_data(seed=1)], sink_threshold=1e9)
    assert fit.explained_variance > 0.8
    assert fit.l0 == pytest.approx(3.0, abs=0.6)
    assert trained.history["loss"][-1] < trained.history["loss"][0]
    opened = SAE.load_from_disk(str(trained.folder))
    assert opened.cfg.metadata.hook_name == "blocks.5.hook_resid_post"


def test_killed_and_resumed_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def kill_late(done: int, total: int, *, unit: str, note: str = "") -> None:  # noqa: ARG001
        if done > 0.7 * total:
            raise KilledError

    whole = train(tmp_path / "whole")
    with pytest.raises(KilledError):
        train(tmp_path / "killed", progress=kill_late)
    assert (tmp_path / "killed" / "checkpoint").is_dir()
    seen: list[int] = []
    resumed = train(tmp_path / "killed", progress=lambda done, _total, **_: seen.append(done))
    assert min(seen) > 10_000  # it went on from the checkpoint
    assert folder_digest(resumed.folder) == folder_digest(whole.folder)
    assert resumed.history.equals(whole.history)


def test_health_counts_sinks_and_scores_a_wrong_sae_low(tmp_path: Path) -> None:
    trained = load_encoder(train(tmp_path / "work").folder, "cpu")
    data = sparse_data(seed=2)
    sinks = torch.full((10, D_IN), 1e4)
    fit = measure_fit(trained, [torch.cat([data, sinks])], sink_threshold=1e3)
    assert (fit.n_tokens, fit.n_sink_tokens) == (len(data), 10)
    rotation = torch.linalg.qr(torch.randn(D_IN, D_IN, generator=torch.Generator().manual_seed(4))).Q
    other = measure_fit(trained, [data @ rotation], sink_threshold=1e3)
    assert other.explained_variance < 0.6 * fit.explained_variance


def test_no_tokens_at_all_has_a_defined_fit(tmp_path: Path) -> None:
    trained = load_encoder(train(tmp_path / "work").folder, "cpu")
    fit = measure_fit(trained, [torch.full((4, D_IN), 1e4)], sink_threshold=1.0)
    assert (fit.explained_variance, fit.l0, fit.n_tokens, fit.n_sink_tokens) == (0.0, 0.0, 0, 4)
