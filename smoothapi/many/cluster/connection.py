"""Where the cluster is, what machines it has, and which of them do what."""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from smoothapi.errors import ClusterError, MissingExtraError, UsageError
from smoothapi.text import printable, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_CLIENT = re.compile(r"ray://(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:(?P<port>[0-9]{1,5}))?/?")
_PORT = 10_001  # where Ray's head listens for clients
_CORES_A_WORKER = 4


@dataclass(frozen=True, slots=True)
class Cluster:
    """Machines that share the work on many photos.

    Args:
        address: "ray://HOST" or "ray://HOST:PORT" for a cluster of Ray that is elsewhere; "auto"
            for the one that this machine belongs to; "local" for the processors of this machine
            alone. A program that has connected to Ray itself keeps its connection, whatever the
            address.
        workers: processes that ask the provider; by default one a machine, and one more for each
            4 of its cores beyond the first 4. Each holds its own `concurrency` and
            `photos_at_once`.

    Raises:
        UsageError: the address is none of these, or workers is less than 1.
    """

    address: str
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.address not in ("local", "auto") and not _CLIENT.fullmatch(self.address):
            raise UsageError(
                f"cluster={shortened(self.address)}: give ray://HOST or ray://HOST:PORT, auto (the "
                "cluster that this machine belongs to), or local (this machine alone)."
            )
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"workers={self.workers}: at least one process asks the provider.")

    @classmethod
    def of(cls, given: Cluster | str) -> Cluster:
        """Return the cluster that is meant."""
        return given if isinstance(given, Cluster) else cls(given)

    @property
    def url(self) -> str:
        """The address as Ray takes it."""
        found = _CLIENT.fullmatch(self.address)
        if found is None:
            return self.address
        return f"ray://{found['host']}:{found['port'] or _PORT}"


def import_ray() -> Any:
    """Return Ray.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import ray  # noqa: PLC0415  an extra, and slow to import
    except ImportError as error:
        raise MissingExtraError(
            "A cluster needs Ray, here and on its machines: pip install 'smoothapi-vision[ray]' "
            f"({error})."
        ) from error
    # Python would print Ray's warnings where no logging is set up; where it is, they are there.
    log = logging.getLogger("ray")
    if not log.handlers:
        log.addHandler(logging.NullHandler())
    return ray


@contextmanager
def connected(cluster: Cluster) -> Iterator[Any]:
    """Connect to a cluster, and give Ray; what was connected before stays so.

    Raises:
        MissingExtraError: Ray is not installed.
        ClusterError: there is no such cluster, or it cannot be used.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    with _own_signals(), _no_reports():
        failed = _connect(ray, cluster)
    if failed is not None:
        raise failed
    try:
        yield ray
    finally:
        ray.shutdown()


def _connect(ray: Any, cluster: Cluster) -> ClusterError | None:
    options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    if cluster.address == "local":
        options["include_dashboard"] = False
    try:
        ray.init(address=cluster.url, **options)
    except Exception as error:  # noqa: BLE001  of any kind: Ray raises plain ones, too
        with suppress(Exception):
            ray.shutdown()
        said = printable(str(error).strip().partition("\n")[0])
        return ClusterError(
            f"The cluster {cluster.address} cannot be used: {said}. Look whether Ray runs there "
            "(`ray status` on it), with the same versions of Python and Ray as here, whether this "
            "machine may reach it, and, if it asks for one, whether RAY_AUTH_TOKEN holds its "
            "token. Nothing was sent."
        )
    return None


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep what this program does at SIGTERM: Ray would replace it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _no_reports() -> Iterator[None]:
    """Start Ray without its reports to its makers, unless the user wants them."""
    name = "RAY_USAGE_STATS_ENABLED"
    if name in os.environ:
        yield
        return
    os.environ[name] = "0"
    try:
        yield
    finally:
        os.environ.pop(name, None)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process is to be, and what it takes there.

    Attributes:
        node: Ray's id of the machine; another one will do if that is gone.
        cpus: cores.
        gpus: cards.
    """

    node: str
    cpus: float
    gpus: int = 0


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine of a cluster that has cores for this.

    Attributes:
        node: Ray's id of it.
        cpus: cores, those in use included.
        gpus: cards.
    """

    node: str
    cpus: float
    gpus: int


def machines(ray: Any) -> list[Machine]:
    """Return the machines that are up, the largest first.

    Raises:
        ClusterError: none has a core.
    """
    found = [
        Machine(
            node["NodeID"], node["Resources"].get("CPU", 0.0), int(node["Resources"].get("GPU", 0))
        )
        for node in ray.nodes()
        if node["Alive"]
    ]
    usable = [machine for machine in found if machine.cpus > 0.0]
    if not usable:
        raise ClusterError(
            f"None of the {len(found)} machines of the cluster has a core for work (`ray status` "
            "shows what they have)."
        )
    return sorted(usable, key=lambda machine: -machine.cpus)


def placed(
    machines: Sequence[Machine], workers: int | None, *, denoises: bool
) -> tuple[list[Place], list[Place]]:
    """Return where workers and denoisers are to be.

    A denoiser has a card to itself; where no machine has one, each denoises with the cores that
    its workers leave.

    Args:
        machines: of the cluster.
        workers: how many are wanted; None for as many as suit the machines.
        denoises: whether there is something to denoise with.
    """
    if workers is None:
        counts = [max(1, int(machine.cpus // _CORES_A_WORKER)) for machine in machines]
    else:
        counts = [len(range(n, workers, len(machines))) for n in range(len(machines))]
    share = [  # of a worker, so that a machine of one core has room for a denoiser, too
        1.0 if machine.cpus > count or not denoises else machine.cpus / (count + 1)
        for machine, count in zip(machines, counts, strict=True)
    ]
    asking = [
        Place(machine.node, min(cpus, machine.cpus / count))
        for machine, count, cpus in zip(machines, counts, share, strict=True)
        for _ in range(count)
    ]
    if not denoises:
        return asking, []
    cards = [Place(m.node, 0.0, 1) for m in machines for _ in range(m.gpus)]
    if cards:
        return asking, cards
    cores = [
        Place(machine.node, max(machine.cpus - count * cpus, machine.cpus / (count + 1)))
        for machine, count, cpus in zip(machines, counts, share, strict=True)
    ]
    return asking, [Place(p.node, float(int(p.cpus)) if p.cpus >= 1.0 else p.cpus) for p in cores]
