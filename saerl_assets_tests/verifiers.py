"""Verifiers of the tests' own, named by import path as a user's are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def by_level(completion: str, answer: str | None, fields: Mapping[str, Any]) -> float:
    """Right more often the lower the level: a random model knows nothing, but its answers differ in length."""
    assert answer is not None
    assert fields["prompt"]
    return float(len(completion) % 4 >= fields["level"])


def broken(completion: str, answer: str | None, fields: Mapping[str, Any]) -> float:  # noqa: ARG001 - one signature
    """Fails on every completion."""
    message = "no such thing"
    raise KeyError(message)


def by_length(completion: str, answer: str | None, fields: Mapping[str, Any]) -> float:
    """Right where the completion has an even number of characters."""
    assert answer is not None
    assert fields["prompt"]
    return float(len(completion) % 2 == 0)
