"""Text to token ids and back."""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from datetime import datetime
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union
from urllib.parse import quote

from ._threads import on_thread
from ._transport import log
from .errors import BiosError, InvalidArgumentError, MissingExtraError, NotFoundError
from .session import Session, shared_session

REMEMBERED_TEXTS = 10_000
REMEMBERED_LENGTH = 4_096


class Tokenizer:
    """The tokenizer of a base model on the server, with the part of transformers' interface that training programs use.

    Where the package ``tokenizers`` is installed, ``encode`` and ``decode`` are done here, with the model's
    ``tokenizer.json``, which is read from the server once; else each is a request to the server, and texts that were encoded
    before are remembered. ``BIOS_TOKENIZER=server`` always asks the server. Special tokens, the size of the vocabulary and
    the chat template come from the model's files; ``apply_chat_template`` needs jinja2.
    """

    def __init__(self, session: Session, base_model: str) -> None:
        self._session = session
        self.name_or_path = base_model
        self._ids: Optional[Dict[str, int]] = None
        self._settings: Optional[Dict[str, Any]] = None
        self._raw: Optional[bytes] = None
        self._template: Tuple[Optional[str], ...] = ()  # one, once it is known
        self._compiled: Dict[str, Any] = {}
        self._fast: Any = None
        self._fast_tried = False
        self._encoded: "OrderedDict[Tuple[str, bool], List[int]]" = OrderedDict()
        self._texts: Dict[int, str] = {}
        self._lock = threading.Lock()

    def _here(self) -> Any:
        """The tokenizer on this side, or None."""
        if not self._fast_tried:
            with self._lock:
                if not self._fast_tried:
                    self._fast = self._load()
                    self._fast_tried = True
        return self._fast

    def _load(self) -> Any:
        if os.environ.get("BIOS_TOKENIZER") == "server":
            return None
        try:
            from tokenizers import Tokenizer as Fast
        except ImportError:
            return None
        file = self._tokenizer_json()
        if not file:
            return None
        try:
            fast = Fast.from_str(file.decode("utf-8"))
        except Exception as e:  # what it raises is a bare Exception
            log.info("the tokenizer of %s is the server's: %s", self.name_or_path, e)
            return None
        fast.no_truncation()
        fast.no_padding()
        return fast

    # -- the model's files -----------------------------------------------------------------------------------

    def _file(self, name: str) -> Optional[bytes]:
        path = f"~/{quote(self.name_or_path)}/resolve/main/{name}"
        try:
            return self._session.transport.call("GET", path, accept="*/*").body
        except NotFoundError:
            return None

    def _tokenizer_json(self) -> bytes:
        if self._raw is None:
            self._raw = self._file("tokenizer.json") or b""
        return self._raw

    def _config(self) -> Dict[str, Any]:
        if self._settings is None:
            self._settings = json.loads(self._file("tokenizer_config.json") or b"{}")
        return self._settings

    def get_vocab(self) -> Dict[str, int]:
        """Every token of the vocabulary, added ones included, and its id."""
        if self._ids is None:
            read = json.loads(self._tokenizer_json() or b"{}")
            vocab = (read.get("model") or {}).get("vocab") or {}
            ids = dict(vocab) if isinstance(vocab, dict) else {entry[0]: i for i, entry in enumerate(vocab)}
            ids.update({token["content"]: token["id"] for token in read.get("added_tokens") or []})
            if not ids:
                raise BiosError(f"the server has no tokenizer.json of {self.name_or_path} that lists its tokens")
            self._ids = ids
        return dict(self._ids)

    def __len__(self) -> int:
        return max(self.get_vocab().values()) + 1

    @property
    def vocab_size(self) -> int:
        """One more than the largest token id."""
        return len(self)

    def convert_tokens_to_ids(self, token: str) -> Optional[int]:
        """The id of a token of the vocabulary; None if there is none."""
        return self.get_vocab().get(token)

    def _special(self, name: str) -> Optional[str]:
        token = self._config().get(name)
        return token.get("content") if isinstance(token, dict) else token

    def _special_id(self, name: str) -> Optional[int]:
        token = self._special(name)
        return None if token is None else self.convert_tokens_to_ids(token)

    @property
    def bos_token(self) -> Optional[str]:
        """The token that begins a text, if the model has one."""
        return self._special("bos_token")

    @property
    def eos_token(self) -> Optional[str]:
        """The token that ends a text, if the model has one."""
        return self._special("eos_token")

    @property
    def pad_token(self) -> Optional[str]:
        """The token that fills batches, if the model has one. Bios packs sequences and needs none."""
        return self._special("pad_token")

    @property
    def bos_token_id(self) -> Optional[int]:
        """The id of ``bos_token``."""
        return self._special_id("bos_token")

    @property
    def eos_token_id(self) -> Optional[int]:
        """The id of ``eos_token``."""
        return self._special_id("eos_token")

    @property
    def pad_token_id(self) -> Optional[int]:
        """The id of ``pad_token``."""
        return self._special_id("pad_token")

    # -- chats -----------------------------------------------------------------------------------------------

    @property
    def chat_template(self) -> Optional[str]:
        """The model's chat template (Jinja): ``chat_template.jinja``, else the one of ``tokenizer_config.json``; None if it
        has none."""
        if not self._template:
            self._template = (self._read_template(),)
        return self._template[0]

    def _read_template(self) -> Optional[str]:
        file = self._file("chat_template.jinja")
        if file is not None:
            return file.decode("utf-8")
        told = self._config().get("chat_template")
        if isinstance(told, list):
            by_name = {template["name"]: template["template"] for template in told}
            return by_name.get("default")
        return told

    def apply_chat_template(self, conversation: Sequence[Mapping[str, Any]], *, tokenize: bool = True,
                            add_generation_prompt: bool = False, chat_template: Optional[str] = None,
                            **values: Any) -> Any:
        """A chat as the model was trained on it: token ids, or with ``tokenize=False`` the text.

        ``conversation``: messages ``{"role", "content"}``; ``add_generation_prompt``: also what begins the assistant's next
        message; ``chat_template``: instead of the model's; ``values``: more names for the template (``tools``,
        ``enable_thinking``). Needs jinja2.
        """
        template = chat_template if chat_template is not None else self.chat_template
        if template is None:
            raise InvalidArgumentError("chat_template", f"{self.name_or_path} has no chat template; give one")
        try:
            import jinja2
        except ImportError:
            raise MissingExtraError("apply_chat_template needs jinja2: pip install jinja2") from None
        names = {name: self._special(name) or "" for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
        try:
            text = self._compile(template).render(
                messages=[dict(message) for message in conversation], add_generation_prompt=add_generation_prompt,
                **{**names, **values})
        except jinja2.TemplateError as e:
            raise InvalidArgumentError("chat_template", f"{type(e).__name__}: {e}") from e
        return self.encode(text) if tokenize else text

    def _compile(self, template: str) -> Any:
        compiled = self._compiled.get(template)
        if compiled is None:
            from jinja2.sandbox import ImmutableSandboxedEnvironment

            environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                        extensions=["jinja2.ext.loopcontrols"])
            environment.filters["tojson"] = _to_json
            environment.globals.update(raise_exception=_refused, strftime_now=lambda form: datetime.now().strftime(form))
            compiled = environment.from_string(template)
            self._compiled = {template: compiled}  # the last one: programs use one
        return compiled

    # -- tokens ----------------------------------------------------------------------------------------------

    def __call__(self, text: Union[str, Sequence[str]], add_special_tokens: bool = True) -> Dict[str, Any]:
        """``input_ids`` and ``attention_mask`` of a text, or a list of them for each of several texts, without padding."""
        if isinstance(text, str):
            ids = self.encode(text, add_special_tokens)
            return {"input_ids": ids, "attention_mask": [1] * len(ids)}
        each = [self(one, add_special_tokens) for one in text]
        return {name: [found[name] for found in each] for name in ("input_ids", "attention_mask")}

    def encode(self, text: str, add_special_tokens: bool = False) -> List[int]:
        """The token ids of a text; ``add_special_tokens`` adds the model's own (its begin-of-text token)."""
        if not isinstance(text, str):
            raise InvalidArgumentError("text", f"expected a string, got {type(text).__name__}")
        fast = self._here()
        if fast is not None:
            return list(fast.encode(text, add_special_tokens=bool(add_special_tokens)).ids)
        known = text, bool(add_special_tokens)
        with self._lock:
            if known in self._encoded:
                self._encoded.move_to_end(known)
                return list(self._encoded[known])
        body = {"base_model": self.name_or_path, "text": text, "add_special_tokens": bool(add_special_tokens)}
        tokens = list(self._session.transport.post("/tokenize", body)["tokens"])
        if len(text) <= REMEMBERED_LENGTH:
            with self._lock:
                self._encoded[known] = tokens
                while len(self._encoded) > REMEMBERED_TEXTS:
                    self._encoded.popitem(last=False)
        return list(tokens)

    def decode(self, tokens: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of token ids (a list, a numpy array or a torch tensor)."""
        from .types import ModelInput

        ids = ModelInput.of(tokens, "tokens").to_ints()
        if not ids:
            return ""
        fast = self._here()
        if fast is not None:
            return str(fast.decode(ids, skip_special_tokens=bool(skip_special_tokens)))
        body = {"base_model": self.name_or_path, "tokens": ids,
                "skip_special_tokens": bool(skip_special_tokens)}
        return str(self._session.transport.post("/detokenize", body)["text"])

    def pieces(self, tokens: Sequence[int]) -> List[str]:
        """The text of each token by itself, special tokens included. Of a letter that takes several tokens each has only a
        part, which is shown as a replacement sign."""
        if not self._texts and self._here() is None and os.environ.get("BIOS_TOKENIZER") != "server":
            self._texts = self._texts_of_bytes()
        for token in dict.fromkeys(int(t) for t in tokens):
            if token not in self._texts:
                self._texts[token] = self.decode([token], skip_special_tokens=False)
        return [self._texts[int(t)] for t in tokens]

    def _texts_of_bytes(self) -> Dict[int, str]:
        """The text of every token, where the vocabulary writes each byte as a letter (decoder ByteLevel); else nothing, and the
        server is asked for each."""
        read = json.loads(self._tokenizer_json() or b"{}")
        if (read.get("decoder") or {}).get("type") != "ByteLevel":
            return {}
        letters = {letter: byte for byte, letter in enumerate(_byte_letters())}
        added = {token["id"]: token["content"] for token in read.get("added_tokens") or []}
        return {**{id: bytes(letters[letter] for letter in token).decode("utf-8", "replace")
                   for token, id in self.get_vocab().items() if id not in added and letters.keys() >= set(token)}, **added}

    async def encode_async(self, text: str, add_special_tokens: bool = False) -> List[int]:
        """``encode`` for asyncio."""
        return await on_thread(self.encode, text, add_special_tokens)

    async def decode_async(self, tokens: Sequence[int], skip_special_tokens: bool = True) -> str:
        """``decode`` for asyncio."""
        return await on_thread(self.decode, tokens, skip_special_tokens)

    def __reduce__(self) -> Tuple[Any, ...]:
        """Pickles the address and the model's name, without the key: see :class:`bios.SamplingClient`."""
        return _restored, (self._session.transport.base_url, self.name_or_path)

    def __deepcopy__(self, memo: Any) -> "Tokenizer":
        return self  # nothing of it changes but what it remembers

    def __repr__(self) -> str:
        return f"Tokenizer({self.name_or_path!r})"


def _restored(base_url: str, base_model: str) -> Any:
    """A pickled tokenizer; those of one process and model are one."""
    return tokenizer(shared_session(base_url), base_model)


def _byte_letters() -> List[str]:
    """The letter that stands for each byte in a vocabulary of GPT-2's kind: itself if it can be seen, else one from 256 on."""
    seen = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in seen else next(others)) for byte in range(256)]


def _refused(message: str) -> None:
    raise InvalidArgumentError("conversation", message)


def _to_json(value: Any, ensure_ascii: bool = False, indent: Optional[int] = None, separators: Any = None,
             sort_keys: bool = False) -> str:
    """JSON without HTML escapes, as chat templates expect it."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def tokenizer(session: Session, base_model: str, tokenizer_id: Optional[str] = None) -> Any:
    """The tokenizer of a base model: by default the server's. With ``BIOS_TOKENIZER=local`` the one that
    ``transformers`` finds on this machine under the model's name, if any."""
    if base_model not in session.tokenizers:
        local = _local([n for n in (tokenizer_id, base_model) if n]) if os.environ.get("BIOS_TOKENIZER") == "local" else None
        session.tokenizers[base_model] = local if local is not None else Tokenizer(session, base_model)
    return session.tokenizers[base_model]


def encoded(tokenizer: Any, text: str) -> List[int]:
    """The token ids of a text that may be a part of a sequence, with any tokenizer: without the special tokens that
    transformers would add by default."""
    try:
        return list(tokenizer.encode(text, add_special_tokens=False))
    except TypeError:  # it knows no special tokens
        return list(tokenizer.encode(text))


def pieces(tokenizer: Any, tokens: Sequence[int]) -> List[str]:
    """The text of each token by itself, with any tokenizer."""
    if isinstance(tokenizer, Tokenizer):
        return tokenizer.pieces(tokens)
    known = {int(t): str(tokenizer.decode([int(t)], skip_special_tokens=False)) for t in dict.fromkeys(tokens)}
    return [known[int(t)] for t in tokens]


def _local(names: Sequence[str]) -> Any:
    try:
        from transformers import AutoTokenizer
    except ImportError:
        return None
    for name in names:
        try:
            return AutoTokenizer.from_pretrained(name, local_files_only=True)
        except (OSError, ValueError):
            continue
    return None
