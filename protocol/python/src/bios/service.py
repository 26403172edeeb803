"""The entry point of the package."""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional, Sequence, Tuple, Union

from . import config
from ._threads import CALLS, on_thread
from ._transport import RetryPolicy, Transport
from .errors import InvalidArgumentError
from .futures import Future, JobFuture, RequestFuture
from .paths import CheckpointPath
from .rest import RestClient
from .sampling import SamplingClient, source
from .session import Session
from .training import TrainingClient
from .types import GetServerCapabilitiesResponse, LoraConfig, WeightsInfoResponse, json_object

class ServiceClient:
    """A client of a server, for one account. Creating it causes no network traffic.

    ``api_key``: else the environment's ``BIOS_API_KEY``; none is needed where the server runs without keys.
    ``base_url``: else ``BIOS_BASE_URL``, else ``http://127.0.0.1:8400``. Of a cluster, several coordinators' addresses
    may be given with commas between them: when one does not answer, the next is asked. What neither argument nor
    environment gives comes from ``bios login``, if that was used; its key goes to its own address only.
    ``user_metadata``: a dict that is kept with the session; ``project_id``: the project that the session's runs belong to.
    ``timeout``: seconds for which a call is repeated while the server cannot be reached (default 600; None: for
    ever). Results of accepted operations are awaited without limit unless ``result(timeout)`` sets one.
    """

    def __init__(self, api_key: Optional[str] = None, base_url: Optional[str] = None, *,
                 user_metadata: Optional[Mapping[str, Any]] = None, project_id: Optional[str] = None,
                 timeout: Optional[float] = 600.0, retry: Optional[RetryPolicy] = None) -> None:
        if base_url is not None and not isinstance(base_url, str):
            raise InvalidArgumentError("base_url", f"expected a string, got {type(base_url).__name__}")
        url, key = config.server(base_url, api_key)
        policy = retry if retry is not None else RetryPolicy(call_seconds=timeout)
        metadata = None if user_metadata is None else json_object(user_metadata, "user_metadata")
        self._session = Session(Transport(url, key, policy), metadata, project_id)

    @property
    def base_url(self) -> str:
        """The server's address, or addresses."""
        return self._session.transport.base_url

    def get_server_capabilities(self) -> GetServerCapabilitiesResponse:
        """The capabilities of the server: ``.supported_models[i].model_name`` and more."""
        return GetServerCapabilitiesResponse.from_wire(self._session.transport.get("/get_server_capabilities"))

    async def get_server_capabilities_async(self) -> GetServerCapabilitiesResponse:
        """``get_server_capabilities`` for asyncio."""
        return await on_thread(self.get_server_capabilities)

    def create_lora_training_client(
            self, base_model: str, rank: Optional[int] = None, *, alpha: Optional[float] = None,
            seed: Optional[int] = None, train_mlp: Optional[bool] = None, train_attn: Optional[bool] = None,
            train_unembed: Optional[bool] = None, target_modules: Optional[Sequence[str]] = None,
            user_metadata: Optional[Mapping[str, Any]] = None) -> TrainingClient:
        """Creates a run: a new adapter on a base model. Waits until it exists.

        ``rank``: 1 to 256; without one the server's default (32), and the run can take on the shape of the first
        checkpoint that it loads. ``alpha``: the correction is scaled by alpha / rank (default 32). ``seed``: of the
        adapter's first weights. ``train_mlp``, ``train_attn``, ``train_unembed``: which layers learn (default: the
        first two); ``target_modules``, e.g. ``["q_proj", "v_proj"]``, says it one by one. ``user_metadata``: kept
        with the run. Raises :class:`BadRequestError` or :class:`NotFoundError` for a model that is not served.
        """
        if not isinstance(base_model, str) or not base_model:
            raise InvalidArgumentError("base_model", f"expected a model's name, got {base_model!r}")
        lora = LoraConfig(rank, seed, train_unembed, train_mlp, train_attn, alpha, target_modules)
        body: Dict[str, Any] = {"base_model": base_model, "lora_config": lora.to_wire(), **_metadata(user_metadata)}
        return self._create("/create_model", body, f"create_model on {base_model}", base_model)

    async def create_lora_training_client_async(
            self, base_model: str, rank: Optional[int] = None, *, alpha: Optional[float] = None,
            seed: Optional[int] = None, train_mlp: Optional[bool] = None, train_attn: Optional[bool] = None,
            train_unembed: Optional[bool] = None, target_modules: Optional[Sequence[str]] = None,
            user_metadata: Optional[Mapping[str, Any]] = None) -> TrainingClient:
        """``create_lora_training_client`` for asyncio."""
        return await on_thread(lambda: self.create_lora_training_client(
            base_model, rank, alpha=alpha, seed=seed, train_mlp=train_mlp, train_attn=train_attn,
            train_unembed=train_unembed, target_modules=target_modules, user_metadata=user_metadata))

    def load_training_client(self, path: str, user_metadata: Optional[Mapping[str, Any]] = None) -> TrainingClient:
        """Creates a run from a saved training state: its base model, adapter shape, weights, optimizer state and
        step count. The run that saved it does not change. :class:`NotFoundError` if there is no such checkpoint."""
        CheckpointPath.parse(path)
        body = {"path": path, **_metadata(user_metadata)}
        return self._create("/load_training_client", body, f"load {path}", None)

    async def load_training_client_async(self, path: str, user_metadata: Optional[Mapping[str, Any]] = None,
                                         ) -> TrainingClient:
        """``load_training_client`` for asyncio."""
        return await on_thread(self.load_training_client, path, user_metadata)

    def create_training_client_from_state_with_optimizer(
            self, path: str, base_model: Optional[str] = None, user_metadata: Optional[Mapping[str, Any]] = None,
            weights_access_token: Optional[str] = None) -> TrainingClient:
        """The same as ``load_training_client``, under Tinker's name and with its arguments: see
        ``create_training_client_from_state``."""
        base_model, user_metadata = _from_state(base_model, user_metadata, weights_access_token)
        CheckpointPath.parse(path)
        if base_model is None:
            return self.load_training_client(path, user_metadata)
        return self._from_weights(path, base_model, user_metadata, True)

    async def create_training_client_from_state_with_optimizer_async(
            self, path: str, base_model: Optional[str] = None, user_metadata: Optional[Mapping[str, Any]] = None,
            weights_access_token: Optional[str] = None) -> TrainingClient:
        """``create_training_client_from_state_with_optimizer`` for asyncio."""
        return await on_thread(self.create_training_client_from_state_with_optimizer, path, base_model, user_metadata,
                           weights_access_token)

    def create_training_client_from_state(
            self, path: str, base_model: Optional[str] = None, user_metadata: Optional[Mapping[str, Any]] = None,
            weights_access_token: Optional[str] = None) -> TrainingClient:
        """Creates a run with a checkpoint's weights and a fresh optimizer, as Tinker's call of this name.

        ``base_model``: another name of the same base model than the checkpoint's own; the server refuses a model that the
        adapter is not of. ``weights_access_token`` is refused: another account's checkpoint can be loaded when it is
        published.
        """
        base_model, user_metadata = _from_state(base_model, user_metadata, weights_access_token)
        CheckpointPath.parse(path)
        return self._from_weights(path, base_model, user_metadata, False)

    def _from_weights(self, path: str, base_model: Optional[str], user_metadata: Optional[Mapping[str, Any]],
                      optimizer: bool) -> TrainingClient:
        info = WeightsInfoResponse.from_wire(self._session.transport.post("/weights_info", {"path": path}))
        client = self.create_lora_training_client(
            base_model or info.base_model, info.lora_rank, alpha=info.lora_alpha, target_modules=info.target_modules,
            train_mlp=None if info.target_modules else info.train_mlp,
            train_attn=None if info.target_modules else info.train_attn,
            train_unembed=None if info.target_modules else info.train_unembed, user_metadata=user_metadata)
        client._queue.run(client._load(path, optimizer)).result()
        return client

    async def create_training_client_from_state_async(
            self, path: str, base_model: Optional[str] = None, user_metadata: Optional[Mapping[str, Any]] = None,
            weights_access_token: Optional[str] = None) -> TrainingClient:
        """``create_training_client_from_state`` for asyncio."""
        return await on_thread(self.create_training_client_from_state, path, base_model, user_metadata, weights_access_token)

    def create_sampling_client(self, model_path: Optional[str] = None, base_model: Optional[str] = None,
                               retry_config: Any = None) -> SamplingClient:
        """A sampling client of the current checkpoint at a path, or of a base model; give exactly one of them.
        ``retry_config`` of Tinker's package is accepted and changes nothing: see :class:`bios.RetryPolicy`."""
        model_path, base_model = source(model_path, base_model)
        return SamplingClient._create(self._session, base_model, model_path)

    async def create_sampling_client_async(self, model_path: Optional[str] = None, base_model: Optional[str] = None,
                                           retry_config: Any = None) -> SamplingClient:
        """``create_sampling_client`` for asyncio."""
        return await on_thread(self.create_sampling_client, model_path, base_model)

    def copy_weights(self, path: str, *, ttl_seconds: Optional[int] = None) -> Future[str]:
        """Copies a checkpoint of one's own, or a published one, into this client's project, and returns the path of the copy: of
        the same kind and name, in a run of its own that cannot be trained. It stays when its source is deleted.
        ``ttl_seconds``: until the copy expires; by default never."""
        CheckpointPath.parse(path)
        body: Dict[str, Any] = {"source_path": path}
        if ttl_seconds is not None:
            body["ttl_seconds"] = ttl_seconds
        session = self._session

        def copy() -> str:
            asked = {"session_id": session.id, "model_seq_id": session.next_model(), **body}
            return str(session.transport.post("/copy_weights", asked)["path"])

        return JobFuture(CALLS.keep(copy), session.transport.policy.clock, f"copy_weights of {path}")

    async def copy_weights_async(self, path: str, *, ttl_seconds: Optional[int] = None) -> str:
        """``copy_weights`` for asyncio."""
        return await self.copy_weights(path, ttl_seconds=ttl_seconds)

    def create_rest_client(self) -> RestClient:
        """A client for listings, downloads and deletion. Causes no network traffic."""
        return RestClient(self._session)

    async def create_rest_client_async(self) -> RestClient:
        """``create_rest_client`` for asyncio."""
        return self.create_rest_client()

    def close(self) -> None:
        """Closes idle connections and ends the heartbeat. Not required: both end with the program."""
        self._session.close()

    def __enter__(self) -> "ServiceClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> "ServiceClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def _create(self, call: str, body: Dict[str, Any], what: str, base_model: Optional[str]) -> TrainingClient:
        session = self._session
        body = {"session_id": session.id, "model_seq_id": session.next_model(), **body}
        made: RequestFuture[str] = session.submit(call, body, what, lambda found: str(found["model_id"]))
        return TrainingClient(session, made.result(), base_model)

    def __repr__(self) -> str:
        return f"ServiceClient({self.base_url})"


def _from_state(base_model: Any, user_metadata: Optional[Mapping[str, Any]], weights_access_token: Optional[str],
                ) -> Tuple[Optional[str], Optional[Mapping[str, Any]]]:
    """Checks the arguments that Tinker's calls have and ``load_training_client`` has not."""
    if isinstance(base_model, Mapping) and user_metadata is None:
        base_model, user_metadata = None, base_model  # as earlier versions had it: (path, user_metadata)
    if base_model is not None and (not isinstance(base_model, str) or not base_model):
        raise InvalidArgumentError("base_model", f"expected a model's name, got {base_model!r}")
    if weights_access_token is not None:
        raise InvalidArgumentError("weights_access_token", "is not known here; the checkpoint's owner can publish it instead")
    return base_model, user_metadata


def _metadata(user_metadata: Union[Mapping[str, Any], None]) -> Dict[str, Any]:
    return {} if user_metadata is None else {"user_metadata": json_object(user_metadata, "user_metadata")}
