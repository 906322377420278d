"""The one partition dimension: dataset versions.

Belongs here: its definition. Does not belong here: adding or removing versions, which registering and deleting do.
"""

import dagster as dg

DATASET_VERSIONS = dg.DynamicPartitionsDefinition(name="dataset_version")
