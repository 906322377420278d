"""Jobs, sensors and schedules, and running a version without a daemon.

Belongs here: what starts runs and what tidies up after dead ones. Does not belong here: assets.
"""
