"""JVM programs on a cluster with faults get the same bits as without.

    python java_clients.py [--seed N] [--faults N] [--clients N] [--steps N] [--kinds KIND,...]

Several programs (`bios.node.ScriptedClient`) train and sample over the actor protocol, each in a process of its own. First
undisturbed; then again, while coordinators, workers, Cassandra and the programs themselves are killed with `kill -9`, or
stopped for longer than a gateway may be silent, and programs are cut off from the network. A program that was killed
comes back with its session and its numbers.
Every result and the final adapters must be equal to the last bit. Needs the compiled tests: `./mvnw test-compile`.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from typing import Callable, List

from cluster import Cluster, cluster
from faults import Faults, log
from harness import NAME, ROOT, free_port, holds, same
from holding_proxy import HoldingProxy

CLIENT, GATEWAY = "127.0.0.4", "127.0.0.3"


def classpath() -> str:
    deploy = ROOT / "deploy" / "target"
    modules = [str(ROOT / module / "target" / "classes") for module in ("protocol", "deploy")]
    jars = [str(jar) for jar in sorted((deploy / "lib").glob("*.jar")) if not jar.name.startswith("bios-")]
    return os.pathsep.join([str(deploy / "test-classes"), *modules, *jars])


class Program:
    """One JVM program, which is started again when it is killed."""

    def __init__(self, java: str, gateways: str, seed: int, steps: int, reached: Callable[[], None], proxied: bool = False) -> None:
        port = free_port()
        # The gateways reach it through a proxy.
        self.proxies = [HoldingProxy((CLIENT, port), ("127.0.0.1", port))] if proxied else []
        self._command = [java, "-Xmx256m", "--sun-misc-unsafe-memory-access=allow", "-cp", classpath(), "bios.node.ScriptedClient",
                         gateways, NAME, str(uuid.uuid4()), str(seed), str(steps)]
        if proxied:
            self._command += [f"{CLIENT}:{port}", "127.0.0.1"]
        self._reached = reached
        self._killed = threading.Event()
        self.process = self._start()
        self.lines: List[str] = []

    def _start(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)

    def kill(self) -> None:
        """`kill -9`; it starts again with the same session and numbers."""
        self._killed.set()
        self.process.send_signal(signal.SIGKILL)

    def run(self) -> None:
        while True:
            assert self.process.stdout is not None
            lines = []
            for line in self.process.stdout:
                lines.append(line.strip())
                self._reached()
            status = self.process.wait()
            self.lines = lines
            if status == 0 or not self._killed.is_set():
                break
            self._killed.clear()
            self.process = self._start()
        if self.process.returncode != 0:
            self.lines.append(f"ended with status {self.process.returncode}")


class ClientFaults(Faults):
    """Faults of the cluster, and of the programs."""

    programs: List[Program] = []
    gateways: List[HoldingProxy] = []

    def cut_client(self) -> None:
        """Nothing passes between a program and the gateways, in both directions, for some seconds."""
        living = [p for p in self.programs if p.process.poll() is None and p.proxies]
        if living:
            seconds, broken = self._chance.choice((2.0, 8.0, 15.0)), self._chance.random() < 0.5
            log(f"  cut off the network of a program for {seconds:.0f} s{', and break its connections' if broken else ''}")
            # The way to the gateways is one for all programs.
            proxies = self._chance.choice(living).proxies + self.gateways
            for proxy in proxies:
                proxy.hold()
            time.sleep(seconds)
            for proxy in proxies:
                proxy.release(broken)

    def kill_client(self) -> None:
        living = [p for p in self.programs if p.process.poll() is None]
        if living:
            log("  kill -9 a program")
            self._chance.choice(living).kill()


def together(programs: List[Program]) -> None:
    threads = [threading.Thread(target=program.run) for program in programs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def adapters(running: Cluster, programs: List[Program]) -> List[bytes]:
    """The bytes of the adapters that the programs have saved at their end."""
    import io
    import tarfile

    rest = running.client().create_rest_client()
    out = []
    for program in programs:
        path = program.lines[-1].split()[-1]
        holds(f"a program ended: {program.lines[-1]}", path.startswith("bios://"))
        archive = rest.download_checkpoint_archive_from_bios_path(path).result()
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            member = tar.extractfile("adapter/adapter_model.safetensors")
            assert member is not None
            out.append(member.read())
    return out


def comparable(program: Program) -> List[str]:
    """The lines of a program without the id of its run."""
    return [line.split("bios://")[0] for line in program.lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=8)
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--kinds", default="kill_coordinator,cut_client,kill_client,kill_worker,kill_cassandra,stop_coordinator")
    arguments = parser.parse_args()
    seeds = [arguments.seed * 100 + i for i in range(arguments.clients)]
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as settings:
        # A name of the gateways by which the programs reach them through proxies.
        settings.write(f'bios.gateway.actors {{ enabled = on, host = "{GATEWAY}", bind-host = "127.0.0.1" }}\n')
        settings.flush()
        with cluster(arguments=["--config", settings.name]) as running:
            ports = [node["actors_port"] for node in running.nodes().values() if node["role"] == "coordinator"]
            proxies = [HoldingProxy((GATEWAY, port), ("127.0.0.1", port)) for port in ports]
            gateways = ",".join(f"{GATEWAY}:{port}" for port in ports)

            java = os.readlink(f"/proc/{running.pid('coordinator-1')}/exe")

            def programs(reached: Callable[[], None]) -> List[Program]:
                return [Program(java, gateways, seed, arguments.steps, reached, proxied=True) for seed in seeds]

            log(f"undisturbed, through {gateways} ...")
            began = time.monotonic()
            quiet = programs(lambda: None)
            together(quiet)
            wanted = adapters(running, quiet)
            log(f"undisturbed: {time.monotonic() - began:.1f} s")
            faults = ClientFaults(running, arguments.kinds.split(","), arguments.faults,
                                  sum(len(program.lines) for program in quiet), arguments.seed)
            began = time.monotonic()
            broken = programs(faults.reached)
            faults.programs = broken
            faults.gateways = proxies
            faults.thread.start()
            together(broken)
            faults.finish(began)
            for seed, one, other in zip(seeds, broken, quiet):
                for a, b in zip(comparable(one), comparable(other)):
                    if a != b:
                        same(f"program {seed}", a, b)
                same(f"program {seed}: all {len(other.lines)} results", len(one.lines), len(other.lines))
            same("the adapters", adapters(running, broken), wanted)


if __name__ == "__main__":
    main()
