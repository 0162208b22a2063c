"""Calls in processes of their own, which may crash, hang, take too much memory, or be killed without harm to the attack.

The processes are forked from a server that has imported everything and done nothing, so that one starts in a few hundredths
of a second, as if a command began after its imports.
"""

import multiprocessing
import os
import re
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS = 60.0
"""Seconds of its own work after which a call counts as hung; ten times as many where it only waits."""

MEMORY = 1 << 30
"""Bytes that a call on bad input may take at most beyond those of its process before."""

LONGEST_LINE = 2000
"""Characters of an error; a longer one repeats its input."""

FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(
    [
        "mlflow", "sqlalchemy", "great_expectations", "pandas", "cv2", "torch._dynamo", "skimage.transform", "matplotlib.pyplot",
        "aupair.stages", "aupair.api", "aupair.data.checks", "aupair.evaluation.evaluate", "aupair.faces.folder",
        "aupair.inference.predict", "aupair.inference.timeline", "aupair.kubeflow.compile", "aupair.mapping.fit", "aupair.ranking.pseudo_intensity",
        "aupair.ranking.samples", "aupair.ranking.scores", "aupair.ranking.uncertainty", "aupair.registry.promotion",
        "aupair.registry.register", "aupair.report.reports", "aupair.synth.corpus",
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """The end of a call.

    Attributes:
        kind: accepted, refused (an AupairError of one line), or what must not be: a traceback, a crash, a hang, memory.
        detail: the line, the traceback or the signal.
    """

    kind: str
    detail: str = ""

    @property
    def failed(self) -> bool:
        """Return whether this must not be."""
        return self.kind not in ("accepted", "refused")


def judge(call: Callable[[], object]) -> Verdict:
    """Return the verdict on a call in this process."""
    from aupair.errors import AupairError

    before = _reset_peak()
    try:
        call()
        verdict = Verdict("accepted")
    except AupairError as error:
        line = str(error)
        plain = "\n" not in line and len(line) <= LONGEST_LINE and not re.search(r"[\x00-\x1f\x7f]", line)
        verdict = Verdict("refused" if plain else "not a plain line", line[:LONGEST_LINE])
    except BaseException:
        verdict = Verdict("traceback", traceback.format_exc(limit=-6))
    peak = _status("VmHWM")
    return Verdict("memory", f"{(peak - before) >> 20} MiB") if peak - before > MEMORY else verdict


def try_all(attempt: Callable[[int], Verdict], seeds: Iterable[int]) -> Iterator[tuple[int, Verdict]]:
    """Yield the verdict on each seed; they run one after the other in one process, and in a new one after a crash."""
    process: Any = None
    for seed in seeds:
        if process is None:
            ours, theirs = FORK.Pipe()
            process = FORK.Process(target=_serve, args=(attempt, theirs))
            process.start()
            theirs.close()
        ours.send(seed)
        verdict = _receive(ours, process)
        yield seed, verdict
        if verdict.kind in ("hang", "crash"):
            process.kill()
            process.join()
            process = None
    if process is not None:
        process.kill()
        process.join()


def run(call: Callable[..., object], *arguments: Any) -> Verdict:
    """Return the verdict on a call in a process of its own."""
    ((_, verdict),) = try_all(_Call(call, arguments), [0])
    return verdict


def kill_after(seconds: float, call: Callable[..., object], *arguments: Any) -> bool:
    """Start a call, and kill it and all that it started after some seconds; return whether it had not ended by then."""
    process = FORK.Process(target=_lead_group, args=(call, arguments))
    process.start()
    process.join(seconds)
    alive = process.is_alive()
    for kill in (os.killpg, os.kill):  # it may be killed before it leads a group
        try:
            kill(process.pid, signal.SIGKILL)  # type: ignore[arg-type]
        except ProcessLookupError:
            continue
    process.join()
    return alive and process.exitcode == -signal.SIGKILL


@dataclass(frozen=True)
class _Call:
    call: Callable[..., object]
    arguments: Sequence[Any]

    def __call__(self, seed: int) -> Verdict:
        return judge(lambda: self.call(*self.arguments))


def _serve(attempt: Callable[[int], Verdict], connection: Any) -> None:
    """Try the seeds that come until this process is killed."""
    quieten()
    while True:
        connection.send(attempt(connection.recv()))


def _receive(connection: Any, process: Any) -> Verdict:
    started, end = _cpu_seconds(process.pid), time.monotonic() + 10 * SECONDS
    try:
        while not connection.poll(1.0):
            if time.monotonic() > end or _cpu_seconds(process.pid) - started > SECONDS:
                return Verdict("hang", f"over {SECONDS:.0f} s")
        verdict: Verdict = connection.recv()
        return verdict
    except (EOFError, ConnectionResetError):
        process.join()
        return Verdict("crash", f"exit code {process.exitcode}")


def _cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used; 0 after its end."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _lead_group(call: Callable[..., object], arguments: Sequence[Any]) -> None:
    os.setpgid(0, 0)
    quieten()
    call(*arguments)


def quieten() -> None:
    """Send what libraries print nowhere, and leave the variables of other stores behind."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(null, stream)
    os.environ.pop("MLFLOW_TRACKING_URI", None)


def _reset_peak() -> int:
    """Return the bytes that this process holds, and measure its peak from now on."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(key: str) -> int:
    return int(re.search(rf"^{key}:\s+(\d+)", Path("/proc/self/status").read_text(), re.M)[1]) << 10  # type: ignore[index]
