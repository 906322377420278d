"""The Dagster component `saerl_assets.SaerlComponent`: the graph in another project, by YAML.

Belongs here: attributes of the YAML and what they become. Does not belong here: the definitions (definitions).
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import dagster as dg

from saerl_assets.definitions import build_definitions
from saerl_assets.domain.errors import SaerlError
from saerl_assets.resources.compute import ComputeResource
from saerl_assets.resources.home import HomeResource
from saerl_assets.storage.lake_address import is_lake


def _told(description: str, example: object) -> dg.Resolver:
    """What `dg` shows of an attribute."""
    resolver: dg.Resolver = dg.Resolver.default(description=description, examples=[example])
    return resolver


class ComputeAttributes(dg.Model, dg.Resolvable):
    """Where models run. The number format is the spec's `reader.dtype`: in another one, other features are read."""

    device: Annotated[str, _told("auto, cpu, cuda, cuda:N or mps.", "cuda:0")] = "auto"
    token_budget: Annotated[
        int, _told("Tokens in one forward pass, padding included; 0 for the device's default, or what fitted.", 16384)
    ] = 0
    texts_per_shard: Annotated[int, _told("Texts read and kept together; 0 for the device's default.", 1024)] = 0
    generator: Annotated[str, _told("What a policy answers with: auto, transformers or vllm.", "vllm")] = "auto"
    engine: Annotated[str, _told("local, or ray; empty for SAERL_ENGINE, else local.", "ray")] = ""
    workers: Annotated[int, _told("Processes that read at once; 0 for one a device.", 4)] = 0
    ray_address: Annotated[str, _told("The Ray cluster; empty for RAY_ADDRESS, else this machine's.", "head:6379")] = ""


class SaerlComponent(dg.Component, dg.Model, dg.Resolvable):
    """Prompt datasets, read by a language model and an SAE, as ordered training batches.

    Every asset of saerl_assets, with its checks, job, sensors and schedules, beside the project's own.
    """

    home: Annotated[
        str,
        _told(
            "Folder that everything is kept in; a relative one starts at the project's root. By default SAERL_HOME, "
            "else the nearest .saerl upwards.",
            ".saerl",
        ),
    ] = ""
    warehouse: Annotated[
        str,
        _told(
            "The DuckDB file, where it is not warehouse.duckdb in the home, relative as the home is; or a lake: "
            "ducklake:postgres:dbname=lake host=db.example.org user=saerl.",
            "/fast/saerl.duckdb",
        ),
    ] = ""
    data_path: Annotated[str, _told("Where a lake's files are: a folder or an URL.", "s3://team-rl/tables")] = ""
    bucket: Annotated[
        str, _told("URL where artefacts and unfinished shards are kept too, for other machines.", "s3://team-rl/home")
    ] = ""
    compute: Annotated[ComputeAttributes, _told("Where models run.", {"device": "cuda:0"})] = ComputeAttributes()
    key_prefix: Annotated[
        str | list[str], _told("Before the name of every asset, job, sensor, group and resource.", "team/rl")
    ] = ""
    group_name: Annotated[str | None, _told("One group for all assets, in place of the graph's five.", "saerl")] = None
    pool: Annotated[str | None, _told("Pool of the assets that read a model; by default gpu.", "a100")] = None
    automation: Annotated[
        bool,
        _told(
            "Whether the sensors and schedules that start runs are on from the beginning; otherwise they are there, "
            "stopped.",
            True,  # noqa: FBT003 - an example of the YAML
        ),
    ] = False
    on_failure: Annotated[
        str | None,
        _told(
            "Function that is told of failed runs, as module:name. It takes a saerl_assets Alert.", "acme.paging:page"
        ),
    ] = None

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        """What `dg list components` shows of it."""
        return dg.ComponentTypeSpec(
            description="Prompt datasets as ordered training batches, by what a language model's SAE features say.",
            tags=["rl", "sae", "duckdb"],
        )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The definitions that the attributes ask for."""
        root = context.project_root
        in_lake = is_lake(self.warehouse)
        home = HomeResource(
            root=_from(root, self.home),
            warehouse_file="" if in_lake else _from(root, self.warehouse),
            lake=self.warehouse if in_lake else "",
            data_path=self.data_path,
            bucket=self.bucket,
        )
        return build_definitions(
            home=home,
            compute=ComputeResource(**self.compute.model_dump()),
            key_prefix=self.key_prefix,
            group_name=self.group_name,
            pool=self.pool,
            automation=self.automation,
            on_failure=_function(self.on_failure) if self.on_failure else None,
        )


def _from(root: Path, path: str) -> str:
    """A path as the project means it; empty stays empty."""
    return str((root / Path(path).expanduser()).resolve()) if path else ""


def _function(name: str) -> Callable[..., Any]:
    """A function by its module and name.

    Raises:
        SaerlError: `setting_invalid`.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        remedy = "Write module:function, such as acme.paging:page."
        raise SaerlError("setting_invalid", f"{error}.", where=f"on_failure: {name}", remedy=remedy) from error
    if not callable(found):
        remedy = "Name a function there."
        raise SaerlError("setting_invalid", f"{name} is no function.", where="on_failure", remedy=remedy)
    called: Callable[..., Any] = found
    return called
