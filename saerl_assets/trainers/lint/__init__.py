"""Reading a trainer's own configuration for what would break the order.

Belongs here: one file of rules per trainer (trl, verl, openrlhf, nemo_rl, ms_swift), the readers of
configuration files (yaml_file, shell, script), the engine. Does not belong here: running a trainer, or
checking what it did (verify).
"""
