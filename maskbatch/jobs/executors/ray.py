"""Workers as Ray actors: the same worker as everywhere, on as many machines as the cluster has.

The driver (this process) sends units and gets receipts; pictures and rows never travel. While an actor works, a second thread of it
answers the driver's question whether anything moves. An actor that dies, or in which nothing moves for `--timeout`, or that grows over
its memory limit, is replaced; the scheduler decides what becomes of its unit.

The driver keeps one unit out per actor, waits for the next answer with a time-out, and gives up with a diagnosis when no actor has
come to life for a while: it never waits for ever.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import maskbatch
from maskbatch.config import Execution
from maskbatch.errors import InputErrorCode, MaskbatchError, OutputError, WorkerError
from maskbatch.jobs.executors.base import WorkerSpec, describe_failure, open_ledger, work
from maskbatch.jobs.executors.ray_cluster import Errand, Shares, check_nodes, check_place, connect, import_ray, shares
from maskbatch.jobs.scheduler import Scheduler
from maskbatch.storage import open_store
from maskbatch.types import Event, WorkUnit

POLL_S = 0.5
PULSE_S = 1.0
NODE_DEATH_S = 2.0
START_TIMEOUT_S = 180.0
"""An error when for so long no actor has been alive, though work is left."""
MAX_FAILED_STARTS = 3
PROBED_INPUTS = 8


@dataclass(frozen=True, slots=True)
class _Pulse:
    """An actor's sign of life: when something last moved (seconds ago), what it has begun and not ended, its memory."""

    quiet_s: float
    begun: frozenset[int]
    resident_mb: float


@dataclass(frozen=True, slots=True)
class _Broke:
    """An exception that a worker should not have let through, as `Scheduler.lost` is told of it."""

    cause: InputErrorCode
    suspects: None
    detail: str


class _Workplace:
    """The actor. `open` and `run` are called one after the other in one thread, `pulse` in another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._moved = time.monotonic()
        self._begun: set[int] = set()

    def open(self, errand: Errand) -> str | MaskbatchError:
        """Load the models; the id of the node, or why this actor cannot work."""
        import ray

        node = str(ray.get_runtime_context().get_node_id())
        try:
            check_place(errand, node)
            self._worker = errand.spec.open()
            self._ledger = open_ledger(errand.ledger_url)
        except MaskbatchError as error:
            return error
        except Exception as error:
            return WorkerError(f"a worker failed on node {node[:8]}: {describe_failure(error)[2]}")
        return node

    def run(self, unit: WorkUnit) -> Any:
        """The unit's receipt, a split, or the error that ends the run."""
        with self._lock:
            self._begun = set()
            self._moved = time.monotonic()
        try:
            return work(self._worker, self._ledger, unit, self._report)
        except MaskbatchError as error:
            return error
        except Exception as error:
            return _Broke(*describe_failure(error))

    def pulse(self) -> _Pulse:
        """What moves."""
        with self._lock:
            return _Pulse(time.monotonic() - self._moved, frozenset(self._begun), _resident_mb())

    def _report(self, event: Event, index: int) -> None:
        with self._lock:
            self._moved = time.monotonic()
            if event == "begin":
                self._begun.add(index)
            elif event == "end":
                self._begun.discard(index)


def _resident_mb() -> float:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass(slots=True)
class _Actor:
    """The driver's view of one actor.

    Attributes:
        handle: Ray's.
        opening: the answer to `open`, until it has come.
        node: where it runs, once known.
        unit, answer: what it works on, and Ray's promise of the receipt.
        question: the pulse that has been asked for and not answered; `asked` is when.
        heard: when something last moved in it.
        begun, resident_mb: of the last pulse.
    """

    handle: Any
    opening: Any
    node: str = ""
    unit: WorkUnit | None = None
    answer: Any = None
    question: Any = None
    asked: float = 0.0
    heard: float = field(default_factory=time.monotonic)
    begun: frozenset[int] = frozenset()
    resident_mb: float = 0.0

    @property
    def ready(self) -> bool:
        return bool(self.node)

    def pending(self) -> list[Any]:
        return [ref for ref in (self.opening, self.answer, self.question) if ref is not None]


class RayExecutor:
    """Actors on a Ray cluster; see the module."""

    def __init__(self) -> None:
        self._ours = False
        self._actors: list[_Actor] = []
        self._failed_starts = 0
        self._last_ready = time.monotonic()

    def workers(self, execution: Execution, on_gpu: bool) -> int:
        """How many workers there will be; connects to the cluster."""
        self._ours = connect(execution.ray_address) or self._ours
        return self._shares(execution, on_gpu).actors

    def run(self, scheduler: Scheduler, spec: WorkerSpec, ledger_url: str, execution: Execution) -> None:
        """See `Executor.run`."""
        on_gpu = bool(getattr(getattr(spec, "device", None), "is_gpu", False))
        probe = (f"probe-{uuid.uuid4().hex[:12]}", uuid.uuid4().hex.encode())
        try:
            self._ours = connect(execution.ray_address) or self._ours
            self._sized = self._shares(execution, on_gpu)
            store = open_store(ledger_url)
            store.write(*probe)
            try:
                first = scheduler.next()
                if first is None:
                    return
                errand = Errand(spec, ledger_url, probe, _seen_here(first), maskbatch.__version__)
                check_nodes(errand, START_TIMEOUT_S)
                self._loop(scheduler, errand, execution, first)
            finally:
                with contextlib.suppress(OutputError):
                    store.remove(probe[0])
        finally:
            self._leave()

    # --- the cluster

    def _shares(self, execution: Execution, on_gpu: bool) -> Shares:
        nodes = [node["Resources"] for node in import_ray().nodes() if node["Alive"]]
        return shares(nodes, execution.workers, on_gpu)

    def _leave(self) -> None:
        ray = import_ray()
        for actor in self._actors:
            with contextlib.suppress(Exception):
                ray.kill(actor.handle, no_restart=True)
        self._actors = []
        if self._ours:
            ray.shutdown()
            self._ours = False

    def _start(self, errand: object) -> _Actor:
        ray = import_ray()
        workplace = ray.remote(concurrency_groups={"watch": 1})(_Workplace).options(
            num_cpus=self._sized.cpus,
            num_gpus=self._sized.gpus,
            max_restarts=0,  # the loop below starts another, so that it knows whose unit was lost
            scheduling_strategy="SPREAD",
        )
        handle = workplace.remote()
        return _Actor(handle, handle.open.remote(errand))

    # --- the loop

    def _loop(self, scheduler: Scheduler, errand: Errand, execution: Execution, first: WorkUnit) -> None:
        ray = import_ray()
        spare: WorkUnit | None = first
        parcel = ray.put(errand)
        self._last_ready = time.monotonic()
        self._actors = [self._start(parcel) for _ in range(self._sized.actors)]
        while not scheduler.finished:
            for actor in self._actors:
                if actor.ready and actor.unit is None:
                    unit, spare = (spare, None) if spare is not None else (scheduler.next(), None)
                    if unit is None:
                        break
                    self._send(actor, unit)
            owners = {ref: actor for actor in self._actors for ref in actor.pending()}
            ready, _ = ray.wait(list(owners), num_returns=1, timeout=POLL_S)
            for ref in ready:
                self._hear(owners[ref], ref, scheduler)
            self._watch(scheduler, execution)
            while len(self._actors) < self._sized.actors and not scheduler.finished:
                self._actors.append(self._start(parcel))

    def _send(self, actor: _Actor, unit: WorkUnit) -> None:
        actor.unit = unit
        actor.begun = frozenset()
        actor.heard = time.monotonic()
        actor.answer = actor.handle.run.remote(unit)

    def _hear(self, actor: _Actor, ref: Any, scheduler: Scheduler) -> None:
        ray = import_ray()
        if actor not in self._actors:
            return
        try:
            content = ray.get(ref)
        except ray.exceptions.RayError as error:
            self._bury(actor, scheduler, *_cause_of_death(error))
            return
        if isinstance(content, MaskbatchError):
            raise content
        if isinstance(content, _Broke):
            self._bury(actor, scheduler, content.cause, detail=content.detail)
            return
        if ref == actor.question:
            actor.question = None
            actor.begun, actor.resident_mb = content.begun, content.resident_mb
            actor.heard = max(actor.heard, time.monotonic() - content.quiet_s)
            return
        actor.heard = time.monotonic()
        if ref == actor.opening:
            actor.opening, actor.node = None, content
            self._failed_starts = 0
        elif actor.unit is not None:
            unit, actor.unit, actor.answer = actor.unit, None, None
            scheduler.completed(unit, content)

    def _watch(self, scheduler: Scheduler, execution: Execution) -> None:
        now = time.monotonic()
        if any(actor.ready for actor in self._actors):
            self._last_ready = now
        elif now - self._last_ready > START_TIMEOUT_S:
            raise WorkerError(self._diagnosis())
        for actor in list(self._actors):
            if actor.unit is None or not actor.ready:
                continue
            if now - actor.heard > execution.timeout_s:
                # A decoder that hangs while it holds the interpreter keeps the pulse from being answered as well.
                self._bury(actor, scheduler, "hung", actor.begun if actor.question is None else None)
            elif execution.max_memory_mb and actor.resident_mb > execution.max_memory_mb:
                self._bury(actor, scheduler, "out_of_memory", actor.begun)
            elif actor.question is None and now - actor.asked > PULSE_S:
                actor.asked = now
                actor.question = actor.handle.pulse.options(concurrency_group="watch").remote()

    def _bury(
        self,
        actor: _Actor,
        scheduler: Scheduler,
        cause: InputErrorCode,
        suspects: Iterable[int] | None = None,
        detail: str = "",
    ) -> None:
        """Remove an actor and give its unit back: as a suspect, unless its whole node is gone."""
        ray = import_ray()
        if actor not in self._actors:
            return
        self._actors.remove(actor)
        with contextlib.suppress(Exception):  # dead already
            ray.kill(actor.handle, no_restart=True)
        if actor.unit is not None:
            if cause == "crashed" and self._is_gone(actor.node):
                scheduler.returned(actor.unit, f"node {actor.node[:8]} of the cluster is gone")
            else:
                scheduler.lost(actor.unit, cause, suspects, detail)
        elif not actor.ready:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                raise WorkerError(
                    f"Ray actors do not start: {self._failed_starts} ended while loading. {self._diagnosis()}"
                )

    def _is_gone(self, node: str) -> bool:
        """Whether a node is dead. Ray learns of an actor's death and of its node's within a moment of each other."""
        deadline = time.monotonic() + NODE_DEATH_S
        while True:
            if not any(other["NodeID"] == node and other["Alive"] for other in import_ray().nodes()):
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)

    def _diagnosis(self) -> str:
        ray = import_ray()
        alive = [node for node in ray.nodes() if node["Alive"]]
        total, free = ray.cluster_resources(), ray.available_resources()
        wanted = f"{self._sized.cpus:g} CPU" + (f" and {self._sized.gpus:g} GPU" if self._sized.gpus else "")
        return (
            f"no worker has been alive for {time.monotonic() - self._last_ready:.0f} s. The cluster has {len(alive)} living nodes with "
            f"{total.get('CPU', 0):g} CPUs and {total.get('GPU', 0):g} GPUs, of which {free.get('CPU', 0):g} and "
            f"{free.get('GPU', 0):g} are free; each of {self._sized.actors} workers asks for {wanted}. "
            "See `ray status` and Ray's logs on the nodes (/tmp/ray/session_latest/logs)"
        )


def _cause_of_death(error: Exception) -> tuple[InputErrorCode, None, str]:
    """What `Scheduler.lost` is told of an actor that Ray reports dead."""
    if "OutOfMemory" in type(error).__name__ or "memory pressure" in str(error):
        return "out_of_memory", None, "Ray ended the worker because its node had no memory left"
    return "crashed", None, "its Ray actor died"


def _seen_here(unit: WorkUnit) -> tuple[str, ...]:
    """Local paths of some inputs that the driver sees."""
    paths = (piece.source.path for piece in unit.pieces[:PROBED_INPUTS])
    return tuple(path for path in paths if "://" not in path and Path(path).exists())
