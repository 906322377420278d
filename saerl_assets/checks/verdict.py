"""What every check answers: passed or not, in one sentence, with the figures behind it.

Belongs here: the form of an answer. Does not belong here: checks.
"""

from collections.abc import Mapping, Sequence

import dagster as dg


def verdict(
    problems: Sequence[str],
    fine: str,
    figures: Mapping[str, int | float | str] | None = None,
    *,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
) -> dg.AssetCheckResult:
    """Passed where there are no problems; otherwise the problems, one a sentence.

    Args:
        problems: What is wrong; empty where all is well.
        fine: What is said where all is well.
        figures: Numbers shown beside it.
        severity: Of a failure.
    """
    return dg.AssetCheckResult(
        passed=not problems,
        severity=severity,
        description=" ".join(problems) or fine,
        metadata=dict(figures or {}),
    )
