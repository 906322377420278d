"""SAERL as a Dagster data platform: what a model's internals say about prompts, as ordered training batches."""

__version__ = "0.1.0"
