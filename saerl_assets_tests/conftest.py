"""Fixtures that several folders of tests share: an isolated environment, and the tiny version, built once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

from saerl_assets.automation.summary import RunSummary, run_version
from saerl_assets.resources.home import HomeResource
from saerl_assets_tests.tiny import KEY, TinyWorld, make_world

settings.register_profile("saerl", deadline=None)  # how fast a machine is says nothing of the code
settings.load_profile("saerl")

ISOLATED = ("SAERL_HOME", "DAGSTER_HOME", "XDG_CACHE_HOME", "HF_HOME")
"""Variables that decide where something is kept."""


def isolate(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Points every variable that decides where something is kept below a folder."""
    for name in ISOLATED:
        patch.setenv(name, str(folder / name.lower()))
    for name in ("SAERL_WAREHOUSE", "SAERL_DATA_PATH", "SAERL_BUCKET", "SAERL_ENGINE", "RAY_ADDRESS"):
        patch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def model_cache_before() -> str | None:
    """XDG_CACHE_HOME as it was: for a test that reads a real model and would download it into each session's own."""
    return os.environ.get("XDG_CACHE_HOME")


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model_cache_before: str | None) -> None:  # noqa: ARG001
    """Keeps every test away from the person's own home, caches and Dagster."""
    isolate(monkeypatch, tmp_path / "environment")


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    """Model, SAE and prompts."""
    return make_world(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_run(tiny_world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> tuple[HomeResource, RunSummary]:
    """A home with the tiny version built in it and what the run said. To be read, never changed."""
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, tmp_path_factory.mktemp("environment"))
        home = HomeResource(root=str(tmp_path_factory.mktemp("built") / "home"))
        tiny_world.register(home)
        summary = run_version(home, KEY)
    assert summary.success, summary.failure
    return home, summary


@pytest.fixture
def tiny_home(tiny_run: tuple[HomeResource, RunSummary]) -> HomeResource:
    """The home of `tiny_run`. To be read, never changed."""
    return tiny_run[0]


@pytest.fixture
def copied_home(tiny_home: HomeResource, tmp_path: Path) -> HomeResource:
    """A copy of the built home that a test may change."""
    shutil.copytree(tiny_home.open().root, tmp_path / "home")
    return HomeResource(root=str(tmp_path / "home"))


@pytest.fixture
def fresh_home(tmp_path: Path) -> HomeResource:
    """A home without anything in it."""
    return HomeResource(root=str(tmp_path / "home"))
