"""The SAEs of one version: taken over from its parent, loaded, or trained, one for each layer.

Belongs here: which SAE there is already, what it is trained on, and what a row of `sae_weights` says. Does not belong
here: training, formats and the corpus's tokens, which are `models'`.
"""

import json
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.progress import Progress
from saerl_assets.domain.spec import digest
from saerl_assets.resources.corpus import corpus_shards
from saerl_assets.resources.reading import TRAIN, Reading

if TYPE_CHECKING:
    from saerl_assets.models.texts import Shard

TRAINING = "1"
"""Raise it when the same settings train another SAE than before, so that older ones are not taken for it."""

POOLING = "1"
"""Raise it when what a row of features or states holds changes, so that older rows are not taken for it."""


def obtain_saes(reading: Reading, prompts: pl.DataFrame, progress: Callable[[str], Progress]) -> pl.DataFrame:
    """One SAE per layer: the parent's, a loaded one, or one trained here.

    Returns:
        Rows of `sae_weights`.

    Raises:
        SaerlError: `parent_without_sae`, `parent_other_reader`, or what is wrong with the SAE.
    """
    if reading.takes_over:
        return _parents_saes(reading)
    layers = reading.spec.reader.layers
    named = [TRAIN] * len(layers) if reading.trains else list(reading.spec.sae.source)
    shards = reading.shards(prompts)
    rows: list[dict[str, Any]] = []
    offset = 0
    for layer, source in zip(layers, named, strict=True):
        make = _train if source == TRAIN else _load
        rows.append(_row(reading, layer, source, offset, make(reading, layer, source, shards, progress)))
        offset += int(rows[-1]["n_latents"])
    return pl.DataFrame(rows)


def _parents_saes(reading: Reading) -> pl.DataFrame:
    parent = str(reading.spec.parent)
    weights = reading.home.warehouse().rows("sae_weights", dataset_version=parent).drop("dataset_version")
    if weights.is_empty():
        remedy = f"Run the parent first: saerl run {parent}; or set sae.source to something else."
        raise SaerlError("parent_without_sae", f"{parent!r} has no SAE yet.", where="parent", remedy=remedy)
    parent_spec = reading.home.version(parent).spec.reader
    if parent_spec != reading.spec.reader.model_copy(update={"max_tokens": parent_spec.max_tokens}):
        remedy = "Use the parent's [reader], or train an SAE in a version without a parent."
        raise SaerlError(
            "parent_other_reader", f"{parent!r} reads with another [reader].", where="reader", remedy=remedy
        )
    if set(weights["reader_digest"]) != {reading.files().digest}:
        remedy = "Put the parent's model back, or train an SAE in a version without a parent."
        raise SaerlError("parent_other_reader", "The model's files have changed.", where="reader.model", remedy=remedy)
    for row in weights.to_dicts():
        reading.home.artifacts().find("sae", row["digest"])
    return weights.with_columns(source=pl.lit(f"parent:{parent}"))


def _train(
    reading: Reading, layer: int, _source: str, shards: "list[Shard]", progress: Callable[[str], Progress]
) -> dict[str, Any]:
    """Trains on texts that are not held out, or finds what the same recipe made before."""
    wanted = corpus_shards(reading, progress("corpus")) if reading.spec.sae.corpus else reading.to_train_on(shards)
    recipe = _recipe(reading, layer, wanted)
    artifacts = reading.home.artifacts()
    remembered = artifacts.recall("sae", recipe)
    if remembered is not None:
        reading.say(f"layer {layer}: the SAE of this recipe and these texts is there already")
        return remembered
    from saerl_assets.models.activations import sink_threshold, without_sinks
    from saerl_assets.models.sae_training import train_sae

    # Those held out are read along, so that measuring the SAE's health needs no pass of its own.
    several = [*wanted, *reading.held_out(shards)]
    read = [found.layers[layer] for found in reading.activations(several, progress(f"layer {layer} activations"))]
    threshold = sink_threshold(read[: len(wanted)], reading.spec.reader.sink_multiple)
    kept = without_sinks(read[: len(wanted)], threshold)
    del read
    folder = reading.work / "training" / recipe[:32]
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    trained = train_sae(
        kept,
        reading.spec.sae,
        layer=layer,
        seed=reading.spec.seed,
        folder=folder,
        device=reading.compute.chosen_device(),
        progress=progress(f"layer {layer} SAE training"),
    )
    history = trained.history.to_dicts()
    facts = {
        "training_tokens": reading.spec.sae.training_tokens,
        "distinct_tokens": len(kept),
        "corpus": reading.spec.sae.corpus,
        "seconds": round(time.monotonic() - started, 1),
        **{f"final_{name}": round(float(value), 4) for name, value in history[-1].items()},
        "history": history,
    }
    sae_digest, path = artifacts.put("sae", trained.folder)
    record = {"digest": sae_digest, "path": path, "sink_threshold": threshold, "training": facts}
    artifacts.remember("sae", recipe, record)
    return record


def _load(
    reading: Reading, layer: int, source: str, shards: "list[Shard]", progress: Callable[[str], Progress]
) -> dict[str, Any]:
    """Loads an SAE with its sink threshold, which comes from a sample of the first version's prompts that names it."""
    from saerl_assets.models.activations import sink_threshold
    from saerl_assets.models.sae_sources import fetch_sae

    found = fetch_sae(source, folder=reading.version.folder, into=reading.work / "fetched" / str(layer))
    sae_digest, path = reading.home.artifacts().put("sae", found)
    threshold = _known_threshold(reading, layer, sae_digest)
    if threshold is None:
        sample = reading.activations(reading.held_out(shards), progress(f"layer {layer} sample"))
        threshold = sink_threshold([part.layers[layer] for part in sample], reading.spec.reader.sink_multiple)
    return {"digest": sae_digest, "path": path, "sink_threshold": threshold, "training": {}}


def _known_threshold(reading: Reading, layer: int, sae_digest: str) -> float | None:
    """The sink threshold that the SAE has in this home with the same reader; None where no version reads with it so.

    A threshold of its own for every version would give every version other rows of the same texts. Where versions
    differ, the version's own counts, then its nearest ancestor's, then that of the version that was registered first.
    """
    found = reading.home.warehouse().query(
        "SELECT dataset_version, sink_threshold FROM sae_weights JOIN versions USING (dataset_version) "
        "WHERE digest = ? AND reader_digest = ? AND layer = ? ORDER BY registered_at, dataset_version",
        [sae_digest, reading.files().digest, layer],
    )
    known: dict[str, float] = dict(found.iter_rows())
    specs = {key: reading.home.version(key).spec for key in known}
    wanted = reading.spec.reader
    free = {name: getattr(wanted, name) for name in ("model", "layers", "max_tokens")}
    alike = [key for key, spec in specs.items() if spec.reader.model_copy(update=free) == wanted]
    return next((known[key] for key in [*_lineage(reading), *alike] if key in alike), None)


def _lineage(reading: Reading) -> list[str]:
    """The version, its parent, the parent's parent and so on."""
    keys, spec = [reading.spec.key], reading.spec
    while spec.parent is not None:
        spec = reading.home.version(spec.parent).spec
        keys.append(spec.key)
    return keys


def _row(reading: Reading, layer: int, source: str, offset: int, made: Mapping[str, Any]) -> dict[str, Any]:
    from saerl_assets.models.saes import check_layer, check_width, load_encoder

    encoder = load_encoder(reading.home.artifacts().find("sae", str(made["digest"])), "cpu")
    check_width(encoder, reading.reader().d_model, f"sae.source = {source!r}")
    check_layer(encoder, layer, f"sae.source = {source!r}")
    spec, reader_digest = reading.spec.reader, reading.files().digest
    convention = [spec.dtype, spec.scope, spec.template, spec.bos, made["sink_threshold"], POOLING]
    if encoder.first_position:
        convention.append(encoder.first_position)
        reading.say(f"layer {layer}: the SAE was never trained on the first {encoder.first_position} tokens of a text")
    if encoder.lacks_special_tokens:
        reading.say(
            f"layer {layer}: the SAE was never trained on special tokens; in your texts only those that are attention "
            "sinks are left out. reader.template = 'plain' and reader.bos = 'never' read none"
        )
    reading_id = digest([reader_digest, layer, *convention])[:32]
    return {
        "layer": layer,
        "encoder_id": digest([reading_id, made["digest"]])[:32],
        "reading_id": reading_id,
        "feature_offset": offset,
        "n_latents": encoder.n_latents,
        "d_in": encoder.d_in,
        "architecture": encoder.architecture,
        "source": source,
        "digest": made["digest"],
        "path": made["path"],
        "reader_digest": reader_digest,
        "sink_threshold": made["sink_threshold"],
        "training": json.dumps(made["training"], sort_keys=True),
    }


def _recipe(reading: Reading, layer: int, shards: "list[Shard]") -> str:
    """Everything that decides the bytes of an SAE trained here, the machine's arithmetic apart."""
    beside = {"max_dead_fraction", "min_explained_variance", "min_loss_recovered", "source", "corpus", "corpus_field"}
    return digest(
        [
            TRAINING,
            reading.files().digest,
            layer,
            reading.spec.reader.dtype,
            reading.spec.reader.sink_multiple,
            reading.spec.sae.model_dump(mode="json", exclude=beside),
            reading.spec.seed,
            [shard.shard_id for shard in shards],
        ]
    )
