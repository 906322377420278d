"""What a run prints: one line where a stage starts and ends, and its progress between.

Belongs here: turning Dagster's log records into lines for a person. Does not belong here: what is logged.
"""

import logging
import sys
import time
from typing import Any

import dagster as dg

from saerl_assets.domain.errors import SaerlError

_STARTED: dict[str, float] = {}


class _Lines(logging.Formatter):
    """Stages with their duration; messages of assets below them; nothing of Dagster's own bookkeeping."""

    def format(self, record: logging.LogRecord) -> str:
        meta: dict[str, Any] = getattr(record, "dagster_meta", {}) or {}
        step, event = meta.get("step_key") or "", meta.get("dagster_event")
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        if event is None:
            message = meta.get("orig_message") or record.getMessage()
            return f"{clock}    {message}"
        if event.event_type_value == "STEP_START":
            _STARTED[step] = record.created
            return f"{clock}  {step} ..."
        seconds = record.created - _STARTED.get(step, record.created)
        if event.event_type_value == "STEP_SUCCESS":
            return f"{clock}  {step} done in {seconds:.1f} s"
        if event.event_type_value == "STEP_FAILURE":
            return f"{clock}  {step} FAILED after {seconds:.1f} s: {cause_of(event)}"
        return f"{clock}  {event.message}"


class _Worthwhile(logging.Filter):
    """Stages, their failures and their messages."""

    def filter(self, record: logging.LogRecord) -> bool:
        meta: dict[str, Any] = getattr(record, "dagster_meta", {}) or {}
        event = meta.get("dagster_event")
        if event is None:
            # That stages after a failed one are not executed goes without saying.
            return record.levelno >= logging.INFO and "Not executing." not in record.getMessage()
        if "blocked" in (event.message or ""):
            return True
        return event.event_type_value in {"STEP_START", "STEP_SUCCESS", "STEP_FAILURE"}


@dg.logger
def console_lines(_: dg.InitLoggerContext) -> logging.Logger:
    """Prints to standard error."""
    logger = logging.Logger("saerl.run", level=logging.DEBUG)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    handler.addFilter(_Worthwhile())
    logger.addHandler(handler)
    return logger


def cause_of(event: dg.DagsterEvent) -> str:
    """The message of the first `SaerlError` that led to a failure, which names its remedy, else the innermost error's.

    What a library raised may be the cause of a `SaerlError`; what Dagster raises has one as its cause.
    """
    errors, error = [], event.step_failure_data.error
    while error is not None:
        errors.append(error)
        error = error.cause
    for error in errors:
        if error.cls_name == SaerlError.__name__:
            # Dagster writes the class before the message; for an error that a person is meant to read it says nothing.
            return error.message.strip().removeprefix(f"{SaerlError.__module__}.SaerlError: ")
    return errors[-1].message.strip() if errors else ""
