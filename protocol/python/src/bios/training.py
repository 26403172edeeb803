"""Training of adapters."""

from __future__ import annotations

import asyncio
from typing import Any, Callable, Dict, List, Literal, Mapping, Optional, Sequence, Tuple, TypeVar, Union

from ._threads import OperationQueue, in_event_loop, on_thread
from ._transport import encode, retryable
from .errors import APIStatusError, BiosError, InvalidArgumentError, MissingExtraError
from .futures import Future, JobFuture, Joined, Ready, RequestFuture, SubmittedFuture, in_batch
from .paths import CheckpointPath, checkpoint_name
from .sampling import Prompt, SamplingClient, request, source, texts
from .session import Session, request_id
from .tokenizer import tokenizer
from .types import (AdamParams, Datum, ForwardBackwardOutput, GetInfoResponse, LoadWeightsResponse, LossFnType,
                    OptimStepResponse, SampleResult, SamplingParams, SaveWeightsExternalResponse, SaveWeightsForSamplerResponse,
                    SaveWeightsResponse, TensorData, TrainingResult, UnloadModelResponse, data_of, json_object)

T = TypeVar("T")

MOST_DATUMS = 1024
MOST_BYTES = 4_000_000
MOST_SUBMITTING = 1024

#: ``fn(data, logprobs) -> (loss, metrics)``: ``logprobs`` is a list of torch tensors, one for each datum in the shape
#: of its target tokens; ``loss`` a scalar torch tensor made from them; ``metrics`` a dict of floats.
CustomLoss = Callable[[List[Datum], List[Any]], Tuple[Any, Mapping[str, float]]]


class TrainingClient(Ready):
    """One training run: an adapter of a frozen base model.

    Calls return at once, as futures. When a call has returned, its operation has its place in the run's order and
    will be carried out, even if nobody keeps the future and the program ends. Operations take effect one after
    another in that order, whichever threads made the calls. If one fails, those after it that would train or save
    past it fail with the same cause, until the failure was seen (``result()``) or a ``load_state`` made it moot.

    Where an event loop runs on the calling thread, another thread sends the operation, in its place, so that the loop goes on;
    the exceptions of a refused call are then those of the future. With 1024 operations to be sent the call waits.

    Every method has an ``_async`` twin. Where the method gives a future, so does awaiting the twin: the first
    ``await`` means submitted and in its place, the second gives the result. (``sample_async``, ``train_async`` and
    those that make clients give their result at the first.)
    """

    def __init__(self, session: Session, model_id: str, base_model: Optional[str] = None) -> None:
        self._session = session
        self._model_id = model_id
        self._base_model = base_model
        self._queue = OperationQueue()
        self._last_number = 0
        self._incomplete = False  # whether the gradient sum may hold some parts of a batch without the others
        self._snapshot: Optional[RequestFuture[SaveWeightsForSamplerResponse]] = None

    def _pieces(self, tokens: Sequence[int]) -> Optional[List[str]]:
        return texts(self._session, self.get_tokenizer, tokens)

    @property
    def model_id(self) -> str:
        """The run's id: the first part of its checkpoints' paths."""
        return self._model_id

    # -- passes and steps ------------------------------------------------------------------------------------

    def forward(self, data: Sequence[Datum], loss_fn: LossFnType,
                loss_fn_config: Optional[Mapping[str, float]] = None) -> Future[ForwardBackwardOutput]:
        """The loss and log-probabilities of ``data``, without a gradient. Arguments as in ``forward_backward``."""
        return self._call(self._pass("forward", data, loss_fn, loss_fn_config))

    async def forward_async(self, data: Sequence[Datum], loss_fn: LossFnType,
                            loss_fn_config: Optional[Mapping[str, float]] = None) -> Future[ForwardBackwardOutput]:
        """``forward`` for asyncio."""
        return await self._queued(self._pass("forward", data, loss_fn, loss_fn_config))

    def forward_backward(self, data: Sequence[Datum], loss_fn: LossFnType,
                         loss_fn_config: Optional[Mapping[str, float]] = None) -> Future[ForwardBackwardOutput]:
        """Adds the gradient of the loss over ``data`` to the gradient sum since the last ``optim_step``.

        ``loss_fn``: ``cross_entropy``, ``importance_sampling``, ``ppo``, ``cispo`` or ``dro``; losses are sums over
        tokens and data, not means. ``loss_fn_config``: settings of the loss, e.g. ``{"clip_low_threshold": 0.8}`` of
        ppo and cispo, ``{"beta": 0.05}`` of dro. The losses with a sampler's log-probabilities tell how far it is from the
        model (``kl_sample_train_v1:mean`` and more). A batch of more than 1024 datums or about 4 MB is sent in parts and
        its results are put together again. If the call ends between the parts (Ctrl-C, no answer), the next ``optim_step``
        fails, once, and drops what they have added: send the whole batch again after it. Raises
        :class:`InvalidArgumentError` before sending anything, and the exceptions of a refused call.
        """
        return self._call(self._pass("forward_backward", data, loss_fn, loss_fn_config))

    async def forward_backward_async(self, data: Sequence[Datum], loss_fn: LossFnType,
                                     loss_fn_config: Optional[Mapping[str, float]] = None,
                                     ) -> Future[ForwardBackwardOutput]:
        """``forward_backward`` for asyncio."""
        return await self._queued(self._pass("forward_backward", data, loss_fn, loss_fn_config))

    def forward_backward_custom(self, data: Sequence[Datum], loss_fn: Optional[CustomLoss] = None, *,
                                fn: Optional[CustomLoss] = None, loss_type_input: Literal["logprobs"] = "logprobs",
                                ) -> Future[ForwardBackwardOutput]:
        """``forward_backward`` with a custom loss, differentiated on the client by torch (an extra).

        ``loss_fn(data, logprobs)`` gets one tensor of log-probabilities of the target tokens for each datum, and gives a
        scalar tensor and a dict of metrics. The call waits for a forward pass, runs the function and sends the gradient;
        no operation of another thread comes between. The result's metrics are the function's, with ``loss:sum``. ``fn`` is
        an older name of ``loss_fn``; ``loss_type_input`` says what the function gets: there is one kind.
        """
        return self._call(self._custom(data, loss_fn if loss_fn is not None else fn, loss_type_input))

    async def forward_backward_custom_async(self, data: Sequence[Datum], loss_fn: Optional[CustomLoss] = None, *,
                                            fn: Optional[CustomLoss] = None,
                                            loss_type_input: Literal["logprobs"] = "logprobs",
                                            ) -> Future[ForwardBackwardOutput]:
        """``forward_backward_custom`` for asyncio; the function runs on another thread."""
        return await self._queued(self._custom(data, loss_fn if loss_fn is not None else fn, loss_type_input))

    def optim_step(self, adam_params: Optional[AdamParams] = None) -> Future[OptimStepResponse]:
        """Applies the gradient sum and clears it.

        ``adam_params``: settings for this step and those after it; without them the run keeps its own (at first a
        learning rate of 1e-4), which checkpoints carry.
        """
        return self._call(self._step(adam_params))

    async def optim_step_async(self, adam_params: Optional[AdamParams] = None) -> Future[OptimStepResponse]:
        """``optim_step`` for asyncio."""
        return await self._queued(self._step(adam_params))

    def train(self, data: Sequence[Datum], loss_fn: Union[LossFnType, CustomLoss] = "cross_entropy",
              learning_rate: float = 1e-4, **kwargs: Any) -> TrainingResult:
        """One pass and one step; waits for both.

        ``loss_fn``: a name, or a callable as in ``forward_backward_custom``; ``kwargs``: ``weight_decay``,
        ``grad_clip`` (or ``grad_clip_norm``), ``beta1``, ``beta2``, ``eps``, ``loss_fn_config``.
        """
        first, second = self._training(data, loss_fn, learning_rate, kwargs)

        def both() -> Tuple[Future[ForwardBackwardOutput], Future[OptimStepResponse]]:
            return first(), second()

        evaluated, stepped = self._queue.run(both)
        return _trained(evaluated.result(), stepped.result(), callable(loss_fn))

    async def train_async(self, data: Sequence[Datum], loss_fn: Union[LossFnType, CustomLoss] = "cross_entropy",
                          learning_rate: float = 1e-4, **kwargs: Any) -> TrainingResult:
        """``train`` for asyncio; one ``await`` gives the result."""
        first, second = self._training(data, loss_fn, learning_rate, kwargs)
        evaluated, stepped = await self._queued(lambda: (first(), second()))
        return _trained(await evaluated, await stepped, callable(loss_fn))

    # -- checkpoints -----------------------------------------------------------------------------------------

    def save_state(self, name: str, metadata: Optional[Mapping[str, Any]] = None, ttl_seconds: Optional[int] = None,
                   overwrite: Optional[bool] = None) -> Future[SaveWeightsResponse]:
        """Saves weights, optimizer state, settings and step count; the result's ``path`` can be used by any client.

        ``name``: letters, digits, ``.``, ``_``, ``-``; a name may be used again, its path then means the newest.
        ``metadata``: a dict that JSON can carry. ``ttl_seconds``: delete the checkpoint after so long; None: never.
        ``overwrite`` is accepted and changes nothing.
        """
        return self._call(self._save(name, metadata, ttl_seconds, overwrite))

    async def save_state_async(self, name: str, metadata: Optional[Mapping[str, Any]] = None,
                               ttl_seconds: Optional[int] = None, overwrite: Optional[bool] = None,
                               ) -> Future[SaveWeightsResponse]:
        """``save_state`` for asyncio."""
        return await self._queued(self._save(name, metadata, ttl_seconds, overwrite))

    def load_state(self, path: str) -> Future[LoadWeightsResponse]:
        """Loads a saved state into the run: weights, optimizer state, settings, step count. Gathered gradients are
        dropped. The base model and the adapter's shape must be the run's own (a run that was made without a rank
        and has done nothing takes on the checkpoint's). :class:`InvalidPathError` for a malformed path."""
        return self._call(self._load(path, None))

    async def load_state_async(self, path: str) -> Future[LoadWeightsResponse]:
        """``load_state`` for asyncio."""
        return await self._queued(self._load(path, None))

    def load_state_with_optimizer(self, path: str) -> Future[LoadWeightsResponse]:
        """The same as ``load_state``, under Tinker's name."""
        return self._call(self._load(path, True))

    async def load_state_with_optimizer_async(self, path: str) -> Future[LoadWeightsResponse]:
        """``load_state_with_optimizer`` for asyncio."""
        return await self._queued(self._load(path, True))

    def save_weights_for_sampler(self, name: str, ttl_seconds: Optional[int] = None,
                                 ) -> Future[SaveWeightsForSamplerResponse]:
        """Saves weights alone, for sampling and for download; ``name`` and ``ttl_seconds`` as in ``save_state``."""
        return self._call(self._save_sampler(name, ttl_seconds))

    async def save_weights_for_sampler_async(self, name: str, ttl_seconds: Optional[int] = None,
                                             ) -> Future[SaveWeightsForSamplerResponse]:
        """``save_weights_for_sampler`` for asyncio."""
        return await self._queued(self._save_sampler(name, ttl_seconds))

    def save_weights_external(self, name: str, ttl_seconds: Optional[int] = None) -> Future[SaveWeightsExternalResponse]:
        """Saves weights alone, to be fetched file by file: :meth:`bios.RestClient.get_external_weights_urls`. They are the
        sampler weights of this name, and can be sampled."""
        return self._call(self._save_external(name, ttl_seconds))

    async def save_weights_external_async(self, name: str, ttl_seconds: Optional[int] = None,
                                          ) -> Future[SaveWeightsExternalResponse]:
        """``save_weights_external`` for asyncio."""
        return await self._queued(self._save_external(name, ttl_seconds))

    def save_weights_and_get_sampling_client(self, name: Optional[str] = None, retry_config: Any = None) -> SamplingClient:
        """A sampling client of the current weights; waits until it is ready. With a name the weights are also saved as a
        checkpoint; without a name they are deleted with the session.
        ``retry_config`` of Tinker's package is accepted and changes nothing: see :class:`bios.RetryPolicy`."""
        if name is None:
            return self._ephemeral(self._queue.run(self._take_snapshot).result())
        return self.create_sampling_client(self.save_weights_for_sampler(name).result().path)

    async def save_weights_and_get_sampling_client_async(self, name: Optional[str] = None, retry_config: Any = None,
                                                         ) -> SamplingClient:
        """``save_weights_and_get_sampling_client`` for asyncio."""
        if name is None:
            return self._ephemeral(await (await self._queued(self._take_snapshot)))
        saved = await (await self.save_weights_for_sampler_async(name))
        return await self.create_sampling_client_async(saved.path)

    # -- sampling --------------------------------------------------------------------------------------------

    def sample(self, prompt: Prompt, sampling_params: Optional[SamplingParams] = None,
               num_samples: int = 1) -> Future[SampleResult]:
        """Samples from the weights at this point in the run's order. A snapshot is saved, and reused
        until an operation changes the weights. Arguments as in :meth:`bios.SamplingClient.sample`."""
        return self._sample(request(prompt, sampling_params, num_samples, False, 0))

    def _sample(self, body: Dict[str, Any]) -> Future[SampleResult]:
        taken = self._call(self._take_snapshot)

        def submit() -> str:
            return self._ephemeral(taken._get())._submit(body)

        def parse(wire: Mapping[str, Any]) -> SampleResult:
            return SampleResult.from_wire(wire)._shown_with(self._pieces)

        future = RequestFuture(self._session, f"sample from {self._model_id}", parse, submit=submit, after=taken)
        return future.start()

    async def sample_async(self, prompt: Prompt, sampling_params: Optional[SamplingParams] = None,
                           num_samples: int = 1) -> SampleResult:
        """``sample`` for asyncio; one ``await`` gives the result."""
        body = request(prompt, sampling_params, num_samples, False, 0)
        taken = await (await self._queued(self._take_snapshot))
        return await (await on_thread(self._ephemeral(taken)._sample, body))

    def create_sampling_client(self, model_path: str, retry_config: Any = None) -> SamplingClient:
        """A sampling client of a checkpoint of this or another run."""
        source(model_path, None)
        return SamplingClient._create(self._session, None, model_path)

    async def create_sampling_client_async(self, model_path: str, retry_config: Any = None) -> SamplingClient:
        """``create_sampling_client`` for asyncio."""
        return await on_thread(self.create_sampling_client, model_path)

    # -- the run ---------------------------------------------------------------------------------------------

    def get_info(self) -> GetInfoResponse:
        """The run's base model, adapter shape and number of steps."""
        info = GetInfoResponse.from_wire(self._session.transport.post("/get_info", {"model_id": self._model_id}))
        self._base_model = info.model_name or self._base_model
        return info

    async def get_info_async(self) -> GetInfoResponse:
        """``get_info`` for asyncio."""
        return await on_thread(self.get_info)

    def get_tokenizer(self) -> Any:
        """The base model's tokenizer: ``encode(text) -> list[int]``, ``decode(tokens) -> str``."""
        if self._base_model in self._session.tokenizers:
            return self._session.tokenizers[self._base_model]
        info = self.get_info()
        return tokenizer(self._session, info.model_name, info.model_data.tokenizer_id)

    async def get_tokenizer_async(self) -> Any:
        """``get_tokenizer`` for asyncio."""
        return await on_thread(self.get_tokenizer)

    def unload_model(self) -> Future[UnloadModelResponse]:
        """Ends the run when its operations are finished and frees its memory: it accepts no more
        operations, its checkpoints are kept. (An idle run is evicted automatically, without this call.)"""
        return self._call(self._unload)

    async def unload_model_async(self) -> Future[UnloadModelResponse]:
        """``unload_model`` for asyncio."""
        return await self._queued(self._unload)

    def __repr__(self) -> str:
        return f"TrainingClient({self._model_id})"

    # -- jobs: checked and encoded when they are made, posted when their turn comes ------------------------------

    def _call(self, job: Callable[[], Future[T]]) -> Future[T]:
        if not in_event_loop() or self._queue.waiting >= MOST_SUBMITTING:
            return self._queue.run(job)
        submission = JobFuture(self._queue.submit(job), self._session.transport.policy.clock)
        return SubmittedFuture(submission, f"an operation of {self._model_id} that is being sent")

    async def _queued(self, job: Callable[[], T]) -> T:
        # Shielded: a turn that was taken must be passed on, whatever becomes of the caller.
        return await asyncio.shield(asyncio.wrap_future(self._queue.submit(job)))

    def _number(self) -> int:
        self._last_number += 1
        return self._last_number

    def _post(self, call: str, body: Dict[str, Any], parse: Callable[[Mapping[str, Any]], Any]) -> RequestFuture[Any]:
        number = self._number()
        body = {"model_id": self._model_id, "seq_id": number, **body}
        return self._session.submit(f"/{call}", body, f"{call} {number} of {self._model_id}", parse)

    def _pass(self, call: str, data: Any, loss_fn: Any, config: Any) -> Callable[[], Future[ForwardBackwardOutput]]:
        items = data_of(data)
        if not isinstance(loss_fn, str):
            more = "; for a callable use forward_backward_custom or train" if callable(loss_fn) else ""
            raise InvalidArgumentError("loss_fn", f"expected a loss's name, got {type(loss_fn).__name__}{more}")
        _check(items)
        rest: Dict[str, Any] = {"loss_fn": loss_fn}
        if config is not None:
            rest["loss_fn_config"] = json_object(config, "loss_fn_config")
        parts = [[encode(datum.to_wire()) for datum in part] for part in split(items)]
        tail = encode(rest)[1:]

        adds = call == "forward_backward"

        def post() -> Future[ForwardBackwardOutput]:
            futures: List[RequestFuture[ForwardBackwardOutput]] = []
            sent = 0
            if adds:
                self._refuse_incomplete()
                self._incomplete = len(parts) > 1  # until all are accepted, whatever ends the calls before
            for part in parts:
                number = self._number()
                head = encode({"model_id": self._model_id, "seq_id": number})[:-1]
                body = b',"%s_input":{"data":[%s],%s}' % (call.encode(), b",".join(part), tail)
                try:
                    answer = self._session.transport.call("POST", f"/{call}", encoded=head + body)
                except APIStatusError as e:
                    _count_from(e, sent)
                    if adds and not retryable(e.status, e.code):
                        self._incomplete = sent > 0 and not self._refuse(head + b',"part":true' + body)
                    if adds and sent:
                        _add_note(e, f"the first {sent} of {len(items)} datums had been accepted; the next optim_step fails"
                                     " and drops their gradient")
                    raise
                futures.append(RequestFuture(self._session, f"{call} {number} of {self._model_id}",
                                             ForwardBackwardOutput.from_wire, request_id(answer.json()), first_datum=sent))
                sent += len(part)
            if adds:
                self._incomplete = False
            return futures[0] if len(futures) == 1 else Joined(futures, combine)

        return post

    def _refuse(self, body: bytes) -> bool:
        """Gives a part that was refused its place in the order, where it fails: the next step fails too and drops what the
        parts before it have added, so that they are never applied alone. Returns whether the server has accepted this."""
        try:
            self._session.transport.call("POST", "/forward_backward", encoded=body)
        except BiosError:
            return False
        return True

    def _refuse_incomplete(self) -> None:
        """Does the same for a batch whose call ended between its parts, before anything else is added to what they have
        added, and before it is applied: by a part that no server takes, whose error says what has happened."""
        if self._incomplete:
            refused = {"loss_fn": "the call of an earlier batch ended between its parts; send the whole batch again", "data": []}
            self._session.transport.post("/forward_backward", {
                "model_id": self._model_id, "seq_id": self._number(), "part": True, "forward_backward_input": refused})
            self._incomplete = False

    def _custom(self, data: Any, fn: Optional[CustomLoss], kind: str = "logprobs",
                ) -> Callable[[], Future[ForwardBackwardOutput]]:
        items = data_of(data)
        if kind != "logprobs":
            raise InvalidArgumentError("loss_type_input", f"expected logprobs, got {kind!r}")
        if not callable(fn):
            raise InvalidArgumentError("loss_fn", f"expected a function of (data, logprobs), got {type(fn).__name__}")
        try:
            import torch
        except ImportError:
            raise MissingExtraError("a loss of your own needs torch: pip install torch") from None
        for i, datum in enumerate(items):
            if "target_tokens" not in datum.loss_fn_inputs:
                raise InvalidArgumentError(f"data[{i}].loss_fn_inputs.target_tokens", "is missing")
        plain = [Datum(d.model_input, {"target_tokens": d.loss_fn_inputs["target_tokens"]}) for d in items]
        look = self._pass("forward", plain, "cross_entropy", None)

        def post() -> Future[ForwardBackwardOutput]:
            seen = look().result()
            logprobs = [o["logprobs"].to_torch().clone().requires_grad_(True) for o in seen.loss_fn_outputs]
            loss, metrics = fn(items, logprobs)
            if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
                raise InvalidArgumentError("loss_fn", "its loss is not a scalar torch tensor")
            slopes = torch.autograd.grad(loss.reshape(()), logprobs, allow_unused=True)
            weighted = [
                Datum(d.model_input, {**d.loss_fn_inputs, "weights": TensorData.from_torch(
                    torch.zeros_like(p) if g is None else -g)})
                for d, p, g in zip(plain, logprobs, slopes)]
            reported: Dict[str, float] = {k: float(v) for k, v in dict(metrics).items()}
            reported["loss:sum"] = float(loss.detach())

            def replace(results: List[ForwardBackwardOutput]) -> ForwardBackwardOutput:
                done = results[0]
                kept = {k: v for k, v in done.metrics.items() if k in ("tokens:sum", "non_finite:sum")}
                return ForwardBackwardOutput(done.loss_fn_output_type, done.loss_fn_outputs, {**kept, **reported})

            return Joined([self._pass("forward_backward", weighted, "cross_entropy", None)()], replace)

        return post

    def _step(self, adam_params: Any) -> Callable[[], Future[OptimStepResponse]]:
        body: Dict[str, Any] = {}
        if adam_params is not None:
            if not isinstance(adam_params, AdamParams):
                raise InvalidArgumentError("adam_params", f"expected AdamParams, got {type(adam_params).__name__}")
            body["adam_params"] = adam_params.to_wire()

        def post() -> Future[OptimStepResponse]:
            self._refuse_incomplete()
            self._snapshot = None
            return self._post("optim_step", body, OptimStepResponse.from_wire)

        return post

    def _training(self, data: Any, loss_fn: Any, learning_rate: float, kwargs: Dict[str, Any]) -> Tuple[Any, Any]:
        config = kwargs.pop("loss_fn_config", None)
        if "grad_clip" in kwargs:
            kwargs["grad_clip_norm"] = kwargs.pop("grad_clip")
        unknown = set(kwargs) - set(AdamParams.__dataclass_fields__)
        if unknown:
            raise InvalidArgumentError(sorted(unknown)[0], "is not a setting of train; expected weight_decay, grad_clip,"
                                                           " beta1, beta2, eps or loss_fn_config")
        step = self._step(AdamParams(learning_rate=learning_rate, **kwargs))
        if callable(loss_fn):
            return self._custom(data, loss_fn), step
        return self._pass("forward_backward", data, loss_fn, config), step

    def _save(self, name: Any, metadata: Any, ttl: Any, overwrite: Any) -> Callable[[], Future[SaveWeightsResponse]]:
        body: Dict[str, Any] = {"path": checkpoint_name(name), **_ttl(ttl)}
        if metadata is not None:
            body["metadata"] = json_object(metadata, "metadata")
        if overwrite is not None:
            body["overwrite"] = bool(overwrite)
        return lambda: self._post("save_weights", body, SaveWeightsResponse.from_wire)

    def _save_sampler(self, name: Any, ttl: Any) -> Callable[[], Future[SaveWeightsForSamplerResponse]]:
        body = {"path": checkpoint_name(name), **_ttl(ttl)}
        return lambda: self._post("save_weights_for_sampler", body, SaveWeightsForSamplerResponse.from_wire)

    def _save_external(self, name: Any, ttl: Any) -> Callable[[], Future[SaveWeightsExternalResponse]]:
        body = {"path": checkpoint_name(name), **_ttl(ttl)}
        return lambda: self._post("save_weights_external", body, SaveWeightsExternalResponse.from_wire)

    def _load(self, path: Any, optimizer: Optional[bool]) -> Callable[[], Future[LoadWeightsResponse]]:
        CheckpointPath.parse(path)
        body = {"path": path, **({} if optimizer is None else {"optimizer": optimizer})}

        def post() -> Future[LoadWeightsResponse]:
            self._refuse_incomplete()  # a load that fails leaves the gradient sum as it is
            self._snapshot = None
            return self._post("load_weights", body, LoadWeightsResponse.from_wire)

        return post

    def _unload(self) -> Future[UnloadModelResponse]:
        return self._session.submit("/unload_model", {"model_id": self._model_id}, f"unload_model of {self._model_id}",
                                    UnloadModelResponse.from_wire)

    def _take_snapshot(self) -> RequestFuture[SaveWeightsForSamplerResponse]:
        taken = self._snapshot
        if taken is None or taken._error is not None:
            taken = self._snapshot = self._post(
                "save_weights_for_sampler", {"sampling_session_seq_id": self._session.next_sampler()},
                SaveWeightsForSamplerResponse.from_wire)
        return taken

    def _ephemeral(self, taken: SaveWeightsForSamplerResponse) -> SamplingClient:
        return SamplingClient(self._session, taken.sampling_session_id or "", self._base_model)


def split(data: List[Datum]) -> List[List[Datum]]:
    """Parts of at most 1024 datums and about 4 MB of JSON; a larger datum is a part of its own."""
    parts: List[List[Datum]] = [[]]
    size = 0
    for datum in data:
        # base64 takes 4 bytes for 3
        bytes_ = 200 + (4 * datum.model_input.length + sum(len(t._packed) for t in datum.loss_fn_inputs.values())) * 4 // 3
        if parts[-1] and (len(parts[-1]) >= MOST_DATUMS or size + bytes_ > MOST_BYTES):
            parts.append([])
            size = 0
        parts[-1].append(datum)
        size += bytes_
    return parts


def combine(parts: List[ForwardBackwardOutput]) -> ForwardBackwardOutput:
    """Combines the outputs of a batch's parts. Metrics are named ``name:reduction`` and combined by this reduction; those
    that a part lacks, or whose reduction is unknown, are omitted."""
    outputs = [o for part in parts for o in part.loss_fn_outputs]
    counts = [len(part.loss_fn_outputs) for part in parts]
    metrics: Dict[str, float] = {}
    for name in parts[0].metrics:
        if not all(name in part.metrics for part in parts):
            continue
        values = [part.metrics[name] for part in parts]
        how = name.rpartition(":")[2]
        if how == "sum":
            metrics[name] = sum(values)
        elif how in ("mean", "slack"):
            metrics[name] = sum(v * n for v, n in zip(values, counts)) / max(1, sum(counts))
        elif how == "min":
            metrics[name] = min(values)
        elif how == "max":
            metrics[name] = max(values)
        elif how == "hash_unordered":
            metrics[name] = hash(tuple(sorted(values)))
        elif how == "unique":
            metrics[name] = values[0]
            for i, value in enumerate(values[1:], 1):
                metrics[f"{name}_{i}"] = value
    return ForwardBackwardOutput(parts[0].loss_fn_output_type, outputs, metrics)


def _check(data: List[Datum]) -> None:
    for i, datum in enumerate(data):
        n = datum.model_input.length
        for name, tensor in datum.loss_fn_inputs.items():
            at = f"data[{i}].loss_fn_inputs.{name}"
            if not tensor.shape or tensor.shape[0] != n:
                raise InvalidArgumentError(at, f"has shape {tensor.shape}; model_input has {n} tokens, and so must it")


def _ttl(seconds: Any) -> Dict[str, int]:
    if seconds is None:
        return {}
    if isinstance(seconds, bool) or not isinstance(seconds, int) or seconds < 1:
        raise InvalidArgumentError("ttl_seconds", f"expected an integer of at least 1, or None, got {seconds!r}")
    return {"ttl_seconds": seconds}


def _count_from(error: APIStatusError, first: int) -> None:
    """Names the datum of a refused part by its place in the whole batch."""
    if first and error.field:
        field = in_batch(error.field, first)
        error.args = (str(error.args[0]).replace(error.field, field, 1),) + error.args[1:]
        error.message = error.message.replace(error.field, field, 1)
        error.field = field


def _add_note(error: APIStatusError, note: str) -> None:
    error.args = (f"{error.args[0]}; {note}",) + error.args[1:]


def _trained(evaluated: ForwardBackwardOutput, stepped: OptimStepResponse, custom: bool) -> TrainingResult:
    total = evaluated.metrics.get("loss:sum", 0.0)
    weight = evaluated.metrics.get("weights:sum") or evaluated.metrics.get("tokens:sum") or 0.0
    loss = total if custom or not weight else total / weight
    metrics = {**evaluated.metrics, "loss:mean": loss, **stepped.metrics}
    return TrainingResult(loss, metrics, stepped.step or 0)
