"""A TCP proxy that holds back every byte while it is told to, and may break its connections: a network that drops packets."""

from __future__ import annotations

import socket
import threading
from typing import List, Tuple

Address = Tuple[str, int]


class HoldingProxy:
    """Passes connections on from one address to another."""

    def __init__(self, at: Address, target: Address) -> None:
        self._target = target
        self._free = threading.Event()
        self._free.set()
        self._open: List[socket.socket] = []
        self._server = socket.create_server(at, backlog=64)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._server.accept()
            except OSError:
                return
            try:
                other = socket.create_connection(self._target, timeout=5)
                other.settimeout(None)
            except OSError:
                peer.close()
                continue
            self._open += [peer, other]
            for source, sink in ((peer, other), (other, peer)):
                threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while True:
                data = source.recv(1 << 16)
                if not data:
                    break
                self._free.wait()
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.close()
            except OSError:
                pass

    def hold(self) -> None:
        """Nothing passes from now on."""
        self._free.clear()

    def release(self, broken: bool) -> None:
        """Everything passes again; or the connections are broken, as by a network that was away for long."""
        if broken:
            for end in self._open:
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
            self._open.clear()
        self._free.set()

    def close(self) -> None:
        """Ends it."""
        self._server.close()
        self.release(True)
