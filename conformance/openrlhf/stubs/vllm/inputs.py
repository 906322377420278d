"""Stands in for `vllm.inputs`."""

from __future__ import annotations

TokensPrompt = dict
