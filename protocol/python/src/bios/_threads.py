"""Daemon threads, and the queue that keeps the operations of a run in order."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import sys
import threading
from collections import deque
from typing import Any, Callable, Deque, Iterator, Optional, Set, Tuple, TypeVar

from .errors import BiosError

T = TypeVar("T")

IDLE_SECONDS = 5.0
#: How long the end of a program waits for the calls that change something; so long such a call is repeated by default.
EXIT_SECONDS = 600.0

_KEPT: "Set[concurrent.futures.Future[Any]]" = set()


class DaemonPool:
    """Runs jobs in submission order on at most ``size`` daemon threads, which end when they are idle."""

    def __init__(self, name: str, size: int) -> None:
        self._name, self._size = name, size
        self.reset()

    def reset(self) -> None:
        """Begins without threads and jobs, as in a child process, to which a fork gives neither."""
        self._ready = threading.Condition()
        self._jobs: Deque[Tuple["concurrent.futures.Future[Any]", Callable[[], Any]]] = deque()
        self._threads = 0
        self._idle = 0

    def submit(self, job: Callable[[], T]) -> "concurrent.futures.Future[T]":
        """Queues a job; its outcome completes the future."""
        future: "concurrent.futures.Future[T]" = concurrent.futures.Future()
        with self._ready:
            if self._idle > len(self._jobs):
                self._ready.notify()
            elif self._threads < self._size:
                threading.Thread(target=self._work, name=f"bios-{self._name}", daemon=True).start()
                self._threads += 1
            self._jobs.append((future, job))  # last, so that a call that fails has queued nothing
        return future

    def keep(self, job: Callable[[], T]) -> "concurrent.futures.Future[T]":
        """The same for a job that changes something: a program that ends waits for it."""
        future = self.submit(job)
        _KEPT.add(future)
        future.add_done_callback(_KEPT.discard)
        return future

    def drive(self, steps: Iterator[object]) -> "concurrent.futures.Future[None]":
        """Runs a generator to its end, step by step: between two of them the jobs that wait get the thread."""
        future: "concurrent.futures.Future[None]" = concurrent.futures.Future()

        def begin() -> None:
            if future.set_running_or_notify_cancel():
                step()

        def step() -> None:
            try:
                next(steps)
            except StopIteration:
                future.set_result(None)
            except BaseException as e:
                future.set_exception(e)
            else:
                with self._ready:  # for this thread, which takes its next job now
                    self._jobs.append((concurrent.futures.Future(), step))

        self.submit(begin)
        return future

    def _work(self) -> None:
        while True:
            with self._ready:
                while not self._jobs:
                    self._idle += 1
                    woken = self._ready.wait(IDLE_SECONDS)
                    self._idle -= 1
                    if not woken and not self._jobs:
                        self._threads -= 1
                        return
                future, job = self._jobs.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                outcome = job()
            except BaseException as e:
                future.set_exception(e)
            else:
                future.set_result(outcome)
            del future, job


SUBMIT = DaemonPool("submit", 32)
POLL = DaemonPool("poll", 128)
CALLS = DaemonPool("call", 64)

if hasattr(os, "register_at_fork"):
    for _pool in (SUBMIT, POLL, CALLS):
        os.register_at_fork(after_in_child=_pool.reset)
    os.register_at_fork(after_in_child=_KEPT.clear)


@atexit.register
def _finish() -> None:
    """Waits for what is kept, at the end of the program; Ctrl-C ends the wait."""
    left = set(_KEPT)
    try:
        left = concurrent.futures.wait(left, EXIT_SECONDS).not_done
    except KeyboardInterrupt:
        left = {future for future in left if not future.done()}
    if left and sys.stderr is not None:
        print(f"bios: the program ends before {len(left)} of its calls have been answered", file=sys.stderr)


def in_event_loop() -> bool:
    """Whether an event loop runs on this thread, which must not be blocked."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def on_thread(job: Callable[..., T], *args: Any) -> T:
    """Runs a blocking call on a daemon thread, without blocking the event loop."""
    return await asyncio.wrap_future(CALLS.submit(lambda: job(*args)))


class OperationQueue:
    """A FIFO lock: turns are granted in the order in which they were requested."""

    def __init__(self) -> None:
        self._moved = threading.Condition()
        self._taken = 0
        self._served = 0
        self._left: Set[int] = set()
        self._owner: Optional[int] = None

    def run(self, job: Callable[[], T]) -> T:
        """Runs a job after all earlier turns are finished."""
        with self._moved:
            turn = self._take()
        return self._run(turn, job)

    def submit(self, job: Callable[[], T]) -> "concurrent.futures.Future[T]":
        """Takes a turn now and runs the job on a pool."""
        with self._moved:  # the pool must receive the jobs in the order of their turns
            turn = self._take()
            try:
                return SUBMIT.keep(lambda: self._run(turn, job))
            except BaseException:
                self._leave(turn)
                raise

    @property
    def waiting(self) -> int:
        """Turns that were taken and are not finished."""
        return self._taken - self._served

    def _take(self) -> int:
        if self._owner == threading.get_ident():
            raise BiosError("a run's own operation cannot wait for another of the same run: "
                            "a loss function may not call its training client")
        self._taken += 1
        return self._taken - 1

    def _run(self, turn: int, job: Callable[[], T]) -> T:
        try:
            with self._moved:
                while self._served < turn:
                    self._moved.wait()
                if self._served > turn:
                    raise BiosError("the call was interrupted before it was submitted")
            self._owner = threading.get_ident()
            return job()
        finally:
            with self._moved:
                if self._owner == threading.get_ident():
                    self._owner = None
                # If an interrupt ends the wait, this turn is skipped when it is granted.
                self._leave(turn)

    def _leave(self, turn: int) -> None:
        if turn >= self._served:
            self._left.add(turn)
        while self._served in self._left:
            self._left.discard(self._served)
            self._served += 1
        self._moved.notify_all()
