"""Types of arguments and results.

What goes in is checked where it is made, so that a mistake is found before anything is sent. What comes out
is read leniently: fields that a newer server adds are ignored.
"""

from __future__ import annotations

import base64
import math
import re
import sys
from array import array
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from numbers import Integral, Real
from typing import (TYPE_CHECKING, Any, Callable, Dict, Iterable, Iterator, List, Literal, Mapping, Optional, Sequence, Tuple,
                    Union)

from . import _notebook
from .errors import InvalidArgumentError, MissingExtraError

__all__ = [
    "AccessibleSearchOwner", "AdamParams", "AuditLogResponse", "BillingUsageResponse", "Checkpoint",
    "CheckpointArchiveUrlResponse", "CheckpointSearchCursor", "CheckpointSearchRequest", "CheckpointSearchResponse",
    "CheckpointsListResponse", "CheckpointType", "Cursor", "Datum", "EncodedTextChunk", "ExternalWeightsUploadFinishResult",
    "ExternalWeightsUploadStartResult", "ExternalWeightsUrlsResponse", "ForwardBackwardOutput",
    "GetInfoResponse", "GetSamplerResponse", "GetServerCapabilitiesResponse", "GetSessionResponse", "HistoryEntry",
    "ListSessionsResponse", "LoadWeightsResponse", "LoraConfig", "LossFnInputs", "LossFnOutput", "LossFnType", "ModelData",
    "ModelID", "ModelInput", "ModelInputChunk", "OptimStepResponse", "OwnSearchOwner", "RequestErrorCategory",
    "RunHistoryResponse",
    "SampledSequence", "SampleResponse", "SampleResult", "SamplingParams", "SaveWeightsExternalResponse",
    "SaveWeightsForSamplerResponse",
    "SaveWeightsResponse", "SearchOwner", "StopReason", "SupportedModel", "TensorData", "TensorDtype", "TrainingResult", "TrainingRun",
    "TrainingRunIds", "TrainingRunsResponse", "UnloadModelResponse", "UnservedModel", "UsageLine", "UsageResponse",
    "UserSearchOwner",
    "WaitingOperation", "WeightsInfoResponse", "WhoamiResponse",
]

TensorDtype = Literal["int64", "float32"]
StopReason = Literal["stop", "length"]
CheckpointType = Literal["training", "sampler"]
RequestErrorCategory = Literal["unknown", "server", "user"]
#: The id of a run.
ModelID = str
LossFnType = Literal["cross_entropy", "importance_sampling", "ppo", "cispo", "dro"]

_SWAP = sys.byteorder == "big"
_CODES = {"int64": "q", "float32": "f", "int32": "i"}
_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head")


#: Gives the text of each token, or None if it cannot.
Pieces = Callable[[Sequence[int]], Optional[List[str]]]


# ---------------------------------------------------------------------------------------------------------------
# Packing

def _pack(numbers: array[Any]) -> bytes:
    if _SWAP:
        numbers = array(numbers.typecode, numbers)
        numbers.byteswap()
    return numbers.tobytes()


def _unpack(code: str, data: bytes) -> array[Any]:
    numbers: array[Any] = array(code)
    numbers.frombytes(data)
    if _SWAP:
        numbers.byteswap()
    return numbers


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _plain(values: Any) -> Any:
    """Converts numpy arrays and torch tensors to lists; returns other values unchanged."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    return values.tolist() if hasattr(values, "tolist") and not isinstance(values, array) else values


def plain_number(value: Any) -> Any:
    """Converts numpy's scalars and arrays or tensors of one number to Python's; returns other values unchanged."""
    one = hasattr(value, "item") and hasattr(value, "dtype") and math.prod(getattr(value, "shape", ())) == 1
    return value.item() if one else value


def _tokens(tokens: Any, at: str) -> array[int]:
    """Token ids as int32."""
    if isinstance(tokens, (str, bytes)):
        raise InvalidArgumentError(at, "is text; expected token ids, e.g. tokenizer.encode(text)")
    try:
        numbers = array("i", _plain(tokens))
    except (TypeError, OverflowError, ValueError):
        raise InvalidArgumentError(at, f"expected a sequence of token ids (integers from 0), got {_show(tokens)}") from None
    if numbers and min(numbers) < 0:
        raise InvalidArgumentError(at, f"holds the negative token {min(numbers)}")
    return numbers


def _show(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def _number(value: Any, at: str, low: float = -math.inf, high: float = math.inf, below: Optional[float] = None) -> float:
    value = plain_number(value)
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InvalidArgumentError(at, f"expected a number, got {_show(value)}")
    number = float(value)
    if not math.isfinite(number) or not low <= number <= high or (below is not None and number >= below):
        upper = "" if high == math.inf and below is None else f" and {'below' if below is not None else 'at most'} {below if below is not None else high:g}"
        lower = "a finite number" if low == -math.inf else f"a number of at least {low:g}"
        raise InvalidArgumentError(at, f"{value} is out of range; expected {lower}{upper}")
    return number


def _integer(value: Any, at: str, low: int, high: int = 2 ** 31 - 1) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InvalidArgumentError(at, f"expected an integer, got {_show(value)}")
    number = int(value)
    if not low <= number <= high:
        raise InvalidArgumentError(at, f"{value} is out of range; expected {low} to {high}")
    return number


def _strings(value: Any, at: str) -> List[str]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(each, str) for each in value):
        raise InvalidArgumentError(at, f"expected a list of strings, got {_show(value)}")
    return list(value)


def json_object(value: Any, at: str) -> Dict[str, Any]:
    """A copy of ``value`` if it is a dict that JSON represents exactly; raises an error with the field otherwise."""
    if not isinstance(value, Mapping):
        raise InvalidArgumentError(at, f"expected a dict, got {_show(value)}")
    copied: Dict[str, Any] = _json(value, at, 0)
    return copied


def _json(value: Any, at: str, depth: int) -> Any:
    if depth > 64:
        raise InvalidArgumentError(at, "is nested too deeply, or holds itself")
    value = plain_number(value)
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidArgumentError(at, f"{value} cannot be written as JSON")
        return float(value)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InvalidArgumentError(at, f"has the key {key!r}; JSON's keys are strings")
        return {key: _json(v, f"{at}.{key}", depth + 1) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(v, f"{at}[{i}]", depth + 1) for i, v in enumerate(value)]
    raise InvalidArgumentError(at, f"{_show(value)} cannot be written as JSON; use numbers, strings, lists and dicts")


# ---------------------------------------------------------------------------------------------------------------
# Inputs

@dataclass(frozen=True)
class EncodedTextChunk:
    """A piece of text as token ids: integers from 0."""

    tokens: Sequence[int]
    type: Literal["encoded_text"] = "encoded_text"

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", _tokens(self.tokens, "tokens").tolist())

    @property
    def length(self) -> int:
        """Number of tokens."""
        return len(self.tokens)


#: A part of a prompt; there is one kind.
ModelInputChunk = EncodedTextChunk


@dataclass(frozen=True)
class ModelInput:
    """The input of the model: chunks of token ids, concatenated. Immutable: ``append`` returns a new one."""

    chunks: List[EncodedTextChunk] = field(default_factory=list)

    def __post_init__(self) -> None:
        chunks = list(self.chunks)
        for i, chunk in enumerate(chunks):
            if not isinstance(chunk, EncodedTextChunk):
                raise InvalidArgumentError(f"chunks[{i}]", f"expected an EncodedTextChunk, got {_show(chunk)}")
        object.__setattr__(self, "chunks", chunks)

    @classmethod
    def from_ints(cls, tokens: Sequence[int]) -> "ModelInput":
        """Creates an input from these token ids (a list, a numpy array or a torch tensor)."""
        return cls([EncodedTextChunk(tokens)])

    @classmethod
    def empty(cls) -> "ModelInput":
        """An empty input, to append to."""
        return cls([])

    @property
    def length(self) -> int:
        """Number of tokens."""
        return sum(chunk.length for chunk in self.chunks)

    def to_ints(self) -> List[int]:
        """All token ids in order."""
        return [token for chunk in self.chunks for token in chunk.tokens]

    def append(self, chunk: EncodedTextChunk) -> "ModelInput":
        """This input with a chunk appended."""
        return ModelInput(self.chunks + [chunk])

    def append_int(self, token: int) -> "ModelInput":
        """This input with one token appended."""
        if not self.chunks:
            return ModelInput.from_ints([token])
        last = self.chunks[-1]
        return ModelInput(self.chunks[:-1] + [EncodedTextChunk(list(last.tokens) + [token])])

    @staticmethod
    def of(value: Any, at: str = "prompt") -> "ModelInput":
        """``value`` itself, or the input of a sequence of token ids."""
        if isinstance(value, ModelInput):
            return value
        try:
            return ModelInput.from_ints(value)
        except InvalidArgumentError:
            raise InvalidArgumentError(at, f"expected a ModelInput or token ids, got {_show(value)}") from None

    def to_wire(self) -> Dict[str, Any]:
        """The JSON object of the protocol."""
        return {"tokens_base64": _base64(_pack(array("i", self.to_ints())))}


class TensorData:
    """A tensor: numbers of one type with a shape, row-major.

    ``data``: the numbers, flat or nested (then the nesting gives the shape), as a list, a numpy array or a torch
    tensor (of no dimension: a vector of one); ``dtype``: ``int64`` or ``float32``, by default what the numbers
    are; ``shape``: by default a vector.
    """

    __slots__ = ("dtype", "shape", "_packed", "_list")

    dtype: TensorDtype
    shape: List[int]

    def __init__(self, data: Any, dtype: Optional[TensorDtype] = None, shape: Optional[Sequence[int]] = None,
                 *, at: str = "data") -> None:
        if dtype is not None and dtype not in ("int64", "float32"):
            raise InvalidArgumentError(f"{at}.dtype", f"expected int64 or float32, got {dtype!r}")
        if isinstance(data, (str, bytes)) or not (hasattr(data, "__iter__") or hasattr(data, "tolist")):
            raise InvalidArgumentError(at, f"expected a list, a numpy array or a torch tensor, got {_show(data)}")
        kind = str(getattr(data, "dtype", ""))
        if dtype is None and kind:
            dtype = "int64" if "int" in kind or "bool" in kind else "float32"
        found = [int(n) for n in data.shape] if hasattr(data, "shape") else None
        values = _plain(data)
        if found == []:
            values, found = [values], None
        values = list(values) if not isinstance(values, (list, array)) else values
        if found is None and len(values) and isinstance(values[0], (list, tuple)):
            found = _shape(values, at)
        if found is not None and len(found) > 1:
            for _ in found[1:]:
                values = [v for row in values for v in row]
        if dtype is None:
            dtype = "int64" if all(isinstance(v, Integral) for v in values) and len(values) else "float32"
        try:
            if dtype == "int64" and any(isinstance(v, float) for v in values):
                numbers = array("q", [_whole(v) for v in values])
            else:
                numbers = array(_CODES[dtype], values)
        except (TypeError, ValueError, OverflowError):
            raise InvalidArgumentError(at, f"expected numbers that fit {dtype}, got {_show(data)}") from None
        self.dtype = dtype
        self.shape = [int(n) for n in shape] if shape is not None else found if found is not None else [len(numbers)]
        if math.prod(self.shape) != len(numbers):
            raise InvalidArgumentError(f"{at}.shape", f"{self.shape} does not hold {len(numbers)} numbers")
        self._packed = _pack(numbers)
        self._list: Optional[List[Any]] = None

    @classmethod
    def _of_bytes(cls, packed: bytes, dtype: TensorDtype, shape: List[int]) -> "TensorData":
        self = cls.__new__(cls)
        self.dtype, self.shape, self._packed, self._list = dtype, shape, packed, None
        return self

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "TensorData":
        """Parses the JSON object of the protocol, with ``data`` or ``data_base64``."""
        if wire.get("data_base64") is None:
            return cls(wire["data"], wire["dtype"], wire.get("shape"))
        packed = base64.b64decode(wire["data_base64"])
        dtype = wire["dtype"]
        if wire.get("shape") is None:
            shape = [len(packed) // (8 if dtype == "int64" else 4)]
        else:
            shape = [int(n) for n in wire["shape"]]
        return cls._of_bytes(packed, dtype, shape)

    @classmethod
    def from_numpy(cls, values: Any) -> "TensorData":
        """The numbers of a numpy array; integers become int64, all else float32."""
        return cls(values)

    @classmethod
    def from_torch(cls, values: Any) -> "TensorData":
        """The numbers of a torch tensor; integers become int64, all else float32."""
        return cls(values)

    @property
    def data(self) -> List[Any]:
        """The numbers as a flat list."""
        if self._list is None:
            self._list = _unpack(_CODES[self.dtype], self._packed).tolist()
        return self._list

    def to_list(self) -> List[Any]:
        """The numbers as lists nested by ``shape``."""
        values: List[Any] = list(self.data)
        for size in reversed(self.shape[1:]):
            values = [values[i:i + size] for i in range(0, len(values), size)] if size else []
        return values

    tolist = to_list

    def to_numpy(self) -> Any:
        """A numpy array of this shape (needs numpy)."""
        try:
            import numpy
        except ImportError:
            raise MissingExtraError("to_numpy needs numpy: pip install numpy") from None

        code = "<i8" if self.dtype == "int64" else "<f4"
        return numpy.frombuffer(self._packed, dtype=code).reshape(self.shape).astype(self.dtype)

    def to_torch(self) -> Any:
        """A torch tensor of this shape (needs torch)."""
        try:
            import torch
        except ImportError:
            raise MissingExtraError("to_torch needs torch: pip install torch") from None

        numbers = _unpack(_CODES[self.dtype], self._packed)
        if not numbers:
            return torch.empty(self.shape, dtype=getattr(torch, self.dtype))
        return torch.frombuffer(numbers, dtype=getattr(torch, self.dtype)).reshape(self.shape)

    def to_wire(self) -> Dict[str, Any]:
        """The JSON object of the protocol."""
        return {"dtype": self.dtype, "shape": self.shape, "data_base64": _base64(self._packed)}

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 1

    def __iter__(self) -> Iterator[Any]:
        return iter(self.to_list())

    def __getitem__(self, index: Any) -> Any:
        return self.to_list()[index] if len(self.shape) > 1 else self.data[index]

    def __eq__(self, other: object) -> bool:
        return (isinstance(other, TensorData) and other.dtype == self.dtype and other.shape == self.shape
                and other._packed == self._packed)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        some = ", ".join(map(repr, self.data[:8])) + (", ..." if len(self.data) > 8 else "")
        return f"TensorData(data=[{some}], dtype={self.dtype!r}, shape={self.shape})"


#: Tensors by name, as a loss takes and gives them.
LossFnInputs = Dict[str, TensorData]
LossFnOutput = Dict[str, TensorData]


def _whole(value: Any) -> int:
    if value != int(value):
        raise ValueError(value)
    return int(value)


def _shape(values: Any, at: str) -> List[int]:
    if not isinstance(values, (list, tuple)):
        return []
    inner = [_shape(v, at) for v in values]
    if any(shape != inner[0] for shape in inner):
        raise InvalidArgumentError(at, "has rows of different lengths")
    return [len(values)] + (inner[0] if inner else [])


_INT_INPUTS = frozenset(["target_tokens"])
_FLOAT_INPUTS = frozenset(["weights", "logprobs", "advantages", "clip_low_threshold", "clip_high_threshold"])


@dataclass(frozen=True)
class Datum:
    """One training sequence.

    ``model_input``: N tokens; ``loss_fn_inputs``: by name, tensors of N numbers (lists, numpy arrays, torch tensors
    or :class:`TensorData`). Position i predicts ``target_tokens[i]``: the caller shifts. ``cross_entropy`` takes
    ``target_tokens`` and ``weights`` (1 if left out), both also of N rows with K numbers: K targets for each position;
    the other losses take ``target_tokens``, ``logprobs`` (the sampler's) and ``advantages``, and ppo and cispo
    ``clip_low_threshold`` and ``clip_high_threshold`` where a position has its own.
    """

    model_input: ModelInput
    loss_fn_inputs: Dict[str, TensorData]

    if TYPE_CHECKING:  # what it takes is more than what it has
        def __init__(self, model_input: Union[ModelInput, Sequence[int]], loss_fn_inputs: Mapping[str, Any]) -> None: ...

    def __post_init__(self) -> None:
        object.__setattr__(self, "model_input", ModelInput.of(self.model_input, "model_input"))
        if not isinstance(self.loss_fn_inputs, Mapping):
            raise InvalidArgumentError("loss_fn_inputs", f"expected a dict, got {_show(self.loss_fn_inputs)}")
        tensors: Dict[str, TensorData] = {}
        for name, value in self.loss_fn_inputs.items():
            at = f"loss_fn_inputs.{name}"
            if not isinstance(value, TensorData):
                dtype: Optional[TensorDtype] = (
                    "int64" if name in _INT_INPUTS else "float32" if name in _FLOAT_INPUTS else None)
                value = TensorData(value, dtype, at=at)
            tensors[name] = value
        object.__setattr__(self, "loss_fn_inputs", tensors)

    def to_wire(self) -> Dict[str, Any]:
        """The JSON object of the protocol."""
        return {
            "model_input": self.model_input.to_wire(),
            "loss_fn_inputs": {name: t.to_wire() for name, t in self.loss_fn_inputs.items()},
        }


@dataclass(frozen=True)
class AdamParams:
    """Settings of one AdamW step: decoupled decay; the gradient is the sum since the last step.

    ``grad_clip_norm``: largest global norm of the gradient, 0 for no clipping. All numbers are at least 0, the betas
    below 1.
    """

    learning_rate: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-12
    weight_decay: float = 0.0
    grad_clip_norm: float = 0.0

    def __post_init__(self) -> None:
        for name in ("learning_rate", "beta1", "beta2", "eps", "weight_decay", "grad_clip_norm"):
            below = 1.0 if name.startswith("beta") else None
            object.__setattr__(self, name, _number(getattr(self, name), f"adam_params.{name}", 0.0, below=below))

    def to_wire(self) -> Dict[str, Any]:
        """The JSON object of the protocol."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class SamplingParams:
    """Parameters of sampling.

    ``max_tokens``: most tokens to draw, by default up to the context's end; ``seed``: a 64-bit integer that makes
    the draw repeatable; ``stop``: text, texts or token ids that end a sequence (and are part of it), ``[]``: nothing
    does but ``max_tokens``; ``temperature``: 0 takes the likeliest; ``top_k``: -1 for all; ``top_p``: above 0, at most 1.
    """

    max_tokens: Optional[int] = None
    seed: Optional[int] = None
    stop: Union[str, Sequence[str], Sequence[int], None] = None
    temperature: float = 1.0
    top_k: int = -1
    top_p: float = 1.0

    def __post_init__(self) -> None:
        at = "sampling_params."
        if self.max_tokens is not None:
            object.__setattr__(self, "max_tokens", _integer(self.max_tokens, at + "max_tokens", 1))
        if self.seed is not None:
            object.__setattr__(self, "seed", _integer(self.seed, at + "seed", -(2 ** 63), 2 ** 64 - 1))
        if self.stop is not None and not isinstance(self.stop, str):
            stop = _plain(self.stop)
            if not isinstance(stop, (list, tuple)) or not (
                    all(isinstance(s, str) for s in stop)
                    or all(isinstance(s, Integral) and not isinstance(s, bool) and int(s) >= 0 for s in stop)):
                raise InvalidArgumentError(at + "stop", f"expected a string, strings or token ids, got {_show(self.stop)}")
            object.__setattr__(self, "stop", [s if isinstance(s, str) else int(s) for s in stop])
        if self.stop == "" or (isinstance(self.stop, list) and "" in self.stop):
            raise InvalidArgumentError(at + "stop", "holds an empty string")
        object.__setattr__(self, "temperature", _number(self.temperature, at + "temperature", 0.0))
        top_k = _integer(self.top_k, at + "top_k", -1)
        if top_k == 0:
            raise InvalidArgumentError(at + "top_k", "0 is neither -1 (all) nor at least 1")
        if _number(self.top_p, at + "top_p", 0.0, 1.0) == 0:
            raise InvalidArgumentError(at + "top_p", "0 leaves no token; expected above 0, at most 1")

    def to_wire(self) -> Dict[str, Any]:
        """The JSON object of the protocol."""
        every = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value for name, value in every.items() if value is not None}


@dataclass(frozen=True)
class LoraConfig:
    """The shape of an adapter. Defaults of the server for None: rank 32, alpha 32, attention and MLP.

    ``rank``: 1 to 256; ``alpha``: the correction is scaled by alpha / rank; ``seed`` makes the first weights
    repeatable; ``target_modules`` (``q_proj``, ``down_proj``, ``lm_head``, ...) replaces the three flags.
    """

    rank: Optional[int] = None
    seed: Optional[int] = None
    train_unembed: Optional[bool] = None
    train_mlp: Optional[bool] = None
    train_attn: Optional[bool] = None
    alpha: Optional[float] = None
    target_modules: Optional[Sequence[str]] = None

    def __post_init__(self) -> None:
        if self.rank is not None:
            object.__setattr__(self, "rank", _integer(self.rank, "rank", 1, 256))
        if self.seed is not None:
            object.__setattr__(self, "seed", _integer(self.seed, "seed", -(2 ** 63), 2 ** 63 - 1))
        if self.alpha is not None:
            object.__setattr__(self, "alpha", _number(self.alpha, "alpha", 0.0))
        flags = ("train_unembed", "train_mlp", "train_attn")
        for name in flags:
            if getattr(self, name) is not None and not isinstance(getattr(self, name), bool):
                raise InvalidArgumentError(name, f"expected True or False, got {_show(getattr(self, name))}")
        if self.target_modules is not None:
            names = self.target_modules
            if isinstance(names, str) or not all(isinstance(n, str) for n in names) or not len(list(names)):
                raise InvalidArgumentError("target_modules", f"expected a list of names such as q_proj, got {_show(names)}")
            unknown = [n for n in names if n not in _TARGETS]
            if unknown:
                raise InvalidArgumentError("target_modules", f"{unknown[0]!r} is unknown; expected {', '.join(_TARGETS)}")
            object.__setattr__(self, "target_modules", list(names))
        elif self.train_mlp is False and self.train_attn is False and not self.train_unembed:
            raise InvalidArgumentError("train_mlp", "at least one of train_mlp, train_attn and train_unembed must be true")

    def to_wire(self) -> Dict[str, Any]:
        """The JSON object of the protocol."""
        every = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value for name, value in every.items() if value is not None}


# ---------------------------------------------------------------------------------------------------------------
# Results

def _time(text: Optional[str]) -> Optional[datetime]:
    """RFC 3339, with any number of digits after the second; None for None."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):?(\d\d))", text)
    if not found:
        raise ValueError(f"{text!r} is not a time")
    day, clock, fraction, sign, hours, minutes = found.groups()
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0)) * (-1 if sign == "-" else 1)
    micros = int((fraction or "0")[:6].ljust(6, "0"))
    return datetime.fromisoformat(f"{day}T{clock}").replace(microsecond=micros, tzinfo=timezone(offset))


@dataclass(frozen=True)
class ForwardBackwardOutput:
    """The result of a forward (and backward) pass.

    ``loss_fn_outputs``: for each datum in order, ``{"logprobs": TensorData}`` in the shape of its target tokens;
    ``metrics``: sums over all data: ``loss:sum``, ``tokens:sum``, ``weights:sum``, and ``non_finite:sum``: how many
    tokens have a loss or log-probability that is infinite or NaN. If any has, the next optimizer step is skipped.
    """

    loss_fn_output_type: str
    loss_fn_outputs: List[Dict[str, TensorData]]
    metrics: Dict[str, float]

    def _repr_html_(self) -> str:
        return _notebook.facts(f"a pass over {len(self.loss_fn_outputs)} sequences", sorted(self.metrics.items()))

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "ForwardBackwardOutput":
        """Parses the JSON object of the protocol."""
        outputs = [{n: TensorData.from_wire(t) for n, t in one.items()} for one in wire["loss_fn_outputs"]]
        return cls(wire.get("loss_fn_output_type") or "TensorDict", outputs, dict(wire.get("metrics") or {}))


@dataclass(frozen=True)
class OptimStepResponse:
    """An optimizer step. ``metrics``: ``grad_norm`` (before clipping), ``learning_rate``, ``skipped_steps:sum``;
    ``step``: how many steps the run has made."""

    metrics: Dict[str, float]
    step: Optional[int] = None

    def _repr_html_(self) -> str:
        return _notebook.facts(f"optimizer step {self.step}", sorted(self.metrics.items()))

    @property
    def skipped(self) -> Optional[str]:
        """What was not finite, so that the step changed no weight: ``gradient``, ``moments`` or ``weights``; None for
        a step that was applied."""
        if not self.metrics.get("skipped_steps:sum"):
            return None
        return next((part for part in ("gradient", "moments", "weights")
                     if self.metrics.get(f"skipped_{part}:sum")), "step")

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "OptimStepResponse":
        """Parses the JSON object of the protocol."""
        return cls(dict(wire.get("metrics") or {}), wire.get("step"))


@dataclass(frozen=True)
class SaveWeightsResponse:
    """A saved training state: its ``path``, the caller's ``metadata`` ({} if none), its ``step``."""

    path: str
    metadata: Dict[str, Any] = field(default_factory=dict)
    step: Optional[int] = None

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "SaveWeightsResponse":
        """Parses the JSON object of the protocol."""
        return cls(wire["path"], dict(wire.get("metadata") or {}), wire.get("step"))


@dataclass(frozen=True)
class SaveWeightsForSamplerResponse:
    """Saved sampler weights: their ``path``, or for an unnamed snapshot ``sampling_session_id``."""

    path: str
    sampling_session_id: Optional[str] = None
    step: Optional[int] = None

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "SaveWeightsForSamplerResponse":
        """Parses the JSON object of the protocol."""
        return cls(wire.get("path") or "", wire.get("sampling_session_id"), wire.get("step"))


@dataclass(frozen=True)
class SaveWeightsExternalResponse:
    """Weights that were saved to be fetched file by file: their ``path`` and the bytes of their files."""

    path: str
    size_bytes: Optional[int] = None

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "SaveWeightsExternalResponse":
        """Parses the JSON object of the protocol."""
        return cls(wire["path"], wire.get("size_bytes"))


@dataclass(frozen=True)
class LoadWeightsResponse:
    """A loaded checkpoint: its ``path``, the run that loaded it, the ``step`` of the run."""

    path: Optional[str]
    model_id: Optional[str] = None
    step: Optional[int] = None

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "LoadWeightsResponse":
        """Parses the JSON object of the protocol."""
        return cls(wire.get("path"), wire.get("model_id"), wire.get("step"))


@dataclass(frozen=True)
class UnloadModelResponse:
    """An unloaded run: it accepts no more operations; its checkpoints are kept."""

    model_id: str

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "UnloadModelResponse":
        """Parses the JSON object of the protocol."""
        return cls(wire["model_id"])


@dataclass(frozen=True)
class TrainingResult:
    """One call of ``train``: ``loss``: the mean per weighted token before the step (a callable's own value);
    ``metrics``: of both passes, with ``loss:sum``, ``loss:mean``, ``grad_norm`` and ``skipped_steps:sum``; ``step``:
    steps so far."""

    loss: float
    metrics: Dict[str, float]
    step: int

    def _repr_html_(self) -> str:
        return _notebook.facts(f"step {self.step}", [("loss", self.loss), *sorted(self.metrics.items())])


def _likeliest(rows: Optional[List[Any]]) -> Optional[List[Optional[List[Tuple[int, float]]]]]:
    """At each place the likeliest tokens with their log-probabilities; None where there are none."""
    return None if rows is None else [None if row is None else [(int(t), float(p)) for t, p in row] for row in rows]


@dataclass(frozen=True)
class SampledSequence:
    """Sampled tokens (with the one that ended them), the log-probability of each under the distribution it was sampled
    from (temperature, then ``top_k`` and ``top_p``; at temperature 0 the model's own), and why it ended: ``stop`` or
    ``length``. ``model_logprobs``: under the model itself, as training computes them. ``sequence_id``: distinct for each
    sequence. ``topk_logprobs``: at the place of each token the likeliest tokens under the model itself with their
    log-probabilities, best first; None if they were not asked for."""

    tokens: List[int]
    logprobs: Optional[List[float]] = None
    stop_reason: Optional[StopReason] = None
    model_logprobs: Optional[List[float]] = None
    sequence_id: Optional[str] = None
    topk_logprobs: Optional[List[Optional[List[Tuple[int, float]]]]] = None

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "SampledSequence":
        """Parses the JSON object of the protocol, which leaves ``model_logprobs`` out where ``logprobs`` are these."""
        drawn = wire.get("logprobs")
        return cls(list(wire["tokens"]), drawn, wire.get("stop_reason"), wire.get("model_logprobs", drawn),
                   wire.get("sequence_id"), _likeliest(wire.get("topk_logprobs")))

    def _repr_html_(self) -> str:
        return self._html(None)

    def _html(self, pieces: Optional[Pieces]) -> str:
        texts = pieces(self.tokens[:_notebook.MOST_TOKENS]) if pieces is not None else None
        return _notebook.tokens(self.tokens, texts, self.logprobs)


@dataclass(frozen=True)
class SampleResult:
    """``sequences``: one for each sample; ``prompt_logprobs``: for each token of the prompt its log-probability after
    those before it (the first: None); ``topk_prompt_logprobs``: at each such place the likeliest tokens with their
    log-probabilities, best first."""

    sequences: List[SampledSequence]
    prompt_logprobs: Optional[List[Optional[float]]] = None
    topk_prompt_logprobs: Optional[List[Optional[List[Tuple[int, float]]]]] = None

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "SampleResult":
        """Parses the JSON object of the protocol."""
        return cls([SampledSequence.from_wire(s) for s in wire["sequences"]], wire.get("prompt_logprobs"),
                   _likeliest(wire.get("topk_prompt_logprobs")))

    def _shown_with(self, pieces: Pieces) -> "SampleResult":
        """Takes what a notebook gets the tokens' text from. No field: copies and pickles go without it."""
        object.__setattr__(self, "_pieces", pieces)
        return self

    def __getstate__(self) -> Dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def _repr_html_(self) -> str:
        pieces: Optional[Pieces] = getattr(self, "_pieces", None)
        parts = []
        for i, sequence in enumerate(self.sequences):
            total = sum(sequence.logprobs) if sequence.logprobs else None
            told = f"{i}: {len(sequence.tokens)} tokens, ended by {sequence.stop_reason}" + (
                f", log-probability {total:.4g}" if total is not None else "")
            parts.append(f"<div style='text-align:left'><small>{_notebook.cell(told)}</small>{sequence._html(pieces)}</div>")
        return "".join(parts)


SampleResponse = SampleResult


@dataclass(frozen=True)
class SupportedModel:
    """A base model that the server serves, with its ``max_context_length`` in tokens and its sizes."""

    model_name: str
    max_context_length: Optional[int] = None
    architecture: Optional[str] = None
    vocab_size: Optional[int] = None
    hidden_size: Optional[int] = None
    layers: Optional[int] = None
    dtype: Optional[str] = None
    parameters: Optional[int] = None
    fingerprint: Optional[str] = None

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "SupportedModel":
        """Parses the JSON object of the protocol."""
        return cls(**{n: wire.get(n) for n in cls.__dataclass_fields__})  # type: ignore[arg-type]


@dataclass(frozen=True)
class UnservedModel:
    """A base model that the server was given and does not serve, with the reason."""

    model_name: str
    reason: str


@dataclass(frozen=True)
class GetServerCapabilitiesResponse:
    """The capabilities of the server: its base models, and those that it cannot serve."""

    supported_models: List[SupportedModel]
    unserved_models: List[UnservedModel] = field(default_factory=list)

    def _repr_html_(self) -> str:
        return _notebook.grid("models", ["model", "architecture", "parameters", "context", "dtype"], [
            [m.model_name, m.architecture, m.parameters, m.max_context_length, m.dtype] for m in self.supported_models])

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "GetServerCapabilitiesResponse":
        """Parses the JSON object of the protocol."""
        return cls([SupportedModel.from_wire(m) for m in wire["supported_models"]],
                   [UnservedModel(m["model_name"], m["reason"]) for m in wire.get("unserved_models", [])])


@dataclass(frozen=True)
class ModelData:
    """The names of a run's base model: architecture, model, tokenizer."""

    arch: Optional[str] = None
    model_name: Optional[str] = None
    tokenizer_id: Optional[str] = None


@dataclass(frozen=True)
class GetInfoResponse:
    """A run: its base model, adapter shape, number of steps, context length in tokens."""

    model_id: str
    model_name: str
    model_data: ModelData
    is_lora: bool = True
    lora_rank: Optional[int] = None
    lora_alpha: Optional[float] = None
    target_modules: Optional[List[str]] = None
    step: Optional[int] = None
    max_context_length: Optional[int] = None

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "GetInfoResponse":
        """Parses the JSON object of the protocol."""
        data = wire.get("model_data") or {}
        model = ModelData(data.get("arch"), data.get("model_name"), data.get("tokenizer_id"))
        return cls(wire["model_id"], wire.get("model_name") or model.model_name or "", model,
                   wire.get("is_lora", True), wire.get("lora_rank"), wire.get("lora_alpha"),
                   wire.get("target_modules"), wire.get("step"), wire.get("max_context_length"))


@dataclass(frozen=True)
class WeightsInfoResponse:
    """The properties of a checkpoint: base model, adapter's shape, step, metadata, ``training`` or ``sampler``."""

    base_model: str
    is_lora: bool = True
    lora_rank: Optional[int] = None
    lora_alpha: Optional[float] = None
    target_modules: Optional[List[str]] = None
    train_unembed: Optional[bool] = None
    train_mlp: Optional[bool] = None
    train_attn: Optional[bool] = None
    step: Optional[int] = None
    metadata: Dict[str, Any] = field(default_factory=dict)
    kind: Optional[Literal["training", "sampler"]] = None

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "WeightsInfoResponse":
        """Parses the JSON object of the protocol."""
        known = {n: wire.get(n) for n in cls.__dataclass_fields__}
        known["metadata"] = dict(wire.get("metadata") or {})
        known["is_lora"] = wire.get("is_lora", True)
        return cls(**known)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Checkpoint:
    """A stored checkpoint. ``checkpoint_id``: ``weights/<name>`` or ``sampler_weights/<name>``; ``checkpoint_type``:
    ``training`` or ``sampler``; ``size_bytes``: what it takes in storage; ``expires_at``: None means never;
    ``base_model``: what it was trained on."""

    checkpoint_id: str
    checkpoint_type: Literal["training", "sampler"]
    path: str
    time: Optional[datetime] = None
    size_bytes: Optional[int] = None
    public: bool = False
    expires_at: Optional[datetime] = None
    step: Optional[int] = None
    metadata: Dict[str, Any] = field(default_factory=dict)
    tinker_path: Optional[str] = None
    base_model: Optional[str] = None

    @property
    def name(self) -> str:
        """The checkpoint's name within its run."""
        return self.checkpoint_id.rsplit("/", 1)[-1]

    def _repr_html_(self) -> str:
        return _notebook.facts(self.path, [
            ("kind", self.checkpoint_type), ("base model", self.base_model), ("step", self.step), ("saved", self.time), ("bytes", self.size_bytes),
            ("expires", self.expires_at or "never"), ("public", self.public), ("metadata", self.metadata)])

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "Checkpoint":
        """Parses the JSON object of the protocol."""
        return cls(wire["checkpoint_id"], wire["checkpoint_type"], wire.get("path") or wire.get("tinker_path") or "",
                   _time(wire.get("time")), wire.get("size_bytes"), bool(wire.get("public")),
                   _time(wire.get("expires_at")), wire.get("step"), dict(wire.get("metadata") or {}),
                   wire.get("tinker_path"), wire.get("base_model"))


@dataclass(frozen=True)
class WaitingOperation:
    """The operation of a run that its owner can give up: it has no outcome, and others wait for it. ``set_aside``: it is not
    tried again by itself; otherwise it waits for a store, or meets the same fault at each attempt. ``code``, ``message``: what it met."""

    seq_id: int
    operation: str
    set_aside: bool
    code: str
    message: str

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "WaitingOperation":
        """Parses the JSON object of the protocol."""
        return cls(wire["seq_id"], wire["operation"], wire["set_aside"], wire["code"], wire["message"])


@dataclass(frozen=True)
class TrainingRun:
    """A run. ``parent_path``: the checkpoint that it was created from, if any. ``waiting_operation``: what its owner can try
    again or give up, if anything; not in listings."""

    training_run_id: str
    base_model: str
    model_owner: Optional[str] = None
    is_lora: bool = True
    lora_rank: Optional[int] = None
    lora_alpha: Optional[float] = None
    target_modules: Optional[List[str]] = None
    step: Optional[int] = None
    parent_path: Optional[str] = None
    corrupted: bool = False
    last_request_time: Optional[datetime] = None
    last_checkpoint: Optional[Checkpoint] = None
    last_sampler_checkpoint: Optional[Checkpoint] = None
    user_metadata: Dict[str, str] = field(default_factory=dict)
    waiting_operation: Optional[WaitingOperation] = None

    def _repr_html_(self) -> str:
        last = self.last_checkpoint or self.last_sampler_checkpoint
        return _notebook.facts(self.training_run_id, [
            ("base model", self.base_model), ("rank", self.lora_rank), ("alpha", self.lora_alpha),
            ("modules", self.target_modules), ("step", self.step), ("from", self.parent_path),
            ("last request", self.last_request_time), ("last checkpoint", last.path if last else None),
            ("corrupted", self.corrupted), ("metadata", self.user_metadata)])

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "TrainingRun":
        """Parses the JSON object of the protocol."""
        last, sampler = wire.get("last_checkpoint"), wire.get("last_sampler_checkpoint")
        waiting = wire.get("waiting_operation")
        return cls(wire["training_run_id"], wire["base_model"], wire.get("model_owner"), wire.get("is_lora", True),
                   wire.get("lora_rank"), wire.get("lora_alpha"), wire.get("target_modules"), wire.get("step"),
                   wire.get("parent_path"), bool(wire.get("corrupted")), _time(wire.get("last_request_time")),
                   Checkpoint.from_wire(last) if last else None, Checkpoint.from_wire(sampler) if sampler else None,
                   dict(wire.get("user_metadata") or {}), WaitingOperation.from_wire(waiting) if waiting else None)


@dataclass(frozen=True)
class Cursor:
    """The position of a page in a listing: requested ``offset`` and ``limit``, and ``total_count``."""

    offset: int
    limit: int
    total_count: int

    @classmethod
    def from_wire(cls, wire: Optional[Mapping[str, Any]]) -> "Optional[Cursor]":
        """Parses the JSON object of the protocol."""
        return None if wire is None else cls(wire["offset"], wire["limit"], wire["total_count"])


@dataclass(frozen=True)
class TrainingRunsResponse:
    """A page of runs, newest first."""

    training_runs: List[TrainingRun]
    cursor: Optional[Cursor] = None

    def _repr_html_(self) -> str:
        return _notebook.grid("runs", ["run", "base model", "rank", "step", "last request"], [
            [r.training_run_id, r.base_model, r.lora_rank, r.step, r.last_request_time] for r in self.training_runs],
            self.cursor.total_count if self.cursor else None)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "TrainingRunsResponse":
        """Parses the JSON object of the protocol."""
        return cls([TrainingRun.from_wire(r) for r in wire["training_runs"]], Cursor.from_wire(wire.get("cursor")))


@dataclass(frozen=True)
class HistoryEntry:
    """An entry of the history of a run. ``kind``: a word such as ``opened`` or ``recovered``; ``position`` and
    ``seq_id``: the operation that it is about, if it is about one; ``detail``: what else there is to say."""

    time: Optional[datetime]
    kind: str
    node: Optional[str] = None
    position: Optional[int] = None
    seq_id: Optional[int] = None
    detail: Dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "HistoryEntry":
        """Parses the JSON object of the protocol."""
        return cls(_time(wire.get("time")), wire["kind"], wire.get("node"), wire.get("position"), wire.get("seq_id"),
                   dict(wire.get("detail") or {}))


@dataclass(frozen=True)
class RunHistoryResponse:
    """The history of a run, the newest entry last."""

    history: List[HistoryEntry]

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "RunHistoryResponse":
        """Parses the JSON object of the protocol."""
        return cls([HistoryEntry.from_wire(n) for n in wire["history"]])


@dataclass(frozen=True)
class TrainingRunIds:
    """A page of ids of runs, newest first, and whether there are more."""

    training_run_ids: List[str]
    has_more: bool


@dataclass(frozen=True)
class CheckpointsListResponse:
    """A page of checkpoints."""

    checkpoints: List[Checkpoint]
    cursor: Optional[Cursor] = None

    def _repr_html_(self) -> str:
        return _notebook.grid("checkpoints", ["path", "kind", "step", "bytes", "saved", "expires"], [
            [c.path, c.checkpoint_type, c.step, c.size_bytes, c.time, c.expires_at or "never"] for c in self.checkpoints],
            self.cursor.total_count if self.cursor else None)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "CheckpointsListResponse":
        """Parses the JSON object of the protocol."""
        return cls([Checkpoint.from_wire(c) for c in wire["checkpoints"]], Cursor.from_wire(wire.get("cursor")))


@dataclass(frozen=True)
class OwnSearchOwner:
    """The caller's own checkpoints."""

    type: Literal["own"] = "own"

    def to_wire(self) -> Dict[str, Any]:
        """The JSON object of the protocol."""
        return {"type": self.type}


@dataclass(frozen=True)
class AccessibleSearchOwner:
    """All checkpoints that the caller may list: here his own. What others have published is found by its path."""

    type: Literal["accessible"] = "accessible"

    def to_wire(self) -> Dict[str, Any]:
        """The JSON object of the protocol."""
        return {"type": self.type}


@dataclass(frozen=True)
class UserSearchOwner:
    """The checkpoints of these accounts, 1 to 10, as far as the caller may list them."""

    owner_urns: Sequence[str]
    type: Literal["user"] = "user"

    def __post_init__(self) -> None:
        object.__setattr__(self, "owner_urns", _strings(self.owner_urns, "owner.owner_urns"))
        if not 1 <= len(self.owner_urns) <= 10:
            raise InvalidArgumentError("owner.owner_urns", f"expected 1 to 10 accounts, got {len(self.owner_urns)}")

    def to_wire(self) -> Dict[str, Any]:
        """The JSON object of the protocol."""
        return {"type": self.type, "owner_urns": list(self.owner_urns)}


SearchOwner = Union[OwnSearchOwner, AccessibleSearchOwner, UserSearchOwner]


@dataclass(frozen=True)
class CheckpointSearchCursor:
    """Where the next page of a search begins: the ``next_cursor`` of the page before, unchanged."""

    last_created_at: datetime
    last_checkpoint_uuid: str

    def to_wire(self) -> Dict[str, Any]:
        """The JSON object of the protocol."""
        return {"last_created_at": self.last_created_at.isoformat(), "last_checkpoint_uuid": self.last_checkpoint_uuid}

    @classmethod
    def from_wire(cls, wire: Optional[Mapping[str, Any]]) -> "Optional[CheckpointSearchCursor]":
        """Parses the JSON object of the protocol; None for None."""
        at = None if wire is None else _time(wire["last_created_at"])
        return None if wire is None or at is None else cls(at, wire["last_checkpoint_uuid"])


@dataclass(frozen=True)
class CheckpointSearchRequest:
    """A search among checkpoints: all that is given must hold.

    ``project_ids`` and ``base_models``: one of these, None: any; ``user_metadata``: pairs of strings of the checkpoint's
    metadata or, for a name that these lack, of its run's; ``limit``: of a page, 1 to 200; ``cursor``: the ``next_cursor``
    of the page before.
    """

    project_ids: Optional[Sequence[str]] = None
    user_metadata: Mapping[str, str] = field(default_factory=dict)
    checkpoint_type: Optional[CheckpointType] = None
    owner: SearchOwner = field(default_factory=OwnSearchOwner)
    base_models: Optional[Sequence[str]] = None
    limit: int = 100
    cursor: Optional[CheckpointSearchCursor] = None

    def __post_init__(self) -> None:
        for name in ("project_ids", "base_models"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _strings(getattr(self, name), name))
        pairs = json_object(self.user_metadata, "user_metadata")
        for name, value in pairs.items():
            if not isinstance(value, str):
                raise InvalidArgumentError(f"user_metadata.{name}", f"expected a string, got {_show(value)}")
        object.__setattr__(self, "user_metadata", pairs)
        if self.checkpoint_type not in (None, "training", "sampler"):
            raise InvalidArgumentError("checkpoint_type", f"expected training or sampler, got {_show(self.checkpoint_type)}")
        object.__setattr__(self, "limit", _integer(self.limit, "limit", 1, 200))

    def to_wire(self) -> Dict[str, Any]:
        """The JSON object of the protocol."""
        every = {"project_ids": self.project_ids, "user_metadata": self.user_metadata, "checkpoint_type": self.checkpoint_type,
                 "owner": self.owner.to_wire(), "base_models": self.base_models, "limit": self.limit,
                 "cursor": None if self.cursor is None else self.cursor.to_wire()}
        return {name: value for name, value in every.items() if value is not None}


@dataclass(frozen=True)
class CheckpointSearchResponse:
    """A page of a search, newest first. ``next_cursor``: of the next page; None: this is the last one."""

    checkpoints: List[Checkpoint]
    next_cursor: Optional[CheckpointSearchCursor] = None

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "CheckpointSearchResponse":
        """Parses the JSON object of the protocol."""
        return cls([Checkpoint.from_wire(c) for c in wire["checkpoints"]],
                   CheckpointSearchCursor.from_wire(wire.get("next_cursor")))


@dataclass(frozen=True)
class CheckpointArchiveUrlResponse:
    """A URL that serves a checkpoint's archive in Tinker's layout without a key, until it ``expires``."""

    url: str
    expires: Optional[datetime] = None

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "CheckpointArchiveUrlResponse":
        """Parses the JSON object of the protocol."""
        return cls(wire["url"], _time(wire.get("expires")))


@dataclass(frozen=True)
class ExternalWeightsUrlsResponse:
    """A URL for each file of an adapter, which serves it without a key, until they ``expires``."""

    urls: Dict[str, str]
    expires: Optional[datetime] = None

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "ExternalWeightsUrlsResponse":
        """Parses the JSON object of the protocol."""
        return cls({str(name): str(url) for name, url in wire["urls"].items()}, _time(wire.get("expires")))


@dataclass(frozen=True)
class ExternalWeightsUploadStartResult:
    """An upload that was started: a URL for each file, to which it is sent by PUT and without a key."""

    upload_id: str
    urls: Dict[str, str]
    expires: Optional[datetime] = None

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "ExternalWeightsUploadStartResult":
        """Parses the JSON object of the protocol."""
        urls = {str(name): str(url) for name, url in wire["urls"].items()}
        return cls(wire["upload_id"], urls, _time(wire.get("expires")))


@dataclass(frozen=True)
class ExternalWeightsUploadFinishResult:
    """What became of an upload: sampler weights at ``path`` (``tinker_path`` for Tinker's clients)."""

    path: str
    tinker_path: str
    lora_rank: Optional[int] = None
    size_bytes: Optional[int] = None

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "ExternalWeightsUploadFinishResult":
        """Parses the JSON object of the protocol."""
        return cls(wire["path"], wire["tinker_path"], wire.get("lora_rank"), wire.get("size_bytes"))


@dataclass(frozen=True)
class GetSamplerResponse:
    """A sampler: its base model, and the checkpoint whose weights it uses, if any."""

    sampler_id: str
    base_model: str
    model_path: Optional[str] = None

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "GetSamplerResponse":
        """Parses the JSON object of the protocol."""
        return cls(wire["sampler_id"], wire["base_model"], wire.get("model_path"))


@dataclass(frozen=True)
class AuditLogResponse:
    """What happened, newest first; each entry has ``timestamp``, ``event`` and ``model_id`` at least."""

    entries: List[Dict[str, Any]]

    def _repr_html_(self) -> str:
        names = list(dict.fromkeys(name for entry in self.entries for name in entry))
        return _notebook.grid("audit", names, [[entry.get(name) for name in names] for entry in self.entries])

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "AuditLogResponse":
        """Parses the JSON object of the protocol."""
        return cls([dict(entry) for entry in wire.get("entries") or []])


@dataclass(frozen=True)
class BillingUsageResponse:
    """Usage by the hour: events with ``bucket_start``, ``base_model``, ``session_id`` and ``event_info``; and the sessions."""

    data: List[Dict[str, Any]]
    sessions: Dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "BillingUsageResponse":
        """Parses the JSON object of the protocol."""
        return cls([dict(event) for event in wire.get("data") or []], dict(wire.get("sessions") or {}))


@dataclass(frozen=True)
class UsageLine:
    """What a run has used, or a base model that was sampled itself (then ``training_run_id`` is None). Tokens: trained on,
    evaluated without a gradient, read as prompts, and drawn."""

    base_model: str
    training_run_id: Optional[str] = None
    project_id: Optional[str] = None
    session_id: Optional[str] = None
    tokens_trained: int = 0
    tokens_evaluated: int = 0
    tokens_prefilled: int = 0
    tokens_sampled: int = 0
    sampling_requests: int = 0
    device_seconds: float = 0.0
    stored_bytes: int = 0

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "UsageLine":
        """Parses the JSON object of the protocol."""
        return cls(**{n: wire[n] for n in cls.__dataclass_fields__ if wire.get(n) is not None})


@dataclass(frozen=True)
class UsageResponse:
    """What an account has used: a line for each run, and for each base model that was sampled itself."""

    owner: str
    runs: List[UsageLine]
    base_models: List[UsageLine]

    @property
    def lines(self) -> List[UsageLine]:
        """All of them."""
        return self.runs + self.base_models

    def total(self, name: str) -> float:
        """The sum of a number over all lines, e.g. ``tokens_trained``."""
        found: float = sum(getattr(line, name) for line in self.lines)
        return found

    def _repr_html_(self) -> str:
        names = ["tokens_trained", "tokens_evaluated", "tokens_prefilled", "tokens_sampled", "device_seconds", "stored_bytes"]
        rows = [[u.training_run_id or "(base model)", u.base_model, *(getattr(u, n) for n in names)] for u in self.lines]
        rows.append(["all", None, *(self.total(n) for n in names)])
        return _notebook.grid(f"usage of {self.owner}", ["run", "base model", *(n.replace("_", " ") for n in names)], rows)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "UsageResponse":
        """Parses the JSON object of the protocol."""
        return cls(wire["owner"], [UsageLine.from_wire(u) for u in wire.get("runs") or []],
                   [UsageLine.from_wire(u) for u in wire.get("base_models") or []])


@dataclass(frozen=True)
class WhoamiResponse:
    """Whose key is used, and what it may do."""

    account: str
    scope: Optional[str] = None

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "WhoamiResponse":
        """Parses the JSON object of the protocol."""
        return cls(wire["account"], wire.get("scope"))


@dataclass(frozen=True)
class ListSessionsResponse:
    """A page of ids of sessions."""

    sessions: List[str]

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "ListSessionsResponse":
        """Parses the JSON object of the protocol."""
        return cls(list(wire["sessions"]))


@dataclass(frozen=True)
class GetSessionResponse:
    """The ids of the runs and samplers of a session."""

    training_run_ids: List[str]
    sampler_ids: List[str]

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "GetSessionResponse":
        """Parses the JSON object of the protocol."""
        return cls(list(wire["training_run_ids"]), list(wire["sampler_ids"]))


def data_of(data: Iterable[Datum], at: str = "data") -> List[Datum]:
    """A list of at least one :class:`Datum`."""
    if isinstance(data, Datum):
        raise InvalidArgumentError(at, "is one Datum; expected a list of them")
    try:
        items = list(data)
    except TypeError:
        raise InvalidArgumentError(at, f"expected a list of Datum, got {_show(data)}") from None
    if not items:
        raise InvalidArgumentError(at, "is empty; expected at least one Datum")
    for i, item in enumerate(items):
        if not isinstance(item, Datum):
            raise InvalidArgumentError(f"{at}[{i}]", f"expected a Datum, got {_show(item)}")
        if not item.model_input.length:
            raise InvalidArgumentError(f"{at}[{i}].model_input", "holds no tokens")
    return items
