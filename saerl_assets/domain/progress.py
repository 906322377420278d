"""How long work tells where it is.

Belongs here: the shape of a progress call. Does not belong here: bars and log lines; whoever starts the work decides
how it is shown.
"""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called now and then by long work; cheap to call often."""

    def __call__(self, done: int, total: int, *, unit: str, note: str = "") -> None:
        """Tells how far the work is.

        Args:
            done: Units finished.
            total: Units in all.
            unit: What is counted, in the plural: 'tokens', 'prompts'.
            note: Figures worth showing beside it, such as a loss.
        """


def silent(done: int, total: int, *, unit: str, note: str = "") -> None:
    """Shows nothing."""
