from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import sparse

from saerl_assets.domain.examples import Examples, choose_strength

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from saerl_assets.domain.features import FloatMatrix


class Constant:
    """Predicts the same for every row."""

    def __init__(self, value: float) -> None:
        self.value = value

    def predict(self, matrix: FloatMatrix) -> NDArray[np.float64]:
        return np.full(matrix.shape[0], self.value)


def examples(shares: NDArray[np.float64], weight: NDArray[np.float64] | None = None) -> Examples:
    n = len(shares)
    matrix = sparse.csr_matrix(np.arange(n, dtype=np.float32)[:, None])
    return Examples(matrix, shares, np.ones(n) if weight is None else weight, np.linspace(0, 0.99, n))


def test_balanced_outcomes_count_alike_and_keep_their_proportions_within_each_side() -> None:
    before = examples(np.array([1.0, 0.25, 0.0, 0.0, 0.0]), np.array([1.0, 4.0, 1.0, 2.0, 1.0]))
    after = before.balanced()
    correct, wrong = after.weight * after.shares, after.weight * (1 - after.shares)
    assert correct.sum() == pytest.approx(wrong.sum())
    assert after.base_rate == pytest.approx(0.5)
    assert after.weight.mean() == pytest.approx(1)
    np.testing.assert_allclose(correct / correct.sum(), [0.5, 0.5, 0, 0, 0])
    np.testing.assert_allclose(wrong / wrong.sum(), np.array([0, 3, 1, 2, 1]) / 7)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_one_class_cannot_be_balanced(share: float) -> None:
    only = examples(np.full(5, share))
    assert only.balanced() is only


def test_the_strength_of_least_loss_is_chosen_and_nothing_weaker_than_the_first_rise_is_fitted() -> None:
    fitted: list[float] = []

    def path(_: Examples, strengths: Sequence[float]) -> Iterator[Constant]:
        for strength in strengths:
            fitted.append(strength)
            yield Constant(strength)

    def loss(model: Constant, test: Examples) -> float:
        return float(np.sum((model.predict(test.matrix) - test.shares) ** 2))

    found, least = choose_strength(examples(np.full(30, 0.5)), [0.9, 0.6, 0.4, 0.1, 0.5], path, loss)
    assert found == 0.6, "of equal ones the strongest regularisation, and 0.5 comes after a rise"
    assert least == pytest.approx(30 * 0.1**2)
    assert set(fitted) == {0.9, 0.6, 0.4, 0.1}


def test_without_two_folds_the_strongest_is_taken() -> None:
    one = examples(np.ones(1))
    assert choose_strength(one, [3.0, 1.0], lambda _, __: iter(()), lambda _, __: 0.0) == (3.0, np.inf)
