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
_UNSHOWABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
"""What a terminal or a log would obey, turn around or refuse: control characters, marks of direction, half surrogate
pairs. They come from names in somebody's data."""
_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP: too early, too often, or a server that cannot answer now."""


class SaerlError(Exception):
    """Something that a user can put right. What it says can be shown anywhere, whatever names are in it.

    Args:
        code: Short stable name in snake case, for scripts and for the troubleshooting page.
        problem: One sentence: what is wrong.
        where: File, `file:line`, table or spec key that it concerns; empty where there is none.
        remedy: One sentence in the imperative: what to do about it.
        passing: Whether it may be gone in a while, such as a hub that is out of reach; it is tried again then.
    """

    def __init__(self, code: str, problem: str, *, where: str = "", remedy: str, passing: bool = False) -> None:
        self.code = code
        self.problem = _showable(problem)
        self.where = _showable(where)
        self.remedy = _showable(remedy)
        self.passing = passing
        place = f"{self.where}: " if where else ""
        super().__init__(f"{place}{self.problem} {self.remedy} [{code}]")

    def __reduce__(self) -> tuple[object, ...]:
        """So that it arrives whole from another process."""
        return _error_of, (self.code, self.problem, self.where, self.remedy, self.passing)


def _showable(text: str) -> str:
    return _UNSHOWABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


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
