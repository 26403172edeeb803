"""Futures of results."""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
import re
import socket
import threading
from typing import (TYPE_CHECKING, Any, Callable, Generator, Generic, Iterable, Iterator, List, Mapping, Optional, Sequence,
                    TypeVar)

from . import _progress
from ._threads import POLL
from ._transport import POLL_SECONDS, SILENT_SECONDS, Notice, NoResponse, encode, log, retryable
from .errors import APIConnectionError, APIResponseError, APITimeoutError, BiosError, RequestFailedError, status_error

if TYPE_CHECKING:
    from .session import Session

T = TypeVar("T")
U = TypeVar("U")
R = TypeVar("R", bound="Ready")


class Future(Generic[T]):
    """The future result of a submitted call.

    The call takes effect even if the future is dropped: the end of the program waits for calls of other threads that change
    something, for ten minutes at most. Use ``result()`` in synchronous code
    and ``await future`` in asyncio; repeated calls return the same result. A failure of category ``server`` is asked
    for again by the next call: an operation that was set aside may have been tried again since.
    """

    _value: T
    _error: Optional[BaseException] = None
    _settled = False

    @property
    def request_id(self) -> Optional[str]:
        """The operation's id at the server (of a batch sent in parts: the last part's); None while it has none."""
        return None

    def result(self, timeout: Optional[float] = None) -> T:
        """Waits for the result.

        ``timeout``: seconds, None: no limit; raises :class:`APITimeoutError` when they have passed (the operation
        continues, wait again). Raises :class:`RequestFailedError` if the operation failed, and the exceptions of a
        refused call.
        """
        self._reopen()
        if not self._settled:
            deadline = None if timeout is None else self._clock()() + timeout
            with _progress.waiting(self._named):
                self._wait(deadline)
        return self._get()

    def exception(self, timeout: Optional[float] = None) -> Optional[BaseException]:
        """Waits like ``result``, and returns the exception that it would raise, or None."""
        self._reopen()
        clock = self._clock()
        self._wait(None if timeout is None else clock() + timeout)
        return self._error

    async def result_async(self, timeout: Optional[float] = None) -> T:
        """``result`` for asyncio."""
        self._reopen()
        if self._settled:
            return self._get()
        deadline = None if timeout is None else self._clock()() + timeout
        abandoned = threading.Event()
        settled = asyncio.wrap_future(POLL.drive(self._polls(deadline, abandoned)))
        try:
            await asyncio.wait([settled], timeout=timeout)
            if not settled.done():  # all threads of the pool are busy
                raise self._late()
            settled.result()
        finally:
            abandoned.set()
            settled.cancel()
        return self._get()

    def __await__(self) -> Generator[Any, None, T]:
        return self.result_async().__await__()

    async def coroutine(self) -> T:
        """The same as ``result_async``, for what takes coroutines only."""
        return await self

    def done(self) -> bool:
        """Whether the result is available. Does not block: the first call starts polling in the background."""
        return self._settled

    def running(self) -> bool:
        """Whether the result is still to come."""
        return not self.done()

    def cancel(self) -> bool:
        """False: an operation that was accepted is carried out."""
        return False

    def cancelled(self) -> bool:
        """False: see ``cancel``."""
        return False

    def future(self) -> "concurrent.futures.Future[T]":
        """The same as a future of the standard library, for ``concurrent.futures.wait`` and ``as_completed``. It cannot be
        cancelled."""
        plain: "concurrent.futures.Future[T]" = concurrent.futures.Future()
        plain.set_running_or_notify_cancel()

        def settle(done: "Future[T]") -> None:
            if done._error is not None:
                plain.set_exception(done._error)
            else:
                plain.set_result(done._value)

        self.add_done_callback(settle)
        return plain

    def add_done_callback(self, fn: "Callable[[Future[T]], object]") -> None:
        """Calls ``fn(future)`` once when the result or the failure is there, on a background thread; at once, on this one, if it
        is there already. What ``fn`` raises is logged."""
        if self._settled:
            self._call_back(fn)
        else:
            POLL.drive(self._polls(None, threading.Event())).add_done_callback(
                lambda polled: self._call_back(fn, polled.exception()))

    def _call_back(self, fn: "Callable[[Future[T]], object]", error: Optional[BaseException] = None) -> None:
        if error is not None and not self._settled:
            self._error, self._settled = error, True
        try:
            fn(self)
        except Exception:
            log.exception("a callback of %r failed", self)

    def _named(self) -> str:
        """What the result is of, for the representation."""
        raise NotImplementedError

    def __repr__(self) -> str:
        if not self._settled:
            state = "pending"
        elif self._error is not None:
            state = f"failed: {type(self._error).__name__}: {self._error}"
        else:
            state = "done"
        return f"<Future of {self._named()}, {state}>"

    def _clock(self) -> Callable[[], float]:
        raise NotImplementedError

    def _polls(self, deadline: Optional[float], abandoned: threading.Event) -> Iterator[None]:
        """Ends when settled (or abandoned), after any number of steps; raises :class:`APITimeoutError` at the deadline."""
        raise NotImplementedError

    def _wait(self, deadline: Optional[float]) -> None:
        for _ in self._polls(deadline, threading.Event()):
            pass

    def _late(self) -> APITimeoutError:
        operation = "" if self.request_id is None else f" (operation {self.request_id})"
        return APITimeoutError(f"{self._named()}: no result yet{operation}; it continues, wait again")

    def _get(self) -> T:
        if self._error is not None:
            raise self._error
        return self._value

    def _reopen(self) -> None:
        """Forgets a failure that the service may have mended."""

    def _failed_at_the_server(self) -> bool:
        return self._settled and isinstance(self._error, RequestFailedError) and self._error.category == "server"

    def _settle(self, outcome: Callable[[], T]) -> None:
        try:
            self._value = outcome()
        except Exception as e:
            self._error = e
        self._settled = True


APIFuture = Future


def as_completed(futures: Iterable[Future[T]], timeout: Optional[float] = None) -> Iterator[Future[T]]:
    """The futures as their results or failures arrive, like ``concurrent.futures.as_completed``.

    ``timeout``: seconds for all of them; raises :class:`APITimeoutError` when they have passed.
    """
    waiting = list(futures)
    finished: "queue.SimpleQueue[Future[T]]" = queue.SimpleQueue()
    for future in waiting:
        future.add_done_callback(finished.put)
    clock = waiting[0]._clock() if waiting else (lambda: 0.0)
    deadline = None if timeout is None else clock() + timeout
    for _ in waiting:
        try:
            yield finished.get(timeout=None if deadline is None else max(0.0, deadline - clock()))
        except queue.Empty:
            raise APITimeoutError(f"{len(waiting)} results did not arrive within {timeout:g} s; they continue, wait"
                                  " again") from None


class RequestFuture(Future[T]):
    """A future that polls ``retrieve_future``. With ``submit``, it is submitted first, when ``after`` is settled, and submitted
    again if the server no longer has the request (410)."""

    def __init__(self, session: "Session", what: str, parse: Callable[[Mapping[str, Any]], T],
                 request_id: Optional[str] = None,
                 submit: Optional[Callable[[], str]] = None, first_datum: int = 0,
                 after: Optional[Future[Any]] = None) -> None:
        self._session: Optional["Session"] = session  # keeps the heartbeat alive while a result is awaited
        self._first_datum = first_datum
        self._transport = session.transport
        self._what = what
        self._parse = parse
        self._id = request_id
        self._submit = submit
        self._after = after
        self._lock = threading.Lock()
        self._asking = False
        self._reason = ""
        self._began = session.transport.policy.clock()
        self._seconds: Optional[float] = None

    def _named(self) -> str:
        seconds = self._seconds if self._seconds is not None else self._clock()() - self._began
        reason = f", {self._reason}" if self._reason and not self._settled else ""
        return f"{self._what}{reason}, {seconds:.0f} s"

    @property
    def request_id(self) -> Optional[str]:
        return self._id

    def _clock(self) -> Callable[[], float]:
        return self._transport.policy.clock

    def _reopen(self) -> None:
        with self._lock:
            if self._failed_at_the_server() and self._id is not None:
                self._settled, self._error = False, None

    def start(self) -> "RequestFuture[T]":
        """Submits in the background."""
        POLL.drive(self._start())
        return self

    def _start(self) -> Iterator[None]:
        yield from self._polls_before(None, threading.Event())
        with self._lock:
            self._ensure_submitted()

    def done(self) -> bool:
        if not self._settled and not self._asking:
            self._asking = True
            POLL.drive(self._polls(None, threading.Event())).add_done_callback(self._asked)
        return self._settled

    def _asked(self, _: object) -> None:
        self._asking = False

    def _polls(self, deadline: Optional[float], abandoned: threading.Event) -> Iterator[None]:
        yield from self._polls_before(deadline, abandoned)
        notice = Notice(self._transport.policy)
        attempt = 0
        while not self._settled and not abandoned.is_set():
            left = self._left(deadline)
            if not self._lock.acquire(timeout=1.0 if left is None else min(left, 1.0)):
                yield
                continue
            try:
                if self._settled:
                    return
                pause = self._poll(deadline, attempt, notice)
            finally:
                self._lock.release()
            attempt = 0 if pause is None else attempt + 1
            if pause is not None and not self._settled:
                left = self._left(deadline)
                self._transport.policy.sleep(pause if left is None else min(pause, left))
            yield

    def _polls_before(self, deadline: Optional[float], abandoned: threading.Event) -> Iterator[None]:
        before = self._after
        if before is not None:
            yield from before._polls(deadline, abandoned)

    def _left(self, deadline: Optional[float]) -> Optional[float]:
        if deadline is None:
            return None
        left = deadline - self._clock()()
        if left <= 0:
            raise self._late()
        return left

    def _ensure_submitted(self) -> None:
        if self._id is not None or self._settled or self._submit is None:
            return
        try:
            self._id = self._submit()
        except BiosError as e:
            self._fail(e)

    def _fail(self, error: BiosError) -> None:
        def raises() -> T:
            raise error
        self._finish(raises)

    def _finish(self, outcome: Callable[[], T]) -> None:
        self._seconds = self._clock()() - self._began
        self._settle(outcome)
        self._submit = self._after = None
        self._session = None

    def _poll(self, deadline: Optional[float], attempt: int, notice: Notice) -> Optional[float]:
        """Polls once. None: poll again at once (or settled); a number: poll again after this many seconds."""
        policy = self._transport.policy
        self._ensure_submitted()
        if self._settled or self._id is None:
            return None
        left = self._left(deadline)
        seconds = POLL_SECONDS if left is None else min(POLL_SECONDS, max(left, 0.001))
        try:
            asked = policy.clock()
            answer = self._transport.exchange("POST", "/retrieve_future", encode({"request_id": self._id}),
                                              seconds=seconds)
        except NoResponse as e:
            if e.final:
                raise APIConnectionError(f"{self._what}: {e}") from e.cause
            if isinstance(e.cause, (TimeoutError, socket.timeout)) and left is not None and left <= POLL_SECONDS:
                return None
            notice.waiting(f"waiting for {self._transport.base_url}: {e}", after=SILENT_SECONDS)
            return policy.pause(attempt)
        if answer.status == 408:
            reason = ""
            try:
                reason = str(answer.json().get("queue_state_reason") or "")
            except APIResponseError:
                pass
            self._reason = reason
            notice.waiting(f"{self._what} is under way" + (f": {reason}" if reason else ""))
            # Polling again at once is meant for long polls; a server that answers immediately is polled with a pause.
            return None if policy.clock() - asked > 0.02 else policy.pause(min(attempt, 3)) / 4
        if answer.status == 410 and self._submit is not None:
            log.info("%s: the server no longer has %s; submitting it again", self._what, self._id)
            self._id = None
            return policy.pause(attempt)
        if answer.status != 200:
            error = status_error(answer.status, answer.body)
            if not retryable(answer.status):
                self._fail(error)
                return None
            notice.waiting(f"waiting for {self._transport.base_url}: {error}")
            return policy.pause(attempt, answer.retry_after)
        try:
            found = answer.json()
        except APIResponseError as e:
            self._fail(e)
            return None
        if found.get("type") == "try_again":
            notice.waiting(f"{self._what} is under way")
            return policy.pause(attempt)
        self._finish(lambda: self._read(found))
        return None

    def _read(self, found: Mapping[str, Any]) -> T:
        if "error" in found:
            raise RequestFailedError(self._id, str(found.get("category") or "unknown"), found.get("code"),
                                     in_batch(str(found["error"]), self._first_datum))
        try:
            return self._parse(found)
        except (KeyError, TypeError, ValueError) as e:
            raise APIResponseError(f"{self._what}: the result cannot be parsed: {type(e).__name__} {e}") from e


def in_batch(text: str, first: int) -> str:
    """A message about a part of a batch that begins with this datum: its ``data[i]`` counted in the whole batch."""
    return re.sub(r"\bdata\[(\d+)\]", lambda m: f"data[{int(m[1]) + first}]", text) if first else text


class Joined(Future[T]):
    """A future composed of others: the parts of a batch, or a transformed result."""

    def __init__(self, parts: Sequence[Future[Any]], join: Callable[[List[Any]], T]) -> None:
        self._parts: List[Future[Any]] = list(parts)
        self._join = join
        self._lock = threading.Lock()

    def _named(self) -> str:
        return self._parts[-1]._named() + (f" in {len(self._parts)} parts" if len(self._parts) > 1 else "")

    @property
    def request_id(self) -> Optional[str]:
        return self._parts[-1].request_id

    @property
    def request_ids(self) -> List[Optional[str]]:
        """The ids of all parts, in order."""
        return [part.request_id for part in self._parts]

    def _clock(self) -> Callable[[], float]:
        return self._parts[0]._clock()

    def _reopen(self) -> None:
        with self._lock:
            if not self._failed_at_the_server():
                return
            for part in self._parts:
                part._reopen()
            self._settled, self._error = False, None

    def _polls(self, deadline: Optional[float], abandoned: threading.Event) -> Iterator[None]:
        if self._settled:
            return
        for part in self._parts:
            yield from part._polls(deadline, abandoned)
            if abandoned.is_set() and not part._settled:
                return
        self._finish()

    def _finish(self) -> None:
        with self._lock:
            if not self._settled:
                self._settle(lambda: self._join([part._get() for part in self._parts]))

    def done(self) -> bool:
        if not self._settled and all([part.done() for part in self._parts]):
            self._finish()
        return self._settled


class JobFuture(Future[T]):
    """The result of a job on a background thread."""

    def __init__(self, job: "concurrent.futures.Future[T]", clock: Callable[[], float], what: str = "a call") -> None:
        self._now = clock
        self._job = job
        self._what = what

    def _named(self) -> str:
        return self._what

    def _clock(self) -> Callable[[], float]:
        return self._now

    def _polls(self, deadline: Optional[float], abandoned: threading.Event) -> Iterator[None]:
        left = None if deadline is None else max(0.0, deadline - self._now())
        while not self._settled and not abandoned.is_set():
            seconds = 1.0 if left is None else min(left, 1.0)
            finished, _ = concurrent.futures.wait([self._job], timeout=seconds)
            if finished:
                self._settle(self._job.result)
                return
            if left is not None:
                left -= seconds
                if left <= 0:
                    raise self._late()
            yield

    def done(self) -> bool:
        if not self._settled and self._job.done():
            self._settle(self._job.result)
        return self._settled


class SubmittedFuture(Future[T]):
    """The result of a call that another thread submits. A submission that fails is the failure of the future."""

    def __init__(self, submission: JobFuture[Future[T]], what: str) -> None:
        self._submission = submission
        self._what = what
        self._lock = threading.Lock()

    def _submitted(self) -> Optional[Future[T]]:
        return self._submission._value if self._submission.done() and self._submission._error is None else None

    def _named(self) -> str:
        submitted = self._submitted()
        return self._what if submitted is None else submitted._named()

    @property
    def request_id(self) -> Optional[str]:
        submitted = self._submitted()
        return None if submitted is None else submitted.request_id

    def _clock(self) -> Callable[[], float]:
        return self._submission._clock()

    def _reopen(self) -> None:
        with self._lock:
            submitted = self._submitted()
            if submitted is not None and self._failed_at_the_server():
                submitted._reopen()
                self._settled, self._error = False, None

    def _polls(self, deadline: Optional[float], abandoned: threading.Event) -> Iterator[None]:
        if self._settled:
            return
        yield from self._submission._polls(deadline, abandoned)
        submitted = self._submitted()
        if submitted is not None:
            yield from submitted._polls(deadline, abandoned)
        self._finish()

    def _finish(self) -> None:
        with self._lock:
            submitted = self._submitted()
            if not self._settled and self._submission._settled and (submitted is None or submitted._settled):
                self._settle(lambda: self._submission._get()._get())

    def done(self) -> bool:
        submitted = self._submitted()
        if submitted is not None:
            submitted.done()
        self._finish()
        return self._settled


class Ready:
    """A client, which can be awaited and asked for as a result: for programs that expect a future of it."""

    def result(self: R, timeout: Optional[float] = None) -> R:
        """The client itself."""
        return self

    def __await__(self: R) -> Generator[Any, None, R]:
        yield from ()
        return self
