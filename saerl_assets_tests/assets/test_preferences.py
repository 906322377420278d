"""The example with preference pairs, from its rows to what DPO reads, on the tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from saerl_assets.automation.runs import add_partition, open_instance
from saerl_assets.automation.summary import run_version
from saerl_assets.cli import main
from saerl_assets.domain.spec import parse_spec
from saerl_assets.resources.home import HomeResource
from saerl_assets.trainers.export import check_export
from saerl_assets_tests.conftest import isolate
from saerl_assets_tests.tiny import TinyWorld

EXAMPLE = Path(__file__).parents[2] / "examples" / "preferences"
KEY = "preferences-v1"
TINY = {
    "reader": {"model": "path:model", "layers": [1]},
    "sae": {"source": ["path:sae"]},
    "clusters": {"k": 4},
    "evidence": {"random_sae": False},
}


@pytest.fixture(scope="module")
def built(tiny_world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> HomeResource:
    """A home with the example built in it. To be read, never changed."""
    source = {"data": {"source": f"path:{EXAMPLE / 'preferences.jsonl'}"}}
    spec = parse_spec((EXAMPLE / "preferences.toml").read_text(), "preferences.toml", {**TINY, **source})
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, tmp_path_factory.mktemp("environment"))
        home = HomeResource(root=str(tmp_path_factory.mktemp("preferences") / "home"))
        home.catalog().register(spec, tiny_world.folder)
        with open_instance(home.open().dagster) as instance:
            add_partition(instance, KEY)
        summary = run_version(home, KEY)
    assert summary.success, summary.failure
    return home


def source_rows() -> list[dict[str, str]]:
    return [json.loads(line) for line in (EXAMPLE / "preferences.jsonl").read_text().splitlines()]


def exported(folder: Path) -> pl.DataFrame:
    return pl.DataFrame(pq.read_table(folder / "train.parquet"))


def test_every_row_of_the_example_is_a_pair_of_its_prompt(built: HomeResource) -> None:
    pairs = built.warehouse().rows("preference_pairs", dataset_version=KEY)
    prompts = built.warehouse().rows("prompts", ["prompt_id", "text"], dataset_version=KEY)
    found = {
        (row["text"], json.loads(row["chosen"])[0]["content"], json.loads(row["rejected"])[0]["content"])
        for row in pairs.join(prompts, on="prompt_id").iter_rows(named=True)
    }
    assert found == {(row["prompt"], row["chosen"], row["rejected"]) for row in source_rows()}
    assert pairs.height == len(source_rows()) == 87
    assert prompts.height == 54


def test_the_run_exports_the_manifests_order_with_a_pair_in_each_place(built: HomeResource) -> None:
    version = built.version(KEY)
    (row,) = built.warehouse().rows("trainer_exports", manifest_id=version.current_manifest_id).iter_rows(named=True)
    assert row["trainer"] == "trl_dpo"
    folder = built.open().root / row["path"]
    check_export(folder, manifest_id=version.current_manifest_id)
    rows = exported(folder)
    manifest = built.warehouse().rows("batch_manifest", manifest_id=version.current_manifest_id)
    wanted = manifest.filter(arm=version.spec.batches.planner).sort("epoch", "step", "slot")
    assert rows["prompt_id"].to_list() == wanted["prompt_id"].to_list()
    assert rows.height == 2 * 48  # six whole batches of eight an epoch
    pairs = built.warehouse().rows("preference_pairs", dataset_version=KEY)
    n_pairs = dict(pairs.group_by("prompt_id").len().iter_rows())
    assert rows["pair"].to_list() == [
        epoch % n_pairs[prompt_id] for epoch, prompt_id in rows.select("epoch", "prompt_id").iter_rows()
    ]
    of_source = {(row["prompt"], row["chosen"], row["rejected"]) for row in source_rows()}
    assert set(rows.select("prompt", "chosen", "rejected").iter_rows()) <= of_source


def test_the_command_line_exports_any_arm(built: HomeResource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAERL_HOME", built.root)
    arguments = ["export", KEY, "--to", "trl_dpo", "--arm", "shuffle", "--out", str(tmp_path / "a")]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert "96 rows in 12 batches" in done.output
    assert check_export(tmp_path / "a").arm == "shuffle"


def test_a_version_without_pairs_cannot_be_exported_for_dpo(
    tiny_home: HomeResource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAERL_HOME", tiny_home.root)
    done = CliRunner().invoke(main, ["export", "tiny-v1", "--to", "trl_dpo", "--out", str(tmp_path / "a")])
    assert done.exit_code == 1
    assert "prompts have no pair" in done.output
    assert "data.chosen and data.rejected" in done.output
    assert "[pair_missing]" in done.output
