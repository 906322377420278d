"""What the doctor finds, in a healthy home and in a sick one."""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from saerl_assets.automation.doctor import Finding, examine
from saerl_assets.resources.compute import ComputeResource
from saerl_assets.resources.home import HomeResource
from saerl_assets.storage.locks import locked
from saerl_assets_tests.tiny import KEY


def findings(home: HomeResource, *, device: str = "cpu") -> dict[str, Finding]:
    return {finding.what: finding for finding in examine(home, ComputeResource(device=device))}


def test_a_healthy_home(tiny_home: HomeResource) -> None:
    found = findings(tiny_home)
    assert [finding for finding in found.values() if not finding.fine] == []
    assert KEY in found["warehouse"].found
    assert found["warehouse lock"].found == "free"
    assert "threads" in found["device"].found
    assert "model path:model" in found


def test_an_empty_home_is_fine_and_says_what_comes_next(fresh_home: HomeResource) -> None:
    found = findings(fresh_home)
    assert found["warehouse"].fine
    assert "saerl register" in found["warehouse"].found


def test_a_device_that_is_not_there(fresh_home: HomeResource) -> None:
    found = findings(fresh_home, device="cuda:99")["device"]
    assert not found.fine
    assert "compute.device" in found.found


def test_a_package_that_is_missing(fresh_home: HomeResource, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name in {"duckdb", "datasets"}:
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = findings(fresh_home)
    assert not found["duckdb"].fine
    assert "pip install duckdb" in found["duckdb"].found
    assert found["datasets"].fine, "nothing needs it unless a spec says hf:"


def test_a_full_disk(fresh_home: HomeResource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    assert not findings(fresh_home)["free disk"].fine


def test_who_holds_the_lock(copied_home: HomeResource) -> None:
    with locked(copied_home.open().warehouse_lock, exclusive=True, purpose="a long write", notify=pytest.fail):
        found = findings(copied_home)["warehouse lock"]
    assert "a long write" in found.found


def test_a_warehouse_that_is_damaged(copied_home: HomeResource) -> None:
    copied_home.open().warehouse.write_bytes(b"no database " * 1000)
    found = findings(copied_home)["warehouse"]
    assert not found.fine
    assert "warehouse.duckdb" in found.found


def test_a_bucket_that_answers_and_one_that_does_not(
    fresh_home: HomeResource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "bucket" not in findings(fresh_home)
    there = HomeResource(root=fresh_home.root, bucket=str(tmp_path / "bucket"))
    assert findings(there)["bucket"] == Finding(fine=True, what="bucket", found=str(tmp_path / "bucket"))
    for name, value in {"ENDPOINT_URL": "http://127.0.0.1:1", "ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "y"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    away = findings(HomeResource(root=fresh_home.root, bucket="s3://nowhere/x"))["bucket"]
    assert not away.fine
    assert "bucket_refused" in away.found
