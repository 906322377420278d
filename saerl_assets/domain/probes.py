"""The kinds of probes, the choice between them, and a probe as the plain arrays that are kept of it.

Belongs here: calling a kind by name, choosing one by inner folds, to and from arrays. Does not belong here: how each is
fitted (logistic_regression, ridge, mlp), measuring (quality), files (storage).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from saerl_assets.domain.agreement import auroc, mean_over_folds
from saerl_assets.domain.calibration import Calibration, Method
from saerl_assets.domain.folds import held_out_parts, tuning_folds
from saerl_assets.domain.linear_models import LinearModel
from saerl_assets.domain.logistic_regression import Penalty, choose_logistic, logistic_path
from saerl_assets.domain.mlp import Perceptron, choose_mlp, mlp_path
from saerl_assets.domain.ridge import fit_ridge

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from saerl_assets.domain.examples import Examples
    from saerl_assets.domain.features import FloatMatrix

Kind = Literal["logistic", "ridge", "mlp"]

NAMES: dict[Kind, str] = {
    "logistic": "Logistic regression",
    "ridge": "Ridge regression",
    "mlp": "A two-layer perceptron",
}
"""Cheapest to apply and simplest to read first."""

AnyProbeModel: TypeAlias = LinearModel | Perceptron


@dataclass(frozen=True)
class Probe:
    """A model's score and the probability that it stands for."""

    kind: Kind
    model: AnyProbeModel
    calibration: Calibration

    def score(self, matrix: FloatMatrix) -> NDArray[np.float64]:
        """A number for each row that ranks as the probability does, but without its ties: float64 [n]."""
        return self.model.predict(matrix)

    def probability(self, score: NDArray[np.float64]) -> NDArray[np.float64]:
        """The calibrated probability of a correct outcome at a score, float64 [n]."""
        return self.calibration.apply(score)


@dataclass(frozen=True)
class Chosen:
    """A kind with its strength of regularisation, chosen on nothing but the rows that it is then fitted to."""

    kind: Kind
    strength: float | Penalty | None
    """None for a kind that finds it while it is fitted."""
    candidates: dict[str, float]
    """The inner folds' area under the ROC curve of each kind; empty where there was nothing to choose."""


def choose(kind: Kind | Literal["best"], examples: Examples) -> Chosen:
    """The strength of a kind, or the kind that ranks best within inner folds.

    Args:
        kind: The kind, or `best`.
        examples: What may be learned from.
    """
    if kind != "best":
        return Chosen(kind, _strength(kind, examples), {})
    strengths = {each: _strength(each, examples) for each in NAMES}
    areas = {each: _inner_area(strength, examples) for each, strength in strengths.items()}
    winner = max(areas, key=areas.__getitem__)  # of equal ones the simplest
    return Chosen(winner, strengths[winner], {str(each): area for each, area in areas.items()})


def fit_chosen(chosen: Chosen, examples: Examples) -> AnyProbeModel:
    """Fits what was chosen to all of the examples, correct and wrong outcomes counting alike in sum.

    Ridge regression is the exception: there every prompt counts alike, however many observations it has, and it needs
    no balance because a constant added to all shares changes no weight.
    """
    return _fit(chosen.strength, examples)


def _strength(kind: Kind, examples: Examples) -> float | Penalty | None:
    if kind == "ridge":
        return None
    return (choose_logistic if kind == "logistic" else choose_mlp)(examples.balanced())


def _fit(strength: float | Penalty | None, examples: Examples) -> AnyProbeModel:
    if strength is None:
        return fit_ridge(examples.matrix, examples.shares, examples.fractions)
    if isinstance(strength, Penalty):
        return next(logistic_path(examples.balanced(), [strength.inverse], strength.scale))
    return next(mlp_path(examples.balanced(), [strength]))


def _inner_area(strength: float | Penalty | None, examples: Examples) -> float:
    """How well the kind ranks rows of inner folds that it was not fitted to; chance where that is not defined."""
    rows, folds = tuning_folds(examples.fractions)
    used = examples.take(rows)
    scores = np.zeros(len(rows))
    for train, test in held_out_parts(folds):
        scores[test] = _fit(strength, used.take(train)).predict(used.matrix[test])

    def area(part: NDArray[np.int64]) -> float | None:
        return auroc(scores[part], used.shares[part], used.weight[part])

    return mean_over_folds(area, folds) or 0.5


def to_arrays(probe: Probe) -> tuple[dict[str, NDArray[np.generic]], dict[str, str | float]]:
    """A probe as arrays to be kept in safetensors, and as facts to be kept in JSON."""
    model = probe.model
    arrays: dict[str, NDArray[np.generic]] = {
        "calibration.points": probe.calibration.points,
        "calibration.values": probe.calibration.values,
    }
    if isinstance(model, LinearModel):
        arrays["coefficients"] = model.coefficients
        arrays["intercept"] = np.array([model.intercept])
    else:
        for name in ("projection", "first", "first_bias", "second", "second_bias"):
            arrays[name] = np.ascontiguousarray(getattr(model, name))
    return arrays, {"kind": probe.kind, "calibration": probe.calibration.method, "penalty": float(model.penalty)}


def from_arrays(arrays: Mapping[str, NDArray[np.generic]], facts: Mapping[str, str | float]) -> Probe:
    """The probe that `to_arrays` took apart.

    Raises:
        KeyError: Something is missing.
    """
    kinds: dict[str, Kind] = {name: name for name in NAMES}
    penalty = float(facts["penalty"])
    methods: dict[str, Method] = {"platt": "platt", "isotonic": "isotonic"}
    calibration = Calibration(
        methods[str(facts["calibration"])],
        np.asarray(arrays["calibration.points"], dtype=np.float64),
        np.asarray(arrays["calibration.values"], dtype=np.float64),
    )
    kind = kinds[str(facts["kind"])]
    if kind != "mlp":
        coefficients = np.asarray(arrays["coefficients"], dtype=np.float64)
        return Probe(kind, LinearModel(coefficients, float(np.asarray(arrays["intercept"])[0]), penalty), calibration)
    parts = [
        np.asarray(arrays[name], dtype=np.float32)
        for name in ("projection", "first", "first_bias", "second", "second_bias")
    ]
    projection, first, first_bias, second, second_bias = parts
    return Probe(kind, Perceptron(projection, first, first_bias, second, second_bias, penalty), calibration)
