"""SAERL as a Dagster data platform: what a model's internals say about prompts, as ordered training batches.

`saerl_assets.SaerlComponent` puts the graph into another Dagster project. It is imported when it is asked for, so that
the command line answers without loading Dagster.
"""

import importlib

__version__ = "0.1.0"

_LATER = {"SaerlComponent": "saerl_assets.component"}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(importlib.import_module(_LATER[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
