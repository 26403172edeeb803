"""Many clients at once, then silence: what the server's memory was before, at the peak and after.

`--below MIB` fails unless the resident memory comes back to at most that much more than at the start, within `--silence`
seconds; after the second and later `--cycles` also to at most 64 MiB above what the first one left, because that is used again
(compiled code, kernels, heaps of the C library). `--disk KIB` fails if more than that is left on disk for each run. `--idle`
sets `bios.run.idle-after`, after which the engine closes runs that nothing is asked of. `--no-fetch`: clients that never ask
for a result. `--native` prints the JVM's own account of native memory (jcmd).

The gate runs a short form; the long one is `many_clients.py --clients 200 --seconds 300 --cycles 2 --silence 420 --below 260`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Dict, List, Optional

from harness import Server, batch, folder_bytes, holds, page, server
from bios import types

MIB = 1 << 20
SHOWN = ["rss", "anonymous", "heap used", "heap committed", "buffers", "threads", "journal", "blobs"]


def sample(running: Server) -> Dict[str, float]:
    """The server's memory and disk now: MiB, and threads."""
    assert running.process is not None
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    metrics = page(running, "/metrics")[1]

    def metric(pattern: str) -> float:
        return sum(float(v) for v in re.findall(rf"^{pattern} ([0-9.eE+-]+)$", metrics, re.M)) / MIB

    blobs = folder_bytes(running.data / "blobs")
    return {
        "rss": int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024,  # type: ignore[union-attr]
        "anonymous": int(re.search(r"RssAnon:\s+(\d+)", status).group(1)) / 1024,  # type: ignore[union-attr]
        "heap used": metric(r'jvm_memory_used_bytes\{area="heap"\}'),
        "heap committed": metric(r'jvm_memory_committed_bytes\{area="heap"\}'),
        "buffers": metric(r'jvm_buffer_pool_used_bytes\{pool="direct"\}'),
        "threads": int(re.search(r"Threads:\s+(\d+)", status).group(1)),  # type: ignore[union-attr]
        "journal": (folder_bytes(running.data) / MIB) - blobs / MIB,
        "blobs": blobs / MIB,
    }


def show(when: str, values: Dict[str, float]) -> None:
    print(f"{when:>12} " + "  ".join(f"{name} {values[name]:.0f}" for name in SHOWN), flush=True)


def native(running: Server, when: str) -> None:
    """The JVM's account of its native memory."""
    assert running.process is not None
    text = subprocess.run(["jcmd", str(running.process.pid), "VM.native_memory", "summary", "scale=MB"],
                          capture_output=True, text=True).stdout
    parts = re.findall(r"-\s+(.+?) \(reserved=\d+MB, committed=(\d+)MB", text)
    print(f"{when:>12} " + "  ".join(f"{name.strip()} {mib}" for name, mib in parts if int(mib) > 0), flush=True)


class Client(threading.Thread):
    """Creates small runs, trains each for some steps, samples, and goes on to the next."""

    def __init__(self, running: Server, number: int, fetch: bool, end: float) -> None:
        super().__init__(daemon=True)
        self.running, self.number, self.fetch, self.end = running, number, fetch, end
        self.requests = self.runs = 0
        self.failure: Optional[BaseException] = None

    def run(self) -> None:
        try:
            service = self.running.client()
            run = 0
            while time.monotonic() < self.end:
                training = service.create_lora_training_client(base_model="bios/tiny", rank=4, seed=run)
                futures: List[object] = []
                for step in range(6):
                    futures.append(training.forward_backward(batch(step, 2, 24), "cross_entropy"))
                    futures.append(training.optim_step(types.AdamParams(learning_rate=1e-3)))
                futures.append(training.save_state("end"))
                self.requests += len(futures) + 1
                if self.fetch:
                    for future in futures:
                        future.result()  # type: ignore[attr-defined]
                    sampler = training.save_weights_and_get_sampling_client()
                    sampler.sample(types.ModelInput.from_ints([1, 2, 3]), 2,
                                   types.SamplingParams(max_tokens=16)).result()
                    self.requests += 2
                run += 1
                self.runs += 1
        except BaseException as failed:  # reported by the check
            self.failure = failed


def load(running: Server, a: argparse.Namespace) -> int:
    """All clients at once, for a time: the number of their runs."""
    clients = [Client(running, n, not a.no_fetch, time.monotonic() + a.seconds) for n in range(a.clients)]
    for client in clients:
        client.start()
    peak = sample(running)
    while any(client.is_alive() for client in clients):
        time.sleep(0.5)
        peak = {name: max(peak[name], value) for name, value in sample(running).items()}
    show("peak", peak)
    failures = [client.failure for client in clients if client.failure]
    requests, runs = sum(client.requests for client in clients), sum(client.runs for client in clients)
    holds(f"{requests} requests of {a.clients} clients, {runs} runs, {len(failures)} failures {failures[:1]}",
          not failures or a.no_fetch)
    return runs


def silence(running: Server, a: argparse.Namespace, bound: Optional[float]) -> Dict[str, float]:
    """Waits until the resident memory is within the bound, or for all of the time: the least that was seen."""
    began = time.monotonic()
    least = sample(running)
    while time.monotonic() - began < a.silence and (bound is None or least["rss"] > bound):
        time.sleep(min(10.0, a.silence))
        now = sample(running)
        show(f"after {time.monotonic() - began:.0f} s", now)
        least = now if now["rss"] < least["rss"] else least
    return least


def check(running: Server, a: argparse.Namespace) -> None:
    """All cycles of load and silence on a server, and what is left after them."""
    before = sample(running)
    show("before", before)
    left: List[float] = []
    runs = 0
    for _ in range(a.cycles):
        runs += load(running, a)
        bound = None if a.below is None else before["rss"] + a.below if not left else min(
            before["rss"] + a.below, left[0] + 64)
        after = silence(running, a, bound)
        left.append(after["rss"])
        if a.native:
            native(running, "after")
        if bound is not None:
            holds(f"{after['rss'] - before['rss']:.0f} MiB more than at the start, of at most {bound - before['rss']:.0f}",
                  after["rss"] <= bound)
    now = sample(running)
    each = (now["journal"] + now["blobs"] - before["journal"] - before["blobs"]) * 1024 / max(runs, 1)
    print(f"{each:.0f} KiB on disk for each of {runs} runs", flush=True)
    if a.append is not None:
        line = {"bench": "clients", "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "clients": a.clients,
                "seconds": a.seconds, "fetch": not a.no_fetch, "runs": runs, "resident_before": round(before["rss"]),
                "resident_after": [round(rss) for rss in left], "now": {name: round(now[name]) for name in SHOWN},
                "kib_on_disk_per_run": round(each)}
        with open(a.append, "a") as out:
            out.write(json.dumps(line) + "\n")
    if a.disk is not None:
        holds(f"at most {a.disk:.0f} KiB", each <= a.disk)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--cycles", type=int, default=1)
    parser.add_argument("--silence", type=float, default=60, help="most seconds after the last request")
    parser.add_argument("--idle", type=float, default=None, metavar="SECONDS")
    parser.add_argument("--no-fetch", action="store_true")
    parser.add_argument("--native", action="store_true")
    parser.add_argument("--below", type=float, default=None, metavar="MIB")
    parser.add_argument("--disk", type=float, default=None, metavar="KIB")
    parser.add_argument("--append", default=None, metavar="FILE", help="appends a JSON line, for docs/bench/clients.jsonl")
    a = parser.parse_args()
    if a.native:
        os.environ["BIOS_JAVA_OPTIONS"] = os.environ.get("BIOS_JAVA_OPTIONS", "") + " -XX:NativeMemoryTracking=summary"
    settings = "" if a.idle is None else f"bios.run.idle-after = {a.idle:g} s\n"
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as config:
        config.write(settings)
        config.flush()
        with server(arguments=["--config", config.name]) as running:
            check(running, a)


if __name__ == "__main__":
    main()
