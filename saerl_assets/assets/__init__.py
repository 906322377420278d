"""The graph: one file per noun, one asset per table.

Belongs here: taking inputs, one call into the method, returning the value with its metadata. Does not belong here: the
method itself, and imports of other assets: they depend on each other by key.
"""
