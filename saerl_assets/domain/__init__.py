"""The method and its values: functions from frames and arrays to frames and arrays.

Belongs here: what SAERL computes, in numpy, scipy, polars and scikit-learn. Does not belong here: files, databases,
models, clocks, Dagster.
"""
