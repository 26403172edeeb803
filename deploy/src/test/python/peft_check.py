#!/usr/bin/env python3
"""Check that a downloaded archive means to PEFT what it means to Bios.

    python peft_check.py ARCHIVE.tar.gz BASE_MODEL_DIR TOKENS.json

The archive is unpacked with tarfile's `data` filter, which refuses links and paths that lead outside. Its adapter is
loaded on the base model with `PeftModel.from_pretrained`, its tokenizer with `AutoTokenizer.from_pretrained`, and the
log-probabilities of the given tokens are computed in float32 and compared.

TOKENS.json holds what Bios computed:

    {"sequences": [{"tokens": [int, ...],
                    "logprobs": [float or null, ...],   of each token given those before it; null: not compared
                    "text": "..."}],                     optional: the tokenizer must make these tokens of it
     "tolerance": 1e-4}                                  largest allowed difference

Exit status: 0 if everything agrees, 1 if a number, a token or the archive does not, 2 if the arguments are unusable.
It needs torch, transformers and peft; and Python 3.12, or a 3.9 to 3.11 with the extraction filters.
"""

import argparse
import json
import math
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence


class Disagreement(Exception):
    """The archive is not what it should be; the message says how."""


def unpack(archive: Path, folder: Path) -> None:
    """Unpack the archive, refusing whatever a harmless archive does not contain."""
    if not hasattr(tarfile, "data_filter"):
        raise SystemExit("this Python has no tarfile extraction filters: use 3.12 or newer")
    try:
        with tarfile.open(archive, "r:*") as tar:
            tar.extractall(folder, filter="data")
    except tarfile.TarError as error:
        raise Disagreement(f"cannot unpack {archive}: {error}") from error
    for wanted in ("adapter/adapter_config.json", "adapter/adapter_model.safetensors", "tokenizer", "metadata.json"):
        if not (folder / wanted).exists():
            raise Disagreement(f"the archive has no {wanted}")
    json.loads((folder / "metadata.json").read_text("utf-8"))


def log_probabilities(model: Any, tokens: Sequence[int]) -> List[Optional[float]]:
    """The log-probability of each token given those before it; None for the first."""
    import torch

    with torch.no_grad():
        logits = model(input_ids=torch.tensor([list(tokens)]), use_cache=False).logits[0].float()
        chosen = torch.log_softmax(logits[:-1], -1).gather(1, torch.tensor(list(tokens[1:]))[:, None])
    result: List[Optional[float]] = [None]
    result.extend(chosen[:, 0].tolist())
    return result


def largest_difference(computed: Sequence[Optional[float]], given: Sequence[Optional[float]]) -> float:
    """The largest absolute difference where both sides have a number; infinite where one is not finite."""
    worst = 0.0
    for ours, theirs in zip(computed, given):
        if ours is None or theirs is None:
            continue
        difference = abs(ours - theirs)
        worst = max(worst, difference if math.isfinite(difference) else math.inf)
    return worst


def check(archive: Path, base: Path, tokens_file: Path) -> Dict[str, Any]:
    """Do the check and return its numbers."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    wanted = json.loads(tokens_file.read_text("utf-8"))
    tolerance = float(wanted["tolerance"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        unpack(archive, folder)
        tokenizer = AutoTokenizer.from_pretrained(str(folder / "tokenizer"))
        model = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32, attn_implementation="eager")
        plain = [log_probabilities(model.eval(), sequence["tokens"]) for sequence in wanted["sequences"]]
        model = PeftModel.from_pretrained(model, str(folder / "adapter")).eval()
        worst, compared, effect = 0.0, 0, 0.0
        for index, sequence in enumerate(wanted["sequences"]):
            tokens, given = sequence["tokens"], sequence["logprobs"]
            if len(tokens) != len(given):
                raise Disagreement(f"sequence {index}: {len(tokens)} tokens but {len(given)} logprobs")
            if "text" in sequence and tokenizer.encode(sequence["text"], add_special_tokens=False) != list(tokens):
                raise Disagreement(f"sequence {index}: the tokenizer makes other tokens of {sequence['text']!r}")
            computed = log_probabilities(model, tokens)
            worst = max(worst, largest_difference(computed, given))
            effect = max(effect, largest_difference(computed, plain[index]))
            compared += sum(1 for ours, theirs in zip(computed, given) if ours is not None and theirs is not None)
    if compared == 0:
        raise Disagreement("nothing was compared: no sequence has two tokens with a log-probability")
    return {"compared": compared, "largest_difference": worst, "tolerance": tolerance,
            "effect_of_adapter": effect, "vocabulary": len(tokenizer), "agrees": worst <= tolerance}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, metavar="ARCHIVE.tar.gz")
    parser.add_argument("base", type=Path, metavar="BASE_MODEL_DIR")
    parser.add_argument("tokens", type=Path, metavar="TOKENS.json")
    arguments = parser.parse_args()
    for path in (arguments.archive, arguments.base, arguments.tokens):
        if not path.exists():
            parser.error(f"there is no {path}")
    try:
        report = check(arguments.archive, arguments.base, arguments.tokens)
    except Disagreement as problem:
        print(f"peft_check: {problem}", file=sys.stderr)
        return 1
    print(json.dumps(report))
    return 0 if report["agrees"] else 1


if __name__ == "__main__":
    sys.exit(main())
