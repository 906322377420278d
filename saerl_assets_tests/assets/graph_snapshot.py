"""The asset graph as plain values, to be compared with what was recorded.

Belongs here: reading it out of the definitions and recording it. Does not belong here: judging it.

After an intended change: python -m saerl_assets_tests.assets.graph_snapshot
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg

from saerl_assets.definitions import defs

RECORDED = Path(__file__).with_name("graph_snapshot.json")
COMMAND = "python -m saerl_assets_tests.assets.graph_snapshot"


def asset_graph() -> dict[str, dict[str, Any]]:
    """By asset what the UI shows of it: group, owners, kinds, dependencies, pools, partitions, grain and checks."""
    graph = defs.resolve_asset_graph()
    return {key.to_user_string(): _asset(graph, key) for key in sorted(graph.get_all_asset_keys())}


def _asset(graph: Any, key: dg.AssetKey) -> dict[str, Any]:  # noqa: ANN401 - Dagster's own graph
    node = graph.get(key)
    checks = [graph.get(check) for check in sorted(graph.get_check_keys_for_assets({key}), key=lambda each: each.name)]
    return {
        "group": node.group_name,
        "owners": sorted(node.owners),
        "kinds": sorted(node.kinds),
        "dependencies": sorted(parent.to_user_string() for parent in node.parent_keys),
        "pools": sorted(node.pools or ()),
        "code_version": node.code_version,
        "partitions": node.partitions_def.name if node.partitions_def else None,
        "grain": (node.description or "").partition("\n")[0],
        "checks": {
            check.key.name: {"blocking": check.blocking, "description": (check.description or "").strip()}
            for check in checks
        },
    }


def as_text(graph: dict[str, dict[str, Any]]) -> str:
    """The document that is recorded."""
    return json.dumps(graph, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    RECORDED.write_text(as_text(asset_graph()), encoding="utf-8")
