"""Clusters for the end-to-end checks: `bios cluster`, whose processes are killed, suspended and partitioned by pid."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

from harness import MODEL, NAME, ROOT, bios

START_LIMIT_SECONDS = 300


class Cluster:
    """One `bios cluster` over a data folder that outlives it."""

    def __init__(self, data: Path, coordinators: int = 2, workers: int = 2, models: Optional[Dict[str, Path]] = None,
                 arguments: Optional[List[str]] = None, environment: Optional[Dict[str, str]] = None) -> None:
        self.data = data
        self.coordinators, self.workers = coordinators, workers
        self.models = models or {NAME: MODEL}
        self.arguments = arguments or []
        self.environment = environment or {}
        self.log = data / "cluster.log"
        self.process: Optional[subprocess.Popen] = None
        self.urls: List[str] = []

    def start(self) -> "Cluster":
        """Starts everything and waits until all coordinators serve."""
        command = shlex.split(os.environ.get("BIOS_COMMAND", str(ROOT / "bios")))
        command += ["cluster", "--port", "0", "--data", str(self.data), "--coordinators", str(self.coordinators),
                    "--workers", str(self.workers)] + self.arguments
        for name, folder in self.models.items():
            command += ["--model", f"{name}={folder}"]
        seen = self.log.stat().st_size if self.log.exists() else 0
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT,
                                            env={**os.environ, **self.environment})
        limit = time.monotonic() + START_LIMIT_SECONDS
        while True:
            lines = self.log.read_bytes()[seen:].decode(errors="replace").splitlines()
            self.urls = [line.split()[-1] for line in lines if line.startswith("bios ready on ")]
            if len(self.urls) == self.coordinators:
                return self
            if self.process.poll() is not None or time.monotonic() > limit:
                raise SystemExit(f"the cluster did not start:\n{self.tail()}")
            time.sleep(0.1)

    def nodes(self) -> Dict[str, Dict[str, Any]]:
        """The processes in nodes.json, by name."""
        return {node["name"]: node for node in json.loads((self.data / "nodes.json").read_text())}

    def names(self, role: str) -> List[str]:
        """The processes of a role."""
        return sorted(name for name, node in self.nodes().items() if node["role"] == role)

    def pid(self, name: str) -> int:
        """The pid of a process, 0 while it does not run."""
        return int(self.nodes()[name].get("pid", 0))

    def command(self, name: str) -> str:
        """The command line of a running process (Linux)."""
        return Path(f"/proc/{self.pid(name)}/cmdline").read_bytes().replace(b"\0", b" ").decode()

    def signal(self, name: str, number: int) -> bool:
        """Sends a signal; False if the process does not run now."""
        pid = self.pid(name)
        if pid == 0:
            return False
        try:
            os.kill(pid, number)
            return True
        except ProcessLookupError:
            return False

    def await_restart(self, name: str, old: int, seconds: float = 120) -> None:
        """Waits until a process runs under another pid."""
        limit = time.monotonic() + seconds
        while self.pid(name) in (0, old):
            if time.monotonic() > limit:
                raise SystemExit(f"{name} was not started again:\n{self.tail()}")
            time.sleep(0.1)

    def client(self, key: Optional[str] = None) -> "bios.ServiceClient":
        """A client with the addresses of all coordinators."""
        return bios.ServiceClient(base_url=",".join(self.urls), api_key=key)

    def stop(self) -> None:
        """SIGTERM to the whole cluster, and waits for its end."""
        if self.process is None or self.process.poll() is not None:
            return
        for node in self.nodes().values():  # what was stopped cannot drain
            if node.get("pid"):
                try:
                    os.kill(node["pid"], signal.SIGCONT)
                except ProcessLookupError:
                    pass
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(180)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise SystemExit(f"the cluster did not stop on SIGTERM:\n{self.tail()}")

    def tail(self) -> str:
        """The ends of all logs."""
        parts = [("cluster.log", self.log)] + [(log.name, log) for log in sorted((self.data / "logs").glob("*.log"))]
        return "\n".join(f"==== {name}\n{log.read_text(errors='replace')[-3000:]}" for name, log in parts if log.exists())


@contextmanager
def cluster(**settings: Any) -> Iterator[Cluster]:
    """A cluster in a temporary folder (kept, with its logs, if BIOS_KEEP is set); on a failure its logs' ends are printed."""
    folder = Path(tempfile.mkdtemp(prefix="bios-cluster-"))
    running = Cluster(folder, **settings)
    try:
        yield running.start()
    except BaseException:
        sys.stderr.write(f"---- ends of the logs ----\n{running.tail()}\n")
        raise
    finally:
        running.stop()
        if os.environ.get("BIOS_KEEP"):
            print(f"kept: {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
