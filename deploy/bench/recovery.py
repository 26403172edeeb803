"""What recovery points cost while a run trains, and how fast a run is executed again when they are missing.

    python recovery.py [--steps N] [--rounds N] [--sequences N] [--cluster] [--append FILE]

Trains the same steps on a server with the default recovery points (every 20 steps) and on one that takes none, in turns,
each time on a new run of the same server; the fastest round of each counts. Then the second server is killed with
`kill -9` and started again: the time that its run takes to execute everything again, beside the time that it took at
first. `--cluster`: one coordinator and one worker on a Cassandra in place of one process with the embedded journal.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src" / "test" / "python"))

from cluster import Cluster  # noqa: E402
from harness import NAME, Server, batch  # noqa: E402
from bios import types  # noqa: E402

NONE = """
bios.run.recovery-point { steps = 1000000, bytes = 100 GiB, operations = 1000000, max-operations = 1000000, max-bytes = 100 GiB }
bios.run.idle-after = 1 hour
"""


def trained(run: Any, steps: int, sequences: int) -> float:
    """Seconds that the steps take, sent without waiting."""
    began = time.monotonic()
    last = None
    for step in range(steps):
        run.forward_backward(batch(step, sequences=sequences, longest=96), "cross_entropy")
        last = run.optim_step(types.AdamParams(learning_rate=1e-4))
    last.result(timeout=600)
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
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
        best = {name: 1e9 for name in servers}
        for name, server in servers.items():  # the first steps of a process are slow
            trained(server.client().create_lora_training_client(base_model=NAME, rank=32), arguments.steps // 2, arguments.sequences)
        for turn in range(arguments.rounds):
            for name, server in servers.items():
                run = server.client().create_lora_training_client(base_model=NAME, rank=32, seed=turn)
                best[name] = min(best[name], trained(run, arguments.steps, arguments.sequences))
        server = servers["none"]
        run = server.client().create_lora_training_client(base_model=NAME, rank=32, seed=99)
        first = trained(run, arguments.steps, arguments.sequences)
        if arguments.cluster:
            old = server.pid("worker-1")
            server.signal("worker-1", 9)
            server.await_restart("worker-1", old)
        else:
            server.kill()
            server.start()
        run.forward_backward(batch(1, sequences=1, longest=8), "cross_entropy").result(timeout=600)
        history = server.client().create_rest_client().get_training_run_history(run.model_id).result()
        again = [entry for entry in history.history if entry.kind == "recovered"][-1].detail
        row = {"bench": "recovery", "journal": "cassandra" if arguments.cluster else "embedded", "steps": arguments.steps,
               "sequences": arguments.sequences, "seconds_with_points": round(best["points"], 3), "seconds_without": round(best["none"], 3),
               "cost": round(best["points"] / best["none"] - 1, 4), "operations_again": int(again["operations"]),
               "seconds_first": round(first, 3), "seconds_again": float(again["seconds"]),
               "replay_speed": round(first / float(again["seconds"]), 2), "date": time.strftime("%Y-%m-%d")}
        print(json.dumps(row), flush=True)
        if arguments.append:
            with open(arguments.append, "a") as out:
                out.write(json.dumps(row) + "\n")
        print(f"recovery points cost {100 * row['cost']:.1f} % of a run's time; executed again at {row['replay_speed']} x the first speed")
    finally:
        for server in servers.values():
            server.stop()


if __name__ == "__main__":
    main()
