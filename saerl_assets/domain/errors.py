"""The one kind of error that a user is meant to read.

Belongs here: `SaerlError`. Does not belong here: bugs. A bug keeps its traceback; a `SaerlError` says what is wrong,
where it is and what to do, and the command line prints it without one.
"""

from __future__ import annotations


class SaerlError(Exception):
    """Something that a user can put right.

    Args:
        code: Short stable name in snake case, for scripts and for the troubleshooting page.
        problem: One sentence: what is wrong.
        where: File, `file:line`, table or spec key that it concerns; empty where there is none.
        remedy: One sentence in the imperative: what to do about it.
    """

    def __init__(self, code: str, problem: str, *, where: str = "", remedy: str) -> None:
        self.code = code
        self.problem = problem
        self.where = where
        self.remedy = remedy
        place = f"{where}: " if where else ""
        super().__init__(f"{place}{problem} {remedy} [{code}]")
