"""What each trainer needs to train in our order: one file per trainer.

Belongs here: a trainer's file format, the settings that keep the order, its traps. Does not belong here:
planning.
"""
