"""A checkpoint as files of one's own: the adapter as PEFT loads it, or a full model folder with the adapter merged in.

    from bios import export

    rest = service.create_rest_client()
    export.adapter(rest, "bios://<run>/final", "my-adapter")
    export.merged(rest, "bios://<run>/final", "my-model", base="/models/qwen")
    print(export.check(service, "bios://<run>/final", "my-model"))

Merging needs no package; with numpy it is fast. ``check`` needs transformers and torch, and peft for an adapter alone.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
import tarfile
import tempfile
from array import array
from dataclasses import dataclass
from typing import Any, BinaryIO, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from ._progress import Bar
from .errors import BiosError, InvalidArgumentError, MissingExtraError
from .rest import RestClient

#: dtype of safetensors -> bytes of a number
_FLOATS = {"F32": 4, "BF16": 2, "F16": 2}
_DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".safetensors.index.json", ".bin.index.json")
_OUTPUT_LAYER = ("lm_head", "model.unembed_tokens", "unembed_tokens")
#: What a check compares on, when nothing else is given.
CHECK_TEXTS = ("The quick brown fox jumps over the lazy dog.", "Revenue rose eight percent in the third quarter, and",
               "def add(a, b):\n    return a + b\n")


# ---------------------------------------------------------------------------------------------------------------
# Whole exports

def adapter(rest: RestClient, path: str, folder: str, *, progress: Optional[bool] = None) -> str:
    """Writes the adapter in PEFT's layout (``adapter_config.json``, ``adapter_model.safetensors``), the tokenizer and
    ``metadata.json`` into a new folder, and returns its name."""
    with _Draft(folder) as draft:
        with tempfile.TemporaryDirectory(prefix="bios-export-") as scratch:
            unpacked = _unpacked(rest, path, scratch, progress)
            for part in ("adapter", "tokenizer"):
                _copy_files(os.path.join(unpacked, part), draft)
            shutil.copy(os.path.join(unpacked, "metadata.json"), draft)
        return draft.done()


def merged(rest: RestClient, path: str, folder: str, *, base: Optional[str] = None, dtype: Optional[str] = None,
           progress: Optional[bool] = None) -> str:
    """Writes a full model folder, whose weights are those of the base model with the adapter added, and returns its name.

    ``base``: the folder of the base model (safetensors); by default the name that the adapter gives, if it is a folder here.
    ``dtype``: ``float32``, ``bfloat16`` or ``float16`` for all weights; by default each weight keeps its own. Merging into
    16 bits rounds what the adapter adds; :func:`check` measures what that does.
    """
    if dtype is not None and dtype not in _DTYPES:
        raise InvalidArgumentError("dtype", f"expected {', '.join(_DTYPES)}, got {dtype!r}")
    with tempfile.TemporaryDirectory(prefix="bios-export-") as scratch, _Draft(folder) as draft:
        unpacked = _unpacked(rest, path, scratch, progress)
        source = base if base is not None else _config(unpacked).get("base_model_name_or_path") or ""
        if not os.path.isfile(os.path.join(source, "config.json")):
            raise InvalidArgumentError("base", f"{source!r} is not the folder of a base model; name it: the folder with"
                                               " config.json and *.safetensors")
        merge(os.path.join(unpacked, "adapter"), source, str(draft), dtype=dtype, progress=progress)
        if not os.path.exists(os.path.join(draft, "tokenizer.json")):
            _copy_files(os.path.join(unpacked, "tokenizer"), draft)
        shutil.copy(os.path.join(unpacked, "metadata.json"), os.path.join(draft, "bios.json"))
        return draft.done()


class _Draft(str):
    """The path of a temporary folder, which gets its final name when it is complete (:meth:`done`)."""

    final: str

    def __new__(cls, folder: str) -> "_Draft":
        final = os.path.abspath(folder)
        if os.path.exists(final) and (not os.path.isdir(final) or os.listdir(final)):
            raise InvalidArgumentError("folder", f"{folder!r} exists and is not an empty folder")
        os.makedirs(os.path.dirname(final), exist_ok=True)
        made = super().__new__(cls, tempfile.mkdtemp(prefix=f".{os.path.basename(final)}-", dir=os.path.dirname(final)))
        made.final = final
        return made

    def done(self) -> str:
        """Moves the folder to its final name, which is returned."""
        os.chmod(self, 0o777 & ~_umask())
        if os.path.isdir(self.final):
            os.rmdir(self.final)
        os.replace(self, self.final)
        return self.final

    def __enter__(self) -> "_Draft":
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _unpacked(rest: RestClient, path: str, scratch: str, progress: Optional[bool]) -> str:
    file = os.path.join(scratch, "archive.tar.gz")
    rest.download_checkpoint_archive_from_bios_path_to_file(path, file, progress=progress).result()
    folder = os.path.join(scratch, "archive")
    with tarfile.open(file, "r:gz") as tar:
        for member in tar.getmembers():
            parts = member.name.split("/")
            if not member.isfile() or len(parts) > 2 or any(p in ("", ".", "..") or "\\" in p for p in parts):
                raise BiosError(f"the archive of {path} holds {member.name!r}, which does not belong there")
            target = os.path.join(folder, *parts)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            source = tar.extractfile(member)
            assert source is not None
            with source, open(target, "wb") as out:
                shutil.copyfileobj(source, out)
    os.unlink(file)
    return folder


def _config(unpacked: str) -> Dict[str, Any]:
    return _json(os.path.join(unpacked, "adapter", "adapter_config.json"))


def _json(name: str) -> Dict[str, Any]:
    with open(name, encoding="utf-8") as file:
        found: Dict[str, Any] = json.load(file)
    return found


def _copy_files(source: str, target: str) -> None:
    if os.path.isdir(source):
        for name in sorted(os.listdir(source)):
            if os.path.isfile(os.path.join(source, name)):
                shutil.copy(os.path.join(source, name), target)


# ---------------------------------------------------------------------------------------------------------------
# Merging

def merge(adapter_folder: str, base_folder: str, folder: str, *, dtype: Optional[str] = None,
          progress: Optional[bool] = None) -> None:
    """Writes the base model's files into a folder, with W + alpha / r * B A in place of each W that the adapter changes."""
    if sys.byteorder != "little":
        raise BiosError("models can be merged on little-endian machines only")
    settings = _json(os.path.join(adapter_folder, "adapter_config.json"))
    if settings.get("use_dora") or settings.get("use_rslora") or settings.get("rank_pattern") or settings.get("alpha_pattern"):
        raise BiosError("this adapter is no plain LoRA; merge it with PEFT")
    scale = float(settings["lora_alpha"]) / float(settings["r"])
    shards = _shards(base_folder)
    homes = {name: shard for shard, tensors in shards.items() for name in tensors.entries}
    factors = _File(os.path.join(adapter_folder, "adapter_model.safetensors"))
    changed, untied = _targets(factors, homes)
    model_config = _json(os.path.join(base_folder, "config.json"))
    for name in sorted(os.listdir(base_folder)):
        if os.path.isfile(os.path.join(base_folder, name)) and not name.endswith(_WEIGHTS):
            shutil.copy(os.path.join(base_folder, name), folder)
    wanted = _DTYPES[dtype] if dtype is not None else None
    if untied is not None:
        model_config["tie_word_embeddings"] = False
    if dtype is not None:
        model_config.pop("torch_dtype", None)
        model_config["dtype"] = dtype
    if untied is not None or dtype is not None:
        with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as out:
            json.dump(model_config, out, indent=2)
            out.write("\n")
    total = sum(os.path.getsize(os.path.join(base_folder, shard)) for shard in shards)
    index: Dict[str, str] = {}
    with Bar("merging", progress, total) as bar:
        for shard, source in shards.items():
            added = {"lm_head.weight": untied} if untied is not None and homes[untied] == shard else {}
            for name in _write(source, os.path.join(folder, shard), added, changed, factors, scale, wanted, bar):
                index[name] = shard
    if len(shards) > 1:
        size = sum(os.path.getsize(os.path.join(folder, shard)) for shard in shards)
        with open(os.path.join(folder, "model.safetensors.index.json"), "w", encoding="utf-8") as out:
            json.dump({"metadata": {"total_size": size}, "weight_map": dict(sorted(index.items()))}, out, indent=2)


class _File:
    """A file of safetensors: names, types, shapes, and the bytes of each tensor."""

    def __init__(self, name: str) -> None:
        self.name = name
        with open(name, "rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= os.path.getsize(name) - 8:
                raise BiosError(f"{name} is not a file of safetensors")
            try:
                head = json.loads(file.read(length))
            except ValueError:
                raise BiosError(f"{name} is not a file of safetensors") from None
        self.metadata: Optional[Mapping[str, str]] = head.pop("__metadata__", None)
        self.start = 8 + length
        #: name -> (dtype, shape, offset, bytes), in the order of the file
        self.entries: Dict[str, Tuple[str, List[int], int, int]] = {
            key: (e["dtype"], list(e["shape"]), e["data_offsets"][0], e["data_offsets"][1] - e["data_offsets"][0])
            for key, e in sorted(head.items(), key=lambda item: item[1]["data_offsets"])}

    def read(self, name: str) -> bytes:
        """The bytes of a tensor."""
        _, _, offset, length = self.entries[name]
        with open(self.name, "rb") as file:
            file.seek(self.start + offset)
            found = file.read(length)
        if len(found) != length:
            raise BiosError(f"{self.name} ends within {name}")
        return found


def _shards(folder: str) -> Dict[str, _File]:
    index = os.path.join(folder, "model.safetensors.index.json")
    if os.path.exists(index):
        names = sorted(set(_json(index)["weight_map"].values()))
    else:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".safetensors"))
    if not names:
        raise InvalidArgumentError("base", f"{folder} holds no *.safetensors")
    return {name: _File(os.path.join(folder, name)) for name in names}


def _targets(factors: _File, homes: Mapping[str, str]) -> Tuple[Dict[str, str], Optional[str]]:
    """Which weights change (name -> the adapter's module), and the tied embedding that the output layer must be parted from."""
    changed: Dict[str, str] = {}
    untied: Optional[str] = None
    for name in factors.entries:
        if name.endswith(".lora_B.weight"):
            continue
        module = name[:-len(".lora_A.weight")]
        if not name.endswith(".lora_A.weight") or module + ".lora_B.weight" not in factors.entries:
            raise BiosError(f"the adapter holds {name}, which is not half of a pair lora_A, lora_B; merge it with PEFT")
        plain = module[len("base_model.model."):] if module.startswith("base_model.model.") else module
        plain = "lm_head" if plain in _OUTPUT_LAYER else plain
        target = plain + ".weight"
        if target not in homes and plain == "lm_head":
            untied = next((n for n in homes if n.endswith("embed_tokens.weight")), None)
        if target not in homes and not (plain == "lm_head" and untied is not None):
            raise BiosError(f"the adapter changes {target}, which the base model does not hold: it is another base model, or"
                            " its layers are fused in the files; merge it with PEFT")
        changed[target] = module
    return changed, untied


def _write(source: _File, target: str, added: Mapping[str, str], changed: Mapping[str, str], factors: _File, scale: float,
           wanted: Optional[str], bar: Bar) -> List[str]:
    """Writes a shard; returns the names in it. ``added``: tensors that begin as a copy of another."""
    origin = {**{name: name for name in source.entries}, **added}
    head: Dict[str, Any] = {} if source.metadata is None else {"__metadata__": dict(source.metadata)}
    at = 0
    for name, of in origin.items():
        dtype, shape, _, length = source.entries[of]
        if wanted is not None and dtype in _FLOATS:
            length, dtype = length // _FLOATS[dtype] * _FLOATS[wanted], wanted
        head[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + length]}
        at += length
    text = json.dumps(head, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    with open(target, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for name, of in origin.items():
            dtype, shape, _, length = source.entries[of]
            content = source.read(of)
            goal = wanted if wanted is not None and dtype in _FLOATS else dtype
            if name in changed:
                _merged(content, dtype, shape, factors, changed[name], scale, goal, out)
            elif goal != dtype:
                out.write(_packed(_numbers(content, dtype), goal))
            else:
                out.write(content)
            bar.add(length if of == name else 0)
    return list(origin)


def _merged(content: bytes, dtype: str, shape: Sequence[int], factors: _File, module: str, scale: float, goal: str,
            out: BinaryIO) -> None:
    first, second = module + ".lora_A.weight", module + ".lora_B.weight"
    (da, sa, _, _), (db, sb, _, _) = factors.entries[first], factors.entries[second]
    if dtype not in _FLOATS:
        raise BiosError(f"{module} is stored as {dtype} in the base model; merge into an unquantized one")
    if len(shape) != 2 or sa[1] != shape[1] or sb[0] != shape[0] or sa[0] != sb[1]:
        raise BiosError(f"{module}: the base model's weight has the shape {list(shape)}, the adapter's factors {sb} and {sa};"
                        " it is another base model")
    a, b = _numbers(factors.read(first), da), _numbers(factors.read(second), db)
    numpy = _numpy()
    if numpy is not None:
        rank = sa[0]
        delta = (numpy.asarray(b).reshape(-1, rank) @ numpy.asarray(a).reshape(rank, -1)).ravel()
        out.write(_packed(_numbers(content, dtype) + numpy.float32(scale) * delta, goal))
        return
    columns = shape[1]
    rows_a = [list(a[k * columns:(k + 1) * columns]) for k in range(sa[0])]
    step = columns * _FLOATS[dtype]
    for row, weights in enumerate(_rows(b, sa[0])):
        values: List[float] = list(_numbers(content[row * step:(row + 1) * step], dtype))
        for weight, other in zip(weights, rows_a):
            factor = scale * weight
            values = [v + factor * o for v, o in zip(values, other)]
        out.write(_packed(array("f", values), goal))


def _rows(numbers: Any, width: int) -> Iterator[Sequence[float]]:
    for at in range(0, len(numbers), width):
        yield numbers[at:at + width]


def _numpy() -> Any:
    try:
        import numpy
    except ImportError:
        return None
    return numpy


def _numbers(content: bytes, dtype: str) -> Any:
    """Numbers of safetensors as float32, in a numpy array if numpy is there."""
    numpy = _numpy()
    if dtype not in _FLOATS:
        raise BiosError(f"numbers of the type {dtype} cannot be merged")
    if numpy is not None:
        if dtype == "BF16":
            return (numpy.frombuffer(content, dtype="<u2").astype("<u4") << 16).view("<f4")
        return numpy.frombuffer(content, dtype="<f4" if dtype == "F32" else "<f2").astype("<f4")
    if dtype == "F16":
        return array("f", struct.unpack(f"<{len(content) // 2}e", content))
    numbers = array("f")
    if dtype == "F32":
        numbers.frombytes(content)
    else:
        halves = array("H")
        halves.frombytes(content)
        numbers.frombytes(array("I", [half << 16 for half in halves]).tobytes())
    return numbers


def _packed(numbers: Any, dtype: str) -> bytes:
    """Numbers as safetensors hold them, rounded to the nearest, ties to even."""
    numpy = _numpy()
    if numpy is not None:
        if dtype == "BF16":
            bits = numpy.ascontiguousarray(numbers, dtype="<f4").view("<u4")
            return bytes(((bits + (0x7FFF + ((bits >> 16) & 1)).astype("<u4")) >> 16).astype("<u2").tobytes())
        return bytes(numpy.asarray(numbers).astype("<f4" if dtype == "F32" else "<f2").tobytes())
    if dtype == "F32":
        return bytes(numbers.tobytes())
    if dtype == "F16":
        return struct.pack(f"<{len(numbers)}e", *numbers)
    bits = array("I")
    bits.frombytes(numbers.tobytes())
    return array("H", [(bit + 0x7FFF + ((bit >> 16) & 1)) >> 16 & 0xFFFF for bit in bits]).tobytes()


# ---------------------------------------------------------------------------------------------------------------
# Checking

@dataclass(frozen=True)
class Check:
    """How far the log-probabilities of exported files are from the service's: ``largest`` and ``mean`` difference over
    ``tokens`` tokens; ``passed`` if the largest is at most ``tolerance``."""

    tokens: int
    largest: float
    mean: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the files give what the service gives."""
        return self.largest <= self.tolerance

    def __str__(self) -> str:
        return (f"{self.tokens} tokens: log-probabilities differ from the service's by {self.largest:.3g} at most,"
                f" {self.mean:.3g} on average; {'passed' if self.passed else 'FAILED'} (at most {self.tolerance:g})")


def check(service: Any, path: str, folder: str, *, base: Optional[str] = None, texts: Sequence[str] = (),
          tolerance: Optional[float] = None) -> Check:
    """Compares log-probabilities of texts under the exported files, computed here in float32, with those of the service.

    ``base``: the base model's folder, for a folder that holds an adapter alone; ``texts``: instead of three short ones;
    ``tolerance``: by default 0.02, and 0.1 for weights that are stored in 16 bits. Needs transformers and torch (and peft).
    """
    try:
        import torch
        from transformers import AutoModelForCausalLM
    except ImportError as e:
        raise MissingExtraError(f"checking an export needs a package ({e}): pip install torch transformers") from None
    sampler = service.create_sampling_client(model_path=path)
    tokenizer = sampler.get_tokenizer()
    if os.path.exists(os.path.join(folder, "adapter_config.json")):
        if base is None:
            raise InvalidArgumentError("base", "an adapter alone is checked on its base model: name the folder")
        try:
            from peft import PeftModel
        except ImportError:
            raise MissingExtraError("checking an adapter needs peft: pip install peft") from None
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), folder)
        halved = False
    else:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        halved = any(d != "F32" for shard in _shards(folder).values() for d, _, _, _ in shard.entries.values())
    model.eval()
    differences: List[float] = []
    for text in texts or CHECK_TEXTS:
        tokens = tokenizer.encode(text)
        if len(tokens) < 2:
            continue
        served = sampler.compute_logprobs(tokens).result()
        with torch.no_grad():
            logits = model(torch.tensor([tokens])).logits[0].double()
        found = torch.log_softmax(logits, -1)[:-1].gather(1, torch.tensor(tokens[1:])[:, None])[:, 0].tolist()
        differences += [abs(x - y) for x, y in zip(found, served[1:])]
    if not differences:
        raise InvalidArgumentError("texts", "hold no two tokens in a row")
    limit = tolerance if tolerance is not None else 0.1 if halved else 0.02
    return Check(len(differences), max(differences), sum(differences) / len(differences), limit)
