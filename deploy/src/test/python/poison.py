"""An operation that ends its worker each time is found, set aside, and tried again on demand; no other one suffers.

    python poison.py [--seed N]

On a cluster with two workers one run submits a batch that takes several seconds. Whichever worker executes it is ended with
`kill -9` meanwhile, as if the batch itself did it: the workers' own marks of what they execute tell when. After some deaths
the service sets the operation aside: it fails with `worker_lost` and says how often its worker died, and what was submitted
behind it fails with it. Then the killer stops and the owner tries the operation again: all that waited is executed, and
the bits are those of an undisturbed run. A second deadly batch is set aside, and the owner goes on without it: the run
trains on as if that operation had never been. Another run, which trains all the while on the same workers, must notice
nothing: no call fails, no bit differs from an undisturbed run. Takes minutes: run by hand.
"""

from __future__ import annotations

import argparse
import signal
import struct
import threading
import time
from typing import Any, List, Optional, Set, Tuple

from cluster import Cluster, cluster
from faults import log
from harness import NAME, adapter, batch, bios, holds, results, same, train
from random_kills import trained
from rolling import RESULT_SECONDS, Trained

WARM_STEPS, STRUCK_STEPS, LATER_STEPS = 4, 3, 6
LEAST_SECONDS = 3.0
MOST_DEATHS = 10


def deadly(seed: int, sequences: int) -> List[Any]:
    """A batch that takes several seconds and is one operation."""
    return batch(seed * 31 + 5, sequences=sequences, longest=1000)


def failure(future: Any) -> Optional["bios.RequestFailedError"]:
    """The error of an operation; None if it was executed."""
    try:
        future.result(timeout=RESULT_SECONDS)
        return None
    except bios.RequestFailedError as e:
        return e


class Poison:
    """Kills the worker whenever it executes a certain operation.

    A process that starts has the marks of the one before it in its register until it has read them: the operation counts as
    executed only after the process was seen without its mark. Such a kill would be one while it starts, which counts for nobody.
    """

    def __init__(self, running: Cluster, run: str, position: int) -> None:
        self._running, self._run, self._position = running, run, position
        self.deaths: List[str] = []
        self._started: Set[int] = set()
        self._killed: Set[int] = set()
        self.over = threading.Event()
        self.failure: List[BaseException] = []
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.over.set()
        self.thread.join()
        if self.failure:
            raise self.failure[0]

    def _work(self) -> None:
        try:
            while not self.over.is_set() and len(self.deaths) < MOST_DEATHS:
                node = self._executing()
                pid = node and self._running.pid(node)
                if not node or not pid or pid in self._killed:
                    self.over.wait(0.02)
                elif self._running.signal(node, signal.SIGKILL):
                    self._killed.add(pid)
                    self.deaths.append(node)
                    log(f"  death {len(self.deaths)}: kill -9 {node}")
        except BaseException as e:  # told at the end
            self.failure.append(e)

    def _executing(self) -> Optional[str]:
        """The worker that has marked the operation, if there is one."""
        for node in self._running.names("worker"):
            pid = self._running.pid(node)
            register = pid and held(pid)
            if not register:
                continue
            if (self._run, self._position) not in marks(register):
                self._started.add(pid)
            elif pid in self._started:
                return node
        return None


def held(pid: int) -> Optional[str]:
    """The register of marks that a process has mapped."""
    try:
        with open(f"/proc/{pid}/maps") as maps:
            return next((line.split()[-1] for line in maps if line.rstrip().endswith(".marks")), None)
    except OSError:
        return None


def marks(register: str) -> List[Tuple[str, int]]:
    """What a worker executes now: the first part of its register (see `ExecutionMarks`)."""
    with open(register, "rb") as file:
        file.seek(64)
        entries = [file.read(224) for _ in range(64)]
    found = []
    for entry in entries:
        used, length, position = struct.unpack_from("<iiq", entry)
        if used > 0:
            found.append((entry[16:16 + length].decode(), position))
    return found


def set_aside(run: Any, poison: Poison, future: Any, behind: List[Any]) -> None:
    """Checks that a deadly operation is told to be set aside, and those behind it with it."""
    why = failure(future)
    poison.stop()
    holds(f"the operation is set aside: {why}", why is not None and why.code == "worker_lost" and "died" in why.message
          and "set aside" in why.message)
    log(f"  its workers died {len(poison.deaths)} times: {', '.join(poison.deaths)}")
    waiting = [failure(one) for one in behind]
    holds(f"the {len(waiting)} behind it wait, by the same cause",
          all(one is not None and one.code == "worker_lost" for one in waiting))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sequences", type=int, default=180, help="of the deadly batch")
    arguments = parser.parse_args()
    seed = arguments.seed
    with cluster(coordinators=1, workers=2) as running:
        service = running.client()
        rest = service.create_rest_client()

        def fresh() -> Any:
            return service.create_lora_training_client(base_model=NAME, rank=8, seed=seed)

        settings = bios.types.AdamParams(learning_rate=1e-3)

        def tried(run: Any) -> List[Any]:
            first = train(run, range(WARM_STEPS), seed)
            first.append(run.forward_backward(deadly(seed, arguments.sequences), "cross_entropy"))
            run.optim_step(settings)
            return first

        quiet = fresh()
        wanted = results(tried(quiet) + train(quiet, range(50, 50 + LATER_STEPS), seed))
        wanted_adapter = adapter(service, quiet, "end")
        began = time.monotonic()
        trained(fresh().forward_backward(deadly(seed, arguments.sequences), "cross_entropy").result())
        seconds = time.monotonic() - began
        holds(f"undisturbed, the batch takes {seconds:.1f} s", seconds >= LEAST_SECONDS)

        enough = threading.Event()
        other = Trained(service, seed + 100, lambda _: not enough.is_set())
        run = fresh()
        before = train(run, range(WARM_STEPS), seed)
        results(before)
        position = 2 * len(before) + 1
        poison = Poison(running, run.model_id, position)
        future = run.forward_backward(deadly(seed, arguments.sequences), "cross_entropy")
        behind = [run.optim_step(settings)]
        set_aside(run, poison, future, behind)
        rest.retry_set_aside(run.model_id).result()
        got = results(before + [future])
        behind[0].result()
        log("  tried again, the operation and what waited for it succeed")
        position += 2
        poison = Poison(running, run.model_id, position)
        future = run.forward_backward(deadly(seed + 1, arguments.sequences), "cross_entropy")
        behind = train(run, range(20, 20 + STRUCK_STEPS), seed)
        set_aside(run, poison, future, behind)
        got += results(train(run, range(50, 50 + LATER_STEPS), seed))
        enough.set()
        same("the run trains on as if the second operation had never been", got, wanted)
        same("its adapter", adapter(service, run, "end"), wanted_adapter)
        kinds = [entry.kind for entry in rest.get_training_run_history(run.model_id).result().history]
        holds(f"its history tells it: {kinds}", kinds.count("set_aside") == 2 and kinds.count("retried") == 1
              and kinds.count("poisoned_operation") == 1 and "operation_failed" not in kinds)
        other.join()
        again = Trained(service, seed + 100, lambda done: done < other.chunks).join()
        same(f"all {len(other.results)} results of the other run", other.results, again.results)
        same("its adapter", adapter(service, other.run, "end"), adapter(service, again.run, "end"))
        kinds = [n.kind for n in rest.get_training_run_history(other.run.model_id).result().history]
        holds("none of its operations was blamed", not {"set_aside", "poisoned_operation", "operation_failed"} & set(kinds))


if __name__ == "__main__":
    main()
