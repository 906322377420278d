"""Stands in for `vllm.utils`."""

from __future__ import annotations

import uuid


def random_uuid() -> str:
    """A name of a request."""
    return uuid.uuid4().hex
