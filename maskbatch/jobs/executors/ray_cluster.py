"""The Ray cluster: joining or starting one, dividing its CPUs, and making sure that its nodes see what the driver means."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import maskbatch
from maskbatch.errors import MaskbatchError, MissingExtraError, UsageError, WorkerError
from maskbatch.jobs.executors.base import WorkerSpec
from maskbatch.storage import open_store

CONNECT_TIMEOUT_S = 10.0
OBJECT_STORE_BYTES = 80 << 20
"""Of a cluster that we start: only units and receipts pass through it. Ray's own default is a third of the memory."""


def import_ray() -> Any:
    """Ray, told beforehand what it only reads when it is imported; raises MissingExtraError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anybody
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Under `uv run`, Ray would ship the working folder and build the whole environment anew for every worker; the nodes have maskbatch.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    for setting in ("RAY_raylet_start_wait_time_s=120", "RAY_agent_register_timeout_ms=120000"):
        os.environ.setdefault(*setting.split("="))  # Ray's own 30 s are too short for a busy machine
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("--executor ray needs Ray: pip install 'maskbatch[ray]'") from error
    return ray


def connect(address: str | None) -> bool:
    """Join the cluster at `address` (or RAY_ADDRESS), or start one on this machine; whether it is ours to shut down.

    Raises:
        WorkerError: there is no cluster at the address.
        UsageError: the address is that of a Ray client server, through which a driver does not see the cluster's files.
    """
    ray = import_ray()
    if ray.is_initialized():
        return False
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address.startswith("ray://"):
        raise UsageError("--ray-address ray://… is not supported: start the scan on the cluster with `ray job submit`")
    _knock(address)
    options: dict[str, Any] = {"object_store_memory": OBJECT_STORE_BYTES} if address == "local" else {}
    try:
        ray.init(
            address=address,
            include_dashboard=False if address == "local" else None,
            log_to_driver=False,
            logging_level="ERROR",
            **options,
        )
    except Exception as error:  # Ray raises bare exceptions when a node does not start
        first = str(error).strip().partition("\n")[0]
        what = "Ray cannot be started here" if address == "local" else f"no Ray cluster can be reached at {address}"
        raise WorkerError(f"{what}: {first}") from error
    return True


def _knock(address: str) -> None:
    """Ray itself would try for minutes to reach a port where nobody listens."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise WorkerError(f"no Ray cluster can be reached at {address}: {error.strerror or error}") from error


@dataclass(frozen=True, slots=True)
class ResourceRequest:
    """What each actor asks of the cluster, and how many there are."""

    actors: int
    cpus: float
    gpus: float


def request_resources(nodes: Iterable[dict[str, float]], workers: int, on_gpu: bool) -> ResourceRequest:
    """How the cluster's resources are divided.

    Ray's own tasks need a CPU now and then, and a cluster whose CPUs are all held by actors can come to a stand. So an actor asks for
    slightly less than a CPU: on a node with c CPUs still only c of them fit, but a rest stays free.

    Args:
        nodes: resources of each living node, as Ray names them (``CPU``, ``GPU``).
        workers: actors wanted; 0 is one per CPU, or one per GPU.
        on_gpu: whether the models run on GPUs.

    Raises:
        WorkerError: the cluster has no CPU, or no GPU where one is needed.
    """
    cpus = [node.get("CPU", 0.0) for node in nodes if node.get("CPU", 0.0) > 0]
    gpus = sum(node.get("GPU", 0.0) for node in nodes)
    if not cpus:
        raise WorkerError("the Ray cluster has no CPUs to run workers on")
    if on_gpu and gpus < 1:
        raise WorkerError(
            "the models are to run on GPUs, but the Ray cluster offers none; use --device cpu or add GPU nodes"
        )
    count = workers or int(gpus if on_gpu else sum(math.floor(c) for c in cpus)) or 1
    largest = max(cpus)
    share = (largest + 0.5) / (largest + 1)
    if count * share >= sum(cpus):
        share = 0.95 * sum(cpus) / count
    return ResourceRequest(count, math.floor(share * 1e4) / 1e4, min(1.0, gpus / count) if on_gpu else 0.0)


@dataclass(frozen=True, slots=True)
class ActorConfig:
    """What an actor is told when it starts.

    Attributes:
        spec: makes the worker.
        ledger_url: the work folder.
        probe: name and content of a file that the driver has put there; an actor that does not find it is on another disk.
        inputs: local paths of a few inputs, which the actor must see too.
        version: of the driver's maskbatch.
        folders: local folders that are written to; each holds the probe too.
    """

    spec: WorkerSpec
    ledger_url: str
    probe: tuple[str, bytes]
    inputs: tuple[str, ...]
    version: str
    folders: tuple[str, ...] = ()


def check_place(actor_config: ActorConfig, node: str) -> None:
    """Refuse a node on which the scan would write or read something else than the driver means."""
    if maskbatch.__version__ != actor_config.version:
        raise WorkerError(
            f"node {node[:8]} has maskbatch {maskbatch.__version__}, the driver has {actor_config.version}; install the same one"
        )
    name, content = actor_config.probe
    try:
        seen = open_store(actor_config.ledger_url).read(name)
    except OSError:
        seen = b""
    if seen != content:
        raise UsageError(
            f"node {node[:8]} of the cluster does not see the output {actor_config.ledger_url}; "
            "put it on a file system that all nodes share, or into an object store (--out s3://…)"
        )
    for folder in actor_config.folders:
        if not (Path(folder) / name).exists():
            raise UsageError(
                f"node {node[:8]} of the cluster does not see the folder {folder}; "
                "put it on a file system that all nodes share at the same path"
            )
    for path in actor_config.inputs:
        if not Path(path).exists():
            raise UsageError(
                f"node {node[:8]} of the cluster does not see the input {path}; "
                "put the inputs on a file system that all nodes share at the same path, or into an object store"
            )


def check_nodes(actor_config: ActorConfig, timeout_s: float) -> None:
    """Look at the places from every node that has CPUs, before any work is handed out; raises as `check_place`.

    A node that does not answer in time or dies meanwhile is skipped: each actor looks for itself as well.
    """
    ray = import_ray()
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0.0) > 0]
    if len(nodes) < 2:
        return
    look = ray.remote(_look)
    asked = [
        look.options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            actor_config, node
        )
        for node in nodes
    ]
    answered, _ = ray.wait(asked, num_returns=len(asked), timeout=timeout_s)
    for answer in answered:
        try:
            problem = ray.get(answer)
        except ray.exceptions.RayError:
            continue
        if problem is not None:
            raise problem


def _look(actor_config: ActorConfig, node: str) -> MaskbatchError | None:
    try:
        check_place(actor_config, node)
    except MaskbatchError as error:
        return error
    return None
