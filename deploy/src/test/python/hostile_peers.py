"""Strangers at the port of the actor protocol hurt neither the cluster nor its clients.

    python hostile_peers.py [--connections N] [--seed N] [--steps N] [--seconds N]

A JVM program (`bios.node.ScriptedClient`) trains and samples on a cluster, first undisturbed; then again while strangers
do to the port what they can: thousands of connections that say nothing, connections that say that they are Artery's and
then nothing, other protocols, frames of garbage, frames that claim gigabytes, halves of frames, connections that end at
once. The program's results must be equal to the last bit, the cluster must have all its members and be told of none that
went, the coordinator's memory must stay where it was, and its log must say it and not more than once a minute and kind.
Needs the compiled tests: `./mvnw test-compile`.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import socket
import struct
import tempfile
import threading
import time
import urllib.request
from typing import Callable, List

from cluster import Cluster, cluster
from faults import log
from harness import holds, same
from java_clients import Program, comparable

MAGIC = b"AKKA\x02"
MOST_MEGABYTES = 400


class Strangers:
    """Attacks that go on until they are told to end."""

    def __init__(self, port: int, connections: int, seed: int) -> None:
        self._address = ("127.0.0.1", port)
        self._connections = connections
        self._seed = seed
        self._ended = threading.Event()
        self.counts = {"opened": 0, "refused": 0, "frames": 0}
        self._threads = [threading.Thread(target=self._repeat, args=(attack, i), daemon=True) for i, attack in
                         enumerate((self._silent, self._silent_as_artery, self._garbage, self._frames, self._hasty))]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(60)

    def _repeat(self, attack: Callable[[random.Random], None], number: int) -> None:
        chance = random.Random(self._seed * 10 + number)
        while not self._ended.is_set():
            attack(chance)
            time.sleep(0.05)

    def _connect(self) -> socket.socket:
        self.counts["opened"] += 1
        return socket.create_connection(self._address, timeout=5)

    def _crowd(self, count: int, first: bytes) -> None:
        """Opens this many connections, holds them for a while and closes them."""
        crowd: List[socket.socket] = []
        for _ in range(count):
            if self._ended.is_set():
                break
            try:
                one = self._connect()
                one.sendall(first)
                crowd.append(one)
            except OSError:
                self.counts["refused"] += 1
        self._ended.wait(3)
        for one in crowd:
            one.close()

    def _silent(self, _: random.Random) -> None:
        self._crowd(self._connections, b"")

    def _silent_as_artery(self, _: random.Random) -> None:
        self._crowd(self._connections // 10, MAGIC)

    def _say(self, what: bytes) -> None:
        try:
            with self._connect() as one:
                one.sendall(what)
                one.settimeout(1)
                one.recv(100)
        except OSError:
            pass

    def _garbage(self, chance: random.Random) -> None:
        self._say(chance.choice((b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", chance.randbytes(5000),
                                 b"AKKA", b"\x00" * 100)))

    def _frames(self, chance: random.Random) -> None:
        self.counts["frames"] += 1
        body = chance.randbytes(chance.randrange(1, 200_000))
        self._say(chance.choice((
            MAGIC + struct.pack("<i", len(body)) + body, MAGIC + struct.pack("<i", 2_000_000_000) + body,
            MAGIC + struct.pack("<i", -5) + body, MAGIC + struct.pack("<i", len(body) * 2) + body,
            b"AKKA\xff" + struct.pack("<i", len(body)) + body,
            # a head that looks like one of Artery's, with lengths and positions that are none
            MAGIC + struct.pack("<i", 64) + b"\x00\x00" + b"\xff" * 62)))

    def _hasty(self, _: random.Random) -> None:
        for _i in range(50):
            try:
                self._connect().close()
            except OSError:
                self.counts["refused"] += 1


def megabytes(pid: int) -> int:
    """Resident memory of a process."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmRSS"))


def members(running: Cluster) -> str:
    """The members of the cluster, as a coordinator counts them."""
    with urllib.request.urlopen(running.urls[0] + "/metrics", timeout=30) as page:
        lines = page.read().decode().splitlines()
    return " ".join(line for line in lines if line.startswith("bios_cluster_members"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    holds(f"{hard} file descriptors suffice for {arguments.connections} connections", hard > 2 * arguments.connections)
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as settings:
        settings.write("bios.gateway.actors.enabled = on\n")
        settings.flush()
        with cluster(arguments=["--config", settings.name], coordinators=1) as running:
            port = running.nodes()["coordinator-1"]["actors_port"]
            pid = running.pid("coordinator-1")
            java = os.readlink(f"/proc/{pid}/exe")

            def program() -> Program:
                return Program(java, f"127.0.0.1:{port}", arguments.seed, arguments.steps, lambda: None)

            quiet = program()
            quiet.run()
            before, there = megabytes(pid), members(running)
            log(f"undisturbed; the coordinator has {before} MiB")
            strangers = Strangers(port, arguments.connections, arguments.seed)
            strangers.start()
            began = time.monotonic()
            disturbed = program()
            disturbed.run()
            most = before
            while time.monotonic() - began < arguments.seconds:
                most = max(most, megabytes(pid))
                time.sleep(0.5)
            strangers.end()
            log(f"with strangers: {time.monotonic() - began:.1f} s, {strangers.counts}; at most {most} MiB")
            same("the results", comparable(disturbed), comparable(quiet))
            holds(f"{strangers.counts['opened']} connections were opened", strangers.counts["opened"] > arguments.connections)
            holds(f"memory grew by {most - before} MiB", most - before < MOST_MEGABYTES)
            same("the members", members(running), there)
            same("the coordinator's process", running.pid("coordinator-1"), pid)
            said = [line for line in (running.data / "logs" / "coordinator-1.log").read_text(errors="replace").splitlines()
                    if "port of the actor protocol" in line or "rtery" in line]
            minutes = 1 + int((time.monotonic() - began) / 60)
            holds(f"{len(said)} lines in the log, in {minutes} minutes", 0 < len(said) <= 12 * minutes)
            program().run()


if __name__ == "__main__":
    main()
