"""Bodies that are made to fill memory: the process lives, refuses them, and serves others meanwhile.

Each kind is sent `--at-once` times at the same time with `--bytes` bytes each, while another client trains and samples. The
long form: `hostile_bodies.py --bytes 268435456 --at-once 10`, with the heap that the server has by default (`--heap ""`).
"""

from __future__ import annotations

import argparse
import os
import socket
import threading
from typing import Dict, Iterator, List, Tuple

from harness import Server, batch, holds, server

BLOCK = 1 << 16


def repeated(begin: str, piece: str, end: str, size: int) -> Iterator[bytes]:
    """Blocks of a body of about `size` bytes: `begin`, then `piece` again and again, then `end`."""
    yield begin.encode()
    block = (piece * (BLOCK // len(piece))).encode()
    for _ in range(max(1, size // len(block))):
        yield block
    yield end.encode()


def keys(size: int) -> Iterator[bytes]:
    """An object of very many different names."""
    yield b'{"metadata":{'
    count = 0
    for _ in range(max(1, size // BLOCK)):
        names = "".join(f'"{n:010x}":0,' for n in range(count, count + BLOCK // 15))
        count += BLOCK // 15
        yield names.encode()
    yield b'"z":0}}'


KINDS = {
    "objects": lambda size: repeated('{"forward_backward_input":{"data":[', "{},", "{}]}}", size),
    "arrays": lambda size: repeated('{"forward_backward_input":{"data":[', "[],", "[]]}}", size),
    "small objects": lambda size: repeated('{"forward_backward_input":{"data":[', '{"dtype":0},', "{}]}}", size),
    "packed numbers": lambda size: repeated('{"tokens":[', "1,", "1]}", size),
    "fractions": lambda size: repeated('{"data":[', "1.5,", "1]}", size),
    "numbers": lambda size: repeated('{"stop":[', "1,", "1]}", size),
    "strings": lambda size: repeated('{"tags":[', '"",', '""]}', size),
    "one string": lambda size: repeated('{"text":"', "aä", '"}', size),
    "base64": lambda size: repeated('{"forward_backward_input":{"data":[{"tokens_base64":"', "AAAA", '"}]}}', size),
    "keys": keys,
    "unknown": lambda size: repeated('{"surprise":[', '{"a":[]},', "0]}", size),
    "nesting": lambda size: repeated('{"data":', "[", "", size),
}


def post(port: int, body: List[bytes]) -> int:
    """Sends a body and returns the status of the answer; 0 if the connection ended without one."""
    with socket.create_connection(("127.0.0.1", port), 300) as connection:
        head = (f"POST /api/v1/forward_backward HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
                f"Content-Type: application/json\r\nContent-Length: {sum(map(len, body))}\r\n\r\n")
        connection.sendall(head.encode())
        for block in body:
            connection.sendall(block)
        answer = b""
        while b"\r\n" not in answer:
            got = connection.recv(BLOCK)
            if not got:
                return 0
            answer += got
        return int(answer.split()[1])


def attack(running: Server, kind: str, size: int, at_once: int) -> List[int]:
    """The statuses of bodies of one kind that are sent at once."""
    # blocks of one body are few objects that repeat, so the attack itself takes no memory
    cache: Dict[bytes, bytes] = {}
    body = [cache.setdefault(block, block) for block in KINDS[kind](size)]
    statuses: List[int] = []
    senders = [threading.Thread(target=lambda: statuses.append(post(running.port, body))) for _ in range(at_once)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    return statuses


class Other(threading.Thread):
    """A client that works while bodies arrive."""

    def __init__(self, running: Server) -> None:
        super().__init__(daemon=True)
        self.training = running.client().create_lora_training_client(base_model="bios/tiny", rank=4, seed=1)
        self.served = 0
        self.failure: List[BaseException] = []
        self.ended = threading.Event()

    def run(self) -> None:
        try:
            while not self.ended.is_set():
                self.training.forward(batch(self.served, 1, 16), "cross_entropy").result(timeout=120)
                self.served += 1
        except BaseException as failed:  # reported by the check
            self.failure.append(failed)


def small_heap(heap: str) -> None:
    """Gives the server this heap."""
    if not heap:
        return
    os.environ["BIOS_JAVA_OPTIONS"] = f"{os.environ.get('BIOS_JAVA_OPTIONS', '')} -Xmx{heap}".strip()
    command = os.environ.get("BIOS_COMMAND", "")
    if " -cp " in command:
        os.environ["BIOS_COMMAND"] = command.replace(" -cp ", f" -Xmx{heap} -cp ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bytes", type=int, default=6 << 20)
    parser.add_argument("--at-once", type=int, default=3)
    parser.add_argument("--heap", default="128m", help="-Xmx of the server, empty for its default")
    parser.add_argument("--kinds", default=",".join(KINDS))
    a = parser.parse_args()
    small_heap(a.heap)
    with server() as running:
        other = Other(running)
        other.start()
        for kind in a.kinds.split(","):
            before = other.served
            statuses: List[int] = attack(running, kind, a.bytes, a.at_once)
            refused: Tuple[int, ...] = (400, 413, 429)
            holds(f"{a.at_once} x {a.bytes} bytes of {kind}: {sorted(statuses)}",
                  len(statuses) == a.at_once and all(status in refused for status in statuses))
            print(f"  meanwhile {other.served - before} requests of another client", flush=True)
        other.ended.set()
        other.join(120)
        holds(f"another client was served throughout ({other.served} requests)", other.served > 0 and not other.failure)
        holds("the process lives", running.process is not None and running.process.poll() is None)
        other.training.forward(batch(0, 1, 16), "cross_entropy").result(timeout=60)


if __name__ == "__main__":
    main()
