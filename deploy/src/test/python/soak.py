"""A server over a long time: what it uses does not grow with what it has done.

`--runs` runs of small rank train `--steps` steps in all, each in a thread of its own. Beside them the weights are sampled from
new snapshots, saved again under the same name, saved for sampling, and loaded; some runs rest most of the time, and visitors
come: a session of their own, a run that trains once and is unloaded, and a request for a run that nobody has. Every so often all
of them pause and the check writes down what the server uses: disk (the journal, and the blobs by their kind), heap after a
collection, resident memory, threads, open files, entities in memory. At the end a robust line (Theil and Sen) through the second
half of the measurements must not grow by more than the allowance. One JSON line tells it, for `docs/bench/soak.jsonl`.

`--cassandra` does the same on a cluster of a coordinator, a worker and a Cassandra. `--plant` goes on with saves under ever new
names, and fails unless that growth is found. The gate runs the short form; the long one is
`soak.py --steps 100000 --runs 6 --every 8 --measurements 24 --rest 25 --append docs/bench/soak.jsonl`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Dict, Iterable, List, Tuple

from cluster import cluster
from harness import NAME, batch, bios, folder_bytes, holds, page, server
from bios import types

KIB, MIB = 1 << 10, 1 << 20
PROMPT = types.ModelInput.from_ints([1, 2, 3])
ADAM = types.AdamParams(learning_rate=1e-4)
RANK = 2
IDLE_RUNS = 4
#: What is kept for a time or up to a size is kept for seconds or is small, so that it is full before the half of a short run.
SETTINGS = """
bios.run.idle-after = 20 s
bios.run.results { max-count = 2048, memory-bytes = 64 KiB }
bios.sampling.result-age = 10 s
bios.engine.adapter-bytes = 1 MiB
bios.session.ends-after = 30 s
bios.run.unnamed-weights { lease = 5 s, newest-snapshots = 4 }
"""
FIXED_HEAP = "-Xms256m -Xmx256m -XX:+AlwaysPreTouch"
ENTITIES = {"runs": "bios.coordinator.run.TrainingRunEntity", "sessions": "bios.coordinator.session.SessionEntity"}
#: How much the line through the second half may rise: a share of the median, and an amount for what comes in steps (a file
#: that is reused, a heap of the C library, a snapshot more or less).
ALLOWED: Dict[str, Tuple[float, float]] = {
    "journal": (0.1, 8 * MIB), "blobs": (0.1, 2 * MIB), "heap": (0.1, 8 * MIB), "resident": (0.1, 48 * MIB),
    "threads": (0, 8), "files": (0, 8), "runs": (0, 4), "sessions": (0, 8)}
#: What a run that was unloaded may leave: its row in the index, its history, its position, and its results.
LEFT_BY_RUN = {"journal": 24 * KIB, "blobs": 8 * KIB}


def kinds(data: Path) -> Dict[str, int]:
    """The bytes of blob files by their kind: checkpoints, recovery, results, operations, and what is being written."""
    found: Dict[str, int] = {}
    blobs = data / "blobs"
    for where, _, files in os.walk(blobs):
        parts = Path(where).relative_to(blobs).parts
        kind = parts[3] if len(parts) > 3 and parts[0] == "blobs" else "temporary"
        for file in files:
            try:
                found[kind] = found.get(kind, 0) + os.stat(os.path.join(where, file)).st_blocks * 512
            except OSError:
                pass
    return found


def tables(data: Path) -> Dict[str, int]:
    """The bytes of Cassandra's tables and of its commit log."""
    found = {path.name.split("-")[0]: folder_bytes(path) for path in (data / "cassandra" / "data" / "data" / "bios").glob("*")}
    found["commitlog"] = folder_bytes(data / "cassandra" / "data" / "commitlog")
    return found


def process(pid: int) -> Dict[str, float]:
    """What a process uses now; its heap is collected first."""
    jcmd = shutil.which("jcmd", path=f"{os.environ.get('JAVA_HOME', '')}/bin:{os.environ['PATH']}")
    holds("jcmd of a JDK is on the path", jcmd is not None) if jcmd is None else None
    histogram = subprocess.run([str(jcmd), str(pid), "GC.class_histogram"], capture_output=True, text=True, check=True).stdout
    status = Path(f"/proc/{pid}/status").read_text()

    def field(name: str) -> int:
        return int(re.search(rf"^{name}:\s+(\d+)", status, re.M).group(1))  # type: ignore[union-attr]

    used: Dict[str, float] = {
        "heap": int(re.search(r"^Total\s+\d+\s+(\d+)", histogram, re.M).group(1)),  # type: ignore[union-attr]
        "resident": field("VmRSS") * KIB, "anonymous": field("RssAnon") * KIB, "threads": field("Threads"),
        "files": len(os.listdir(f"/proc/{pid}/fd"))}
    for name, type_ in ENTITIES.items():
        instances = re.search(rf"^\s*\d+:\s+(\d+)\s+\d+\s+{re.escape(type_)}(\s|$)", histogram, re.M)
        used[name] = int(instances.group(1)) if instances else 0
    return used


def used(pids: Iterable[int], data: Path) -> Dict[str, float]:
    """What the service uses now: its processes together, and the disk."""
    total: Dict[str, float] = {}
    for pid in pids:
        for name, value in process(pid).items():
            total[name] = total.get(name, 0) + value
    if (data / "cassandra").exists():
        parts = tables(data)
        blobs = {name: size for name, size in parts.items() if name.startswith("blob")}
        total["blobs"], total["journal"] = sum(blobs.values()), sum(parts.values()) - sum(blobs.values())
        total.update({f"table {name}": size for name, size in parts.items()})
    else:
        parts = kinds(data)
        total["blobs"] = sum(parts.values())
        total["journal"] = folder_bytes(data / "journal")
        total.update({f"blobs {name}": size for name, size in parts.items()})
    return total


class Soak:
    """The runs and what they do."""

    def __init__(self, url: str, runs: int, every: int) -> None:
        self.url, self.every = url, every
        self.service = bios.ServiceClient(base_url=url)
        self.clients = [self.run(self.service, i) for i in range(runs)]
        self.idle = [self.run(self.service, 100 + i) for i in range(IDLE_RUNS)]
        self.steps, self.visits = [0] * runs, 0
        self.pool = ThreadPoolExecutor(runs)

    def run(self, service: "bios.ServiceClient", seed: int) -> "bios.TrainingClient":
        return service.create_lora_training_client(base_model=NAME, rank=RANK, seed=seed)

    def train(self, client: "bios.TrainingClient", number: int) -> None:
        client.forward_backward(batch(number, 1, 12), "cross_entropy")
        client.optim_step(ADAM).result()

    def go_on(self, steps: int, planted: bool) -> None:
        """So many steps of each run, at the same time."""
        for done in [self.pool.submit(self.of_run, i, steps, planted) for i in range(len(self.clients))]:
            done.result()

    def of_run(self, index: int, steps: int, planted: bool) -> None:
        for _ in range(steps):
            self.steps[index] += 1
            self.step(index, self.steps[index], planted)

    def step(self, index: int, number: int, planted: bool) -> None:
        """One step of a run, and now and then something beside it."""
        client = self.clients[index]
        self.train(client, number)
        if number % self.every == 0:
            client.sample(PROMPT, types.SamplingParams(max_tokens=2)).result()
            saved = client.save_state("latest").result().path
            if number % (4 * self.every) == 0:
                client.save_weights_for_sampler("sampler").result()
            if number % (8 * self.every) == 0:
                client.load_state_with_optimizer(saved).result()
        if number % 50 == 0:
            self.train(self.idle[(number // 50) % len(self.idle)], number) if index == 0 else None
        if number % 100 == 0:
            self.visit(number)
        if planted:
            client.save_state(f"planted-{number}").result()

    def visit(self, number: int) -> None:
        """A client that comes once."""
        self.visits += 1
        with bios.ServiceClient(base_url=self.url) as service:
            brief = self.run(service, number)
            self.train(brief, number)
            brief.unload_model().result()
        status, _ = page(SimpleNamespace(url=self.url), f"/api/v1/training_runs/tiny-{number:016x}")  # type: ignore[arg-type]
        if status != 404:
            raise SystemExit(f"✗ a run that nobody has is answered {status}")


def slope(values: List[float]) -> float:
    """The median of the slopes between any two values."""
    return median([(b - a) / (j - i) for i, a in enumerate(values) for j, b in enumerate(values) if i < j])


def growth(rows: List[Dict[str, float]], visits: int) -> Dict[str, Dict[str, float]]:
    """For each quantity the rise of the line through the second half of the measurements, and the allowance.

    :param visits: the runs that came and went meanwhile
    """
    half = rows[len(rows) // 2:]
    found = {}
    for name in sorted({name for row in rows for name in row}):
        values = [row.get(name, 0.0) for row in half]
        told = {"first": rows[0].get(name, 0.0), "middle": values[0], "last": values[-1],
                "rise": round(slope(values) * (len(values) - 1))}
        if name in ALLOWED:
            share, amount = ALLOWED[name]
            told["allowed"] = round(share * median(values) + amount + LEFT_BY_RUN.get(name, 0) * visits)
        found[name] = told
    return found


def grown(found: Dict[str, Dict[str, float]]) -> List[str]:
    """The quantities that have grown by more than their allowance."""
    return [name for name, told in found.items() if "allowed" in told and told["rise"] > told["allowed"]]


def measured(soak: Soak, pids: List[int], data: Path, steps: int, a: argparse.Namespace, planted: bool = False,
             ) -> Tuple[List[Dict[str, float]], int, int]:
    """Goes on for this many steps; the measurements, the steps of all runs, and the visits during the second half."""
    each = -(-steps // (a.measurements * len(soak.clients)))
    began, before, rows, visits = time.monotonic(), sum(soak.steps), [], []
    least = a.seconds * steps / a.steps
    for number in range(1, a.measurements + 1):
        soak.go_on(each, planted)
        time.sleep(max(a.rest, began + least * number / a.measurements - time.monotonic()))
        rows.append(used(pids, data))
        visits.append(soak.visits)
        done = sum(soak.steps) - before
        row = {"steps": done, "seconds": round(time.monotonic() - began, 1), **rows[-1]}
        print(", ".join(f"{name} {value:,}" for name, value in row.items()), flush=True)
        if a.rows:
            with open(a.rows, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        if time.monotonic() - began > a.minutes * 60:
            break
    return rows, sum(soak.steps) - before, visits[-1] - visits[len(visits) // 2]


def soak(url: str, pids: List[int], data: Path, a: argparse.Namespace) -> None:
    """Trains and measures, then judges."""
    runs = Soak(url, a.runs, a.every)
    began = time.monotonic()
    rows, steps, visits = measured(runs, pids, data, a.steps, a)
    seconds = time.monotonic() - began
    found = growth(rows, visits)
    line = {"bench": "soak", "journal": "cassandra" if a.cassandra else "embedded", "steps": steps, "seconds": round(seconds),
            "steps_per_s": round(steps / seconds, 2), "runs": a.runs, "every": a.every, "visits": runs.visits,
            "measurements": len(rows), "grown": grown(found), "quantities": found, "date": time.strftime("%Y-%m-%d", time.gmtime())}
    print(json.dumps(line), flush=True)
    if a.append:
        with open(a.append, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    for name in ALLOWED:
        told = found[name]
        holds(f"{name}: {told['rise']:,.0f} more over the second half of {steps} steps, of {told['allowed']:,.0f}",
              name not in grown(found))
    if a.plant:
        rows, steps, visits = measured(runs, pids, data, a.steps // 3, a, planted=True)
        holds(f"growth that was planted is found in {grown(growth(rows, visits))}",
              "blobs" in grown(growth(rows, visits)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="of all runs together")
    parser.add_argument("--measurements", type=int, default=16)
    parser.add_argument("--minutes", type=float, default=1e9, help="ends earlier")
    parser.add_argument("--seconds", type=float, default=120, help="at least: what is kept for a time must be over")
    parser.add_argument("--rest", type=float, default=0,
                        help="seconds before each measurement: a busy journal keeps its dead space for a minute")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--every", type=int, default=2, help="steps of a run between two samples and saves")
    parser.add_argument("--cassandra", action="store_true", help="a cluster instead of one process")
    parser.add_argument("--plant", action="store_true", help="goes on with growth, which must be found")
    parser.add_argument("--rows", default=None, metavar="FILE", help="appends each measurement as a JSON line")
    parser.add_argument("--append", default=None, metavar="FILE", help="appends the result as a JSON line")
    a = parser.parse_args()
    os.environ["BIOS_JAVA_OPTIONS"] = f"{FIXED_HEAP} {os.environ.get('BIOS_JAVA_OPTIONS', '')}".strip()
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as settings:
        settings.write(SETTINGS)
        settings.flush()
        if a.cassandra:
            with cluster(coordinators=1, workers=1, arguments=["--config", settings.name]) as running:
                nodes = running.names("coordinator") + running.names("worker")
                soak(running.urls[0], [running.pid(name) for name in nodes], running.data, a)
        else:
            with server(arguments=["--config", settings.name]) as running:
                assert running.process is not None
                soak(running.url, [running.process.pid], running.data, a)


if __name__ == "__main__":
    main()
