"""SAEs of random weights, beside the SAEs of a version.

Belongs here: their centre, size and place. Does not belong here: their weights (models).
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

from saerl_assets.domain.progress import Progress
from saerl_assets.domain.spec import digest
from saerl_assets.resources.reading import Reading

SCHEMA = {
    "layer": pl.UInt32,
    "encoder_id": pl.String,
    "feature_offset": pl.UInt32,
    "n_latents": pl.UInt32,
    "k": pl.UInt32,
    "digest": pl.String,
    "path": pl.String,
}


def make_controls(
    reading: Reading, prompts: pl.DataFrame, weights: pl.DataFrame, health: pl.DataFrame, progress: Progress
) -> pl.DataFrame:
    """Rows of `control_saes`; none where the spec asks for no control.

    A control has the width and mean L0 of the SAE beside it, and is centred on the sample that its health was measured
    on. An encoder keeps the control that it was given first, so that versions which share it share that too.
    """
    l0 = dict(health.select("layer", "l0").iter_rows())
    rows = [
        {
            **{name: row[name] for name in ("layer", "feature_offset", "n_latents")},
            **_control(reading, prompts, row, max(round(l0[row["layer"]]), 1), progress),
        }
        for row in weights.sort("layer").to_dicts()
        if reading.spec.evidence.random_sae
    ]
    return pl.DataFrame(rows, schema=SCHEMA)


def _control(
    reading: Reading, prompts: pl.DataFrame, row: dict[str, Any], k: int, progress: Progress
) -> dict[str, Any]:
    artifacts = reading.home.artifacts()
    recipe = digest(["control", row["encoder_id"]])
    remembered = artifacts.recall("sae", recipe)
    if remembered is not None:
        return remembered
    from saerl_assets.models.activations import without_sinks
    from saerl_assets.models.random_sae import write_random_sae

    sample = reading.activations(reading.sample(prompts), progress)
    kept = without_sinks([part.layers[row["layer"]] for part in sample], row["sink_threshold"])
    with TemporaryDirectory() as folder:
        centre = kept.float().mean(dim=0)
        write_random_sae(Path(folder), centre, n_latents=row["n_latents"], k=k, seed=int(recipe[:8], 16))
        sae_digest, path = artifacts.put("sae", Path(folder))
    encoder_id = digest([row["reading_id"], sae_digest])[:32]
    record = {"encoder_id": encoder_id, "digest": sae_digest, "path": path, "k": k}
    artifacts.remember("sae", recipe, record)
    return record
