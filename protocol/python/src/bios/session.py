"""The state shared by the clients of a :class:`bios.ServiceClient`: connection, session and heartbeat."""

from __future__ import annotations

import itertools
import os
import secrets
import threading
import uuid
import weakref
from collections import defaultdict
from typing import Any, Callable, DefaultDict, Dict, Mapping, Optional, Tuple, TypeVar

from . import config
from ._transport import VERSION, NoResponse, RetryPolicy, Transport, encode, log
from .errors import APIResponseError
from .futures import RequestFuture

T = TypeVar("T")

HEARTBEAT_SECONDS = 10.0


class Session:
    """A session is created when the first run or sampler needs it, under an id that the client chooses, so that
    creation is idempotent. It sends heartbeats while a client of it exists, and does not keep a program alive.

    A process that is forked has a session of its own: what it creates is not what its parent creates."""

    def __init__(self, transport: Transport, user_metadata: Optional[Mapping[str, Any]],
                 project_id: Optional[str] = None) -> None:
        self.transport = transport
        self._project = {} if project_id is None else {"project_id": str(project_id)}
        self._user_metadata = dict(user_metadata or {})
        self._models = itertools.count(0)
        self._samplers = itertools.count(0)
        self._first_sample = 0
        self._samples: DefaultDict[str, int] = defaultdict(lambda: self._first_sample)
        self.tokenizers: Dict[str, Any] = {}
        self._begin()
        _SESSIONS.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._id: Optional[str] = None
        self._stop = threading.Event()
        weakref.finalize(self, self._stop.set)

    @property
    def id(self) -> str:
        """The session's id; creates the session at the server if there is none yet."""
        with self._lock:
            if self._id is None:
                wanted = str(uuid.uuid4())
                made = self.transport.post("/create_session", {
                    "session_id": wanted, "user_metadata": self._user_metadata, "tags": [],
                    "sdk_version": f"bios-python {VERSION}", **self._project,
                })
                self._id = str(made.get("session_id") or wanted)
                threading.Thread(target=_beat, args=(weakref.ref(self), self._stop), name="bios-heartbeat",
                                 daemon=True).start()
            return self._id

    def next_model(self) -> int:
        """A number for a run within the session, from 0."""
        with self._lock:
            return next(self._models)

    def next_sampler(self) -> int:
        """A number for a sampler within the session, from 0."""
        with self._lock:
            return next(self._samplers)

    def next_sample(self, sampler_id: str) -> int:
        """A number for a request of a sampler, from 1. Several clients of one sampler share the count."""
        with self._lock:
            self._samples[sampler_id] += 1
            return self._samples[sampler_id]

    def count_apart(self) -> "Session":
        """Makes the numbers of sampling requests those of no other process that uses the same samplers."""
        self._first_sample = secrets.randbits(38) << 20
        self._samples.clear()
        return self

    def submit(self, path: str, body: Mapping[str, Any], what: str,
               parse: Callable[[Mapping[str, Any]], T]) -> RequestFuture[T]:
        """Submits an operation; when this returns, its place in the order is fixed."""
        return RequestFuture(self, what, parse, request_id(self.transport.post(path, body)))

    def close(self) -> None:
        """Ends the heartbeat and closes idle connections; later calls open new ones."""
        self._stop.set()
        self.transport.close()


#: Every session of this process.
_SESSIONS: "weakref.WeakSet[Session]" = weakref.WeakSet()


def _forked() -> None:
    """In a child process, which has no heartbeats and counts with its parent from here on."""
    for session in list(_SESSIONS):
        session._begin()
        session.count_apart()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


_SHARED: Dict[Tuple[str, Optional[str]], Session] = {}
_SHARED_LOCK = threading.Lock()


def shared_session(base_url: str) -> Session:
    """The session of what was pickled elsewhere and is of this server; with the key that this process has for it."""
    key = config.server(base_url, None)[1]
    with _SHARED_LOCK:
        session = _SHARED.get((base_url, key))
        if session is None:
            session = _SHARED[base_url, key] = Session(Transport(base_url, key, RetryPolicy()), None).count_apart()
    return session


def request_id(answer: Mapping[str, Any]) -> str:
    """The operation's id in the response of an accepted call."""
    if not answer.get("request_id"):
        raise APIResponseError(f"the server accepted an operation without giving its id: {dict(answer)!r}"[:300])
    return str(answer["request_id"])


def _beat(session: "weakref.ref[Session]", stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_SECONDS):
        alive = session()
        if alive is None:
            return
        transport, body = alive.transport, encode({"session_id": alive._id})
        del alive
        try:
            answer = transport.exchange("POST", "/session_heartbeat", body, seconds=HEARTBEAT_SECONDS)
            if answer.status >= 400:
                log.debug("heartbeat: HTTP %d", answer.status)
        except NoResponse as e:
            log.debug("heartbeat: %s", e)
