"""An adapter that was made elsewhere comes in, and is what it was: `bios up` with a real engine.

What a run has trained goes out in PEFT's layout and comes in again, in fp32, bf16 and fp16, under PEFT's names and under
Tinker's, also across a `kill -9` of the server: it gives the log-probabilities of the run that made it, to the bit where the
numbers are the same. Files that an engine has to refuse are refused by the tensor. What is stored counts.
"""

from __future__ import annotations

import io
import json
import struct
import sys
import tarfile
import tempfile
import urllib.request
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

from harness import NAME, batch, holds, page, same, server, types

from bios import export
from bios.errors import BiosError

STEPS = 3
PROMPT = types.ModelInput.from_ints([5, 17, 400, 3, 999, 12, 8])
Tensors = Dict[str, Tuple[List[int], bytes]]


def read(file: Path) -> Tensors:
    """Shape and fp32 bytes of each tensor."""
    content = file.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:8 + length])
    data = content[8 + length:]
    return {name: (about["shape"], data[slice(*about["data_offsets"])]) for name, about in header.items()
            if name != "__metadata__"}


def write(file: Path, tensors: Tensors, dtype: str = "F32", convert: Callable[[bytes], bytes] = lambda data: data) -> None:
    """Writes a file of safetensors, as PEFT does."""
    header: Dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, (shape, raw) in tensors.items():
        piece = convert(raw)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(piece)]}
        data += piece
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)


def upper_halves(data: bytes) -> bytes:
    """fp32 as bf16, cut off."""
    return b"".join(data[i + 2:i + 4] for i in range(0, len(data), 4))


def cut(data: bytes) -> bytes:
    """fp32 whose lower halves are zero: the numbers of `upper_halves`."""
    return b"".join(b"\0\0" + data[i + 2:i + 4] for i in range(0, len(data), 4))


def halves(data: bytes) -> bytes:
    """fp32 as fp16."""
    count = len(data) // 4
    return struct.pack(f"<{count}e", *struct.unpack(f"<{count}f", data))


class Check:
    """The checks against one server."""

    def __init__(self, running: Any, folder: Path) -> None:
        self.running, self.folder = running, folder
        self.service = running.client()
        self.rest = self.service.create_rest_client()

    def scores(self, path: str) -> List[Any]:
        """Log-probabilities of a prompt under a checkpoint."""
        return list(self.service.create_sampling_client(path).compute_logprobs(PROMPT).result())

    def variant(self, name: str, tensors: Tensors, source: Path, **how: Any) -> Path:
        """A folder with other tensors."""
        folder = self.folder / name
        folder.mkdir()
        (folder / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
        write(folder / "adapter_model.safetensors", tensors, **how)
        return folder

    def refused(self, what: str, folder: Path, *words: str) -> None:
        """The upload of a folder fails with words."""
        try:
            self.rest.upload_adapter(folder, NAME).result()
        except BiosError as e:
            holds(f"{what} is refused: {str(e)[:150]}", all(word in str(e) for word in words))
            return
        raise SystemExit(f"✗ {what} was taken")


def round_trips(check: Check) -> Path:
    """Everything that has to come in as it went out."""
    client = check.service.create_lora_training_client(NAME, rank=8, alpha=24, seed=3, train_unembed=True)
    for step in range(STEPS):
        client.forward_backward(batch(step), "cross_entropy")
        client.optim_step(types.AdamParams(learning_rate=5e-3))
    made = client.save_weights_for_sampler("made").result().path
    expected = check.scores(made)
    losses = client.forward(batch(9), "cross_entropy").result().metrics["loss:sum"]
    source = Path(export.adapter(check.rest, made, str(check.folder / "source")))
    before = check.rest.get_usage().result().total("stored_bytes")

    back = check.rest.upload_adapter(source, NAME, name="back", user_metadata={"from": "here"}).result()
    same("an adapter that comes back gives the same log-probabilities", check.scores(back), expected)
    urls = check.rest.get_external_weights_urls(back).result().urls
    with urllib.request.urlopen(urls["adapter_model.safetensors"]) as answer:
        same("and has the same bytes", answer.read(), (source / "adapter_model.safetensors").read_bytes())
    again = check.service.create_training_client_from_state(back)
    same("a run goes on from it", again.forward(batch(9), "cross_entropy").result().metrics["loss:sum"], losses)
    again.forward_backward(batch(10), "cross_entropy")
    same("with a fresh optimizer", again.optim_step(types.AdamParams(learning_rate=1e-3)).result().step, 1)
    holds("what is stored counts", check.rest.get_usage().result().total("stored_bytes") > before)

    with urllib.request.urlopen(check.rest.get_checkpoint_archive_url_from_bios_path(made).result().url) as answer:
        with tarfile.open(fileobj=io.BytesIO(answer.read())) as archive:
            archive.extractall(check.folder / "tinker", filter="data")
    holds("Tinker's archive names the head its own way", any("unembed_tokens" in name for name in
                                                            read(check.folder / "tinker" / "adapter_model.safetensors")))
    same("and comes in", check.scores(check.rest.upload_adapter(check.folder / "tinker", NAME).result()), expected)

    tensors = read(source / "adapter_model.safetensors")
    wide = check.rest.upload_adapter(check.variant("cut", tensors, source, convert=cut), NAME).result()
    narrow = check.rest.upload_adapter(check.variant("bf16", tensors, source, dtype="BF16", convert=upper_halves), NAME).result()
    same("bf16 is the same numbers in fp32", check.scores(narrow), check.scores(wide))
    half = check.scores(check.rest.upload_adapter(
        check.variant("fp16", tensors, source, dtype="F16", convert=halves), NAME).result())
    holds("fp16 is near", all(a is None or abs(a - b) < 0.01 for a, b in zip(half, expected)))
    return source


def refusals(check: Check, source: Path) -> None:
    """What only an engine finds."""
    tensors = read(source / "adapter_model.safetensors")
    name = "base_model.model.model.layers.1.self_attn.k_proj.lora_B.weight"
    shape, data = tensors[name]
    for word, number in (("NaN", float("nan")), ("Infinity", float("inf"))):
        bad = {**tensors, name: (shape, struct.pack("<f", number) + data[4:])}
        check.refused(f"an adapter with {word}", check.variant(word, bad, source), name, word)
    narrow = {**tensors, name: ([shape[0] - 1, shape[1]], data[:4 * (shape[0] - 1) * shape[1]])}
    check.refused("an adapter of another width", check.variant("narrow", narrow, source), name, "shape")
    runs = check.rest.list_training_runs(limit=100).result().training_runs
    holds("what was refused has left no checkpoint", sum(len(check.rest.list_checkpoints(run.training_run_id).result().checkpoints)
                                                         for run in runs) == 6)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="bios-uploads-") as folder, server() as running:
        check = Check(running, Path(folder))
        source = round_trips(check)
        refusals(check, source)
        started = check.rest.external_weights_upload_start(NAME, name="late").result()
        for file, url in started.urls.items():
            request = urllib.request.Request(url, (source / file).read_bytes(), method="PUT")
            with urllib.request.urlopen(request) as answer:
                same(f"{file} arrives", answer.status, 200)
        expected = check.scores(check.rest.upload_adapter(source, NAME).result())
        running.kill()
        running.start()
        check = Check(running, Path(folder))
        finished = check.rest.external_weights_upload_finish(started.upload_id).result()
        same("an upload is finished after a restart", check.scores(finished.path), expected)
        same("once", check.rest.external_weights_upload_finish(started.upload_id).result(), finished)
        events = json.loads(page(running, "/api/v1/billing/usage/events")[1])["data"]
        kinds = {event["event_info"]["type"]: event["event_info"] for event in events}
        holds("checkpoints and their bytes are in the usage by the hour",
              kinds["checkpoint"]["count"] >= 1 and kinds["storage"]["gigabyte_hours"] > 0)


if __name__ == "__main__":
    sys.exit(main())
