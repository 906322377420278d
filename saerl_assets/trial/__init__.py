"""Training one policy in several orders, to see whether the order saves steps.

Belongs here: one training through TRL's own trainer (training), all of a trial's trainings one after the other (runs).
Does not belong here: what the results show (domain.trial), exports and the callback that holds a training to them
(trainers).
"""
