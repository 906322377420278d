"""Stands in for vLLM, which needs a GPU: the names that OpenRLHF imports before it generates anything."""

from __future__ import annotations


class SamplingParams:
    """What a request asks for."""

    def __init__(self, **asked: object) -> None:
        self.__dict__.update(asked)
