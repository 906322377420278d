"""Frames of a version that looks real: every table, made up from a seed, in its exact schema."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from saerl_assets.domain.outcomes import fold_rollouts
from saerl_assets.domain.spec import VersionSpec, canonical_json, parse_spec, spec_digest
from saerl_assets.domain.trial import BASELINE, EVALUATION_SCHEMA, SignalCost, summarise_trial
from saerl_assets.report.inputs import ReportInputs
from saerl_assets.storage.schema import tables

KEY = "demo-v1"
MANIFEST = hashlib.sha256(b"manifest").hexdigest()
HOSTILE = (
    "<script>document.title = 'owned'</script>",
    "</td></table><img src=x onerror=\"document.title = 'owned'\"> & \"quotes\" 'too'",
    "Costs $5 and $x^{2$ \\frac{ — 数え上げ 🧮 e\u0301 \u202egnp.exe\u202c \x00\x07",
    "{{ 7 * 7 }} {% raw %} --> <!-- </style></script>",
)
TOPICS = (
    "chain_sum",
    "leg_counting",
    "letter_counting",
    "spell_backward",
    "gcd",
    "syllogism",
    "maze",
    "sudoku",
)
WORDS = ("sum", "legs", "letter", "word", "divisor", "premise", "wall", "row", "count", "find", "how", "many")
SPEC = """
key = "demo-v1"
description = "Reasoning tasks of eight families at three settings each."
seed = 7
[data]
source = "path:prompts.jsonl"
answer = "answer"
topic = "topic"
[labels.difficulty]
column = "difficulty"
[labels.correct]
column = "correct"
[split]
evaluation_fraction = 0.1
[batches]
batch_size = 16
"""


def a_spec() -> VersionSpec:
    """The spec that the frames pretend to come from."""
    return parse_spec(SPEC, "demo.toml")


def name_of(*parts: object) -> str:
    """A stable identifier."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class World:
    """What the tables of one version have in common: n prompts with hidden difficulty and cluster."""

    n: int
    ids: list[str]
    topic: NDArray[np.int64]
    level: NDArray[np.int64]
    tokens: NDArray[np.int64]
    cluster: NDArray[np.int64]
    score: NDArray[np.float64]
    quality: NDArray[np.float64]
    evaluation: NDArray[np.bool_]
    rng: np.random.Generator


def a_world(n: int, n_clusters: int = 31, seed: int = 0) -> World:
    """Draws the hidden truth; clusters are numbered by size."""
    rng = np.random.default_rng(seed)
    topic = rng.choice(len(TOPICS), n, p=np.array([20, 17, 15, 13, 12, 10, 8, 5]) / 100)
    level = rng.integers(1, 4, n)
    tokens = np.maximum(5, rng.lognormal(3.6 + 0.05 * topic + 0.15 * level, 0.35)).astype(np.int64)
    raw = (topic * n_clusters // len(TOPICS) + rng.choice(4, n, p=[0.5, 0.3, 0.15, 0.05])) % n_clusters
    order = np.argsort(-np.bincount(raw, minlength=n_clusters), kind="stable")
    cluster = np.argsort(order)[raw]
    score = level + rng.normal(0, 0.35, n)
    quality = 1 / (1 + np.exp(score - 2.2 + rng.normal(0, 0.8, n)))
    ids = sorted(name_of("prompt", index) for index in range(n))
    return World(n, ids, topic, level, tokens, cluster, score, quality, rng.random(n) < 0.1, rng)


def the_frames(n: int = 2000, n_clusters: int = 31) -> dict[str, pl.DataFrame]:
    """All tables of a version of n prompts, by name."""
    world = a_world(n, n_clusters)
    manifest, deferred = _batches(world)
    made = {
        "versions": _versions(),
        "prompts": _prompts(world),
        "preference_pairs": _pairs(world),
        "rejected_rows": _rejected(-(-n // 160)),
        "label_observations": _observations(world),
        "labels": _labels(world),
        "sae_weights": _weights(),
        "sae_health": _health(),
        "prompt_states": _states(world),
        "feature_density": _density(world),
        "clusters": _clusters(world),
        "cluster_assignments": pl.DataFrame(
            {"prompt_id": world.ids, "cluster_id": world.cluster, "similarity": world.rng.beta(6, 4, world.n)}
        ),
        "cluster_quality": _cluster_quality(world),
        "cluster_drift": _cluster_drift(world),
        "version_drift": _version_drift(),
        "near_duplicates": near_duplicates(world.ids[: n // 4 * 2]),
        "contamination": contamination(world.ids[: n // 4]),
        "control_saes": _controls(),
        "signal_evidence": _evidence(),
        "evidence_curve": _evidence_curve(),
        "evidence_verdicts": _evidence_verdicts(),
        "sentence_embeddings": _embeddings(world),
        "control_signals": _control_signals(world),
        "rollouts": _rollouts(world),
        "outcomes": _outcomes(world),
        "difficulty_scores": _difficulty(world),
        "difficulty_proxy": _proxy(),
        "quality_probe": _probe(),
        "probe_calibration": _calibration(),
        "quality_scores": _quality(world),
        "batch_manifest": manifest,
        "batch_metrics": _metrics(manifest),
        "deferred_prompts": deferred,
        "manifests": _manifests(manifest),
        "trainer_exports": _exports(manifest),
        "artifacts": _artifacts(),
        "cluster_map": _cluster_map(world),
        "feature_examples": _feature_examples(world),
        "training_feedback": _feedback(world),
        "curriculum_steps": _curriculum_steps(),
        "trial_evaluations": (evaluations := trial_evaluations(world.rng)).with_columns(trial_id=pl.lit("f" * 16)),
        "trial_summary": summarise_trial(
            evaluations,
            target=None,
            seed=7,
            costs={arm: SignalCost(90.0, 40.0) for arm in evaluations["arm"].unique() if arm != BASELINE},
        ).with_columns(trial_id=pl.lit("f" * 16)),
    }
    return {name: tables()[name].conform(frame, KEY) for name, frame in made.items()}


def trial_evaluations(rng: np.random.Generator, n_seeds: int = 5) -> pl.DataFrame:
    """Trainings in four orders, of which one is faster, one slower and one never gets far."""
    pace = {"shuffle": 1.0, "clustered": 1.4, "easy_to_hard": 0.8, "random_clusters": 0.3}
    rows = [
        {
            "arm": arm,
            "seed": seed,
            "step": step,
            "accuracy": float(np.clip(0.1 + 0.4 * (1 - np.exp(-speed * step / 40)) + rng.normal(0, 0.01), 0, 1)),
            "n_prompts": 256,
            "seconds": 2.0 * step,
        }
        for arm, speed in pace.items()
        for seed in range(n_seeds)
        for step in range(0, 101, 10)
    ]
    return pl.DataFrame(rows, schema=EVALUATION_SCHEMA)


def near_duplicates(ids: Sequence[str], found_by: Sequence[str] = ("text", "features", "both")) -> pl.DataFrame:
    """Table `near_duplicates`: prompts that repeat each other in pairs."""
    n = len(ids)
    return pl.DataFrame(
        {
            "prompt_id": ids,
            "group_id": [place // 2 for place in range(n)],
            "n_prompts": [2] * n,
            "representative": [ids[place // 2 * 2] for place in range(n)],
            "role": [("representative", "copy")[place % 2] for place in range(n)],
            "nearest": [ids[place ^ 1] for place in range(n)],
            "jaccard": [0.8 + 0.2 * place / n for place in range(n)],
            "similarity": [0.99 - 0.3 * place / n for place in range(n)],
            "found_by": [found_by[place % len(found_by)] for place in range(n)],
        }
    )


def contamination(ids: Sequence[str]) -> pl.DataFrame:
    """Table `contamination`: prompts that repeat rows of a file and of the evaluation split in turns."""
    n = len(ids)
    file = "path:" + "folder/" * 9 + "bench.jsonl"
    return pl.DataFrame(
        {
            "prompt_id": ids,
            "evaluation": [(file, "evaluation split")[place % 2] for place in range(n)],
            "evaluation_row": [f"/data/bench.jsonl:{place}" for place in range(n)],
            "found_by": [("ngrams", "near_duplicate")[place % 2] for place in range(n)],
            "n_words": [(15, None)[place % 2] for place in range(n)],
            "overlap_fraction": [place / n for place in range(n)],
            "shared_text": [HOSTILE[place % len(HOSTILE)] for place in range(n)],
            "explanation": ["It shares words."] * n,
        }
    )


def empty_frames() -> dict[str, pl.DataFrame]:
    """All tables without a row."""
    return {
        name: pl.DataFrame(schema={column.name: column.dtype for column in table.columns})
        for name, table in tables().items()
    }


def a_history(n_steps: int = 60, *, worse: int = 0) -> list[dict[str, float]]:
    """An SAE's training log."""
    decay = np.exp(-np.arange(1, n_steps + 1) / 12)
    return [
        {
            "step": 13 * step,
            "tokens": 13 * 1024 * step,
            "loss": 900 * left + 140 + 15 * worse,
            "explained_variance": 0.82 - 0.9 * left - 0.05 * worse,
            "l0": 32.0,
            "dead_fraction": 0.09 * (1 - left) + 0.03 * worse,
        }
        for step, left in enumerate(decay.tolist(), start=1)
    ]


def trained(histories: Mapping[int, list[dict[str, float]]]) -> pl.DataFrame:
    """Table `sae_weights` with an SAE for each layer, and its log."""
    return pl.concat(
        _weights().with_columns(layer=pl.lit(layer, pl.Int64), training=pl.lit(json.dumps({"history": history})))
        for layer, history in histories.items()
    )


def active_counts(frames: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """What `figure_prompt_features` takes."""
    scores = frames["difficulty_scores"].select("prompt_id", "n_active_features")
    return frames["prompts"].select("prompt_id", "n_tokens").join(scores, on="prompt_id")


def _versions() -> pl.DataFrame:
    spec = a_spec()
    resolved = {
        "data": {"location": "/data/prompts.jsonl", "digest": hashlib.sha256(b"data").hexdigest()},
        "reader": {"digest": hashlib.sha256(b"reader").hexdigest()},
    }
    return pl.DataFrame(
        {
            "description": [spec.description],
            "parent": [None],
            "spec": [canonical_json(spec)],
            "spec_digest": [spec_digest(spec)],
            "resolved": [json.dumps(resolved)],
            "registered_at": [dt.datetime(2026, 1, 2, 3, 4, 5)],  # noqa: DTZ001 - the column is UTC without a zone
            "current_manifest_id": [MANIFEST],
        }
    )


def _text(world: World, index: int) -> str:
    if index < len(HOSTILE):
        return HOSTILE[index]
    word = WORDS[int(world.topic[index]) % len(WORDS)]
    return (
        f"Task {index} ({TOPICS[world.topic[index]]}, level {world.level[index]}): how many times does "
        f"the {word} appear? " + "Count every one of them, and give only the number. " * int(world.tokens[index] // 25)
    )


def _prompts(world: World) -> pl.DataFrame:
    texts = [_text(world, index) for index in range(world.n)]
    return pl.DataFrame(
        {
            "prompt_id": world.ids,
            "position": np.arange(world.n),
            "messages": [json.dumps([{"role": "user", "content": text}]) for text in texts],
            "is_chat": [False] * world.n,
            "text": texts,
            "response": [None] * world.n,
            "answer": ["42"] * world.n,
            "topic": [TOPICS[topic] for topic in world.topic],
            "split": ["evaluation" if apart else "train" for apart in world.evaluation],
            "text_id": [name_of("text", index) for index in range(world.n)],
            "token_ids": [[1, 2, 3]] * world.n,
            "n_tokens": world.tokens,
            "n_prefix_tokens": [0] * world.n,
            "extra": ["{}"] * world.n,
            "n_rows": np.where(np.arange(world.n) % 40 == 3, 2, 1),
        }
    )


def _pairs(world: World) -> pl.DataFrame:
    """One to three pairs of some prompts, the chosen answers a little longer."""
    numbers = [(name, pair) for at, name in enumerate(world.ids[::2]) for pair in range(1 + at % 3)]
    said = [
        [
            json.dumps([{"role": "assistant", "content": HOSTILE[at % len(HOSTILE)] + "x" * (at * step % 97)}])
            for at in range(len(numbers))
        ]
        for step in (11, 7)
    ]
    return pl.DataFrame(
        {
            "prompt_id": [name for name, _ in numbers],
            "pair": [pair for _, pair in numbers],
            "chosen": said[0],
            "rejected": said[1],
            "is_chat": [False] * len(numbers),
            "position": range(len(numbers)),
        }
    )


def _rejected(n: int) -> pl.DataFrame:
    codes = ("too_long", "too_long", "blank_prompt", "broken_json", "answer_conflict")
    return pl.DataFrame(
        {
            "position": np.arange(n) + 3000,
            "file": ["prompts.jsonl"] * n,
            "line": np.arange(n) + 3001,
            "reason_code": [codes[index % len(codes)] for index in range(n)],
            "reason": ["It has 1,312 tokens, over the limit of 1,024. Raise reader.max_tokens."] * n,
            "raw": [HOSTILE[index % len(HOSTILE)] for index in range(n)],
        }
    )


def _observations(world: World) -> pl.DataFrame:
    def one(label: str, rows: range, values: NDArray[np.float64], source: str) -> pl.DataFrame:
        return pl.DataFrame(
            {
                "label": [label] * len(rows),
                "observation_id": [name_of(label, source, row) for row in rows],
                "prompt_id": [world.ids[row] for row in rows],
                "value": values[list(rows)],
                "source": [source] * len(rows),
                "place": [f"prompts.jsonl:{row + 1}" for row in rows],
                "observed_at": [dt.datetime(2026, 1, 2)] * len(rows),  # noqa: DTZ001
            }
        )

    return pl.concat(
        [
            one("difficulty", range(world.n), world.level.astype(float), "column"),
            one("correct", range(0, world.n, 3), np.round(world.quality * 4) / 4, "rollouts"),
        ]
    )


def _labels(world: World) -> pl.DataFrame:
    observed = _observations(world)
    return observed.select(
        "prompt_id",
        "label",
        "value",
        pl.lit(1).alias("n_observations"),
        pl.when(pl.int_range(pl.len()) % 50 == 1).then(0.5).otherwise(0.0).alias("spread"),
    )


def _weights() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "layer": [15],
            "encoder_id": [name_of("encoder")],
            "reading_id": [name_of("reading")],
            "feature_offset": [0],
            "n_latents": [4096],
            "d_in": [576],
            "architecture": ["topk"],
            "source": ["train"],
            "digest": [hashlib.sha256(b"sae").hexdigest()],
            "path": ["artifacts/sae/layer-15"],
            "reader_digest": [hashlib.sha256(b"reader").hexdigest()],
            "sink_threshold": [1530.0],
            "training": [json.dumps({"training_tokens": 800000, "history": a_history()})],
        }
    )


def _health() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "layer": [15],
            "encoder_id": [name_of("encoder")],
            "explained_variance": [0.823],
            "l0": [32.0],
            "expected_l0": [32.0],
            "n_tokens": [22_400],
            "n_sink_tokens": [268],
            "dead_fraction": [0.091],
            "n_tokens_encoded": [134_000],
            "layer_profile": [[0.823 - 0.04 * abs(layer - 15) for layer in range(30)]],
            "loss_clean": [2.31],
            "loss_spliced": [2.52],
            "loss_ablated": [9.8],
            "loss_recovered": [0.972],
            "n_tokens_predicted": [2_010],
            "verdict": ["good"],
            "explanation": ["It explains 82% of the variance, and 9% of its latents are dead."],
        }
    )


def _states(world: World) -> pl.DataFrame:
    middles = world.rng.normal(0, 3, (len(TOPICS), 24))
    mean = middles[world.topic] + world.rng.normal(0, 1, (world.n, 24))
    return pl.DataFrame(
        {
            "reading_id": [name_of("reading")] * world.n,
            "text_id": [name_of("text", index) for index in range(world.n)],
            "mean": mean.tolist(),
            "last": mean.tolist(),
        }
    )


def _density(world: World, n_features: int = 4096) -> pl.DataFrame:
    prompts = np.minimum(world.n, world.rng.lognormal(3.0, 1.6, n_features)).astype(np.int64)
    prompts[world.rng.random(n_features) < 0.09] = 0
    peak = np.where(prompts > 0, world.rng.gamma(3, 4, n_features), 0.0)
    return pl.DataFrame(
        {
            "feature_id": np.arange(n_features),
            "layer": np.full(n_features, 15),
            "latent": np.arange(n_features),
            "n_prompts": prompts,
            "n_tokens": prompts * 3,
            "mean_activation": peak / 3,
            "max_activation": peak,
            "top_prompts": [
                [world.ids[(7 * feature + rank) % world.n] for rank in range(min(5, int(prompts[feature]), world.n))]
                for feature in range(n_features)
            ],
        }
    )


def _clusters(world: World) -> pl.DataFrame:
    rows = []
    for cluster in range(int(world.cluster.max(initial=-1)) + 1):
        members = np.flatnonzero(world.cluster == cluster)
        if not members.size:
            continue
        topics = np.bincount(world.topic[members], minlength=len(TOPICS))
        top = int(topics.argmax())
        rows.append(
            {
                "cluster_id": cluster,
                "n_prompts": members.size,
                "prompt_fraction": members.size / world.n,
                "mean_similarity": 0.4 + 0.5 * topics[top] / members.size,
                "top_features": [int(cluster * 37 + step) % 4096 for step in range(10)],
                "firing_tokens": ["legs, <i>", *["sum"] * 9],
                "top_words": [WORDS[(top + step) % len(WORDS)] for step in range(6)]
                if cluster
                else ["$x^{", "<b>", "数"],
                "exemplars": [world.ids[member] for member in members[:3]],
                "top_topic": TOPICS[top],
                "top_topic_fraction": topics[top] / members.size,
                "centroids_digest": hashlib.sha256(b"centroids").hexdigest(),
                "centroids_path": "artifacts/centroids.safetensors",
                "parent_digest": None,
                "start": "A fresh start: the version has no parent.",
            }
        )
    return pl.DataFrame(rows)


def _cluster_quality(world: World) -> pl.DataFrame:
    rows = [
        ("stability", 0.62, 0.4, "good"),
        ("silhouette", 0.12, 0.0, "good"),
        ("balance", 0.93, 0.7, "good"),
        ("largest_fraction", 0.12, 0.5, "good"),
        ("tiny_fraction", 0.0, 0.2, "good"),
    ]
    names = ["measure", "value", "threshold", "verdict"]
    said = pl.lit("In words, <b>with</b> figures.").alias("explanation")
    return pl.DataFrame(rows, schema=names, orient="row").with_columns(said, n_prompts=pl.lit(world.n))


def _cluster_drift(world: World) -> pl.DataFrame:
    k = int(world.cluster.max(initial=-1)) + 1
    after = np.bincount(world.cluster, minlength=k)
    before = np.roll(after, 1)
    before[-1], after[0] = 0, 0
    return pl.DataFrame(
        {
            "cluster_id": np.arange(k),
            "fate": ["gone", *["kept"] * (k - 2), "new"][:k] if k > 1 else ["gone"],
            "n_prompts_before": before,
            "n_prompts_after": after,
            "fraction_before": before / world.n,
            "fraction_after": after / world.n,
            "fraction_shift": (after - before) / world.n,
            "n_common": before,
            "n_moved": before // 9,
            "centroid_shift": [None, *[0.02] * (k - 2), None][:k] if k > 1 else [None],
        },
        schema_overrides={"centroid_shift": pl.Float64},
    )


def _version_drift() -> pl.DataFrame:
    rows = [
        ("moved_fraction", 0.11, 0.2, "steady"),
        ("population_shift", 0.09, 0.05, "drifted"),
        ("centroid_shift", 0.02, 0.1, "steady"),
        ("density_shift", 0.06, 0.2, "steady"),
    ]
    names = ["measure", "value", "threshold", "verdict"]
    return pl.DataFrame(rows, schema=names, orient="row").with_columns(
        pl.lit("In words, <b>with</b> figures.").alias("explanation")
    )


def _controls() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "layer": [15],
            "encoder_id": [name_of("control")],
            "feature_offset": [0],
            "n_latents": [4096],
            "k": [32],
            "digest": [hashlib.sha256(b"control").hexdigest()],
            "path": ["artifacts/sae/control"],
        }
    )


WORTH = {"constant": None, "length": 0.41, "tfidf": 0.52, "dense_mean": 0.7, "random_sae": 0.66, "sae_max": 0.74}


def _evidence() -> pl.DataFrame:
    rows = []
    for label, kind, measure, second, less in (
        ("difficulty", "numeric", "spearman", "r2", 0.0),
        ("correct", "binary", "auroc", "brier", 0.1),
    ):
        known = [worth for worth in WORTH.values() if worth is not None]
        for predictor, worth in WORTH.items():
            value = None if worth is None else worth - less
            around = (None, None) if value is None else (value - 0.04, value + 0.04)
            rows.append(
                (
                    label,
                    kind,
                    predictor,
                    1800,
                    measure,
                    value,
                    *around,
                    second,
                    0.3,
                    value,
                    value,
                    *around,
                    value,
                    *around,
                    None if value is None else max(known) - less - value,
                    0.03,
                )
            )
    columns = [column.name for column in tables()["signal_evidence"].columns if column.name != "dataset_version"]
    return pl.DataFrame(rows, schema=columns, orient="row", infer_schema_length=None)


def _evidence_curve() -> pl.DataFrame:
    rows = [
        ("difficulty", predictor, n_labels, "spearman", 0.2 + 0.1 * place + n_labels / 4000)
        for place, predictor in enumerate(("length", "tfidf", "dense_mean", "sae_max"))
        for n_labels in (100, 200, 500, 1000)
    ]
    return pl.DataFrame(rows, schema=["label", "predictor", "n_labels", "measure", "value"], orient="row")


def _evidence_verdicts() -> pl.DataFrame:
    said = "Use the SAE. Held-out spearman on 1,800 prompts: SAE 0.740, dense state 0.700."
    return pl.DataFrame(
        {
            "label": ["difficulty", "correct"],
            "verdict": ["use_sae", "dense_is_as_good"],
            "best_predictor": ["sae_max", "dense_mean"],
            "n_rows": [1800, 1800],
            "explanation": [said, said.replace("Use the SAE", "The dense state is as good here")],
        }
    )


def _embeddings(world: World) -> pl.DataFrame:
    vectors = world.rng.normal(size=(world.n, 4))
    return pl.DataFrame({"model_id": ["m"] * world.n, "text_digest": world.ids, "embedding": vectors.tolist()})


def _difficulty(world: World) -> pl.DataFrame:
    active = (world.tokens * 4.1 + world.rng.normal(0, 14, world.n)).clip(3).astype(np.int64)
    return pl.DataFrame(
        {
            "prompt_id": world.ids,
            "n_active_features": active,
            "n_active_per_token": active / world.tokens,
            "magnitude": active * 2.3,
            "proxy": world.score,
            "difficulty": world.score,
            "score_name": ["proxy"] * world.n,
            "difficulty_rank": world.score.argsort().argsort() / max(world.n - 1, 1),
        }
    )


def _proxy() -> pl.DataFrame:
    rows = [
        ("proxy", "held_out", 0.83, 0.69, "ElasticNet on sae_max, measured by nested cross-validation."),
        ("proxy", "fitted", 0.91, 0.82, "The same on the rows that it was fitted to."),
        ("count", "held_out", 0.38, 0.1, "Number of active features."),
        ("count_per_token", "held_out", 0.05, None, "Number of active features on a token."),
        ("magnitude", "held_out", 0.36, 0.1, "Summed activation."),
        ("length", "held_out", 0.41, 0.15, "Number of tokens, for comparison."),
    ]
    frame = pl.DataFrame(rows, schema=["score_name", "rows", "spearman", "r2", "explanation"], orient="row")
    measured = pl.when(pl.col("rows") == "held_out")
    over = pl.col("spearman") - 0.41
    return frame.with_columns(
        n_rows=1800,
        low=measured.then(pl.col("spearman") - 0.03),
        high=measured.then(pl.col("spearman") + 0.03),
        over_length=measured.then(over),
        over_length_low=measured.then(over - 0.04),
        over_length_high=measured.then(over + 0.04),
    )


def _probe() -> pl.DataFrame:
    shared = {
        "probe": "logistic",
        "predictor": "sae_max",
        "n_rows": 601,
        "n_observations": 640,
        "base_rate": 0.37,
        "calibration": "platt",
        "penalty": 0.01,
        "candidates": None,
        "encoders": "0123456789abcdef",
        "digest": hashlib.sha256(b"probe").hexdigest(),
        "path": "artifacts/probe.safetensors",
        "explanation": "Logistic regression on max-pooled features.",
    }
    return pl.DataFrame(
        [
            shared
            | {"rows": "held_out", "auroc": 0.741, "brier": 0.19}
            | {"auroc_low": 0.702, "auroc_high": 0.781, "calibration_error": 0.031},
            shared
            | {"rows": "fitted", "auroc": 0.88, "brier": 0.13}
            | {"auroc_low": None, "auroc_high": None, "calibration_error": None},
        ]
    )


def _calibration() -> pl.DataFrame:
    predicted = np.linspace(0.06, 0.8, 10)
    return pl.DataFrame(
        {
            "probe": ["logistic"] * 10,
            "bin": list(range(10)),
            "n_rows": [60] * 10,
            "predicted": predicted,
            "observed": predicted + 0.04 * np.sin(7 * predicted),
            "observed_low": predicted - 0.05,
            "observed_high": predicted + 0.1,
        }
    )


def _quality(world: World) -> pl.DataFrame:
    kept = world.quality >= np.quantile(world.quality, 0.05)
    return pl.DataFrame(
        {
            "prompt_id": world.ids,
            "quality": world.quality,
            "kept": kept,
            "reason": np.where(kept, "scored above the cut", "among the lowest-scored 5%").tolist(),
        }
    )


def _batches(world: World, size: int = 16) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Arms that look like what the planners make, and what they leave out."""
    usable = np.flatnonzero(~world.evaluation & (world.quality >= np.quantile(world.quality, 0.05)))
    filtered = np.flatnonzero(~world.evaluation & (world.quality < np.quantile(world.quality, 0.05)))
    noise = world.rng.normal(0, 1, world.n)
    orders = {
        "clustered": usable[np.lexsort((noise[usable], world.cluster[usable], np.round(world.score[usable] * 5)))],
        "balanced": usable[np.argsort(world.score[usable] + 0.5 * noise[usable], kind="stable")],
        "shuffle": world.rng.permutation(usable),
        "easy_to_hard": usable[np.argsort(world.score[usable], kind="stable")],
        "length_difficulty": usable[np.argsort(world.tokens[usable], kind="stable")],
        "random_clusters": usable[np.lexsort((noise[usable], np.round(world.score[usable] * 5)))],
    }
    rows, left = [], []
    for arm, order in orders.items():
        n_full = len(order) // size * size
        taken = order[:n_full]
        rows.append(
            pl.DataFrame(
                {
                    "manifest_id": [MANIFEST] * n_full,
                    "arm": [arm] * n_full,
                    "epoch": [0] * n_full,
                    "step": np.arange(n_full) // size,
                    "slot": np.arange(n_full) % size,
                    "prompt_id": [world.ids[index] for index in taken],
                    "cluster_id": world.cluster[taken],
                    "difficulty": world.score[taken],
                    "is_padding": [False] * n_full,
                },
                schema_overrides={
                    "prompt_id": pl.String,
                    "manifest_id": pl.String,
                    "arm": pl.String,
                    "epoch": pl.Int64,
                    "is_padding": pl.Boolean,
                },
            )
        )
        for code, members in (("filtered", filtered), ("tail", order[n_full:])):
            left += [(MANIFEST, arm, 0, world.ids[index], code, "Its quality is too low.") for index in members]
    names = ["manifest_id", "arm", "epoch", "prompt_id", "reason_code", "reason"]
    return pl.concat(rows), pl.DataFrame(left, schema=names, orient="row")


def _metrics(manifest: pl.DataFrame) -> pl.DataFrame:
    shares = manifest.group_by("manifest_id", "arm", "epoch", "step", "cluster_id").agg(pl.len().alias("n"))
    portion = pl.col("n") / pl.col("n").sum()
    clusters = shares.group_by("manifest_id", "arm", "epoch", "step").agg(
        pl.len().alias("n_clusters"), (-(portion * portion.log()).sum()).alias("cluster_entropy")
    )
    difficulty = manifest.group_by("manifest_id", "arm", "epoch", "step").agg(
        pl.len().alias("n_prompts"),
        *(pl.col("difficulty").quantile(q / 100, "linear").alias(f"difficulty_p{q}") for q in (10, 50, 90)),
    )
    return (
        clusters.join(difficulty, on=["manifest_id", "arm", "epoch", "step"])
        .with_columns((0.45 - 0.08 * pl.col("cluster_entropy")).alias("feature_overlap"), mean_quality=pl.lit(0.4))
        .sort("arm", "epoch", "step")
    )


def _manifests(manifest: pl.DataFrame) -> pl.DataFrame:
    rows = manifest.filter(pl.col("arm") == "clustered")
    return pl.DataFrame(
        {
            "manifest_id": [MANIFEST],
            "parent_manifest_id": [None],
            "planner": ["clustered"],
            "n_arms": [manifest["arm"].n_unique()],
            "n_epochs": [1],
            "n_steps": [rows["step"].n_unique()],
            "n_prompts": [rows["prompt_id"].n_unique()],
            "inputs_digest": [hashlib.sha256(b"inputs").hexdigest()],
            "created_at": [dt.datetime(2026, 1, 3)],  # noqa: DTZ001
        }
    )


def _exports(manifest: pl.DataFrame) -> pl.DataFrame:
    rows = manifest.filter(pl.col("arm") == "clustered")
    return pl.DataFrame(
        [
            {
                "manifest_id": MANIFEST,
                "trainer": trainer,
                "arm": "clustered",
                "path": f"exports/{KEY}/{MANIFEST[:12]}/{trainer}",
                "n_rows": rows.height,
                "n_steps": rows["step"].n_unique(),
                "order_digest": hashlib.sha256(b"order").hexdigest(),
                "digest": hashlib.sha256(trainer.encode()).hexdigest(),
            }
            for trainer in ("trl", "verl")
        ]
    )


def _artifacts() -> pl.DataFrame:
    made = [
        ("sae", "layer-15", 19_000_000, "sae_weights"),
        ("centroids", "clusters", 508_000, "clusters"),
        ("probe", "logistic", 16_500, "quality_probe"),
        ("export", "trl", 1_210_000, "trainer_exports"),
        ("export", "verl", 460_000, "trainer_exports"),
    ]
    return pl.DataFrame(
        [
            {
                "kind": kind,
                "name": name,
                "digest": hashlib.sha256(f"{kind}{name}".encode()).hexdigest(),
                "path": f"artifacts/{kind}/{name}",
                "n_bytes": n_bytes,
                "made_by": asset,
                "intact": True,
            }
            for kind, name, n_bytes, asset in made
        ]
    )


def _control_signals(world: World) -> pl.DataFrame:
    rng = np.random.default_rng(6)
    return pl.DataFrame(
        {
            "prompt_id": world.ids,
            "dense_cluster_id": np.where(rng.random(world.n) < 0.7, world.cluster, rng.permutation(world.cluster)),
            "dense_difficulty": world.score + rng.normal(0, 0.5, world.n),
            "true_difficulty": world.level.astype(np.float64),
        }
    )


def _rollouts(world: World) -> pl.DataFrame:
    """Eight answers of a policy to every other prompt, the right ones as likely as its quality says."""
    rng = np.random.default_rng(7)
    places = np.repeat(np.arange(0, world.n, 2), 8)
    tokens = np.minimum(rng.geometric(0.03, len(places)), 96)
    return pl.DataFrame(
        {
            "prompt_id": [world.ids[place] for place in places],
            "sample": np.tile(np.arange(8), len(places) // 8),
            "rollout_id": [name_of("rollout", number) for number in range(len(places))],
            "completion": [HOSTILE[number % len(HOSTILE)] for number in range(len(places))],
            "score": (rng.random(len(places)) < world.quality[places]).astype(np.float64),
            "n_tokens": tokens,
            "is_truncated": tokens >= 96,
            "sampling_id": name_of("sampling"),
            "policy_digest": name_of("policy"),
            "verifier": "reasoning_gym",
            "engine": "transformers",
            "made_at": dt.datetime(2026, 5, 27, 12, 0),  # noqa: DTZ001 - as the warehouse keeps it
        }
    )


def _outcomes(world: World) -> pl.DataFrame:
    chosen = pl.DataFrame(
        {
            "prompt_id": world.ids,
            "cluster_id": world.cluster,
            "split": ["evaluation" if apart else "train" for apart in world.evaluation],
        }
    )
    return fold_rollouts(_rollouts(world), chosen)


def _cluster_map(world: World) -> pl.DataFrame:
    rng = np.random.default_rng(5)
    middle = rng.random((int(world.cluster.max()) + 1, 2)) * 0.8 + 0.1
    places = (middle[world.cluster] + rng.normal(0, 0.02, (world.n, 2))).clip(0, 1)
    return pl.DataFrame(
        {"prompt_id": world.ids, "cluster_id": world.cluster, "x": places[:, 0], "y": places[:, 1]}
    ).head(1500)


def _feature_examples(world: World) -> pl.DataFrame:
    rows = [
        (feature, place, world.ids[(feature + place) % world.n], 9.0 - place, 7)
        + (("How many\nlegs", " legs", " do they have?"), HOSTILE[:3])[(feature + place) % 5 == 0]
        for feature in (*range(40), 999)
        for place in range(3)
    ]
    names = ["feature_id", "place", "prompt_id", "activation", "token_index", "before", "token", "after"]
    return pl.DataFrame(rows, schema=names, orient="row")


def _feedback(world: World) -> pl.DataFrame:
    taken = np.flatnonzero(~world.evaluation)[:800]
    reward = 1 / (1 + np.exp(1.5 * (world.score[taken] - 2.2))) + np.random.default_rng(9).normal(0, 0.1, len(taken))
    return pl.DataFrame(
        {
            "run_name": ["warmup <b>1</b>"] * len(taken),
            "manifest_id": [MANIFEST] * len(taken),
            "epoch": [0] * len(taken),
            "step": np.arange(len(taken)) // 16,
            "prompt_id": [world.ids[index] for index in taken],
            "n_completions": [8] * len(taken),
            "reward": reward.clip(0, 1),
            "loss": [None] * len(taken),
            "pass_rate": [None] * len(taken),
            "file_digest": [hashlib.sha256(b"log").hexdigest()] * len(taken),
            "place": [f"saerl_log.jsonl:{index}" for index in taken],
            "observed_at": [dt.datetime(2026, 1, 5)] * len(taken),  # noqa: DTZ001
        }
    )


def _curriculum_steps() -> pl.DataFrame:
    rows = []
    for epoch in range(3):
        decision, measured = ("unlocked", 0.4 + 0.1 * epoch) if epoch else ("started", None)
        explanation = f"Part {epoch + 1} of 4 is unlocked."
        name = MANIFEST[:-1] + str(epoch)
        rows.append((name, None, epoch, "stages", decision, epoch + 1, None, "reward", measured, 20, explanation))
    columns = [column.name for column in tables()["curriculum_steps"].columns if column.name != "dataset_version"]
    return pl.DataFrame(rows, schema=columns, orient="row", infer_schema_length=None)


def version_measures() -> pl.DataFrame:
    """View `version_measures` of the version and one that it continues."""
    return pl.DataFrame(
        {
            "dataset_version": ["demo-v0", KEY],
            "parent": [None, "demo-v0"],
            "registered_at": [dt.datetime(2026, 1, 1), dt.datetime(2026, 1, 2)],  # noqa: DTZ001
            "n_prompts": [1800, 2000],
            "dead_fraction": [0.1, 0.09],
            "rare_fraction": [0.2, 0.19],
            "n_clusters": [30, 31],
            "balance": [0.9, 0.91],
            "largest_fraction": [0.2, 0.19],
            "stability": [0.8, None],
            "auroc": [0.72, 0.741],
            "auroc_low": [0.69, 0.702],
            "auroc_high": [0.76, 0.781],
            "proxy_spearman": [0.8, 0.83],
            "furthest_measure": [None, "population_shift"],
            "share_of_threshold": [None, 1.8],
        }
    )


def trainer_settings() -> pl.DataFrame:
    """The settings beside the exports, as `exported_settings` reads them."""
    return pl.DataFrame(
        {
            "trainer": ["trl", "verl"],
            "arm": ["clustered", "clustered"],
            "file": ["trl_config.json", "verl.yaml"],
            "text": ['{"shuffle_dataset": false}', f"data:\n  shuffle: false  # {HOSTILE[1]}"],
        }
    )


def report_inputs(frames: dict[str, pl.DataFrame]) -> ReportInputs:
    """The page's inputs from the tables of a version."""
    tables_of_page = {
        field.name: frames[field.name] for field in dataclasses.fields(ReportInputs) if field.name in frames
    }
    return ReportInputs(
        **{"version_measures": version_measures(), "trainer_settings": trainer_settings()} | tables_of_page,
        generated_with="saerl-assets 0.1.0, Python 3.11",
    )
