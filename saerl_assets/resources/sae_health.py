"""The health of a version's SAEs, measured on its own prompts before anything is built on them.

Belongs here: which texts are the sample, and what was measured before. Does not belong here: the figures (models) and
the verdict (domain).
"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import polars as pl

from saerl_assets.domain.progress import Progress
from saerl_assets.domain.sae_health import HealthFigures, SpliceLoss, judge
from saerl_assets.domain.spec import digest
from saerl_assets.resources.reading import Reading

if TYPE_CHECKING:
    from saerl_assets.models.saes import Encoder
    from saerl_assets.models.texts import Shard, Text
    from saerl_assets.models.whole_model import WholeModel

PROFILE_TOKENS = 512
MEASURES = "2"
"""Raise it when something is measured otherwise, so that older figures are not taken."""


def measure_health(reading: Reading, prompts: pl.DataFrame, weights: pl.DataFrame, progress: Progress) -> pl.DataFrame:
    """Rows of `sae_health`, measured on texts that were kept out of training."""
    reading.check_reader(weights)
    sample, shards = reading.sample(prompts), reading.shards(prompts)
    model: list[WholeModel] = []  # loaded once, and only if some layer needs it
    rows = []
    for row in weights.sort("layer").to_dicts():
        figures = _remembered(reading, sample, row) or _measured(reading, sample, shards, row, model, progress)
        verdict, words = judge(figures, reading.spec.sae)
        rows.append(_row(figures, row["encoder_id"]) | {"verdict": verdict, "explanation": words})
    return pl.DataFrame(rows, infer_schema_length=None)


def _measured(
    reading: Reading,
    sample: "list[Shard]",
    shards: "list[Shard]",
    row: dict[str, Any],
    model: "list[WholeModel]",
    progress: Progress,
) -> HealthFigures:
    from saerl_assets.models.health import find_fired, in_scope, measure_fit

    layer, threshold, encoder = row["layer"], row["sink_threshold"], reading.encoder(row["digest"])
    read = zip(sample, reading.activations(sample, progress), strict=True)
    fit = measure_fit(encoder, (in_scope(shard, part.layers[layer], encoder) for shard, part in read), threshold)
    used = {shard.shard_id for shard in sample}
    known = ((shard, reading.cache().get(shard)) for shard in shards if shard.shard_id not in used)
    more = (in_scope(shard, part.layers[layer], encoder) for shard, part in known if part is not None)
    fired, n_more = find_fired(encoder, more, threshold)
    profile, loss = _in_the_model(reading, sample, row, encoder, model, progress)
    figures = HealthFigures(
        layer=layer,
        explained_variance=fit.explained_variance,
        l0=fit.l0,
        expected_l0=encoder.k or encoder.l0 or (reading.spec.sae.k if reading.trains else None),
        n_tokens=fit.n_tokens,
        n_sink_tokens=fit.n_sink_tokens,
        dead_fraction=1.0 - float((fit.fired | fired).float().mean()),
        n_latents=encoder.n_latents,
        n_tokens_encoded=fit.n_tokens + n_more,
        layer_profile=profile,
        loss=loss,
        on_held_out=len(shards) > 1 or not reading.trains or reading.spec.sae.corpus is not None,
        lacks_bos=bool(encoder.prepend_bos) and _lacks_bos(reading, sample),
        made_for=encoder.model_name,
    )
    reading.home.artifacts().remember("health", _recipe(reading, sample, row), asdict(figures))
    return figures


def _in_the_model(
    reading: Reading,
    sample: "list[Shard]",
    row: dict[str, Any],
    encoder: "Encoder",
    loaded: "list[WholeModel]",
    progress: Progress,
) -> tuple[list[float], SpliceLoss | None]:
    """Explained variance by layer, and next-token loss, where the spec asks for them and the model has a head."""
    n_tokens = reading.spec.sae.health_tokens
    texts = _first_texts(sample, n_tokens)
    if not texts:
        return [], None
    from saerl_assets.models.health import measure_layer_profile, measure_splice_loss
    from saerl_assets.models.whole_model import WholeModel

    if not loaded:
        reading.say("loading the whole model, to see what the SAE does to its predictions")
        spec = reading.spec.reader
        loaded.append(WholeModel.load(reading.files(), dtype=spec.dtype, device=reading.compute.chosen_device()))
    budget = reading.compute.budget()
    profile = measure_layer_profile(
        loaded[0],
        encoder,
        _first_texts(sample, min(n_tokens, PROFILE_TOKENS)),
        sink_multiple=reading.spec.reader.sink_multiple,
        token_budget=budget,
    )
    if not loaded[0].predicts:
        reading.say(
            "next-token loss is not measured: the model's files hold a bare decoder without a language-model head, "
            "which predicts nothing. To have it measured, name a folder with all of the model's weights as reader.model"
        )
        return profile, None
    loss = measure_splice_loss(
        loaded[0],
        encoder,
        texts,
        layer=row["layer"],
        sink_threshold=row["sink_threshold"],
        token_budget=budget,
        progress=progress,
    )
    return profile, loss


def _first_texts(shards: "list[Shard]", n_tokens: int) -> "list[Text]":
    """A sample of texts that predict something, sorted by length, with so many tokens or a few more."""
    texts, total = [], 0
    for text in sorted((text for shard in shards for text in shard.texts), key=lambda text: text.text_id):
        if total >= n_tokens:
            break
        if len(text.token_ids) > 1:
            texts.append(text)
            total += len(text.token_ids)
    return sorted(texts, key=lambda text: (len(text.token_ids), text.text_id))


def _lacks_bos(reading: Reading, shards: "list[Shard]") -> bool:
    """Whether the texts could start with a beginning-of-sequence token and do not; not every tokenizer has one."""
    bos = reading.compute.tokeniser(reading.version).bos_token_id
    firsts = (int(text.token_ids[0]) for shard in shards for text in shard.texts if len(text.token_ids))
    return bos is not None and next(firsts, bos) != bos


def _recipe(reading: Reading, sample: "list[Shard]", row: dict[str, Any]) -> str:
    """Everything that decides the figures; the spec's limits do not."""
    spec, ids = reading.spec, [shard.shard_id for shard in sample]
    return digest([MEASURES, row["encoder_id"], ids, spec.sae.health_tokens, spec.reader.sink_multiple])


def _remembered(reading: Reading, sample: "list[Shard]", row: dict[str, Any]) -> HealthFigures | None:
    found = reading.home.artifacts().recall("health", _recipe(reading, sample, row))
    if found is None:
        return None
    reading.say(f"layer {row['layer']}: measured before on these texts")
    return HealthFigures(**found | {"loss": SpliceLoss(**found["loss"]) if found["loss"] else None})


def _row(figures: HealthFigures, encoder_id: str) -> dict[str, Any]:
    loss = figures.loss
    return {
        "layer": figures.layer,
        "encoder_id": encoder_id,
        "explained_variance": figures.explained_variance,
        "l0": figures.l0,
        "expected_l0": figures.expected_l0,
        "n_tokens": figures.n_tokens,
        "n_sink_tokens": figures.n_sink_tokens,
        "dead_fraction": figures.dead_fraction,
        "n_tokens_encoded": figures.n_tokens_encoded,
        "layer_profile": list(figures.layer_profile),
        "loss_clean": loss.clean if loss else None,
        "loss_spliced": loss.spliced if loss else None,
        "loss_ablated": loss.ablated if loss else None,
        "loss_recovered": loss.recovered if loss else None,
        "n_tokens_predicted": loss.n_tokens if loss else 0,
    }
