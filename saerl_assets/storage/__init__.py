"""Where things are kept: the home directory, the DuckDB warehouse, shards and artefacts on disk, and the source files.

Belongs here: the only code that opens files and connections. Does not belong here: what the rows mean.
"""
