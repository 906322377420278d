"""The one kind of error that a user is meant to read.

Belongs here: `SaerlError`. Does not belong here: bugs. A bug keeps its traceback; a `SaerlError` says what is wrong,
where it is and what to do, and the command line prints it without one.
"""

from __future__ import annotations

import re

_OF_A_NETWORK = re.compile(
    r"timed?[ -]?out|temporary failure|name resolution|name or service not known|network is unreachable"
    r"|connect(?:ion)?error|connection (?:\w+ )?(?:reset|refused|aborted|broken|error)|max retries|too many requests"
    r"|service unavailable|bad gateway|remote end closed|unexpected eof",
    re.IGNORECASE,
)
"""What libraries that fetch something say where the network or the server is to blame, and not the question."""
_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP: too early, too often, or a server that cannot answer now."""


class SaerlError(Exception):
    """Something that a user can put right.

    Args:
        code: Short stable name in snake case, for scripts and for the troubleshooting page.
        problem: One sentence: what is wrong.
        where: File, `file:line`, table or spec key that it concerns; empty where there is none.
        remedy: One sentence in the imperative: what to do about it.
        passing: Whether it may be gone in a while, such as a hub that is out of reach; it is tried again then.
    """

    def __init__(self, code: str, problem: str, *, where: str = "", remedy: str, passing: bool = False) -> None:
        self.code = code
        self.problem = problem
        self.where = where
        self.remedy = remedy
        self.passing = passing
        place = f"{where}: " if where else ""
        super().__init__(f"{place}{problem} {remedy} [{code}]")

    def __reduce__(self) -> tuple[object, ...]:
        """So that it arrives whole from another process."""
        return _error_of, (self.code, self.problem, self.where, self.remedy, self.passing)


def _error_of(code: str, problem: str, where: str, remedy: str, passing: bool) -> SaerlError:  # noqa: FBT001 - pickled
    return SaerlError(code, problem, where=where, remedy=remedy, passing=passing)


def is_passing(failure: BaseException) -> bool:
    """Whether a failure to fetch something is the network's or the server's, so that it may work in a while.

    What a library raises is judged with what led to it: a connection that failed, a status of HTTP that asks to come
    again, or, where neither is told apart, the words for them. A name that a hub does not know never passes.
    """
    seen: BaseException | None = failure
    while seen is not None:
        if isinstance(seen, SaerlError):
            return seen.passing
        status = getattr(getattr(seen, "response", None), "status_code", None)
        if isinstance(status, int):
            return status in _PASSING_STATUS
        if isinstance(seen, ConnectionError | TimeoutError) or sounds_passing(f"{type(seen).__name__}: {seen}"):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def sounds_passing(words: str) -> bool:
    """Whether the words of a failure are those of a network or a server in trouble."""
    return _OF_A_NETWORK.search(words) is not None
