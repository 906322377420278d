"""Dagster adapters over models and storage.

Belongs here: configuration fields and the translation between Dagster's contexts and our own classes. Does not belong
here: logic.
"""
