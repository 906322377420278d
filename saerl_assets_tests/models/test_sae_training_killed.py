"""SAE training in a process that is killed, at the worst of moments, and started again: the same bytes."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.context import ForkServerContext
from pathlib import Path
from unittest import mock

import pytest

from saerl_assets import disk
from saerl_assets.disk import folder_digest
from saerl_assets.models import sae_checkpoints
from saerl_assets.models.token_stream import TokenOrder
from saerl_assets_tests.models.sparse_data import ARCHITECTURES, N_STEPS, train


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Processes that have sae_lens imported when they begin, which takes seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "saerl_assets.models.sparse_training"])
    return context


def kill(*_args: object, **_kwargs: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def on_batch(number: int) -> AbstractContextManager[object]:
    """Death when this batch is drawn, counted over the whole run."""
    draw = TokenOrder.__next__

    def dying(order: TokenOrder) -> object:
        if order._step == number - 1:
            kill()
        return draw(order)

    return mock.patch.object(TokenOrder, "__next__", dying)


@contextmanager
def amid_writing(folder_name: str) -> Iterator[None]:
    """Death once the files of such a folder are written, before it stands in its place."""
    whole = disk.new_folder

    @contextmanager
    def dying(target: Path) -> Iterator[Path]:
        with whole(target) as place:
            yield place
            if target.name.startswith(folder_name):
                kill()

    with mock.patch.object(sae_checkpoints, "new_folder", dying):
        yield


def on_removing_a_checkpoint() -> AbstractContextManager[object]:
    remove = shutil.rmtree

    def dying(path: Path, *, ignore_errors: bool) -> None:
        if path.name.startswith("checkpoint-"):
            kill()
        remove(path, ignore_errors=ignore_errors)

    return mock.patch.object(shutil, "rmtree", dying)


DEATHS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "writing a checkpoint": lambda: amid_writing("checkpoint-"),
    "batch 17": lambda: on_batch(17),
    "dropping the old checkpoint": on_removing_a_checkpoint,
    "last batch": lambda: on_batch(N_STEPS),
    "writing the SAE": lambda: amid_writing("finished"),
    "dropping the last checkpoint": on_removing_a_checkpoint,
}
"""In the order of a run; each begins where the one before it died."""


def train_and_die(folder: Path, architecture: str, moment: str) -> None:
    import torch

    torch.set_num_threads(1)
    with DEATHS[moment]():
        train(folder, architecture=architecture)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_killed_again_and_again_it_ends_with_the_same_bytes(
    architecture: str, tmp_path: Path, processes: ForkServerContext
) -> None:
    whole, killed = train(tmp_path / "whole", architecture=architecture), tmp_path / "killed"
    for moment in DEATHS:
        process = processes.Process(target=train_and_die, args=(killed, architecture, moment))
        process.start()
        process.join(timeout=60)
        assert process.exitcode == -signal.SIGKILL, moment
    resumed = train(killed, architecture=architecture)
    assert folder_digest(resumed.folder) == folder_digest(whole.folder)
    assert resumed.history.equals(whole.history)
    assert not list(killed.glob("checkpoint-*"))
