"""Many clients at once, then silence: what the server's memory was before, at the peak and after.

`many_clients.py --clients 200 --seconds 120` is the long form. `--no-fetch`: clients that never ask for a result. `--native`
prints the JVM's own account of native memory (jcmd). `--below MIB` fails if more resident memory than this stays above the
start.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
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
        self.requests = 0
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
        except BaseException as failed:  # reported by the check
            self.failure = failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--silence", type=float, default=60, help="seconds after the last request")
    parser.add_argument("--no-fetch", action="store_true")
    parser.add_argument("--native", action="store_true")
    parser.add_argument("--below", type=float, default=None, metavar="MIB")
    parser.add_argument("--config", default=None)
    a = parser.parse_args()
    if a.native:
        os.environ["BIOS_JAVA_OPTIONS"] = os.environ.get("BIOS_JAVA_OPTIONS", "") + " -XX:NativeMemoryTracking=summary"
    with server(arguments=["--config", a.config] if a.config else []) as running:
        before = sample(running)
        show("before", before)
        if a.native:
            native(running, "before")
        clients = [Client(running, n, not a.no_fetch, time.monotonic() + a.seconds) for n in range(a.clients)]
        for client in clients:
            client.start()
        peak = dict(before)
        while any(client.is_alive() for client in clients):
            time.sleep(0.5)
            peak = {name: max(peak[name], value) for name, value in sample(running).items()}
        show("peak", peak)
        if a.native:
            native(running, "end")
        requests = sum(client.requests for client in clients)
        failures = [client.failure for client in clients if client.failure]
        print(f"{requests} requests of {a.clients} clients, {len(failures)} failures {failures[:1]}", flush=True)
        began = time.monotonic()
        after = sample(running)
        while time.monotonic() - began < a.silence:
            show(f"after {time.monotonic() - began:.0f} s", after)
            time.sleep(min(15.0, a.silence))
            after = sample(running)
        show("after", after)
        if a.native:
            native(running, "after")
        if a.below is not None:
            holds(f"{after['rss'] - before['rss']:.0f} MiB more than at the start, of at most {a.below:.0f}",
                  after["rss"] - before["rss"] <= a.below)


if __name__ == "__main__":
    main()
