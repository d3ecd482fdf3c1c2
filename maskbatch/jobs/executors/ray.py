"""Workers as Ray actors: the same worker as everywhere, on as many machines as the cluster has.

The driver (this process) sends units and gets receipts; images and rows never travel. While an actor works, a second thread of it
answers the driver's question whether anything moves.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import maskbatch
from maskbatch.config import Execution
from maskbatch.errors import MaskbatchError, OutputError, WorkerError
from maskbatch.jobs.executors.base import WorkerSpec, describe_failure, open_ledger, work
from maskbatch.jobs.executors.processes import resident_mb
from maskbatch.jobs.executors.ray_cluster import (
    ActorConfig,
    ResourceRequest,
    check_nodes,
    check_place,
    connect,
    import_ray,
    request_resources,
)
from maskbatch.jobs.executors.supervisor import (
    Burial,
    Message,
    Observation,
    Ready,
    SupervisedWorker,
    Supervisor,
    WorkerFailure,
)
from maskbatch.jobs.scheduler import Scheduler
from maskbatch.storage import open_store
from maskbatch.types import Event, WorkUnit

HEARTBEAT_S = 1.0
NODE_DEATH_S = 2.0
START_TIMEOUT_S = 180.0
"""An error when for this long no actor has been alive, though work is left."""
PROBED_INPUTS = 8


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """An actor's sign of life: what has moved, when something last did (seconds ago), what it has begun and not ended, its memory."""

    signs: int
    quiet_s: float
    begun: frozenset[int]
    resident_mb: float


class ScanActor:
    """The actor. `open` and `run` are called one after the other in one thread, `heartbeat` in another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._moved = time.monotonic()
        self._signs = 0
        self._begun: set[int] = set()

    def open(self, config: ActorConfig) -> str | MaskbatchError:
        """Load the models; the id of the node, or why this actor cannot work."""
        import ray

        node = str(ray.get_runtime_context().get_node_id())
        try:
            check_place(config, node)
            self._worker = config.spec.open()
            self._ledger = open_ledger(config.ledger_url)
        except MaskbatchError as error:
            return error
        except Exception as error:
            return WorkerError(f"a worker failed on node {node[:8]}: {describe_failure(error)[1]}")
        return node

    def run(self, unit: WorkUnit) -> Message:
        """The unit's receipt, a split, or the error that ends the run."""
        with self._lock:
            self._begun = set()
            self._moved = time.monotonic()
        try:
            return work(self._worker, self._ledger, unit, self._report)
        except MaskbatchError as error:
            return error
        except Exception as error:
            return WorkerFailure(*describe_failure(error))

    def heartbeat(self) -> Heartbeat:
        """What moves."""
        with self._lock:
            return Heartbeat(self._signs, time.monotonic() - self._moved, frozenset(self._begun), resident_mb(None))

    def _report(self, event: Event, index: int) -> None:
        with self._lock:
            self._moved = time.monotonic()
            self._signs = (self._signs + 1) & 0xFFFFFFFF
            if event == "begin":
                self._begun.add(index)
            elif event == "end":
                self._begun.discard(index)


@dataclass(slots=True, eq=False, kw_only=True)
class _Actor(SupervisedWorker):
    """The driver's view of one actor.

    Attributes:
        handle: Ray's.
        opening: the answer to `open`, until it has come.
        node: where it runs, once known.
        answer: Ray's promise of the receipt of its unit.
        question: the heartbeat that has been asked for and not answered; `asked` is when.
        last: the heartbeat that came last.
    """

    handle: Any
    opening: Any
    node: str = ""
    answer: Any = None
    question: Any = None
    asked: float = 0.0
    last: Heartbeat | None = None

    def pending(self) -> list[Any]:
        return [ref for ref in (self.opening, self.answer, self.question) if ref is not None]


class RayExecutor:
    """Actors on a Ray cluster; see the module."""

    def __init__(self) -> None:
        self._ours = False

    def workers(self, execution: Execution, gpus: int) -> int:
        """How many workers there will be; connects to the cluster."""
        self._ours = connect(execution.ray_address) or self._ours
        return _request(execution, gpus).actors

    def run(self, scheduler: Scheduler, spec: WorkerSpec, ledger_url: str, execution: Execution) -> None:
        """See `Executor.run`."""
        probe = (f".probe-{uuid.uuid4().hex[:12]}", uuid.uuid4().hex.encode())
        try:
            self._ours = connect(execution.ray_address) or self._ours
            stores = [open_store(place) for place in (ledger_url, *spec.folders)]
            for store in stores:
                store.write(*probe)
            try:
                seen = tuple(source.path for source in scheduler.sample(PROBED_INPUTS) if _is_seen_here(source.path))
                config = ActorConfig(spec.for_worker(0), ledger_url, probe, seen, maskbatch.__version__, spec.folders)
                check_nodes(config, START_TIMEOUT_S)
                Supervisor(_RayHost(config, _request(execution, spec.gpus)), scheduler, execution).run()
            finally:
                for store in stores:
                    with contextlib.suppress(OutputError):
                        store.remove(probe[0])
        finally:
            if self._ours:
                import_ray().shutdown()
                self._ours = False


class _RayHost:
    """Workers as actors of a cluster (`supervisor.WorkerHost`)."""

    start_timeout_s = math.inf  # an actor may have to wait until the cluster has room for it

    def __init__(self, config: ActorConfig, request: ResourceRequest) -> None:
        self._config = import_ray().put(config)
        self._request = request
        self.count = request.actors
        self.idle_timeout_s = START_TIMEOUT_S

    def start(self, number: int) -> _Actor:
        ray = import_ray()
        actor = ray.remote(concurrency_groups={"watch": 1})(ScanActor).options(
            num_cpus=self._request.cpus,
            num_gpus=self._request.gpus,
            max_restarts=0,  # the supervisor starts another, so that it knows whose unit was lost
            scheduling_strategy="SPREAD",
        )
        handle = actor.remote()
        return _Actor(number=number, handle=handle, opening=handle.open.remote(self._config))

    def started(self) -> None:
        """Nothing to do."""

    def send(self, worker: _Actor, unit: WorkUnit) -> None:
        worker.last = None
        worker.answer = worker.handle.run.remote(unit)

    def is_alive(self, worker: _Actor) -> bool:
        return True

    def messages(self, workers: Sequence[_Actor], timeout_s: float) -> Iterator[tuple[_Actor, Message]]:
        ray = import_ray()
        owners = {ref: actor for actor in workers for ref in actor.pending()}
        ready, _ = ray.wait(list(owners), num_returns=1, timeout=timeout_s)
        for ref in ready:
            actor = owners[ref]
            try:
                content = ray.get(ref)
            except ray.exceptions.RayError as error:
                yield actor, _failure(error)
                continue
            if ref == actor.question:
                actor.question, actor.last = None, content
                continue
            if ref == actor.opening:
                actor.opening = None
                if isinstance(content, str):
                    actor.node, content = content, Ready()
            else:
                actor.answer = None
            yield actor, content

    def observe(self, worker: _Actor) -> Observation | None:
        if worker.question is None and time.monotonic() - worker.asked > HEARTBEAT_S:
            worker.asked = time.monotonic()
            worker.question = worker.handle.heartbeat.options(concurrency_group="watch").remote()
        last = worker.last
        return None if last is None else Observation(last.signs, last.quiet_s, last.resident_mb)

    def bury(self, worker: _Actor, failure: WorkerFailure) -> Burial:
        self.stop(worker)
        if failure.cause == "crashed":
            gone = f"node {worker.node[:8]} of the cluster is gone" if worker.node and _is_gone(worker.node) else ""
            return Burial("crashed", failure.detail, place_gone=gone)
        # A decoder that hangs while it holds the interpreter keeps the heartbeat from being answered as well.
        known = worker.last is not None and (failure.cause != "hung" or worker.question is None)
        return Burial(failure.cause, failure.detail, worker.last.begun if worker.last and known else None)

    def dismiss(self, workers: Sequence[_Actor]) -> None:
        """They are ended by `stop`."""

    def stop(self, worker: _Actor) -> None:
        with contextlib.suppress(Exception):  # dead already
            import_ray().kill(worker.handle, no_restart=True)

    def diagnosis(self) -> str:
        ray = import_ray()
        alive = [node for node in ray.nodes() if node["Alive"]]
        total, free = ray.cluster_resources(), ray.available_resources()
        wanted = f"{self._request.cpus:g} CPU" + (f" and {self._request.gpus:g} GPU" if self._request.gpus else "")
        return (
            f"The cluster has {len(alive)} living nodes with "
            f"{total.get('CPU', 0):g} CPUs and {total.get('GPU', 0):g} GPUs, of which {free.get('CPU', 0):g} and "
            f"{free.get('GPU', 0):g} are free; each of {self._request.actors} workers asks for {wanted}. "
            "See `ray status` and Ray's logs on the nodes (/tmp/ray/session_latest/logs)"
        )


def _request(execution: Execution, gpus: int) -> ResourceRequest:
    nodes = [node["Resources"] for node in import_ray().nodes() if node["Alive"]]
    return request_resources(nodes, execution.workers, gpus > 0)


def _is_gone(node: str) -> bool:
    """Whether a node is dead. Ray learns of an actor's death and of its node's within a moment of each other."""
    deadline = time.monotonic() + NODE_DEATH_S
    while True:
        if not any(other["NodeID"] == node and other["Alive"] for other in import_ray().nodes()):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)


def _failure(error: Exception) -> WorkerFailure:
    """What is told of an actor that Ray reports dead."""
    if "OutOfMemory" in type(error).__name__ or "memory pressure" in str(error):
        return WorkerFailure("out_of_memory", "Ray ended the worker because its node had no memory left")
    return WorkerFailure("crashed", "its Ray actor died")


def _is_seen_here(path: str) -> bool:
    return "://" not in path and Path(path).exists()
