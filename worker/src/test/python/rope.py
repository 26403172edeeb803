#!/usr/bin/env python3
"""Write what transformers makes of the rotary parameters of some config.json, for RopeParityTest.

    python rope.py MODEL > ../resources/rope.json

MODEL is the folder of a small Llama model: golden/llama/model. For each case the fields of `config` replace
those of its config.json (null removes one). `frequencies` and `factor` are the inverse frequencies and the
factor of cos and sin that transformers computes. `tokens` and `logprobs` are a sequence that is as long as
the case's context, and the log-probabilities of its tokens after those before them, in float32.
"""

import json
import random
import sys
import tempfile
from pathlib import Path

import torch
import transformers

PLAIN = {"rope_parameters": None, "rope_theta": 10000.0}
CASES = {
    "yarn, as Qwen stretches its models": (256, {
        **PLAIN, "max_position_embeddings": 64,
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}}),
    "yarn whose config gives the stretched length": (256, {
        **PLAIN, "max_position_embeddings": 256,
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}}),
    "yarn with a parameter of other programs": (256, {
        **PLAIN, "max_position_embeddings": 64,
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64,
                         "attn_factor": 0.5}}),
    "linear, as Vicuna stretches Llama": (256, {
        **PLAIN, "max_position_embeddings": 64, "rope_scaling": {"type": "linear", "factor": 4.0}}),
    "dynamic": (64, {
        **PLAIN, "max_position_embeddings": 64, "rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}),
    "llama3": (256, {
        **PLAIN, "max_position_embeddings": 256, "rope_theta": 5000.0,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                         "original_max_position_embeddings": 32}}),
    "rope_scaling beside rope_parameters": (256, {
        "max_position_embeddings": 64, "rope_scaling": {"rope_type": "linear", "factor": 4.0},
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}),
    "an empty rope_scaling beside rope_parameters": (64, {
        "max_position_embeddings": 64, "rope_scaling": {},
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}),
}


def changed(source: Path, folder: Path, fields: dict) -> None:
    config = {**json.loads((source / "config.json").read_text()), **fields}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    (folder / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes())


def main() -> None:
    source = Path(sys.argv[1])
    cases = []
    for name, (context, fields) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            changed(source, Path(folder), fields)
            model = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, attn_implementation="eager").eval()
        rotary = model.model.rotary_emb
        chosen = random.Random(name)
        tokens = [chosen.randrange(model.config.vocab_size) for _ in range(context)]
        with torch.no_grad():
            logits = model(torch.tensor([tokens])).logits[0, :-1]
        scores = torch.log_softmax(logits, -1)[range(context - 1), tokens[1:]]
        cases.append({"name": name, "config": fields, "context": context,
                      "frequencies": rotary.inv_freq.tolist(), "factor": rotary.attention_scaling,
                      "tokens": tokens, "logprobs": [round(x, 7) for x in scores.tolist()]})
    print("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]")


if __name__ == "__main__":
    main()
