"""Sampling from immutable weights."""

from __future__ import annotations

import dataclasses
import secrets
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from ._threads import CALLS, in_event_loop, on_thread
from ._transport import encode, log
from .errors import InvalidArgumentError
from .futures import Future, JobFuture, Joined, Ready, RequestFuture, SubmittedFuture
from .paths import CheckpointPath
from .session import Session, request_id, shared_session
from .tokenizer import pieces, tokenizer
from .types import ModelInput, SampleResult, SamplingParams

Prompt = Union[ModelInput, Sequence[int]]


class SamplingClient(Ready):
    """Samples from one version of the weights: neither further training nor a new checkpoint of the same
    name changes what it uses. Created by :meth:`bios.ServiceClient.create_sampling_client` and by
    :meth:`bios.TrainingClient.save_weights_and_get_sampling_client`."""

    def __init__(self, session: Session, sampler_id: str, base_model: Optional[str] = None,
                 model_path: Optional[str] = None) -> None:
        self._session = session
        self._id = sampler_id
        self._base_model = base_model
        self.model_path = model_path

    @classmethod
    def _create(cls, session: Session, base_model: Optional[str], model_path: Optional[str]) -> "SamplingClient":
        made = session.transport.post("/create_sampling_session", {
            "session_id": session.id, "sampling_session_seq_id": session.next_sampler(),
            **({"model_path": model_path} if model_path is not None else {"base_model": base_model}),
        })
        return cls(session, made["sampling_session_id"], base_model, model_path)

    @property
    def sampler_id(self) -> str:
        """The server's id of this client's weights."""
        return self._id

    def sample(self, prompt: Prompt, sampling_params: Optional[SamplingParams] = None, num_samples: int = 1,
               include_prompt_logprobs: bool = False, topk_prompt_logprobs: int = 0,
               topk_sample_logprobs: int = 0) -> Future[SampleResult]:
        """Samples ``num_samples`` continuations of a prompt.

        ``prompt``: a :class:`ModelInput` or token ids; ``include_prompt_logprobs``: also the log-probability of each
        of the prompt's tokens; ``topk_prompt_logprobs``: also that many of the likeliest tokens at each place;
        ``topk_sample_logprobs``: also that many at the place of each sampled token (``topk_logprobs`` of a sequence).
        Without a seed a random one is fixed here, so that a request that the server lost gives the same tokens when
        it is repeated. Raises :class:`InvalidArgumentError` before sending anything, and the exceptions of a refused call;
        where an event loop runs on this thread, another one sends the call, and the future has these.
        """
        body = request(prompt, sampling_params, num_samples, include_prompt_logprobs, topk_prompt_logprobs,
                       topk_sample_logprobs)
        return self._call(body)

    def _call(self, body: Dict[str, Any]) -> Future[SampleResult]:
        def send() -> Future[SampleResult]:
            return self._sample(body)

        if not in_event_loop():
            return send()
        return SubmittedFuture(JobFuture(CALLS.submit(send), self._session.transport.policy.clock), f"sample from {self._id}")

    def _sample(self, body: Dict[str, Any]) -> RequestFuture[SampleResult]:
        def submit() -> str:
            return self._submit(body)

        return RequestFuture(self._session, f"sample from {self._id}", self._result, submit(), submit)

    def _submit(self, body: Dict[str, Any]) -> str:
        number = self._session.next_sample(self._id)
        asked = encode({**body, "sampling_session_id": self._id, "seq_id": number})
        return request_id(self._session.transport.call("POST", "/asample", encoded=asked).json())

    def _result(self, wire: Mapping[str, Any]) -> SampleResult:
        return SampleResult.from_wire(wire)._shown_with(self._pieces)

    def _pieces(self, tokens: Sequence[int]) -> Optional[List[str]]:
        return texts(self._session, self.get_tokenizer, tokens)

    async def sample_async(self, prompt: Prompt, sampling_params: Optional[SamplingParams] = None,
                           num_samples: int = 1, include_prompt_logprobs: bool = False,
                           topk_prompt_logprobs: int = 0, topk_sample_logprobs: int = 0) -> SampleResult:
        """``sample`` for asyncio; one ``await`` gives the result."""
        body = request(prompt, sampling_params, num_samples, include_prompt_logprobs, topk_prompt_logprobs,
                       topk_sample_logprobs)
        return await (await on_thread(self._sample, body))

    def compute_logprobs(self, prompt: Prompt) -> Future[List[Optional[float]]]:
        """For each token of the prompt its log-probability after those before it; None for the first."""
        return Joined([self._call(_scoring(prompt))], _logprobs)

    async def compute_logprobs_async(self, prompt: Prompt) -> List[Optional[float]]:
        """``compute_logprobs`` for asyncio; one ``await`` gives the result."""
        return _logprobs([await (await on_thread(self._sample, _scoring(prompt)))])

    def get_base_model(self) -> str:
        """The name of the base model."""
        if self._base_model is None:
            found = self._session.transport.get(f"/samplers/{self._id}")
            self._base_model = str(found["base_model"])
        return self._base_model

    async def get_base_model_async(self) -> str:
        """``get_base_model`` for asyncio."""
        return await on_thread(self.get_base_model)

    def get_tokenizer(self) -> Any:
        """The base model's tokenizer: ``encode(text) -> list[int]``, ``decode(tokens) -> str``."""
        return tokenizer(self._session, self.get_base_model())

    async def get_tokenizer_async(self) -> Any:
        """``get_tokenizer`` for asyncio."""
        return await on_thread(self.get_tokenizer)

    def __reduce__(self) -> Tuple[Any, ...]:
        """Pickles the client without its key: whoever unpickles it has ``BIOS_API_KEY`` set, where the server wants one. The
        weights stay as long as the session of the client that opened them: a day after its last heartbeat."""
        return _restored, (self._session.transport.base_url, self._id, self._base_model, self.model_path)

    def __repr__(self) -> str:
        return f"SamplingClient({self.model_path or self._base_model or self._id})"


def _restored(base_url: str, sampler_id: str, base_model: Optional[str], model_path: Optional[str]) -> SamplingClient:
    """A pickled client."""
    return SamplingClient(shared_session(base_url), sampler_id, base_model, model_path)


def texts(session: Session, get_tokenizer: Callable[[], Any], tokens: Sequence[int]) -> Optional[List[str]]:
    """The text of each token, for a notebook, which does not wait for a server that is away: then None."""
    try:
        session.transport.exchange("GET", "/healthz", seconds=2.0)
        return pieces(get_tokenizer(), tokens)
    except Exception as e:
        log.debug("tokens are shown without their text: %s", e)
        return None


def source(model_path: Optional[str], base_model: Optional[str]) -> Tuple[Optional[str], Optional[str]]:
    """Checks what a sampling client is to be made of: exactly one of the two."""
    if (model_path is None) == (base_model is None):
        raise InvalidArgumentError("model_path", "give either model_path or base_model")
    if model_path is not None:
        CheckpointPath.parse(model_path)
    elif not isinstance(base_model, str) or not base_model:
        raise InvalidArgumentError("base_model", f"expected a model's name, got {base_model!r}")
    return model_path, base_model


def request(prompt: Any, params: Any, num_samples: Any, prompt_logprobs: bool, topk: int, topk_sample: int = 0,
            ) -> Dict[str, Any]:
    """The body of a sampling request, but for the sampler and the number."""
    if isinstance(num_samples, SamplingParams) and not isinstance(params, SamplingParams):
        # Tinker's order: prompt, num_samples, sampling_params
        params, num_samples = num_samples, 1 if params is None else params
    if params is None:
        params = SamplingParams()
    if not isinstance(params, SamplingParams):
        raise InvalidArgumentError("sampling_params", f"expected SamplingParams, got {type(params).__name__}")
    if isinstance(num_samples, bool) or not isinstance(num_samples, int) or num_samples < 1:
        raise InvalidArgumentError("num_samples", f"expected an integer of at least 1, got {num_samples!r}")
    for name, count in (("topk_prompt_logprobs", topk), ("topk_sample_logprobs", topk_sample)):
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise InvalidArgumentError(name, f"expected an integer of at least 0, got {count!r}")
    tokens = ModelInput.of(prompt)
    if not tokens.length:
        raise InvalidArgumentError("prompt", "holds no tokens")
    if params.seed is None:
        params = dataclasses.replace(params, seed=secrets.randbits(63))
    return {"prompt": tokens.to_wire(), "sampling_params": params.to_wire(), "num_samples": num_samples,
            "prompt_logprobs": bool(prompt_logprobs), "topk_prompt_logprobs": topk,
            **({"topk_sample_logprobs": topk_sample} if topk_sample else {})}


def _scoring(prompt: Prompt) -> Dict[str, Any]:
    return request(prompt, SamplingParams(max_tokens=1, seed=0), 1, True, 0)


def _logprobs(results: List[SampleResult]) -> List[Optional[float]]:
    return list(results[0].prompt_logprobs or [])
