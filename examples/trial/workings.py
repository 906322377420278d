"""Worked answers to the trial's tasks: the steps that lead to the answer, written out.

Belongs here: one way of working for each family. Does not belong here: drawing tasks, and who learns from the steps.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


ANNOUNCEMENT = "answer: "
"""Before the answer, after the steps."""


def worked(row: Mapping[str, Any]) -> str:
    """The row's answer with what leads to it, such as `8+8=16 16+7=23 answer: 23`.

    Args:
        row: A row of `saerl_assets.domain.gym.generate_rows`, of a family in `WAYS`.
    """
    steps = WAYS[row["family"]](json.loads(row["metadata"]))
    return f"{' '.join(steps)} {ANNOUNCEMENT}{row['answer']}"


def running_total(task: Mapping[str, Any]) -> list[str]:
    """Of a sum of several terms: one term after the other."""
    first, *rest = task["expression"].split()
    total, steps = int(first), []
    for sign, term in zip(rest[::2], rest[1::2], strict=True):
        result = total + int(term) if sign == "+" else total - int(term)
        steps.append(f"{total}{sign}{term}={result}")
        total = result
    return steps


def partial_products(task: Mapping[str, Any]) -> list[str]:
    """Of a product: by every digit of the second factor, then their sum."""
    one, other = (int(part) for part in task["expression"].split(" * "))
    parts = [int(digit) * 10**place for place, digit in enumerate(reversed(str(other)))][::-1]
    steps = [f"{one}*{part}={one * part}" for part in parts]
    return steps + running_total({"expression": " + ".join(str(one * part) for part in parts)})


def remainders(task: Mapping[str, Any]) -> list[str]:
    """Of a greatest common divisor: Euclid's remainders."""
    return _euclid(*task["numbers"])[0]


def by_divisor(task: Mapping[str, Any]) -> list[str]:
    """Of a least common multiple: one number divided by their divisor, times the other."""
    one, other = task["numbers"]
    steps, divisor = _euclid(one, other)
    share = one // divisor
    return [*steps, f"{one}/{divisor}={share}", f"{share}*{other}={share * other}"]


def powers_of_two(task: Mapping[str, Any]) -> list[str]:
    """Of a number of bits: the powers of two that the number is the sum of."""
    number = int(task["number"])
    powers = [1 << place for place in reversed(range(number.bit_length())) if number >> place & 1]
    return [f"{number}={'+'.join(map(str, powers))}"]


def reduced(task: Mapping[str, Any]) -> list[str]:
    """Of a fraction: both parts divided by their divisor."""
    upper, lower = task["numerator"], task["denominator"]
    steps, divisor = _euclid(lower, upper)
    return [*steps, f"{upper}/{divisor}={upper // divisor}", f"{lower}/{divisor}={lower // divisor}"]


def _euclid(one: int, other: int) -> tuple[list[str], int]:
    steps = [str(one)]
    while other:
        steps.append(str(other))
        one, other = other, one % other
    return [*steps, "0"], one


WAYS: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "chain_sum": running_total,
    "products": partial_products,
    "gcd": remainders,
    "lcm": by_divisor,
    "count_bits": powers_of_two,
    "fraction_simplification": reduced,
}
