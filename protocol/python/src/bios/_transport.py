"""HTTP with persistent connections, and retries of idempotent calls.

Calls of the protocol are idempotent, so a failed call is retried until it is answered or its time limit is
reached. A restart of the server therefore only delays calls. :meth:`Transport.post_once` is for the others.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import os
import random
import re
import socket
import ssl
import sys
import threading
import time
import weakref
from dataclasses import dataclass
from email.message import Message
from typing import Any, Callable, Dict, Generator, Iterator, List, Mapping, Optional, Tuple
from urllib.parse import urlsplit

from . import _progress
from .errors import APIConnectionError, APIResponseError, APIStatusError, InvalidArgumentError, status_error

log = logging.getLogger("bios")
log.addHandler(logging.NullHandler())

VERSION = "0.1.0"
CONNECT_SECONDS = 10.0
READ_SECONDS = 60.0
POLL_SECONDS = 45.0
EVENTS = "text/event-stream"
KEPT_CONNECTIONS = 16
SMALL_BODY_BYTES = 1 << 16
SENT_BYTES = 1 << 20
NOTICE_AFTER_SECONDS = 10.0
SILENT_SECONDS = 2.0
NOTICE_EVERY_SECONDS = 60.0
LONGEST_RETRY_AFTER_SECONDS = 60.0


@dataclass(frozen=True)
class RetryPolicy:
    """The retry policy of a call.

    ``call_seconds``: how long a call is retried while the server is unreachable or answers 5xx (None: without
    limit). Waiting for a full queue (429) does not count; waiting for a result is limited only by the timeout of
    ``result``. Pauses grow from ``first_seconds`` to ``longest_seconds``, each times a random
    number from 0.5 to 1. ``clock``, ``sleep`` and ``chance`` are for tests.
    """

    call_seconds: Optional[float] = 600.0
    first_seconds: float = 0.1
    longest_seconds: float = 5.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random

    def pause(self, attempt: int, retry_after: Optional[float] = None) -> float:
        """Seconds to wait after the attempt of this number, from 0."""
        grown = min(self.longest_seconds, self.first_seconds * 2.0 ** min(attempt, 30)) * (0.5 + self.chance() / 2)
        return grown if retry_after is None else max(retry_after, 0.0) + grown / 10


class NoResponse(Exception):
    """An exchange failed without a response. ``final``: a retry would fail too; ``sent``: the server may have the
    request."""

    def __init__(self, cause: BaseException, final: bool = False, sent: bool = True) -> None:
        super().__init__(f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__)
        self.cause = cause
        self.final = final
        self.sent = sent


class Answer:
    """A complete HTTP response. ``repeated``: an earlier attempt may have reached the server."""

    __slots__ = ("status", "headers", "body", "repeated")

    def __init__(self, status: int, headers: Message, body: bytes, repeated: bool) -> None:
        self.status, self.headers, self.body, self.repeated = status, headers, body, repeated

    @property
    def retry_after(self) -> Optional[float]:
        """Seconds of ``Retry-After``."""
        try:
            seconds = float(self.headers.get("Retry-After") or "nan")
        except ValueError:
            return None
        return min(seconds, LONGEST_RETRY_AFTER_SECONDS) if seconds >= 0 else None

    def json(self) -> Dict[str, Any]:
        """The body as a JSON object."""
        if not self.body:
            return {}
        try:
            read = json.loads(self.body)
        except ValueError:
            raise APIResponseError(f"the response of the server is not JSON: {self.body[:200]!r}") from None
        if not isinstance(read, dict):
            raise APIResponseError(f"the response of the server is not a JSON object: {self.body[:200]!r}")
        return read


class Notice:
    """Reports long waits: to the log each time, to stderr after 10 s (2 s if no server answers) and then once a minute
    for the whole process. ``BIOS_PROGRESS=0`` turns the messages on stderr off."""

    _told = -1e18
    _lock = threading.Lock()

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._start = policy.clock()
        self._logged = self._start

    def waiting(self, what: str, level: int = logging.INFO, after: float = NOTICE_AFTER_SECONDS) -> None:
        """Reports the wait if it is due: after this many seconds, and every 10 s from then on."""
        now = self._policy.clock()
        first = self._logged == self._start
        if now - self._start < after or not first and now - self._logged < NOTICE_AFTER_SECONDS:
            return
        self._logged = now
        text = f"{what} ({now - self._start:.0f} s)"
        log.log(level, text)
        if os.environ.get("BIOS_PROGRESS") == "0" or sys.stderr is None:
            return
        with Notice._lock:
            if now - Notice._told < NOTICE_EVERY_SECONDS:
                return
            Notice._told = now
        _progress.line(f"bios: {text}")


def _clear(pools: "List[_Pool]") -> None:
    for pool in pools:
        pool.clear()


class _OnePacketConnection(http.client.HTTPConnection):
    """Sends head and small body of a request in one packet, so that the server reads both at once."""

    _held: Optional[List[bytes]] = None

    def request(self, method: str, url: str, body: Any = None, headers: Any = {}, *, encode_chunked: bool = False) -> None:
        if not isinstance(body, bytes) or len(body) > SMALL_BODY_BYTES:
            super().request(method, url, body, headers, encode_chunked=encode_chunked)
            return
        self._held = []
        try:
            super().request(method, url, body, headers, encode_chunked=encode_chunked)
            whole = b"".join(self._held)
        finally:
            self._held = None
        self.send(whole)

    def send(self, data: Any) -> None:
        if self._held is None:
            super().send(data)
        else:
            self._held.append(data)


class _Plain(_OnePacketConnection):
    pass


class _Secure(_OnePacketConnection, http.client.HTTPSConnection):
    pass


class _Pool:
    """Idle connections."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.idle: List[http.client.HTTPConnection] = []
        self.owner = os.getpid()

    def take(self) -> Optional[http.client.HTTPConnection]:
        with self.lock:
            if self.owner != os.getpid():  # after a fork the sockets are the parent's
                self.owner, stale, self.idle = os.getpid(), self.idle, []
            else:
                stale = []
            found = self.idle.pop() if self.idle else None
        for connection in stale:
            connection.close()
        return found

    def give(self, connection: http.client.HTTPConnection) -> None:
        with self.lock:
            if len(self.idle) < KEPT_CONNECTIONS and connection.sock is not None and self.owner == os.getpid():
                self.idle.append(connection)
                return
        connection.close()

    def clear(self) -> None:
        with self.lock:
            idle, self.idle = self.idle, []
        for connection in idle:
            connection.close()


class _Server:
    """One address and its idle connections."""

    def __init__(self, base_url: str) -> None:
        parts = urlsplit(base_url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1 or parts.query or parts.fragment:
            raise InvalidArgumentError("base_url", f"{base_url!r} is not an address such as http://127.0.0.1:8400")
        self.secure = parts.scheme == "https"
        self.host, self.port = parts.hostname, port
        self.base = parts.path.rstrip("/")
        self.root = self.base + "/api/v1"
        self.pool = _Pool()


#: What OpenSSL calls the answer of a server that does not speak TLS.
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL")


def _final(error: BaseException) -> bool:
    """Whether the same call would fail again."""
    if isinstance(error, ssl.SSLError) and (error.reason or "") in _NO_TLS:
        return True
    return isinstance(error, (ssl.SSLCertVerificationError, http.client.InvalidURL))


def _explained(error: BaseException, secure: bool) -> BaseException:
    """The error, with what to do where that is known."""
    if isinstance(error, ssl.SSLError) and (error.reason or "") in _NO_TLS:
        return OSError(f"the server does not speak TLS ({error.reason}); is its address http:// instead of https://?")
    if isinstance(error, http.client.BadStatusLine) and not isinstance(error, http.client.RemoteDisconnected) and not secure:
        return OSError(f"the answer is not HTTP ({str(error)[:40]!r}); is the address https:// instead of http://, or another"
                       " service's?")
    return error


class Transport:
    """Calls of one service with one key. Safe to use from many threads.

    ``base_url`` may name several coordinators of one cluster, with commas between them: the first one that answers
    is used until it fails, then the next.
    """

    def __init__(self, base_url: str, api_key: Optional[str], policy: RetryPolicy) -> None:
        if api_key is not None and not (isinstance(api_key, str) and api_key.isascii() and api_key.isprintable()):
            raise InvalidArgumentError("api_key", "contains characters that are not allowed in an HTTP header")
        addresses = [address.strip().rstrip("/") for address in base_url.split(",")]
        self._servers = [_Server(address) for address in addresses]
        self._using = 0
        self.base_url = ",".join(addresses)
        self.policy = policy
        self._tls: Optional[ssl.SSLContext] = None
        self._headers = {
            "User-Agent": f"bios-python/{VERSION} Python/{sys.version_info[0]}.{sys.version_info[1]}",
            "Accept": "application/vnd.bios+json, application/json",
        }
        if api_key:
            self._headers["X-API-Key"] = api_key
        pools = [server.pool for server in self._servers]
        weakref.finalize(self, _clear, pools)

    @property
    def address(self) -> str:
        """The address that is asked now, one of ``base_url``."""
        return self.base_url.split(",")[self._using]

    def close(self) -> None:
        """Closes the idle connections."""
        for server in self._servers:
            server.pool.clear()

    # -- one exchange ----------------------------------------------------------------------------------------

    def _connect(self, server: _Server) -> http.client.HTTPConnection:
        if server.secure:
            if self._tls is None:
                self._tls = ssl.create_default_context()
            return _Secure(server.host, server.port, timeout=CONNECT_SECONDS, context=self._tls)
        return _Plain(server.host, server.port, timeout=CONNECT_SECONDS)

    def _avoid(self, server: _Server) -> None:
        """The next attempt goes to another address, if there is one."""
        if self._servers[self._using] is server:
            self._using = (self._using + 1) % len(self._servers)

    def _send(self, method: str, path: str, body: Optional[bytes], accept: Optional[str], seconds: float,
              more: Mapping[str, str] = {}, once: bool = False,
              ) -> Tuple[_Server, http.client.HTTPConnection, http.client.HTTPResponse, bool]:
        """Sends a request and reads the head of the response; raises :class:`NoResponse`. The last value: whether the
        request may have been sent before, which it is never if ``once``."""
        repeated = sent = False
        server = self._servers[self._using]
        headers = {**self._headers, **more}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if accept is not None:
            headers["Accept"] = accept
        while True:
            connection = None if once else server.pool.take()
            kept = connection is not None
            if connection is None:
                connection = self._connect(server)
            try:
                if connection.sock is None:
                    connection.timeout = min(CONNECT_SECONDS, seconds)
                    connection.connect()
                assert connection.sock is not None
                connection.sock.settimeout(seconds)
                try:
                    where = server.base + path[1:] if path.startswith("~") else server.root + path
                    sent = True
                    connection.request(method, where, body, headers)
                except BrokenPipeError:
                    pass  # a server that refuses a large body answers before it has read it
                return server, connection, connection.getresponse(), repeated
            except (OSError, http.client.HTTPException) as e:
                connection.close()
                if kept and not isinstance(e, socket.timeout):
                    repeated = True
                    server.pool.clear()  # the server closed an idle connection, which is no failure
                    continue
                self._avoid(server)
                raise NoResponse(_explained(e, server.secure), final=_final(e), sent=sent) from e
            except BaseException:
                connection.close()
                raise

    def exchange(self, method: str, path: str, body: Optional[bytes] = None, accept: Optional[str] = None,
                 seconds: float = READ_SECONDS, once: bool = False) -> Answer:
        """One request and its response of any status; raises :class:`NoResponse` without a response. ``once``: not even a
        request that an idle connection has lost is sent again."""
        server, connection, response, repeated = self._send(method, path, body, accept, seconds, once=once)
        try:
            content = response.read()
        except (OSError, http.client.HTTPException) as e:
            connection.close()
            self._avoid(server)
            raise NoResponse(e) from e
        except BaseException:
            connection.close()
            raise
        if response.will_close:
            connection.close()
        else:
            server.pool.give(connection)
        return Answer(response.status, response.headers, content, repeated)

    def stream(self, path: str, accept: str, size: int = 1 << 20, state: "Optional[DownloadState]" = None) -> Iterator[bytes]:
        """The body of a GET in chunks; raises :class:`NoResponse` if the connection breaks, and the error of a refusal.

        ``state``: the download to resume; its ``start`` is set before the first chunk to where the chunks begin.
        """
        asked: Dict[str, str] = {}
        if state is not None and state.start and state.tag:
            asked = {"Range": f"bytes={state.start}-", "If-Range": state.tag}
        _, connection, response, _ = self._send("GET", path, None, accept, READ_SECONDS, asked)
        try:
            if response.status not in (200, 206 if asked else 200):
                raise status_error(response.status, response.read())
            expected, seen = response.getheader("Content-Length"), 0
            if state is not None:
                state.answered(response)
            while True:
                piece = response.read(size)
                if not piece:
                    break
                seen += len(piece)
                yield piece
            if expected is not None and seen != int(expected):
                raise NoResponse(EOFError(f"{seen} of {expected} bytes"))
        except (OSError, http.client.HTTPException) as e:
            raise NoResponse(e) from e
        finally:
            connection.close()

    def put_file(self, url: str, file: str, sent: Callable[[int], None]) -> Dict[str, Any]:
        """Sends a file to a URL that needs no key, with retries from its begin; the JSON object of the answer.

        ``url``: absolute, or a path of the server that is asked now. ``sent`` is told the bytes as they go, and the
        negative of them when they are sent again.
        """
        parts = urlsplit(url)
        server = _Server(f"{parts.scheme}://{parts.netloc}") if parts.scheme else self._servers[self._using]
        tries = self.attempts(f"PUT {parts.path}")
        headers = {"User-Agent": self._headers["User-Agent"], "Content-Type": "application/octet-stream",
                   "Content-Length": str(os.path.getsize(file))}
        while True:
            connection = self._connect(server)
            content = _Sent(file, sent)
            try:
                with content:
                    try:
                        connection.request("PUT", f"{parts.path}?{parts.query}", content, headers)
                        if connection.sock is not None:
                            connection.sock.settimeout(READ_SECONDS * 10)  # the server makes the file durable
                    except (BrokenPipeError, ConnectionResetError):
                        pass  # a server that refuses a large body answers before it has read it
                    answer = connection.getresponse()
                    body = answer.read()
            except (OSError, http.client.HTTPException) as e:
                if isinstance(e, OSError) and e.filename is not None:
                    raise  # of the file
                content.undo()
                tries.after(NoResponse(_explained(e, server.secure), final=_final(e)))
                continue
            finally:
                connection.close()
            if 200 <= answer.status < 300:
                found = Answer(answer.status, answer.headers, body, False).json()
                if found.get("sha256") != content.digest.hexdigest():
                    raise APIResponseError(f"{file} arrived otherwise than it was sent: {found}")
                return found
            content.undo()
            error = status_error(answer.status, body)
            if not retryable(answer.status, error.code):
                raise error
            tries.after(error)

    def events(self, path: str, body: Mapping[str, Any]) -> Generator[Dict[str, Any], None, None]:
        """The server-sent events of a POST, as they come, without the last one, ``[DONE]``. Retries until the answer begins;
        raises the error of a refusal, and :class:`NoResponse` if the stream breaks off."""
        encoded = encode(body)
        tries = self.attempts(f"POST {path}")
        while True:
            try:
                _, connection, response, _ = self._send("POST", path, encoded, EVENTS, READ_SECONDS)
                if response.status == 200:
                    break
                refused = response.read()
            except NoResponse as e:
                tries.after(e)
                continue
            except (OSError, http.client.HTTPException) as e:
                tries.after(NoResponse(e))
                continue
            connection.close()
            error = status_error(response.status, refused)
            if not retryable(response.status, error.code):
                raise error
            tries.after(error)
        try:
            for line in response:
                if line.startswith(b"data:"):
                    data = line[5:].strip()
                    if data == b"[DONE]":
                        return
                    yield json.loads(data)
            raise NoResponse(EOFError("the stream has no end"))
        except (OSError, http.client.HTTPException, ValueError) as e:
            raise NoResponse(e) from e
        finally:
            connection.close()

    # -- retries ---------------------------------------------------------------------------------------------

    def attempts(self, what: str) -> "Attempts":
        """The retries of one call."""
        return Attempts(self, what)

    def call(self, method: str, path: str, body: Optional[Mapping[str, Any]] = None, *,
             encoded: Optional[bytes] = None, accept: Optional[str] = None) -> Answer:
        """A call with retries: returns the response, or raises the exception of a refusal. ``path`` is below
        ``/api/v1``, or below the address itself if it begins with ``~``.

        A retried DELETE treats 404 as success, because the first attempt may have succeeded.
        """
        if body is not None:
            encoded = encode(body)
        tries = self.attempts(f"{method} {path}")
        lost = False
        while True:
            try:
                answer = self.exchange(method, path, encoded, accept)
            except NoResponse as e:
                lost = True
                tries.after(e)
                continue
            lost = lost or answer.repeated
            if 200 <= answer.status < 300 or (lost and method == "DELETE" and answer.status == 404):
                return answer
            error = status_error(answer.status, answer.body)
            if not retryable(answer.status, error.code):
                raise error
            tries.after(error, answer.retry_after)

    def get(self, path: str) -> Dict[str, Any]:
        """A GET's JSON object."""
        return self.call("GET", path).json()

    def post(self, path: str, body: Mapping[str, Any]) -> Dict[str, Any]:
        """A POST's JSON object."""
        return self.call("POST", path, body).json()

    def post_once(self, path: str, body: Mapping[str, Any]) -> Dict[str, Any]:
        """The JSON object of a POST whose repetition would do something else. It is retried only while it was certainly
        not carried out; an answer that is lost is an :class:`APIConnectionError` that says so."""
        tries = self.attempts(f"POST {path}")
        while True:
            try:
                answer = self.exchange("POST", path, encode(body), once=True)
            except NoResponse as e:
                if e.sent:
                    raise APIConnectionError(
                        f"POST {path}: the answer was lost ({e}), and the call may have been carried out. It was not repeated,"
                        " because it names no operation: look at the run, then name the operation") from e.cause
                tries.after(e)
                continue
            if 200 <= answer.status < 300:
                return answer.json()
            error = status_error(answer.status, answer.body)
            if answer.status != 429:  # which is given before anything is done
                raise error
            tries.after(error, answer.retry_after)


class _Sent:
    """A file that is sent: counts and digests what is read of it."""

    def __init__(self, file: str, sent: Callable[[int], None]) -> None:
        self._file, self._sent = open(file, "rb"), sent
        self._count = 0
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """The next bytes, in larger pieces than HTTP asks for."""
        piece = self._file.read(max(size, SENT_BYTES) if size >= 0 else -1)
        self.digest.update(piece)
        self._count += len(piece)
        self._sent(len(piece))
        return piece

    def undo(self) -> None:
        """What was sent is sent again."""
        self._sent(-self._count)

    def __enter__(self) -> "_Sent":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class DownloadState:
    """A download that can be resumed. ``start``: the bytes that are there already; ``tag``: the ETag of the content that they
    belong to; ``total``: the bytes of the whole, once it is known."""

    def __init__(self, start: int = 0, tag: Optional[str] = None) -> None:
        self.start, self.tag = start, tag
        self.total: Optional[int] = None

    def answered(self, response: http.client.HTTPResponse) -> None:
        """Sets ``start`` to where the body of a response begins: 0 if it is the whole content."""
        length = response.getheader("Content-Length")
        if response.status == 206:
            told = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.getheader("Content-Range") or "")
            if told is None or int(told[1]) != self.start:
                raise NoResponse(ValueError(f"asked for the bytes from {self.start}, got {response.getheader('Content-Range')}"),
                              final=True)
            self.total = int(told[2])
            return
        self.start = 0
        self.total = int(length) if length is not None else None
        ranges = response.getheader("Accept-Ranges") == "bytes"
        self.tag = response.getheader("ETag") if ranges else None


def encode(body: Mapping[str, Any]) -> bytes:
    """Compact JSON in UTF-8."""
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode("utf-8", "surrogatepass")


def retryable(status: int, code: Optional[str] = None) -> bool:
    """Whether a retry may succeed. What is lost or damaged in a store is not retried."""
    if code in ("blob_missing", "blob_damaged", "run_damaged", "session_damaged"):
        return False
    return status in (408, 425, 429) or (status >= 500 and status != 501)


class Attempts:
    """The attempts of one call and the time since its first failure."""

    def __init__(self, transport: Transport, what: str) -> None:
        self._transport = transport
        self._what = what
        self._policy = transport.policy
        self._notice = Notice(self._policy)
        self._number = 0
        self._since: Optional[float] = None

    def after(self, why: Exception, retry_after: Optional[float] = None) -> None:
        """Waits before the next attempt, or raises if the time limit is reached."""
        policy, now = self._policy, self._policy.clock()
        if isinstance(why, APIStatusError) and why.status == 429:
            self._since = None  # a full queue is no outage
            state = f"the server's queue is full, {self._what} waits"
        else:
            self._since = now if self._since is None else self._since
            state = f"waiting for {self._transport.base_url}: {why}"
            limit = policy.call_seconds
            final = isinstance(why, NoResponse) and why.final
            if final or (limit is not None and now - self._since >= limit):
                if isinstance(why, APIStatusError):
                    raise why
                cause = why.cause if isinstance(why, NoResponse) else why
                tried = "" if final else f" for {now - self._since:.0f} s"
                raise APIConnectionError(
                    f"{self._what}: no answer from {self._transport.base_url}{tried}; the last failure was {why}"
                ) from cause
        log.debug("%s: attempt %d: %s", self._what, self._number + 1, why)
        self._notice.waiting(state, logging.WARNING, SILENT_SECONDS)
        policy.sleep(policy.pause(self._number, retry_after))
        self._number += 1
