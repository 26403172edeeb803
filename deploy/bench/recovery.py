"""What recovery points cost while a run trains, and how fast a run is executed again when they are missing.

    python recovery.py [--steps N] [--rounds N] [--sequences N] [--cluster] [--append FILE]

Trains the same steps on a server with the default recovery points (every 20 steps) and on one that takes none, in turns,
each time on a new run of the same server, which is unloaded afterwards: the cost is the median of the rounds' ratios. Then
the second server is killed with `kill -9` and started again: the time that its only run takes to execute everything
again, beside the time that the same steps take a client in a new process, and in one that is warm, and the time from the
kill to the run's next result (`seconds_stopped`). `--cluster`: one
coordinator and one worker on a Cassandra in place of one process with the embedded journal.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src" / "test" / "python"))

from cluster import Cluster  # noqa: E402
from harness import NAME, Server, batch  # noqa: E402
from bios import types  # noqa: E402

NONE = """
bios.run.recovery-point { steps = 1000000, bytes = 100 GiB, operations = 1000000, max-operations = 1000000, max-bytes = 100 GiB }
bios.run.idle-after = 1 hour
"""


def steps_of(run: Any, steps: int, sequences: int) -> float:
    """Seconds that the steps take, sent without waiting."""
    began = time.monotonic()
    last = None
    for step in range(steps):
        run.forward_backward(batch(step, sequences=sequences, longest=96), "cross_entropy")
        last = run.optim_step(types.AdamParams(learning_rate=1e-4))
    last.result(timeout=600)
    return time.monotonic() - began


def trained(server: Any, seed: int, steps: int, sequences: int) -> float:
    """The same on a new run, which is unloaded afterwards: what is left would be recovered with the others."""
    run = server.client().create_lora_training_client(base_model=NAME, rank=32, seed=seed)
    seconds = steps_of(run, steps, sequences)
    run.unload_model().result(timeout=600)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--cluster", action="store_true")
    parser.add_argument("--append", default="")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bios-recovery-"))
    (folder / "none.conf").write_text(NONE)
    servers: Dict[str, Any] = {}
    for name, more in (("points", []), ("none", ["--config", str(folder / "none.conf")])):
        data = folder / name
        data.mkdir()
        servers[name] = (Cluster(data, 1, 1, arguments=more) if arguments.cluster else Server(data, arguments=more)).start()
    try:
        work = (arguments.steps, arguments.sequences)
        cold = {name: trained(server, 0, *work) for name, server in servers.items()}  # a process's first steps are slow
        seconds: Dict[str, List[float]] = {name: [] for name in servers}
        for turn in range(arguments.rounds):
            for name in list(servers) if turn % 2 == 0 else reversed(servers):
                seconds[name].append(trained(servers[name], 1 + turn, *work))
        ratios = sorted(a / b for a, b in zip(seconds["points"], seconds["none"]))
        server = servers["none"]
        run = server.client().create_lora_training_client(base_model=NAME, rank=32, seed=99)
        first = steps_of(run, *work)
        killed = time.monotonic()
        if arguments.cluster:
            old = server.pid("worker-1")
            server.signal("worker-1", 9)
            server.await_restart("worker-1", old)
        else:
            server.kill()
            server.start()
        run.forward_backward(batch(1, sequences=1, longest=8), "cross_entropy").result(timeout=600)
        stopped = time.monotonic() - killed
        history = server.client().create_rest_client().get_training_run_history(run.model_id).result()
        again = [entry for entry in history.history if entry.kind == "recovered"][-1].detail
        row = {"bench": "recovery", "journal": "cassandra" if arguments.cluster else "embedded", "steps": arguments.steps,
               "sequences": arguments.sequences, "rounds": arguments.rounds,
               "seconds_with_points": round(statistics.median(seconds["points"]), 3),
               "seconds_without": round(statistics.median(seconds["none"]), 3),
               "cost": round(statistics.median(ratios) - 1, 4), "cost_least": round(ratios[0] - 1, 4),
               "cost_most": round(ratios[-1] - 1, 4), "operations_again": int(again["operations"]),
               "seconds_cold": round(cold["none"], 3), "seconds_warm": round(first, 3),
               "seconds_again": float(again["seconds"]), "seconds_stopped": round(stopped, 3),
               "replay_of_cold": round(cold["none"] / float(again["seconds"]), 2),
               "replay_of_warm": round(first / float(again["seconds"]), 2), "date": time.strftime("%Y-%m-%d")}
        print(json.dumps(row), flush=True)
        if arguments.append:
            with open(arguments.append, "a") as out:
                out.write(json.dumps(row) + "\n")
        print(f"recovery points cost {100 * row['cost']:.1f} % of a run's time; executed again at {row['replay_of_cold']} x "
              f"the speed of a new process, {row['replay_of_warm']} x that of a warm one")
    finally:
        for server in servers.values():
            server.stop()


if __name__ == "__main__":
    main()
