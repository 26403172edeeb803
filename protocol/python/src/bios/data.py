"""From files and chats to training data.

    from bios import data

    tokenizer = training.get_tokenizer()
    batch = [data.chat_to_datum(row["messages"], tokenizer, max_length=2048) for row in data.read("chats.jsonl")]
    print(data.shown(batch[0], tokenizer))          # each token beside its weight
    training.forward_backward(batch, "cross_entropy")
"""

from __future__ import annotations

import json
import os
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from .errors import InvalidArgumentError, MissingExtraError
from .tokenizer import encoded, pieces
from .types import Datum, ModelInput, TensorData

#: Which messages are learned: those of the assistant, the last of these, or everything.
TRAINED = ("assistant", "last", "all")


def read(path: Union[str, "os.PathLike[str]"]) -> Iterator[Dict[str, Any]]:
    """The rows of a file as dicts, one after another: JSON lines (``.jsonl``, ``.json`` with one object a line), or parquet
    (``.parquet``, needs pyarrow). A row that cannot be read is named by its line."""
    name = os.fspath(path)
    return _parquet(name) if name.endswith(".parquet") else _lines(name)


def _lines(name: str) -> Iterator[Dict[str, Any]]:
    with open(name, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as e:
                raise InvalidArgumentError(f"{name}, line {number}", f"is not JSON: {e}") from None
            if not isinstance(row, dict):
                raise InvalidArgumentError(f"{name}, line {number}", f"expected an object, got {type(row).__name__}")
            yield row


def _parquet(name: str) -> Iterator[Dict[str, Any]]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError("reading parquet needs pyarrow: pip install pyarrow") from None
    with parquet.ParquetFile(name) as file:
        for rows in file.iter_batches():
            yield from rows.to_pylist()


def text_to_datum(prompt: str, completion: str, tokenizer: Any, *, max_length: Optional[int] = None) -> Datum:
    """A datum that learns ``completion`` after ``prompt``; the prompt's tokens have weight 0. ``max_length``: tokens that are
    kept of both together, from the front."""
    before = encoded(tokenizer, prompt) if prompt else []
    after = encoded(tokenizer, completion)
    if not after:
        raise InvalidArgumentError("completion", "holds no tokens")
    return tokens_to_datum(before + after, [0.0] * len(before) + [1.0] * len(after), max_length=max_length)


def chat_to_datum(messages: Sequence[Mapping[str, Any]], tokenizer: Any, *, train_on: str = "assistant",
                  max_length: Optional[int] = None, **template: Any) -> Datum:
    """A datum of a chat, written by the model's chat template.

    ``messages``: ``{"role", "content"}``; ``train_on``: ``assistant``: what the assistant says, with the tokens that end it;
    ``last``: only its last message, and what comes after it is left out; ``all``: every token. ``max_length``: tokens
    that are kept, from the front; ``template``: more arguments of ``apply_chat_template``. The header of a message (what the
    template writes for ``add_generation_prompt``) is not learned. A template that rewrites earlier messages when later ones
    come (Qwen3's drops what was thought), so that the tokens of a message cannot be told, is refused with ``assistant``: make
    a datum with ``last`` of each answer and what comes before it, ``messages[:i + 1]``.
    """
    if train_on not in TRAINED:
        raise InvalidArgumentError("train_on", f"expected one of {', '.join(TRAINED)}, got {train_on!r}")
    if not messages:
        raise InvalidArgumentError("messages", "is empty")
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or "role" not in message:
            raise InvalidArgumentError(f"messages[{i}]", "expected a dict with role and content")
    if train_on == "all":
        pieces = [(_text(messages, tokenizer, template), True)]
    else:
        pieces = (_last if train_on == "last" else _pieces)(messages, tokenizer, template)
    if not any(learned for _, learned in pieces):
        raise InvalidArgumentError("messages", "the assistant says nothing in them")
    tokens: List[int] = []
    weights: List[float] = []
    for text, learned in _joined(pieces):
        found = encoded(tokenizer, text)
        tokens += found
        weights += [float(learned)] * len(found)
    return tokens_to_datum(tokens, weights, max_length=max_length)


def _pieces(messages: Sequence[Mapping[str, Any]], tokenizer: Any, template: Mapping[str, Any]) -> List[Tuple[str, bool]]:
    """The text of a chat in order, in parts that are learned and that are not."""
    found: List[Tuple[str, bool]] = []
    done = ""
    for i, message in enumerate(messages):
        upto = messages[:i + 1]
        if message["role"] == "assistant":
            header = _text(messages[:i], tokenizer, {**template, "add_generation_prompt": True}) if i else ""
            if header.startswith(done) and _text(upto, tokenizer, template).startswith(header):
                found.append((header[len(done):], False))
                done = header
        elif i + 1 < len(messages) and messages[i + 1]["role"] != "assistant":
            continue  # some templates cannot write a chat that ends here
        now = _text(upto, tokenizer, template)
        if not now.startswith(done):
            raise _rewritten(i)
        found.append((now[len(done):], message["role"] == "assistant"))
        done = now
    return found


def _last(messages: Sequence[Mapping[str, Any]], tokenizer: Any, template: Mapping[str, Any]) -> List[Tuple[str, bool]]:
    """The text of a chat up to the assistant's last message, cut once: before what is learned."""
    last = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=-1)
    if last < 0:
        return []
    whole = _text(messages[:last + 1], tokenizer, template)
    for begun in (True, False):
        header = _text(messages[:last], tokenizer, {**template, "add_generation_prompt": begun}) if last else ""
        if whole.startswith(header):
            return [(header, False), (whole[len(header):], True)]
    raise _rewritten(last)


def _rewritten(index: int) -> InvalidArgumentError:
    return InvalidArgumentError(f"messages[{index}]", "the chat template writes what comes before it in another way when it is"
                                                      " there; use train_on=\"last\" with a chat for each answer, or \"all\"")


def _text(messages: Sequence[Mapping[str, Any]], tokenizer: Any, template: Mapping[str, Any]) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, **template))


def _joined(pieces: List[Tuple[str, bool]]) -> List[Tuple[str, bool]]:
    """Neighbors of a kind as one text, so that they are cut into tokens together."""
    found: List[Tuple[str, bool]] = []
    for text, learned in pieces:
        if not text:
            continue
        if found and found[-1][1] == learned:
            found[-1] = (found[-1][0] + text, learned)
        else:
            found.append((text, learned))
    return found


def tokens_to_datum(tokens: Sequence[int], weights: Sequence[float], *, max_length: Optional[int] = None) -> Datum:
    """A datum of a whole sequence, shifted for ``cross_entropy``: N tokens become N - 1 positions, and each predicts the next
    token with that token's weight."""
    if len(tokens) != len(weights):
        raise InvalidArgumentError("weights", f"has {len(weights)} numbers for {len(tokens)} tokens")
    if max_length is not None:
        tokens, weights = tokens[:max_length], weights[:max_length]
    if len(tokens) < 2:
        raise InvalidArgumentError("tokens", f"{len(tokens)} tokens are no sequence in which one predicts the next")
    return next_token_datum(tokens, weights=weights[1:])


def next_token_datum(tokens: Sequence[int], **inputs: Sequence[float]) -> Datum:
    """A datum of a sequence of N + 1 tokens: N positions, each of which predicts the next token. ``inputs``: float inputs of
    the loss by name, N numbers each."""
    tensors = {name: TensorData(list(values), "float32") for name, values in inputs.items()}
    return Datum(ModelInput.from_ints(list(tokens[:-1])), {"target_tokens": TensorData(list(tokens[1:]), "int64"), **tensors})


def candidates_to_datum(tokens: Sequence[int], candidates: Sequence[Sequence[int]],
                        weights: Sequence[Sequence[float]]) -> Datum:
    """A datum with several targets for each position, for ``cross_entropy``: what a teacher thinks likely there, with its
    probabilities, say. ``candidates[i]`` and ``weights[i]`` are the targets after ``tokens[i]``; positions may have different
    numbers of them, or none: rows are filled up with a target of weight 0."""
    if not len(tokens) == len(candidates) == len(weights):
        raise InvalidArgumentError("candidates", f"has {len(candidates)} rows, weights {len(weights)}; tokens are {len(tokens)}")
    for i, (row, own) in enumerate(zip(candidates, weights)):
        if len(row) != len(own):
            raise InvalidArgumentError(f"weights[{i}]", f"has {len(own)} numbers for {len(row)} candidates")
    width = max((len(row) for row in candidates), default=0)
    if not width:
        raise InvalidArgumentError("candidates", "holds no token")
    return Datum(ModelInput.from_ints(list(tokens)), {
        "target_tokens": TensorData([list(row) + [0] * (width - len(row)) for row in candidates], "int64"),
        "weights": TensorData([list(own) + [0.0] * (width - len(own)) for own in weights], "float32")})


def shown(datum: Datum, tokenizer: Any) -> str:
    """A datum as a table: position, input token, target token, the target's text, and its weight (or advantage); a line for
    each target of a position that has several, without those of weight 0."""
    inputs = datum.loss_fn_inputs
    name = next((n for n in ("weights", "advantages") if n in inputs), None)
    targets = inputs["target_tokens"]
    values = inputs[name].to_list() if name else TensorData([1.0] * len(targets.data), "float32", targets.shape).to_list()
    lines = [f"{'at':>5} {'input':>8} {'target':>8} {name or 'weight':>10}  text of the target"]
    rows = targets.to_list()
    several = len(targets.shape) > 1
    texts = [] if several else pieces(tokenizer, rows)
    for i, (token, row) in enumerate(zip(datum.model_input.to_ints(), rows)):
        of_row = [(t, v, tokenizer.decode([t], skip_special_tokens=False)) for t, v in zip(row, values[i]) if v] if several else [
            (row, values[i], texts[i])]
        for target, value, text in of_row:
            lines.append(f"{i:>5} {token:>8} {target:>8} {value:>10.4g}  {text!r}")
    return "\n".join(lines)


def batches(data: Sequence[Datum], size: int, *, seed: Optional[int] = None, epochs: int = 1) -> Iterator[List[Datum]]:
    """Batches of ``size`` datums, ``epochs`` times; ``seed``: shuffles each epoch in a way of its own. The last batch of an
    epoch may be smaller."""
    import random

    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise InvalidArgumentError("size", f"expected an integer of at least 1, got {size!r}")
    for epoch in range(epochs):
        order = list(range(len(data)))
        if seed is not None:
            random.Random(f"{seed} {epoch}").shuffle(order)
        for at in range(0, len(order), size):
            yield [data[i] for i in order[at:at + size]]
