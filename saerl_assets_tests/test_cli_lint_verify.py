"""The verbs that look at a trainer's configuration and at what it did: exit codes, words, and the tiny version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest
from click.testing import CliRunner, Result

from saerl_assets.cli import EXIT_USER_ERROR, main
from saerl_assets.trainers.export import load_order
from saerl_assets_tests.tiny import KEY

if TYPE_CHECKING:
    from saerl_assets.resources.home import HomeResource

VERL = """\
python3 -m verl.trainer.main_ppo \\
  data.shuffle=False data.train_batch_size={size} actor_rollout_ref.actor.ppo_mini_batch_size={size} \\
  trainer.total_epochs=1
"""


def call(*words: str) -> Result:
    result = CliRunner().invoke(main, list(words))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def saerl(*words: str, code: int = 0) -> str:
    result = call(*words)
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def built(copied_home: HomeResource, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> HomeResource:
    monkeypatch.setenv("SAERL_HOME", copied_home.root)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return copied_home


def log_of(order: pl.DataFrame, path: Path) -> Path:
    batches = order.with_columns(at=pl.struct("epoch", "step").rank("dense") - 1)
    lines = [{"step": at, "prompt_id": name} for at, name in batches.select("at", "prompt_id").iter_rows()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_lint_needs_no_home_and_says_what_it_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.sh").write_text(VERL.format(size=8))
    told = saerl("lint", "run.sh")
    assert "run.sh: verl 0.9, guessed from verl.trainer" in told
    assert "nothing breaks the order" in told
    Path("run.sh").write_text(VERL.format(size=8).replace("data.shuffle=False ", ""))
    told = saerl("lint", "run.sh", code=EXIT_USER_ERROR)
    assert "problem: run.sh:1: data.shuffle: not set; the default is True" in told
    assert "what to do: Set data.shuffle=False." in told
    found = json.loads(saerl("lint", "run.sh", "--json", code=EXIT_USER_ERROR))
    assert [finding["setting"] for finding in found["findings"]] == ["data.shuffle"]
    assert not list(tmp_path.glob(".saerl"))


def test_lint_refuses_in_words(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("seed: [1\n")
    assert "[config_invalid]" in saerl("lint", str(tmp_path / "a.yaml"), code=EXIT_USER_ERROR)
    (tmp_path / "a.yaml").write_text("seed: 1\n")
    assert "--trainer" in saerl("lint", str(tmp_path / "a.yaml"), code=EXIT_USER_ERROR)
    told = saerl("lint", str(tmp_path / "a.yaml"), "--trainer", "ver", code=EXIT_USER_ERROR)
    assert "[unknown_trainer]" in told
    assert "[not_an_export]" in saerl(
        "lint", str(tmp_path / "a.yaml"), "--trainer", "verl", "--manifest", str(tmp_path), code=EXIT_USER_ERROR
    )


def test_an_export_is_linted_and_verified(built: HomeResource) -> None:
    saerl("export", KEY, "--to", "verl", "--out", "export")
    size = built.version(KEY).spec.batches.batch_size
    Path("run.sh").write_text(VERL.format(size=size))
    assert "nothing breaks" in saerl("lint", "run.sh", "--manifest", "export")
    Path("run.sh").write_text(VERL.format(size=size * 2))
    told = saerl("lint", "run.sh", "--manifest", "export", code=EXIT_USER_ERROR)
    assert f"Set data.train_batch_size={size}." in told
    order = load_order(Path("export"))
    log_of(order, Path("log.jsonl"))
    assert "follows the manifest: " in saerl("verify", "log.jsonl", "--manifest", "export")
    manifest_id = str(built.version(KEY).current_manifest_id)
    for name in (KEY, manifest_id, manifest_id[:10]):
        assert "follows the manifest: " in saerl("verify", "log.jsonl", "--manifest", name)
    assert "[unknown_manifest]" in saerl("verify", "log.jsonl", "--manifest", manifest_id[:5], code=EXIT_USER_ERROR)
    told = saerl("verify", "log.jsonl", "--manifest", KEY, "--arm", "shuffle", code=EXIT_USER_ERROR)
    assert "leaves the manifest at batch" in told
    log_of(order.reverse().with_columns(order["epoch"], order["step"]), Path("log.jsonl"))
    found = json.loads(saerl("verify", "log.jsonl", "--manifest", "export", "--json", code=EXIT_USER_ERROR))
    assert (found["followed"], found["first_deviation"], found["log"]) == (False, 0, "plain")


def test_texts_of_a_version_are_found(built: HomeResource) -> None:
    saerl("export", KEY, "--to", "trl", "--out", "export")
    rows = pl.read_parquet("export/train.parquet", columns=["prompt", "epoch", "step"])
    lines = [{"prompt": prompt} for prompt in rows["prompt"].to_list()]
    Path("log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    told = saerl("verify", "log.jsonl", "--manifest", KEY)
    assert "follows the manifest" in told
    assert "cut into batches" in told
    assert saerl("verify", "log.jsonl", "--manifest", "export") == told
    assert built.root


def test_verify_refuses_in_words(built: HomeResource) -> None:
    Path("log.jsonl").write_text('{"prompt_id": "a"}\n')
    assert "[unknown_manifest]" in saerl("verify", "log.jsonl", "--manifest", "nowhere", code=EXIT_USER_ERROR)
    assert "[not_an_export]" in saerl("verify", "log.jsonl", "--manifest", "./nowhere", code=EXIT_USER_ERROR)
    assert "[unknown_arm]" in saerl("verify", "log.jsonl", "--manifest", KEY, "--arm", "x", code=EXIT_USER_ERROR)
    assert "[log_unreadable]" in saerl("verify", "nowhere.jsonl", "--manifest", KEY, code=EXIT_USER_ERROR)
    assert "None of the log's prompts" in saerl("verify", "log.jsonl", "--manifest", KEY, code=EXIT_USER_ERROR)
    saerl("export", KEY, "--to", "trl", "--out", "export")
    told = saerl("verify", "log.jsonl", "--manifest", "export", "--arm", "shuffle", code=EXIT_USER_ERROR)
    assert "[unknown_arm]" in told
    Path("export/train.parquet").write_bytes(b"")
    assert "[export_changed]" in saerl("verify", "log.jsonl", "--manifest", "export", code=EXIT_USER_ERROR)
    assert built.root
