"""Listings, downloads and deletion: calls that need no run and no session."""

from __future__ import annotations

import os
from datetime import datetime
from typing import Any, BinaryIO, Callable, Dict, List, Mapping, Optional, TypeVar, Union
from urllib.parse import quote

from ._progress import Bar
from ._threads import CALLS
from ._transport import DownloadState, NoResponse, retryable
from .errors import APIError, APIStatusError, InvalidArgumentError
from .futures import Future, JobFuture, Ready
from .paths import CheckpointPath, checkpoint_name
from .session import Session
from .types import (AuditLogResponse, BillingUsageResponse, CheckpointArchiveUrlResponse, CheckpointSearchRequest,
                    CheckpointSearchResponse, CheckpointsListResponse,
                    ExternalWeightsUploadFinishResult, ExternalWeightsUploadStartResult, ExternalWeightsUrlsResponse,
                    GetSamplerResponse, GetSessionResponse, ListSessionsResponse, LoraConfig, RunHistoryResponse, TrainingRun,
                    TrainingRunIds, TrainingRunsResponse, UsageResponse, WeightsInfoResponse, WhoamiResponse, json_object)

T = TypeVar("T")

GZIP = "application/gzip"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


class RestClient(Ready):
    """Manages stored runs and checkpoints. Every method returns a future at once and has an ``_async`` twin that gives its result
    at one ``await``. Paths are checked at the call: :class:`InvalidPathError`. What does not exist, or belongs to
    another account, is a :class:`NotFoundError` of the future."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._transport = session.transport

    def _job(self, job: Callable[[], T]) -> Future[T]:
        return JobFuture(CALLS.submit(job), self._transport.policy.clock, _method(job))

    def _change(self, job: Callable[[], T]) -> Future[T]:
        """A job that changes something at the server."""
        return JobFuture(CALLS.keep(job), self._transport.policy.clock, _method(job))

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
            self, path: str, file: Union[str, "os.PathLike[str]", BinaryIO], *,
            progress: Optional[bool] = None) -> Future[int]:
        """Streams the archive into a file and returns its size in bytes.

        ``file``: a name (the file appears when it is whole), or an open binary file that can seek. A download to a name that
        breaks off goes on where it was, also in another program: what is there is in ``<file>.part``. ``progress``: show it
        on stderr; by default on a terminal only.
        """
        where = CheckpointPath.parse(path)
        if isinstance(file, (str, os.PathLike)):
            final = os.fspath(file)
            return self._job(lambda: self._fetch(where, path, final, progress))
        if not hasattr(file, "write"):
            raise InvalidArgumentError("file", f"expected a file name or a binary file, got {type(file).__name__}")
        return self._job(lambda: self._download(where, path, file, DownloadState(), progress))

    def _fetch(self, where: CheckpointPath, path: str, final: str, progress: Optional[bool]) -> int:
        part, tag = f"{final}.part", f"{final}.part.tag"
        state = _resumable(part, tag)

        def keep_tag() -> None:
            with open(tag, "w", encoding="ascii") as file:
                file.write(state.tag or "")

        whole = False
        try:
            with open(part, "r+b" if state.start else "wb") as out:
                out.seek(state.start)
                size = self._download(where, path, out, state, progress, keep_tag)
            os.replace(part, final)
            whole = True
            return size
        finally:
            if whole or not state.tag or not state.start:
                for name in (part, tag):
                    if os.path.exists(name):
                        os.unlink(name)

    async def download_checkpoint_archive_from_bios_path_to_file_async(
            self, path: str, file: Union[str, "os.PathLike[str]", BinaryIO], *, progress: Optional[bool] = None) -> int:
        """``download_checkpoint_archive_from_bios_path_to_file`` for asyncio."""
        return await self.download_checkpoint_archive_from_bios_path_to_file(path, file, progress=progress)

    def _download(self, where: CheckpointPath, path: str, out: BinaryIO, state: DownloadState, progress: Optional[bool] = None,
                  began: Callable[[], None] = lambda: None) -> int:
        """Writes the archive behind the ``state.start`` bytes that are there, or from the start if it is another one now."""
        url = self._checkpoint(where, path) + "/archive"
        tries = self._transport.attempts(f"GET {url}")
        first = out.tell() - state.start if out.seekable() else None
        size = state.start
        bar: Optional[Bar] = None
        try:
            while True:
                state.start = size
                try:
                    for piece in self._transport.stream(url, GZIP, state=state):
                        if state.start != size and first is not None:  # another archive than the one that was begun
                            out.seek(first + state.start)
                            out.truncate()
                            size = state.start
                            _close(bar)
                            bar = None
                        if bar is None:
                            began()
                            bar = Bar(where.name, progress, state.total, size)
                        out.write(piece)
                        size += len(piece)
                        state.start = size
                        bar.add(len(piece))
                    return size
                except NoResponse as e:
                    if size and first is None:
                        raise e.cause
                    tries.after(e)
                except APIStatusError as e:
                    if not retryable(e.status, e.code):
                        raise
                    tries.after(e)
        finally:
            _close(bar)

    def get_checkpoint_archive_url(self, training_run_id: str, checkpoint_id: str) -> Future[CheckpointArchiveUrlResponse]:
        """A URL of the archive in Tinker's layout (the adapter's files at its root), which needs no key: ``.url``,
        ``.expires``."""
        return self.get_checkpoint_archive_url_from_bios_path(_path(training_run_id, checkpoint_id))

    async def get_checkpoint_archive_url_async(self, training_run_id: str, checkpoint_id: str,
                                               ) -> CheckpointArchiveUrlResponse:
        """``get_checkpoint_archive_url`` for asyncio."""
        return await self.get_checkpoint_archive_url(training_run_id, checkpoint_id)

    def get_checkpoint_archive_url_from_bios_path(self, path: str) -> Future[CheckpointArchiveUrlResponse]:
        """``get_checkpoint_archive_url`` of a path."""
        where = CheckpointPath.parse(path)

        def ask() -> CheckpointArchiveUrlResponse:
            found = dict(self._transport.get(self._checkpoint(where, path) + "/archive"))
            found["url"] = self._absolute(str(found["url"]))
            return CheckpointArchiveUrlResponse.from_wire(found)

        return self._job(ask)

    async def get_checkpoint_archive_url_from_bios_path_async(self, path: str) -> CheckpointArchiveUrlResponse:
        """``get_checkpoint_archive_url_from_bios_path`` for asyncio."""
        return await self.get_checkpoint_archive_url_from_bios_path(path)

    # -- adapters made elsewhere -----------------------------------------------------------------------------

    def upload_adapter(self, folder: Union[str, "os.PathLike[str]"], base_model: str, *, name: Optional[str] = None,
                       ttl_seconds: Optional[int] = None, user_metadata: Optional[Mapping[str, Any]] = None,
                       project_id: Optional[str] = None, progress: Optional[bool] = None) -> Future[str]:
        """Brings in an adapter that was made elsewhere, and returns its path: sampler weights, which can be sampled,
        downloaded, and loaded without an optimizer (``create_training_client_from_state``).

        ``folder``: what PEFT's ``save_pretrained`` writes, ``adapter_config.json`` and ``adapter_model.safetensors``, of
        an adapter on the server's ``base_model``. ``name``: of the checkpoint, by default ``uploaded``. What does not fit the
        model is refused, naming the file and the tensor or field. ``progress``: show it on stderr; by default on a
        terminal only.
        """
        files = {file: os.path.join(os.fspath(folder), file) for file in ADAPTER_FILES}
        for file in files.values():
            if not os.path.isfile(file):
                raise InvalidArgumentError("folder", f"{file} does not exist; save the adapter with PEFT's save_pretrained")
        asked = self._upload(base_model, None, project_id, name, ttl_seconds, user_metadata)

        def send() -> str:
            started = asked()
            with Bar("upload", progress, sum(os.path.getsize(file) for file in files.values())) as bar:
                for file, where in files.items():
                    self._transport.put_file(started.urls[file], where, bar.add)
            return self._finish(started.upload_id).path

        return self._change(send)

    async def upload_adapter_async(self, folder: Union[str, "os.PathLike[str]"], base_model: str, *, name: Optional[str] = None,
                                   ttl_seconds: Optional[int] = None, user_metadata: Optional[Mapping[str, Any]] = None,
                                   project_id: Optional[str] = None, progress: Optional[bool] = None) -> str:
        """``upload_adapter`` for asyncio."""
        return await self.upload_adapter(folder, base_model, name=name, ttl_seconds=ttl_seconds, user_metadata=user_metadata,
                                         project_id=project_id, progress=progress)

    def external_weights_upload_start(self, base_model: str, lora_config: Optional[LoraConfig] = None,
                                      destination_project_id: Optional[str] = None, *, name: Optional[str] = None,
                                      ttl_seconds: Optional[int] = None) -> Future[ExternalWeightsUploadStartResult]:
        """Starts an upload, as Tinker's call of this name; ``upload_adapter`` does all of it. Each file is sent to its URL
        by an HTTP PUT. Of ``lora_config`` the rank is compared with the adapter's."""
        return self._job(self._upload(base_model, lora_config, destination_project_id, name, ttl_seconds, None))

    async def external_weights_upload_start_async(
            self, base_model: str, lora_config: Optional[LoraConfig] = None, destination_project_id: Optional[str] = None, *,
            name: Optional[str] = None, ttl_seconds: Optional[int] = None) -> ExternalWeightsUploadStartResult:
        """``external_weights_upload_start`` for asyncio."""
        return await self.external_weights_upload_start(base_model, lora_config, destination_project_id, name=name,
                                                        ttl_seconds=ttl_seconds)

    def external_weights_upload_finish(self, upload_id: str) -> Future[ExternalWeightsUploadFinishResult]:
        """Makes a checkpoint of the files of an upload."""
        word = _word(upload_id, "upload_id")
        return self._change(lambda: self._finish(word))

    async def external_weights_upload_finish_async(self, upload_id: str) -> ExternalWeightsUploadFinishResult:
        """``external_weights_upload_finish`` for asyncio."""
        return await self.external_weights_upload_finish(upload_id)

    def _upload(self, base_model: str, lora_config: Optional[LoraConfig], project_id: Optional[str], name: Optional[str],
                ttl_seconds: Optional[int], user_metadata: Optional[Mapping[str, Any]],
                ) -> Callable[[], ExternalWeightsUploadStartResult]:
        body: Dict[str, Any] = {"base_model": base_model}
        if lora_config is not None:
            body["lora_config"] = {"rank": lora_config.rank}
        if name is not None:
            body["name"] = checkpoint_name(name)
        if user_metadata is not None:
            body["user_metadata"] = json_object(user_metadata, "user_metadata")
        for field, value in (("destination_project_id", project_id), ("ttl_seconds", ttl_seconds)):
            if value is not None:
                body[field] = value

        def ask() -> ExternalWeightsUploadStartResult:
            found = self._transport.post("/external_weights_upload_start", body)
            return ExternalWeightsUploadStartResult.from_wire(
                {**found, "urls": {file: self._absolute(str(url)) for file, url in found["urls"].items()}})

        return ask

    def _finish(self, upload_id: str) -> ExternalWeightsUploadFinishResult:
        return ExternalWeightsUploadFinishResult.from_wire(
            self._transport.post("/external_weights_upload_finish", {"upload_id": upload_id}))

    def get_external_weights_urls(self, path: str) -> Future[ExternalWeightsUrlsResponse]:
        """A URL for each file of a checkpoint's adapter in PEFT's layout, which needs no key: ``.urls``, ``.expires``."""
        where = CheckpointPath.parse(path)

        def ask() -> ExternalWeightsUrlsResponse:
            found = self._transport.get(self._checkpoint(where, path) + "/external_weights_urls")
            return ExternalWeightsUrlsResponse.from_wire(
                {**found, "urls": {file: self._absolute(str(url)) for file, url in found["urls"].items()}})

        return self._job(ask)

    async def get_external_weights_urls_async(self, path: str) -> ExternalWeightsUrlsResponse:
        """``get_external_weights_urls`` for asyncio."""
        return await self.get_external_weights_urls(path)

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

    def list_training_runs(self, limit: int = 20, offset: int = 0, *, project_id: Optional[str] = None,
                           ) -> Future[TrainingRunsResponse]:
        """Runs, newest first: ``.training_runs``, ``.cursor``. ``project_id``: only those of sessions of this project."""
        return self._job(lambda: self._runs(limit, offset, project_id))

    async def list_training_runs_async(self, limit: int = 20, offset: int = 0, *, project_id: Optional[str] = None,
                                       ) -> TrainingRunsResponse:
        """``list_training_runs`` for asyncio."""
        return await self.list_training_runs(limit, offset, project_id=project_id)

    def _runs(self, limit: int, offset: int, project_id: Optional[str] = None) -> TrainingRunsResponse:
        of = "" if project_id is None else f"&project_id={quote(project_id, safe='')}"
        found = self._transport.get(f"/training_runs?limit={int(limit)}&offset={int(offset)}{of}")
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

    def retry_set_aside(self, training_run_id: str, seq_id: Optional[int] = None) -> Future[None]:
        """Tries the operation of a run that was set aside again, with those that wait for it. An operation is set
        aside when its worker died several times while it executed it alone, or when no worker has the memory for it:
        its future fails with ``worker_lost`` or ``out_of_memory`` and tells so. After a retry the same futures give
        the results.

        ``seq_id``: the number of the operation, as the failure and ``TrainingRun.waiting_operation`` tell it. With it the
        call can be repeated: it does nothing if the operation was tried again before. Without it the call is about the
        operation that is set aside now, and asks which one that is; a repetition of it may be about another one."""
        return self._about_set_aside(training_run_id, "retry", seq_id)

    async def retry_set_aside_async(self, training_run_id: str, seq_id: Optional[int] = None) -> None:
        """``retry_set_aside`` for asyncio."""
        await self.retry_set_aside(training_run_id, seq_id)

    def give_up_set_aside(self, training_run_id: str, seq_id: Optional[int] = None) -> Future[None]:
        """Fails the operation of a run that was set aside, and those that would train past it. (Sending another
        operation after the failure was seen does the same.) Also fails the first one that waits for a store that stays
        away and was never executed, with ``store_failed``, or one whose replay meets the same fault again and again.

        ``seq_id``: as in ``retry_set_aside``; the call does nothing if the operation has failed, and is refused
        (``conflict``) if it has succeeded."""
        return self._about_set_aside(training_run_id, "give_up", seq_id)

    async def give_up_set_aside_async(self, training_run_id: str, seq_id: Optional[int] = None) -> None:
        """``give_up_set_aside`` for asyncio."""
        await self.give_up_set_aside(training_run_id, seq_id)

    def _about_set_aside(self, training_run_id: str, what: str, seq_id: Optional[int]) -> Future[None]:
        if seq_id is not None and (isinstance(seq_id, bool) or not isinstance(seq_id, int) or seq_id < 0):
            raise InvalidArgumentError("seq_id", f"expected an integer of at least 0, or None, got {seq_id!r}")
        url = f"/training_runs/{_word(training_run_id, 'training_run_id')}"

        def tell() -> None:
            found = self._transport.get(url)
            waiting = found.get("waiting_operation")
            if seq_id is not None and "waiting_operation" not in found:
                raise InvalidArgumentError("seq_id", "the server is of an older build, which does not read it")
            if seq_id is not None:
                self._transport.post(f"{url}/{what}", {"seq_id": seq_id})
            elif waiting and (waiting["set_aside"] or what == "give_up"):
                self._transport.post(f"{url}/{what}", {"seq_id": waiting["seq_id"]})
            else:
                self._transport.post_once(f"{url}/{what}", {})

        return self._change(tell)

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

    def search_checkpoints(self, request: Optional[CheckpointSearchRequest] = None) -> Future[CheckpointSearchResponse]:
        """The account's checkpoints that have all that the request gives, newest first. The next page is that of the same
        request with ``cursor=page.next_cursor``, until that is None; what is saved or deleted meanwhile moves no other
        checkpoint to another page."""
        body = (CheckpointSearchRequest() if request is None else request).to_wire()
        return self._job(lambda: CheckpointSearchResponse.from_wire(self._transport.post("/search_checkpoints", body)))

    async def search_checkpoints_async(self, request: Optional[CheckpointSearchRequest] = None) -> CheckpointSearchResponse:
        """``search_checkpoints`` for asyncio."""
        return await self.search_checkpoints(request)

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

        return self._change(delete)

    async def delete_checkpoint_from_bios_path_async(self, path: str) -> None:
        """``delete_checkpoint_from_bios_path`` for asyncio."""
        await self.delete_checkpoint_from_bios_path(path)

    def set_checkpoint_ttl(self, training_run_id: str, checkpoint_id: str, ttl_seconds: Optional[int]) -> Future[None]:
        """Sets the expiry of a checkpoint to this many seconds from now; None: never."""
        return self.set_checkpoint_ttl_from_bios_path(_path(training_run_id, checkpoint_id), ttl_seconds)

    async def set_checkpoint_ttl_async(self, training_run_id: str, checkpoint_id: str,
                                       ttl_seconds: Optional[int]) -> None:
        """``set_checkpoint_ttl`` for asyncio."""
        await self.set_checkpoint_ttl(training_run_id, checkpoint_id, ttl_seconds)

    def set_checkpoint_ttl_from_bios_path(self, path: str, ttl_seconds: Optional[int]) -> Future[None]:
        """Sets the expiry of a checkpoint to this many seconds from now; None: never."""
        where = CheckpointPath.parse(path)
        if ttl_seconds is not None and (isinstance(ttl_seconds, bool) or not isinstance(ttl_seconds, int)
                                        or ttl_seconds < 1):
            raise InvalidArgumentError("ttl_seconds", f"expected an integer of at least 1, or None, got {ttl_seconds!r}")

        def put() -> None:
            self._transport.call("PUT", self._checkpoint(where, path) + "/ttl", {"ttl_seconds": ttl_seconds})

        return self._change(put)

    async def set_checkpoint_ttl_from_bios_path_async(self, path: str, ttl_seconds: Optional[int]) -> None:
        """``set_checkpoint_ttl_from_bios_path`` for asyncio."""
        await self.set_checkpoint_ttl_from_bios_path(path, ttl_seconds)

    def publish_checkpoint_from_bios_path(self, path: str) -> Future[None]:
        """Lets every account of the server read a checkpoint."""
        return self._published(path, "POST")

    async def publish_checkpoint_from_bios_path_async(self, path: str) -> None:
        """``publish_checkpoint_from_bios_path`` for asyncio."""
        await self.publish_checkpoint_from_bios_path(path)

    def unpublish_checkpoint_from_bios_path(self, path: str) -> Future[None]:
        """Takes back ``publish_checkpoint_from_bios_path``."""
        return self._published(path, "DELETE")

    async def unpublish_checkpoint_from_bios_path_async(self, path: str) -> None:
        """``unpublish_checkpoint_from_bios_path`` for asyncio."""
        await self.unpublish_checkpoint_from_bios_path(path)

    def _published(self, path: str, method: str) -> Future[None]:
        where = CheckpointPath.parse(path)

        def tell() -> None:
            self._transport.call(method, self._checkpoint(where, path) + "/publish", {} if method == "POST" else None)

        return self._change(tell)

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

    def assign_session_project(self, session_id: str, project_id: Optional[str]) -> Future[None]:
        """Puts a session, with its runs, into a project; None: into none."""
        url = f"/sessions/{_word(session_id, 'session_id')}/project"

        def put() -> None:
            self._transport.call("PUT", url, {"project_id": project_id})

        return self._change(put)

    async def assign_session_project_async(self, session_id: str, project_id: Optional[str]) -> None:
        """``assign_session_project`` for asyncio."""
        await self.assign_session_project(session_id, project_id)

    def get_sampler(self, sampler_id: str) -> Future[GetSamplerResponse]:
        """A sampler's base model and weights."""
        url = f"/samplers/{_word(sampler_id, 'sampler_id')}"
        return self._job(lambda: GetSamplerResponse.from_wire(self._transport.get(url)))

    async def get_sampler_async(self, sampler_id: str) -> GetSamplerResponse:
        """``get_sampler`` for asyncio."""
        return await self.get_sampler(sampler_id)

    # -- the account -----------------------------------------------------------------------------------------

    def get_audit_log(self, event_type: str = "all", day: Optional[str] = None) -> Future[AuditLogResponse]:
        """What happened to the account's runs and checkpoints, newest first. ``event_type``: ``all`` or ``checkpoints``;
        ``day``: only that one, e.g. ``2026-01-31``."""
        of = "" if day is None else f"&day={quote(day, safe='')}"
        url = f"/audit?event_type={quote(event_type, safe='')}{of}"
        return self._job(lambda: AuditLogResponse.from_wire(self._transport.get(url)))

    async def get_audit_log_async(self, event_type: str = "all", day: Optional[str] = None) -> AuditLogResponse:
        """``get_audit_log`` for asyncio."""
        return await self.get_audit_log(event_type, day)

    def get_billing_usage(self, starting_on: Union[datetime, str], ending_before: Union[datetime, str],
                          ) -> Future[BillingUsageResponse]:
        """Usage by the hour between two times (RFC 3339, or datetimes with a time zone), as Tinker's call of this name; nothing
        is billed. ``get_usage`` has the sums."""
        asked = [value.isoformat() if isinstance(value, datetime) else str(value) for value in (starting_on, ending_before)]
        url = f"/billing/usage/events?starting_on={quote(asked[0], safe='')}&ending_before={quote(asked[1], safe='')}"
        return self._job(lambda: BillingUsageResponse.from_wire(self._transport.get(url)))

    async def get_billing_usage_async(self, starting_on: Union[datetime, str], ending_before: Union[datetime, str],
                                      ) -> BillingUsageResponse:
        """``get_billing_usage`` for asyncio."""
        return await self.get_billing_usage(starting_on, ending_before)

    def export_session_trace(self, session_id: str) -> Future[str]:
        """A URL of a session's timeline, for Perfetto and other viewers of traces."""
        url = f"/sessions/{_word(session_id, 'session_id')}/trace_export"

        def ask() -> str:
            while True:
                found = self._transport.get(url)
                if found.get("status") == "ready" and found.get("url"):
                    return self._absolute(str(found["url"]))
                if found.get("status") == "failed":
                    raise APIError(f"the trace of {session_id} cannot be exported: {found.get('error')}")
                self._transport.policy.sleep(1.0)

        return self._job(ask)

    async def export_session_trace_async(self, session_id: str) -> str:
        """``export_session_trace`` for asyncio."""
        return await self.export_session_trace(session_id)

    def _absolute(self, url: str) -> str:
        return self._transport.address + url if url.startswith("/") else url

    def get_usage(self, training_run_id: Optional[str] = None, *, project_id: Optional[str] = None,
                  owner: Optional[str] = None) -> Future[UsageResponse]:
        """What was trained, sampled and stored: ``.runs``, ``.base_models``, ``.total(name)``. Of a run or a project alone, if
        one is named; ``owner``: another account's, for operators."""
        url = usage_url(training_run_id, project_id, owner)
        return self._job(lambda: UsageResponse.from_wire(self._transport.get(url)))

    async def get_usage_async(self, training_run_id: Optional[str] = None, *, project_id: Optional[str] = None,
                              owner: Optional[str] = None) -> UsageResponse:
        """``get_usage`` for asyncio."""
        return await self.get_usage(training_run_id, project_id=project_id, owner=owner)

    def whoami(self) -> Future[WhoamiResponse]:
        """The account of the key that is used."""
        return self._job(lambda: WhoamiResponse.from_wire(self._transport.get("/whoami")))

    async def whoami_async(self) -> WhoamiResponse:
        """``whoami`` for asyncio."""
        return await self.whoami()

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
    get_checkpoint_archive_url_from_tinker_path = get_checkpoint_archive_url_from_bios_path
    get_checkpoint_archive_url_from_tinker_path_async = get_checkpoint_archive_url_from_bios_path_async
    publish_checkpoint_from_tinker_path = publish_checkpoint_from_bios_path
    publish_checkpoint_from_tinker_path_async = publish_checkpoint_from_bios_path_async
    unpublish_checkpoint_from_tinker_path = unpublish_checkpoint_from_bios_path
    unpublish_checkpoint_from_tinker_path_async = unpublish_checkpoint_from_bios_path_async
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


def usage_url(training_run_id: Optional[str], project_id: Optional[str], owner: Optional[str]) -> str:
    """The path of a usage query."""
    asked = {"training_run_id": training_run_id, "project_id": project_id, "owner": owner}
    given = "&".join(f"{name}={quote(value, safe='')}" for name, value in asked.items() if value is not None)
    return "/usage" + (f"?{given}" if given else "")


def _resumable(part: str, tag: str) -> DownloadState:
    """The state of an earlier, interrupted download; an empty one if there is none."""
    try:
        with open(tag, encoding="ascii") as file:
            return DownloadState(os.path.getsize(part), file.read() or None)
    except (OSError, ValueError):
        return DownloadState()


def _close(bar: Optional[Bar]) -> None:
    if bar is not None:
        bar.close()


def _path(training_run_id: Any, checkpoint_id: Any) -> str:
    parts: List[str] = str(checkpoint_id).split("/")
    if len(parts) != 2:
        raise InvalidArgumentError("checkpoint_id", f"expected weights/<name> or sampler_weights/<name>, "
                                                    f"got {checkpoint_id!r}")
    return f"bios://{training_run_id}/{checkpoint_id}"


def _method(job: Callable[[], Any]) -> str:
    """The name of the method that a job was made in."""
    return job.__qualname__.split(".")[1].lstrip("_")


def _word(value: Any, field: str) -> str:
    if not isinstance(value, str) or not value or "/" in value:
        raise InvalidArgumentError(field, f"expected an id, got {value!r}")
    return quote(value, safe=":")
