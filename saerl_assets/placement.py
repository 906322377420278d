"""Where the graph stands in a Dagster project: the names that it has there, and what its steps do when they fail.

Belongs here: prefixes, groups, pools, resource keys, and rewriting an asset's or a check's definition for them. Does
not belong here: which definitions there are (definitions), and what they compute.

Asset modules speak of `batch_manifest`, `home` and the pool `gpu`. In somebody else's project these may be
`rl/batch_manifest`, `rl_home` and `gpu0`. A definition is rewritten once, when the definitions are built: inputs,
results and resources are renamed on the way in and out, and the functions in `assets/` and `checks/` never know.
"""

import functools
import inspect
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import dagster as dg

from saerl_assets.domain.errors import SaerlError
from saerl_assets.partitions import DATASET_VERSIONS

if TYPE_CHECKING:
    from dagster._core.definitions.output import OutputDefinition

PREFIX_METADATA = "saerl/key_prefix"
"""Metadata of the job by which the command line finds the graph in a project's definitions."""

_PART = re.compile(r"[A-Za-z0-9_]+")
_Placed = TypeVar("_Placed", bound=dg.AssetsDefinition)


@dataclass(frozen=True)
class Retries:
    """How often a step that failed for a passing reason is tried again, and how long it waits: doubled every time."""

    times: int = 4
    seconds: float = 15.0

    def wait_seconds(self, attempt: int) -> float:
        """Before the attempt after `attempt` failed ones."""
        return float(self.seconds * 2**attempt)


@dataclass(frozen=True)
class Placement:
    """The names of the graph in a project.

    Raises:
        SaerlError: `setting_invalid` for names that Dagster cannot take.
    """

    key_prefix: tuple[str, ...] = ()
    """Before the name of every asset, which stays the name of its table."""
    group_name: str | None = None
    """One group for every asset, in place of the graph's five, which otherwise get the prefix too."""
    pool: str | None = None
    """Pool of the assets that read a model, in place of the graph's own."""
    retries: Retries = Retries()
    run_tags: Mapping[str, Any] = field(default_factory=dict)
    """Tags of the runs that read a model, by which a queue counts them and a launcher sizes them."""
    model_tags: Mapping[str, Any] = field(default_factory=dict)
    """Tags of the steps that read a model, for an executor that gives each step a machine."""

    def __post_init__(self) -> None:
        remedy = "Use letters, digits and underscores; a prefix of several parts is written with slashes: team/saerl."
        named = {"key_prefix": self.key_prefix, "group_name": (self.group_name or "group",)}
        named["pool"] = tuple(re.split("[/-]", self.pool or "gpu"))
        for setting, parts in named.items():
            if not all(map(_PART.fullmatch, parts)):
                said = "/".join(parts)
                raise SaerlError("setting_invalid", f"{said!r} is no name in Dagster.", where=setting, remedy=remedy)

    @classmethod
    def parse(cls, key_prefix: str | Sequence[str] | None, **others: Any) -> "Placement":  # noqa: ANN401 - its own fields
        """A placement whose prefix may be written as `team/saerl`."""
        parts = key_prefix.split("/") if isinstance(key_prefix, str) else list(key_prefix or ())
        return cls(key_prefix=tuple(parts) if parts != [""] else (), **others)

    @property
    def slug(self) -> str:
        """The prefix as one word; empty without a prefix."""
        return "_".join(self.key_prefix)

    def key(self, table: str) -> dg.AssetKey:
        """Key of the asset that fills a table."""
        return dg.AssetKey([*self.key_prefix, table])

    def name(self, plain: str) -> str:
        """Name of a job, a sensor or a schedule."""
        return f"{self.slug}_{plain}" if self.slug else plain

    def resource(self, plain: str) -> str:
        """Key of a resource. It never is a plain one such as `home` or `io_manager`, which others may have."""
        return f"{self.slug or 'saerl'}_{plain}"

    def group(self, plain: str) -> str:
        """Name of a group."""
        return self.group_name or self.name(plain)


def place(definition: _Placed, placement: Placement) -> _Placed:
    """An asset's or a check's definition under the names of a placement, with failures that say what to do.

    Args:
        definition: As `assets/` and `checks/` have it: plain keys, every one of them a table's.
        placement: The names.
    """
    step = definition.op
    function: Any = step.compute_fn
    placed = _placed_function(function.decorated_fn, placement)
    renamed = dg.OpDefinition(
        compute_fn=type(function)(decorated_fn=placed),
        name="__".join([*placement.key_prefix, step.name]),
        ins={each.name: dg.In.from_definition(each) for each in step.input_defs},
        outs={each.name: _placed_out(each, placement) for each in step.output_defs},
        description=step.description,
        required_resource_keys={placement.resource(key) for key in step.required_resource_keys},
        tags={**step.tags, **(placement.model_tags if step.pool else {})},
        code_version=None,  # assets have their own
        retry_policy=step.retry_policy,
        pool=step.pool and (placement.pool or step.pool),  # only what reads a model is in a pool
    )
    attributes = definition.get_attributes_dict()
    attributes["node_def"] = renamed
    attributes["check_specs_by_output_name"] = {
        name: _placed_check(spec, placement) for name, spec in definition.node_check_specs_by_output_name.items()
    }
    attributes["selected_asset_check_keys"] = {
        dg.AssetCheckKey(_placed_key(check.asset_key, placement), check.name) for check in definition.check_keys
    }
    inputs = definition.node_keys_by_input_name.values()
    keys = {key: _placed_key(key, placement) for key in {*definition.keys, *definition.dependency_keys, *inputs}}
    whole = type(definition).dagster_internal_init(**attributes)
    under_keys: Any = whole.with_attributes(asset_key_replacements=keys)
    found_again: _Placed = under_keys if definition.keys else under_keys.coerce_to_checks_def()
    return found_again


def as_failure(error: SaerlError) -> dg.Failure:
    """A failure whose first line is what is wrong and what to do; trying again does not help."""
    place_of_it = f"{error.where}: " if error.where else ""
    said = " ".join(f"{place_of_it}{error.problem} {error.remedy} [{error.code}]".split())
    metadata = {"problem": error.problem, "what to do": error.remedy, "code": error.code}
    return dg.Failure(said, {**metadata, "where": error.where} if error.where else metadata, allow_retries=False)


@contextmanager
def told_plainly() -> Iterator[None]:
    """Turns a `SaerlError` into a failure of the step that says what to do."""
    try:
        yield
    except SaerlError as error:
        raise as_failure(error) from error


@contextmanager
def tried_again(retries: Retries) -> Iterator[None]:
    """Has a step that failed for a passing reason tried again after a while; other errors are told plainly."""
    try:
        with told_plainly():
            yield
    except dg.Failure as failure:
        error = failure.__cause__
        if not (isinstance(error, SaerlError) and error.passing):
            raise
        context = dg.OpExecutionContext.get()
        if context.retry_number >= retries.times:
            raise
        wait = retries.wait_seconds(context.retry_number)
        context.log.warning(f"{failure.description} It is tried again in {wait:,.0f} s.")
        raise dg.RetryRequested(max_retries=retries.times, seconds_to_wait=wait) from error


def _placed_key(key: dg.AssetKey, placement: Placement) -> dg.AssetKey:
    return placement.key(key.path[-1])


def _placed_check(spec: dg.AssetCheckSpec, placement: Placement) -> dg.AssetCheckSpec:
    """The check under the keys of its asset and of the others that it looks at, with an answer for every version.

    Without partitions of its own the UI shows only the check's last answer, whatever version that was about.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # Dagster calls partitions of checks a preview
        return dg.AssetCheckSpec(
            spec.name,
            asset=_placed_key(spec.asset_key, placement),
            description=spec.description,
            additional_deps=[_placed_key(dep.asset_key, placement) for dep in spec.additional_deps],
            blocking=spec.blocking,
            metadata=spec.metadata,
            partitions_def=DATASET_VERSIONS,
        )


def _placed_out(output: "OutputDefinition", placement: Placement) -> dg.Out:
    """The output, stored in the warehouse."""
    out: dg.Out = dg.Out.from_definition(output)
    return out._replace(io_manager_key=placement.resource("tables"))


def _placed_function(function: Callable[..., Any], placement: Placement) -> Callable[..., Any]:
    """The function with its resources under their keys, its results under their keys, and failures told plainly."""
    signature = inspect.signature(function, eval_str=True)
    resources = {
        placement.resource(name): name
        for name, parameter in signature.parameters.items()
        if inspect.isclass(parameter.annotation) and issubclass(parameter.annotation, dg.ConfigurableResource)
    }

    def plain(named: Mapping[str, Any]) -> dict[str, Any]:
        return {resources.get(name, name): value for name, value in named.items()}

    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def placed(*given: object, **named: object) -> Iterator[object]:
            with tried_again(placement.retries):
                for result in function(*given, **plain(named)):
                    yield _placed_result(result, placement)
    else:

        @functools.wraps(function)
        def placed(*given: object, **named: object) -> object:
            with tried_again(placement.retries):
                return function(*given, **plain(named))

    keys = {name: key for key, name in resources.items()}
    placed.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[each.replace(name=keys.get(each.name, each.name)) for each in signature.parameters.values()]
    )
    return placed


def _placed_result(result: object, placement: Placement) -> object:
    """A result of one of several assets, under the key that the asset has here."""
    if not isinstance(result, dg.MaterializeResult) or result.asset_key is None:
        return result
    return dg.MaterializeResult(
        asset_key=_placed_key(result.asset_key, placement),
        value=result.value,
        metadata=result.metadata,
        check_results=list(result.check_results or ()),
        data_version=result.data_version,
        tags=result.tags,
    )
