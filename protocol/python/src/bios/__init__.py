"""Bios: fine-tune open-weight language models on a server of your own, with an ordinary Python loop.

    import bios
    from bios import types

    service = bios.ServiceClient()
    training = service.create_lora_training_client(base_model="bios/tiny", rank=32)
    for batch in batches:
        training.forward_backward(batch, "cross_entropy")
        training.optim_step(types.AdamParams(learning_rate=1e-4))
    path = training.save_state(name="final").result().path

Needs nothing but Python; uses numpy arrays and torch tensors where they are given.
"""

from typing import TYPE_CHECKING

from . import types
from ._transport import VERSION as __version__
from ._transport import RetryPolicy
from .errors import (APIConnectionError, APIError, APIResponseError, APIResponseValidationError, APIStatusError, APITimeoutError,
                     AuthenticationError, BadRequestError, BiosError, ConflictError, InternalServerError,
                     InvalidArgumentError, InvalidPathError, MissingExtraError, NotFoundError, PermissionDeniedError,
                     RateLimitError, RequestFailedError, RequestTooLargeError, TinkerError, UnprocessableEntityError)
from .futures import APIFuture, Future, as_completed
from .paths import CheckpointPath
from .rest import RestClient
from .sampling import SamplingClient
from .service import ServiceClient
from .tokenizer import Tokenizer
from .training import TrainingClient
from .types import (AdamParams, Checkpoint, CheckpointType, Datum, EncodedTextChunk, ForwardBackwardOutput, LoraConfig, ModelID,
                    ModelInput, ModelInputChunk, OptimStepResponse, SampledSequence, SampleResponse, SampleResult,
                    SamplingParams, StopReason, TensorData, TensorDtype, TrainingResult, TrainingRun)

__all__ = [
    "APIConnectionError", "APIError", "APIFuture", "APIResponseError", "APIResponseValidationError", "APIStatusError",
    "APITimeoutError", "AdamParams", "AuthenticationError", "BadRequestError", "BiosError", "Checkpoint", "CheckpointPath",
    "CheckpointType", "ConflictError", "Datum", "EncodedTextChunk", "ForwardBackwardOutput", "Future", "ModelID",
    "ModelInputChunk", "OptimStepResponse", "SampleResponse", "SampledSequence", "StopReason", "TensorDtype", "TrainingRun",
    "InternalServerError", "InvalidArgumentError", "InvalidPathError", "LoraConfig", "MissingExtraError",
    "ModelInput", "NotFoundError", "PermissionDeniedError", "RateLimitError", "RequestFailedError",
    "RequestTooLargeError", "RestClient", "RetryPolicy", "SampleResult", "SamplingClient", "SamplingParams",
    "ServiceClient", "TensorData", "TinkerError", "Tokenizer", "TrainingClient", "TrainingResult", "UnprocessableEntityError",
    "__version__", "as_completed", "types",
]

if TYPE_CHECKING:
    from . import data, export, log, rlhf
else:
    def __getattr__(name):
        """Imports what not every program needs when it is first used."""
        if name in ("data", "export", "log", "rlhf"):
            import importlib

            return importlib.import_module(f".{name}", __name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
