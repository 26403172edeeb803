"""How long a server takes from its start to its first results, with Java's ahead-of-time cache and without, in turns.

    python start.py [--rounds N] [--append FILE]

Prints, for both, the median seconds and processor seconds until the server is ready and until a new run has trained five steps, saved
and sampled, and the ratios; `--append` adds them to a file as a JSON line. `./bios aot-cache` writes the cache.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, List

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src" / "test" / "python"))

from harness import NAME, Server, batch  # noqa: E402
from bios import types  # noqa: E402

STEPS = 5


def processor_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def started() -> Dict[str, float]:
    """One start and its first results."""
    with tempfile.TemporaryDirectory(prefix="bios-start-") as folder:
        began = time.monotonic()
        server = Server(Path(folder)).start()
        try:
            assert server.process is not None
            row = {"ready_s": time.monotonic() - began, "ready_cpu_s": processor_seconds(server.process.pid)}
            run = server.client().create_lora_training_client(base_model=NAME, rank=8)
            for step in range(STEPS):
                run.forward_backward(batch(step, sequences=1, longest=16), "cross_entropy")
                run.optim_step(types.AdamParams(learning_rate=1e-4)).result()
            run.save_state("first").result()
            run.sample(types.ModelInput.from_ints([1, 2, 3]), types.SamplingParams(max_tokens=4)).result()
            return {**row, "results_s": time.monotonic() - began, "results_cpu_s": processor_seconds(server.process.pid)}
        finally:
            server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--append", default="")
    arguments = parser.parse_args()
    rows: Dict[str, List[Dict[str, float]]] = {"cached": [], "plain": []}
    for turn in range(arguments.rounds):
        for name in list(rows) if turn % 2 == 0 else reversed(rows):
            os.environ.pop("BIOS_AOT_CACHE", None)
            if name == "plain":
                os.environ["BIOS_AOT_CACHE"] = ""
            rows[name].append(started())
    line: Dict[str, object] = {"bench": "start", "rounds": arguments.rounds}
    for quantity in rows["plain"][0]:
        medians = {name: statistics.median(row[quantity] for row in of) for name, of in rows.items()}
        line[quantity] = {**{name: round(value, 2) for name, value in medians.items()},
                          "ratio": round(medians["cached"] / medians["plain"], 2)}
    line["date"] = time.strftime("%Y-%m-%d", time.gmtime())
    print(json.dumps(line), flush=True)
    if arguments.append:
        with open(arguments.append, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
