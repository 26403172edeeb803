"""Text to token ids and back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, List, Optional, Sequence

from ._threads import aside
from .errors import InvalidArgumentError

if TYPE_CHECKING:
    from .session import Session


class Tokenizer:
    """The tokenizer of a base model on the server. Every call is a request to the server."""

    def __init__(self, session: "Session", base_model: str) -> None:
        self._session = session
        self.name_or_path = base_model

    def encode(self, text: str, add_special_tokens: bool = False) -> List[int]:
        """The token ids of a text; ``add_special_tokens`` adds the model's own (its begin-of-text token)."""
        if not isinstance(text, str):
            raise InvalidArgumentError("text", f"expected a string, got {type(text).__name__}")
        body = {"base_model": self.name_or_path, "text": text, "add_special_tokens": bool(add_special_tokens)}
        return list(self._session.transport.post("/tokenize", body)["tokens"])

    def decode(self, tokens: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of token ids (a list, a numpy array or a torch tensor)."""
        from .types import ModelInput

        ids = ModelInput.of(tokens, "tokens").to_ints()
        if not ids:
            return ""
        body = {"base_model": self.name_or_path, "tokens": ids,
                "skip_special_tokens": bool(skip_special_tokens)}
        return str(self._session.transport.post("/detokenize", body)["text"])

    async def encode_async(self, text: str, add_special_tokens: bool = False) -> List[int]:
        """``encode`` for asyncio."""
        return await aside(self.encode, text, add_special_tokens)

    async def decode_async(self, tokens: Sequence[int], skip_special_tokens: bool = True) -> str:
        """``decode`` for asyncio."""
        return await aside(self.decode, tokens, skip_special_tokens)

    def __repr__(self) -> str:
        return f"Tokenizer({self.name_or_path!r})"


def tokenizer(session: "Session", base_model: str, tokenizer_id: Optional[str] = None) -> Any:
    """The tokenizer of a base model: by default the server's. With ``BIOS_TOKENIZER=local`` the one that
    ``transformers`` finds on this machine under the model's name, if any."""
    if base_model not in session.tokenizers:
        local = _local([n for n in (tokenizer_id, base_model) if n]) if os.environ.get("BIOS_TOKENIZER") == "local" else None
        session.tokenizers[base_model] = local if local is not None else Tokenizer(session, base_model)
    return session.tokenizers[base_model]


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
