"""Listings, downloads and deletion: calls that need no run and no session."""

from __future__ import annotations

import os
from typing import Any, BinaryIO, Callable, List, Optional, TypeVar, Union
from urllib.parse import quote

from ._threads import CALLS
from ._transport import Trouble, retryable
from .errors import APIStatusError, InvalidArgumentError
from .futures import Future, JobFuture
from .paths import CheckpointPath
from .session import Session
from .types import (CheckpointsListResponse, GetSessionResponse, ListSessionsResponse, RunHistoryResponse, TrainingRun,
                    TrainingRunIds, TrainingRunsResponse, WeightsInfoResponse)

T = TypeVar("T")

GZIP = "application/gzip"


class RestClient:
    """Manages stored runs and checkpoints. Every method returns a future at once and has an ``_async`` twin that gives its result
    at one ``await``. Paths are checked at the call: :class:`InvalidPathError`. What does not exist, or belongs to
    another account, is a :class:`NotFoundError` of the future."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._transport = session.transport

    def _job(self, job: Callable[[], T]) -> Future[T]:
        return JobFuture(CALLS, job, self._transport.policy.clock)

    # -- archives --------------------------------------------------------------------------------------------

    def download_checkpoint_archive_from_bios_path(self, path: str) -> Future[bytes]:
        """The checkpoint as a gzipped tar: ``adapter/`` (PEFT's layout, safetensors), ``tokenizer/`` and
        ``metadata.json``. Of a training state the archive holds the weights, not the optimizer."""
        where = CheckpointPath.parse(path)
        return self._job(lambda: self._transport.call("GET", self._checkpoint(where, path) + "/archive",
                                                      accept=GZIP).body)

    async def download_checkpoint_archive_from_bios_path_async(self, path: str) -> bytes:
        """``download_checkpoint_archive_from_bios_path`` for asyncio."""
        return await self.download_checkpoint_archive_from_bios_path(path)

    def download_checkpoint_archive_from_bios_path_to_file(
            self, path: str, file: Union[str, "os.PathLike[str]", BinaryIO]) -> Future[int]:
        """Streams the archive into a file and returns its size in bytes.

        ``file``: a name (the file appears when it is whole), or an open binary file that can seek.
        """
        where = CheckpointPath.parse(path)
        if isinstance(file, (str, os.PathLike)):
            final = os.fspath(file)

            def fetch() -> int:
                part = f"{final}.part"
                try:
                    with open(part, "wb") as out:
                        size = self._download(where, path, out)
                    os.replace(part, final)
                except BaseException:
                    if os.path.exists(part):
                        os.unlink(part)
                    raise
                return size

            return self._job(fetch)
        if not hasattr(file, "write"):
            raise InvalidArgumentError("file", f"expected a file name or a binary file, got {type(file).__name__}")
        return self._job(lambda: self._download(where, path, file))

    async def download_checkpoint_archive_from_bios_path_to_file_async(
            self, path: str, file: Union[str, "os.PathLike[str]", BinaryIO]) -> int:
        """``download_checkpoint_archive_from_bios_path_to_file`` for asyncio."""
        return await self.download_checkpoint_archive_from_bios_path_to_file(path, file)

    def _download(self, where: CheckpointPath, path: str, out: BinaryIO) -> int:
        url = self._checkpoint(where, path) + "/archive"
        tries = self._transport.attempts(f"GET {url}")
        start = out.tell() if out.seekable() else None
        while True:
            size = 0
            try:
                for piece in self._transport.stream(url, GZIP):
                    out.write(piece)
                    size += len(piece)
                return size
            except Trouble as e:
                if size and start is None:
                    raise e.cause
                tries.after(e)
            except APIStatusError as e:
                if not retryable(e.status, e.code):
                    raise
                tries.after(e)
            if start is not None:
                out.seek(start)
                out.truncate()

    # -- runs ------------------------------------------------------------------------------------------------

    def list_training_run_ids(self, limit: int = 20, offset: int = 0) -> Future[TrainingRunIds]:
        """The ids of runs, newest first: ``.training_run_ids``, ``.has_more``."""
        return self._job(lambda: self._ids(limit, offset))

    async def list_training_run_ids_async(self, limit: int = 20, offset: int = 0) -> TrainingRunIds:
        """``list_training_run_ids`` for asyncio."""
        return await self.list_training_run_ids(limit, offset)

    def _ids(self, limit: int, offset: int) -> TrainingRunIds:
        page = self._runs(limit, offset)
        total = page.cursor.total_count if page.cursor else 0
        return TrainingRunIds([run.training_run_id for run in page.training_runs],
                              offset + len(page.training_runs) < total)

    def list_training_runs(self, limit: int = 20, offset: int = 0) -> Future[TrainingRunsResponse]:
        """Runs, newest first: ``.training_runs``, ``.cursor``."""
        return self._job(lambda: self._runs(limit, offset))

    async def list_training_runs_async(self, limit: int = 20, offset: int = 0) -> TrainingRunsResponse:
        """``list_training_runs`` for asyncio."""
        return await self.list_training_runs(limit, offset)

    def _runs(self, limit: int, offset: int) -> TrainingRunsResponse:
        found = self._transport.get(f"/training_runs?limit={int(limit)}&offset={int(offset)}")
        return TrainingRunsResponse.from_wire(found)

    def get_training_run(self, training_run_id: str) -> Future[TrainingRun]:
        """One run."""
        url = f"/training_runs/{_word(training_run_id, 'training_run_id')}"
        return self._job(lambda: TrainingRun.from_wire(self._transport.get(url)))

    async def get_training_run_async(self, training_run_id: str) -> TrainingRun:
        """``get_training_run`` for asyncio."""
        return await self.get_training_run(training_run_id)

    def get_training_run_by_bios_path(self, path: str) -> Future[TrainingRun]:
        """The run that a checkpoint belongs to."""
        return self.get_training_run(CheckpointPath.parse(path).run)

    async def get_training_run_by_bios_path_async(self, path: str) -> TrainingRun:
        """``get_training_run_by_bios_path`` for asyncio."""
        return await self.get_training_run_by_bios_path(path)

    def get_training_run_history(self, training_run_id: str, limit: int = 100) -> Future[RunHistoryResponse]:
        """The history of a run, the newest entry last: where it was opened, failures, recoveries, and why it is
        blocked."""
        url = f"/training_runs/{_word(training_run_id, 'training_run_id')}/history?limit={int(limit)}"
        return self._job(lambda: RunHistoryResponse.from_wire(self._transport.get(url)))

    async def get_training_run_history_async(self, training_run_id: str, limit: int = 100) -> RunHistoryResponse:
        """``get_training_run_history`` for asyncio."""
        return await self.get_training_run_history(training_run_id, limit)

    def retry_set_aside(self, training_run_id: str) -> Future[None]:
        """Tries the operation of a run that was set aside again, with those that wait for it. An operation is set
        aside when its worker died several times while it executed it alone, or when no worker has the memory for it:
        its future fails with ``worker_lost`` or ``out_of_memory`` and tells so. After a retry the same futures give
        the results."""
        return self._about_set_aside(training_run_id, "retry")

    async def retry_set_aside_async(self, training_run_id: str) -> None:
        """``retry_set_aside`` for asyncio."""
        await self.retry_set_aside(training_run_id)

    def give_up_set_aside(self, training_run_id: str) -> Future[None]:
        """Fails the operation of a run that was set aside, and those that would train past it. (Sending another
        operation after the failure was seen does the same.)"""
        return self._about_set_aside(training_run_id, "give_up")

    async def give_up_set_aside_async(self, training_run_id: str) -> None:
        """``give_up_set_aside`` for asyncio."""
        await self.give_up_set_aside(training_run_id)

    def _about_set_aside(self, training_run_id: str, what: str) -> Future[None]:
        url = f"/training_runs/{_word(training_run_id, 'training_run_id')}/{what}"

        def tell() -> None:
            self._transport.post(url, {})

        return self._job(tell)

    # -- checkpoints -----------------------------------------------------------------------------------------

    def list_checkpoints(self, training_run_id: str) -> Future[CheckpointsListResponse]:
        """All checkpoints of a run."""
        url = f"/training_runs/{_word(training_run_id, 'training_run_id')}/checkpoints"
        return self._job(lambda: CheckpointsListResponse.from_wire(self._transport.get(url)))

    async def list_checkpoints_async(self, training_run_id: str) -> CheckpointsListResponse:
        """``list_checkpoints`` for asyncio."""
        return await self.list_checkpoints(training_run_id)

    def list_user_checkpoints(self, limit: int = 100, offset: int = 0) -> Future[CheckpointsListResponse]:
        """The account's checkpoints, newest first."""
        url = f"/checkpoints?limit={int(limit)}&offset={int(offset)}"
        return self._job(lambda: CheckpointsListResponse.from_wire(self._transport.get(url)))

    async def list_user_checkpoints_async(self, limit: int = 100, offset: int = 0) -> CheckpointsListResponse:
        """``list_user_checkpoints`` for asyncio."""
        return await self.list_user_checkpoints(limit, offset)

    def delete_checkpoint(self, training_run_id: str, checkpoint_id: str) -> Future[None]:
        """Deletes a checkpoint permanently. ``checkpoint_id``: ``weights/<name>`` or ``sampler_weights/<name>``."""
        return self.delete_checkpoint_from_bios_path(_path(training_run_id, checkpoint_id))

    async def delete_checkpoint_async(self, training_run_id: str, checkpoint_id: str) -> None:
        """``delete_checkpoint`` for asyncio."""
        await self.delete_checkpoint(training_run_id, checkpoint_id)

    def delete_checkpoint_from_bios_path(self, path: str) -> Future[None]:
        """Deletes a checkpoint permanently."""
        where = CheckpointPath.parse(path)

        def delete() -> None:
            self._transport.call("DELETE", self._checkpoint(where, path))

        return self._job(delete)

    async def delete_checkpoint_from_bios_path_async(self, path: str) -> None:
        """``delete_checkpoint_from_bios_path`` for asyncio."""
        await self.delete_checkpoint_from_bios_path(path)

    def set_checkpoint_ttl(self, training_run_id: str, checkpoint_id: str, ttl_seconds: Optional[int]) -> Future[None]:
        """Sets the expiry of a checkpoint to so many seconds from now; None: never."""
        return self.set_checkpoint_ttl_from_bios_path(_path(training_run_id, checkpoint_id), ttl_seconds)

    async def set_checkpoint_ttl_async(self, training_run_id: str, checkpoint_id: str,
                                       ttl_seconds: Optional[int]) -> None:
        """``set_checkpoint_ttl`` for asyncio."""
        await self.set_checkpoint_ttl(training_run_id, checkpoint_id, ttl_seconds)

    def set_checkpoint_ttl_from_bios_path(self, path: str, ttl_seconds: Optional[int]) -> Future[None]:
        """Sets the expiry of a checkpoint to so many seconds from now; None: never."""
        where = CheckpointPath.parse(path)
        if ttl_seconds is not None and (isinstance(ttl_seconds, bool) or not isinstance(ttl_seconds, int)
                                        or ttl_seconds < 1):
            raise InvalidArgumentError("ttl_seconds", f"expected an integer of at least 1, or None, got {ttl_seconds!r}")

        def put() -> None:
            self._transport.call("PUT", self._checkpoint(where, path) + "/ttl", {"ttl_seconds": ttl_seconds})

        return self._job(put)

    async def set_checkpoint_ttl_from_bios_path_async(self, path: str, ttl_seconds: Optional[int]) -> None:
        """``set_checkpoint_ttl_from_bios_path`` for asyncio."""
        await self.set_checkpoint_ttl_from_bios_path(path, ttl_seconds)

    def get_weights_info_by_bios_path(self, path: str) -> Future[WeightsInfoResponse]:
        """The properties of a checkpoint: base model, adapter shape, step, metadata, kind."""
        CheckpointPath.parse(path)
        return self._job(lambda: self._info(path))

    async def get_weights_info_by_bios_path_async(self, path: str) -> WeightsInfoResponse:
        """``get_weights_info_by_bios_path`` for asyncio."""
        return await self.get_weights_info_by_bios_path(path)

    # -- sessions --------------------------------------------------------------------------------------------

    def get_session(self, session_id: str) -> Future[GetSessionResponse]:
        """The runs and samplers of a session."""
        url = f"/sessions/{_word(session_id, 'session_id')}"
        return self._job(lambda: GetSessionResponse.from_wire(self._transport.get(url)))

    async def get_session_async(self, session_id: str) -> GetSessionResponse:
        """``get_session`` for asyncio."""
        return await self.get_session(session_id)

    def list_sessions(self, limit: int = 20, offset: int = 0) -> Future[ListSessionsResponse]:
        """The ids of the account's sessions, newest first."""
        url = f"/sessions?limit={int(limit)}&offset={int(offset)}"
        return self._job(lambda: ListSessionsResponse.from_wire(self._transport.get(url)))

    async def list_sessions_async(self, limit: int = 20, offset: int = 0) -> ListSessionsResponse:
        """``list_sessions`` for asyncio."""
        return await self.list_sessions(limit, offset)

    # --------------------------------------------------------------------------------------------------------

    def _info(self, path: str) -> WeightsInfoResponse:
        return WeightsInfoResponse.from_wire(self._transport.post("/weights_info", {"path": path}))

    # -- the same under the names of Tinker's package -----------------------------------------------------------

    download_checkpoint_archive_from_tinker_path = download_checkpoint_archive_from_bios_path
    download_checkpoint_archive_from_tinker_path_async = download_checkpoint_archive_from_bios_path_async
    download_checkpoint_archive_from_tinker_path_to_file = download_checkpoint_archive_from_bios_path_to_file
    download_checkpoint_archive_from_tinker_path_to_file_async = download_checkpoint_archive_from_bios_path_to_file_async
    get_training_run_by_tinker_path = get_training_run_by_bios_path
    get_training_run_by_tinker_path_async = get_training_run_by_bios_path_async
    delete_checkpoint_from_tinker_path = delete_checkpoint_from_bios_path
    delete_checkpoint_from_tinker_path_async = delete_checkpoint_from_bios_path_async
    set_checkpoint_ttl_from_tinker_path = set_checkpoint_ttl_from_bios_path
    set_checkpoint_ttl_from_tinker_path_async = set_checkpoint_ttl_from_bios_path_async
    get_weights_info_by_tinker_path = get_weights_info_by_bios_path
    get_weights_info_by_tinker_path_async = get_weights_info_by_bios_path_async

    def _checkpoint(self, where: CheckpointPath, path: str) -> str:
        """The URL of a checkpoint. The kind of a two-part path is resolved first, so that a retried deletion cannot
        delete a checkpoint of the other kind."""
        kind = where.kind
        if kind is None:
            kind = "sampler_weights" if self._info(path).kind == "sampler" else "weights"
        return f"/training_runs/{quote(where.run, safe=':')}/checkpoints/{kind}/{quote(where.name)}"

    def __repr__(self) -> str:
        return f"RestClient({self._transport.base_url})"


def _path(training_run_id: Any, checkpoint_id: Any) -> str:
    parts: List[str] = str(checkpoint_id).split("/")
    if len(parts) != 2:
        raise InvalidArgumentError("checkpoint_id", f"expected weights/<name> or sampler_weights/<name>, "
                                                    f"got {checkpoint_id!r}")
    return f"bios://{training_run_id}/{checkpoint_id}"


def _word(value: Any, field: str) -> str:
    if not isinstance(value, str) or not value or "/" in value:
        raise InvalidArgumentError(field, f"expected an id, got {value!r}")
    return quote(value, safe=":")
