"""The predictors of one version by name, and what a setting of `best` stands for in it.

Belongs here: from a name in the spec to rows in the warehouse. Does not belong here: what a predictor is (domain),
learning from one.
"""

from dataclasses import asdict, dataclass
from typing import Literal, get_args

import polars as pl

from saerl_assets.domain.choices import best_predictor
from saerl_assets.domain.features import FeatureSet
from saerl_assets.domain.predictors import PooledFeatures, Predictor, build_predictors, combined
from saerl_assets.domain.quality import encoders_of
from saerl_assets.domain.spec import Pooling
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.sentences import sentence_model_id, sentence_vectors
from saerl_assets.resources.tables import feature_set
from saerl_assets.storage.states import StoredVectors, dense_states

SAE = "sae_"


@dataclass(frozen=True)
class Chosen:
    """What a proxy or a probe of the version learns from."""

    predictor: Predictor
    words: str
    """Why it is this one; empty where the spec names it."""


def encoders_behind(home: HomeResource, key: str, predictor: str) -> str | None:
    """What makes the columns of a version's predictor by now; see `encoders_of`.

    Args:
        home: Where the version is.
        key: The version.
        predictor: Its name.
    """
    weights, controls = (home.warehouse().rows(name, dataset_version=key) for name in ("sae_weights", "control_saes"))
    model_id = sentence_model_id(home.version(key)) if predictor == "sentence" else None
    return encoders_of(predictor, weights, controls, model_id)


def version_predictors(
    home: HomeResource, key: str, prompts: pl.DataFrame, features: FeatureSet
) -> dict[str, Predictor]:
    """Every predictor that a version has, by its name in `signal_evidence`; nothing is read until rows are taken.

    Args:
        home: Where the version is.
        key: The version.
        prompts: Table `prompts`.
        features: The version's features.
    """
    warehouse, version = home.warehouse(), home.version(key)
    controls = warehouse.rows("control_saes", ["encoder_id"], dataset_version=key)
    return build_predictors(
        prompts,
        features,
        states=version_states(home, key, prompts),
        control=feature_set(home, key, "control_saes") if controls.height else None,
        sentences=sentence_vectors(home, version, prompts),
        label_fields=[label.column for label in version.spec.labels.values()],
    )


def version_states(home: HomeResource, key: str, prompts: pl.DataFrame) -> dict[str, StoredVectors]:
    """The dense states of a version, `dense_mean` and `dense_last`, layers side by side.

    Args:
        home: Where the version is.
        key: The version.
        prompts: Column text_id; its order is that of the rows.
    """
    warehouse = home.warehouse()
    weights = warehouse.rows("sae_weights", ["layer", "reading_id"], dataset_version=key).sort("layer")
    return dense_states(warehouse, prompts, weights["reading_id"].to_list())


def chosen_predictor(
    home: HomeResource,
    key: str,
    prompts: pl.DataFrame,
    features: FeatureSet,
    signals: pl.DataFrame,
    section: Literal["difficulty", "quality"],
) -> Chosen:
    """The predictor that a section of the spec names.

    `best` is resolved by the evidence once per version, and recorded; later evidence on more labels does not change
    it. As long as its label has not been measured it is the SAE, and nothing is recorded.

    Args:
        home: Where the version is.
        key: The version.
        prompts: Table `prompts`.
        features: The version's features.
        signals: Table `signal_evidence` of the version.
        section: Whose settings `predictor`, `label` and `pooling` are followed.
    """
    version = home.version(key)
    wanted = version.spec.difficulty if section == "difficulty" else version.spec.quality
    name, words = str(wanted.predictor), ""
    if name == "best":
        setting = f"{section}.predictor"
        standing = version.choices.get(setting)
        found = best_predictor(signals, wanted.label)
        if standing is None and found is not None:
            standing = home.catalog().record_choice(key, setting, asdict(found))
        if standing is None:
            name = "sae"
            words = f"{setting} = 'best' is the SAE until label {wanted.label!r} has been measured (evidence_verdicts)."
        else:
            name = standing["predictor"]
            words = f"Chosen as the best of this version's signals, on these labels: {standing['explanation']}"
    if name == "sae":
        poolings = (wanted.pooling,) if isinstance(wanted.pooling, str) else wanted.pooling
        return Chosen(PooledFeatures(features, poolings, f"{SAE}{'+'.join(poolings)}"), words)
    return Chosen(named_predictor(home, key, prompts, features, name), words)


def named_predictor(home: HomeResource, key: str, prompts: pl.DataFrame, features: FeatureSet, name: str) -> Predictor:
    """The predictor that `chosen_predictor` gave out under a name, so that what was learned is applied to its columns.

    Args:
        home: Where the version is.
        key: The version.
        prompts: Table `prompts`.
        features: The version's features.
        name: Such as `dense_mean`, or `sae_max+mean` for poolings side by side.
    """
    if name.startswith(SAE):
        known: dict[str, Pooling] = {pooling: pooling for pooling in get_args(Pooling)}
        poolings = tuple(known[part] for part in name.removeprefix(SAE).split("+"))
        return PooledFeatures(features, poolings, name)
    there = version_predictors(home, key, prompts, features)
    return combined(there) if name == "combined" else there[name]
