"""Workers on the machines of a Ray cluster: one actor for each device.

Belongs here: what is asked of Ray, and its errors in our words. Does not belong here: which worker gets which task
(workers).
"""

import os
import signal
import socket
import threading
from concurrent.futures import Future
from itertools import count
from typing import TYPE_CHECKING, Any

from saerl_assets.domain.errors import SaerlError
from saerl_assets.resources.workers import Job, WorkerDiedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SECONDS_TO_ANSWER = 10.0


class RayEngine:
    """Actors of a Ray cluster, spread over its nodes.

    Args:
        job: What they do; sent to the cluster once.
        device: As `ComputeResource.device`; an actor sees only the GPUs that Ray gives it.
        n_workers: How many there will be; 0 for one a GPU, or one a node where the cluster has no GPU.
        address: `host:port` or `ray://host:port`; empty for RAY_ADDRESS, else the cluster that runs on this machine,
            else one that is started for this run.

    Raises:
        SaerlError: `ray_missing`, `ray_unreachable`.
    """

    def __init__(self, job: Job[Any, Any], *, device: str, n_workers: int = 0, address: str = "") -> None:
        ray = _ray()
        self._is_ours = not ray.is_initialized()
        if self._is_ours:
            _connect(ray, address)
        self._device = "cuda" if device.startswith("cuda") else device  # the only GPU that an actor sees is its first
        self._numbers = count(1)
        self._totals: Mapping[str, float] = ray.cluster_resources()
        n_nodes = sum(node["Alive"] for node in ray.nodes())
        n_gpus = int(self._totals.get("GPU", 0)) if device != "cpu" else 0
        self.n_workers = n_workers or n_gpus or n_nodes
        n_cpus = max(int(self._totals.get("CPU", 1)) // max(n_nodes, self.n_workers), 1)
        # an actor that dies is started anew by us, so that its task is not tried twice on a machine that fails
        self._options = {"num_gpus": 1, "num_cpus": 1} if n_gpus else {"num_cpus": n_cpus}
        self._job = ray.put(job)
        self._actor = ray.remote(_Actor)

    def start(self) -> "RayWorker":
        """An actor, which waits until the cluster has a place for it."""
        number = next(self._numbers)
        options = {**self._options, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
        return RayWorker(number, self._actor.options(name=None, **options).remote(), self._job, self._device)

    def waits_for(self) -> str:
        """What an actor asks for, and what there is."""
        asks = " and ".join(f"{amount} {name.removeprefix('num_')}" for name, amount in self._options.items())
        return (
            f"each of {self.n_workers} workers asks for {asks}; the cluster has {self._totals.get('CPU', 0):.0f} cpus "
            f"and {self._totals.get('GPU', 0):.0f} gpus, others' included. Models are being loaded, or see: ray status"
        )

    def close(self) -> None:
        """Leaves the cluster, or ends it where it was started for this run."""
        if self._is_ours:
            _ray().shutdown()


class RayWorker:
    """One actor."""

    def __init__(self, number: int, actor: Any, job: Any, device: str) -> None:  # noqa: ANN401 - Ray's handles
        self.name = f"actor {number}"
        self._actor, self._job, self._device = actor, job, device

    def open(self) -> "Future[None]":
        """Loads the job; from then on the name says on which node."""

        def note(where: str) -> None:
            self.name = f"{self.name} on {where}"

        return _watched(self._actor.open.remote(self._job, self._device), note)

    def submit(self, task: Any) -> "Future[Any]":  # noqa: ANN401 - any task
        """Does one task."""
        return _watched(self._actor.run.remote(task))

    def close(self) -> None:
        """Kills the actor: what it still does is not wanted."""
        _ray().kill(self._actor, no_restart=True)


class _Actor:
    """What runs in the cluster."""

    def open(self, job: Job[Any, Any], device: str) -> str:
        """Loads the job; gives the name of the node and the device."""
        from saerl_assets.models.device import use_threads
        from saerl_assets.resources.compute import ComputeResource

        use_threads(int(os.environ.get("OMP_NUM_THREADS", "0")))  # Ray sets it to the actor's share of the node
        self._do = job.open(device)
        node = _ray().util.get_node_ip_address()
        return f"node {node}, {ComputeResource(device=device).chosen_device()}"

    def run(self, task: Any) -> Any:  # noqa: ANN401 - any task
        """Does one task."""
        return self._do(task)


def _watched(reference: Any, on_result: "Callable[[Any], None] | None" = None) -> "Future[Any]":  # noqa: ANN401
    """The call's future, with Ray's errors turned into ours: what the task raised, or that the actor is gone."""
    from ray.exceptions import RayError, RayTaskError

    told: Future[Any] = Future()

    def pass_on(done: "Future[Any]") -> None:
        error = done.exception()
        if isinstance(error, RayTaskError):
            told.set_exception(error.cause if isinstance(error.cause, Exception) else error)
        elif isinstance(error, RayError):
            told.set_exception(WorkerDiedError(str(error).partition("\n")[0]))
        elif error is not None:
            told.set_exception(error)
        else:
            if on_result is not None:
                on_result(done.result())
            told.set_result(done.result())

    reference.future().add_done_callback(pass_on)
    return told


def _ray() -> Any:  # noqa: ANN401 - untyped
    try:
        import ray
    except ImportError as error:
        remedy = "pip install 'saerl_assets[ray]' on this machine and every node, or set compute.engine to local."
        raise SaerlError("ray_missing", "Ray is not installed.", where="compute.engine", remedy=remedy) from error
    return ray


def _connect(ray: Any, address: str) -> None:  # noqa: ANN401 - untyped
    """Joins the cluster at an address, or that of this machine, or starts one."""
    named = address or os.environ.get("RAY_ADDRESS", "")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    on_termination = signal.getsignal(signal.SIGTERM)
    try:
        _check_answers(named)
        ray.init(address=address or None, namespace="saerl", include_dashboard=False, logging_level="error")
        if on_termination is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_termination)  # Ray puts its own in the place of Dagster's
    except (OSError, ValueError, RuntimeError) as error:
        remedy = "Start a cluster (ray start --head), correct ray_address or RAY_ADDRESS, or leave both out."
        where = named or "compute.ray_address"
        raise SaerlError("ray_unreachable", f"{error}.", where=where, remedy=remedy, passing=True) from error


def _check_answers(address: str) -> None:
    """Holds an address `host:port` to be listened at: Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), SECONDS_TO_ANSWER).close()
