"""One team's code location: the graph under the team's name, in its own home, on the devices of the cluster.

    SAERL_TEAM=math dagster api grpc --module-name definitions --host 0.0.0.0 --port 4000

Belongs here: what a deployment sets. Does not belong here: assets.
"""

import os

from saerl_assets.definitions import build_definitions

TEAM = os.environ["SAERL_TEAM"]

DEVICE = {"saerl/device": "gpu"}
"""Tag of a whole run, by which the queue in dagster.yaml counts devices."""

KUBERNETES = {
    "dagster-k8s/config": {
        "container_config": {
            "resources": {
                "requests": {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "1"},
                "limits": {"memory": "64Gi", "nvidia.com/gpu": "1"},
            },
        },
        "pod_spec_config": {
            "node_selector": {"nvidia.com/gpu.present": "true"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        },
        "job_spec_config": {"ttl_seconds_after_finished": 3600},
    }
}
"""What a pod that reads a model asks for; elsewhere than on Kubernetes nobody reads it."""

# The run is one pod, so that a model loads once: what its steps need, the run asks for.
defs = build_definitions(key_prefix=TEAM, automation=True, run_tags=DEVICE | KUBERNETES, model_tags=KUBERNETES)
