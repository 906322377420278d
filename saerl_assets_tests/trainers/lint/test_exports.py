"""The settings that an export brings along are clean to the lint, for every trainer that has rules."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import polars as pl
import pytest

from saerl_assets.domain.preference_pairs import PAIRS_SCHEMA
from saerl_assets.trainers.export import TRAINERS, ExportRequest, check_export, write_export
from saerl_assets.trainers.lint.engine import RULES, lint_config

if TYPE_CHECKING:
    from pathlib import Path

NOT_IN_THE_FILE = {"openrlhf": ["program"]}
"""What settings alone cannot say: that OpenRLHF is started through the launcher."""


def request_of(n: int = 8, size: int = 4) -> ExportRequest:
    rows = pl.DataFrame(
        {
            "epoch": [0] * n,
            "step": [at // size for at in range(n)],
            "slot": [at % size for at in range(n)],
            "prompt_id": [f"p{at}" for at in range(n)],
            "messages": [json.dumps([{"role": "user", "content": f"{at}?"}]) for at in range(n)],
            "is_chat": [False] * n,
            "answer": [str(at) for at in range(n)],
            "topic": ["sums"] * n,
            "cluster_id": [0] * n,
            "difficulty": [0.5] * n,
            "extra": ["{}"] * n,
            "is_padding": [False] * n,
        },
        schema_overrides={"cluster_id": pl.UInt32},
    )
    said = [json.dumps([{"role": "assistant", "content": word}]) for word in ("yes", "no")]
    pairs = pl.DataFrame(
        [
            {"dataset_version": "some-v1", "prompt_id": f"p{at}", "chosen": said[0], "rejected": said[1]}
            for at in range(n)
        ]
    )
    missing = [name for name in PAIRS_SCHEMA if name not in pairs.columns]
    pairs = pairs.with_columns(pl.lit(0).alias(name) for name in missing).select(
        pl.col(name).cast(kind, strict=False) for name, kind in PAIRS_SCHEMA.items()
    )
    return ExportRequest(rows, "m" * 64, "some-v1", "clustered", size, "s" * 64, {}, {}, pairs)


@pytest.mark.parametrize("trainer", sorted(set(RULES) & set(TRAINERS)))
def test_an_exports_own_settings_are_clean(trainer: str, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    write_export(trainer, request_of(), folder)
    settings = folder / TRAINERS[trainer].settings_file
    report = lint_config(settings, trainer, check_export(folder))
    assert [finding.setting for finding in report.findings] == NOT_IN_THE_FILE.get(trainer, []), report.lines()
