"""One case of an asset check: what it is given, and whether it must pass.

Belongs here: the form of a case and holding a result against it. Does not belong here:
cases; each noun has its own file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dagster as dg


@dataclass(frozen=True)
class Case:
    """`check` is `<asset>.<check>`; `says` is part of the sentence that is shown."""

    check: str
    passes: bool
    says: str
    result: Callable[[], dg.AssetCheckResult]

    def __str__(self) -> str:
        return f"{self.check}-{'good' if self.passes else 'bad'}-{self.says[:30]}"

    def hold(self) -> None:
        """Asserts the result."""
        found = self.result()
        assert found.passed is self.passes, found.description
        assert self.says in (found.description or "")


def plain(check: dg.AssetChecksDefinition) -> Callable[..., dg.AssetCheckResult]:
    """The function below a check's definition."""
    compute: Any = check.node_def
    function: Callable[..., dg.AssetCheckResult] = compute.compute_fn.decorated_fn
    return function
