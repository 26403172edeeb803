#!/usr/bin/env python3
"""Write the numbers that the engine must agree with, as PyTorch, transformers and PEFT compute them.

    python golden.py --out DIR [--seed N] [--only CASE]... [--list]
    python golden.py --csr FILE [--seed N]

For each case this writes a folder:

    DIR/<case>/model/                a small random model, as transformers' `save_pretrained` writes it
    DIR/<case>/case.json             what was computed, and the inputs that are integers or settings
    DIR/<case>/expected.safetensors  inputs that are real numbers, and all results, as float32 arrays

case.json
---------
    case                 name of the case
    seed                 the seed it was made with
    description          what is special about it, in words
    architecture         `LlamaForCausalLM`, ...
    weights_dtype        dtype of the model's files: `float32`, `bfloat16` or `float16`. All computation is in
                         float32, from the values in the files, with eager attention
    adapter              {rank, alpha, target_modules: [names of linear layers]}; scale is alpha / rank, no dropout
    sequences            list of {tokens: [int], targets: [int]}, both of length N. Position i predicts targets[i]
                         from tokens[0..i]. A sequence's index in this list is the `<i>` below
    ppo                  {low, high}: the absolute bounds of the ratio
    cispo, dro           {low, high} and {beta}; only where `losses` names them
    losses               names of the losses whose gradients are given
    candidates           only in some cases: for each sequence its [N, K] targets of one cross_entropy, as rows; K is
                         the sequence's own
    optimizer            {learning_rates: [20 numbers, one per step], beta1, beta2, eps, weight_decay,
                         grad_clip_norm (0: none)}
    greedy               {prompt: [int], tokens: [24 ints], margin: smallest gap between the best and the second
                         best logit among the 24 choices}
    noise                the largest absolute difference, per kind of result, between this computation and the same
                         one in float64: what rounding alone does to these numbers
                         {logprobs, gradients: {loss: .}, after_logprobs, after_adapter}; `grad_norms`, in cases made
                         since it exists: the largest relative difference of a step's norm

expected.safetensors
--------------------
`P` stands for each adapter tensor's name as PEFT saves it, for example
`base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`, or `base_model.model.lm_head.lora_B.weight`.
lora_A is [rank, in], lora_B is [out, rank]; both are random and not zero.

    P                        the adapter
    weights.<i>      [N]     weights w of cross_entropy; some are zero, one is negative
    q.<i>            [N]     the sampler's log-probabilities q, for the other losses
    advantages.<i>   [N]     advantages A, for the other losses; some are zero
    base.logprobs.<i>    [N] log-probability of each target under the model without adapter
    adapter.logprobs.<i> [N] the same with the adapter
    loss.<loss>      [1]     the loss over all sequences, with the adapter
    gradient.<loss>.P        its gradient
    candidate_weights.<i> [N, K], candidate_logprobs.<i> [N, K], loss.candidates [1], gradient.candidates.P
                             where there are candidates: their weights (many zero, some negative), and the results of
                             -sum of w l over all of them, with the adapter
    steps.losses     [20]    cross_entropy before each of 20 optimizer steps, over all sequences
    steps.grad_norms [20]    the norm of the whole gradient in that step, before clipping
    after.P                  the adapter after those steps
    after.logprobs.<i> [N]   log-probabilities of the targets with it
    prompt.logprobs  [L]     with the first adapter: log-probability of greedy.prompt[i] given those before it; the
                             first is NaN
    greedy.logprobs  [24]    and of each token of greedy.tokens

Losses, summed over the positions of all sequences, with l the log-probability of the target, r = exp(l - q):

    cross_entropy         -w l
    importance_sampling   -r A
    ppo                   -min(r A, clip(r, low, high) A)
    cispo                 -stop_gradient(clip(r, low, high)) l A
    dro                   -(l A - beta / 2 (l - q)^2)

`--csr` writes matrices as PyTorch gives them as CSR and dense, as JSON: a list of {tensor: {dtype, shape, data,
sparse_crow_indices, sparse_col_indices}, dense: [row by row]}.

A step is torch.optim.AdamW on the gradient of the sum, after torch.nn.utils.clip_grad_norm_ where there is a
grad_clip_norm: the gradient is multiplied by min(1, grad_clip_norm / (norm + 1e-6)).
"""

import argparse
import copy
import json
import math
import random
import shutil
import zlib
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ALL = ATTENTION + ["gate_proj", "up_proj", "down_proj"]
LENGTHS = [1, 9, 70, 2, 33]
STEPS = 20
GREEDY = 24
SMALL = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             vocab_size=96, max_position_embeddings=128, rms_norm_eps=1e-5, bos_token_id=0, eos_token_id=1,
             tie_word_embeddings=False)


class Case:
    """What one case is made of: the architecture and what differs from the usual settings."""

    def __init__(self, description: str, architecture: str, *, rank: int = 4, alpha: int = 8,
                 targets: List[str] = ALL, dtype: str = "float32", optimizer: Optional[Dict[str, float]] = None,
                 losses: Tuple[str, ...] = ("cross_entropy", "importance_sampling", "ppo"), old_config: bool = False,
                 shard_size: Optional[str] = None, candidates: int = 0, **config: Any):
        self.description, self.architecture, self.rank, self.alpha = description, architecture, rank, alpha
        self.targets, self.dtype, self.losses, self.old_config = targets, dtype, losses, old_config
        self.shard_size, self.candidates = shard_size, candidates
        self.optimizer = dict(beta1=0.9, beta2=0.95, eps=1e-12, weight_decay=0.01, grad_clip_norm=0.0)
        self.optimizer.update(optimizer or {})
        self.config = {**SMALL, **config}


def rope(kind: str, theta: float = 10000.0, **settings: Any) -> Dict[str, Any]:
    """A rotary embedding's settings as a configuration holds them."""
    return dict(rope_type=kind, rope_theta=theta, **settings)


CASES: Dict[str, Case] = {
    "llama": Case(
        "Llama with grouped key/value heads and an output head of its own; all five losses", "Llama",
        losses=("cross_entropy", "importance_sampling", "ppo", "cispo", "dro")),
    "llama-tied": Case(
        "the output head is the embedding; eps 1e-8; an odd rank", "Llama",
        rank=3, alpha=5, optimizer=dict(eps=1e-8), tie_word_embeddings=True),
    "llama-biases": Case(
        "biases on all linear layers; gradient clipped to norm 1", "Llama", optimizer=dict(grad_clip_norm=1.0),
        attention_bias=True, mlp_bias=True),
    "llama-attention-only": Case(
        "adapters on q and v only, rank 8, alpha 16; no weight decay; one key/value head", "Llama", rank=8, alpha=16,
        targets=["q_proj", "v_proj"], optimizer=dict(weight_decay=0.0), num_key_value_heads=1),
    "llama-rope-linear": Case(
        "rotary positions divided by 4; newer form of config.json", "Llama", rank=2,
        rope_parameters=rope("linear", factor=4.0)),
    "llama-rope-llama3": Case(
        "Llama 3.1's rotary scaling with a short original context; older form of config.json", "Llama",
        old_config=True, rank=3, head_dim=16, max_position_embeddings=256,
        rope_parameters=rope("llama3", 5000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                             original_max_position_embeddings=32)),
    "llama-rope-yarn": Case(
        "YaRN, with its attention factor; newer form of config.json", "Llama", rank=2, head_dim=16,
        max_position_embeddings=128,
        rope_parameters=rope("yarn", factor=4.0, original_max_position_embeddings=32, beta_fast=32.0, beta_slow=1.0)),
    "mistral": Case(
        "sliding window of 8 positions, shorter than the sequences; no weight decay", "Mistral", rank=3,
        sliding_window=8, optimizer=dict(weight_decay=0.0)),
    "qwen2": Case("biases on q, k and v; tied output head; older form of config.json", "Qwen2", old_config=True,
                  tie_word_embeddings=True, rope_parameters=rope("default", 1000000.0)),
    "qwen2-sliding": Case("only the second layer has a sliding window (of 8 positions)", "Qwen2", rank=3,
                          use_sliding_window=True, sliding_window=8, max_window_layers=1),
    "qwen3": Case("norms on queries and keys; head_dim is not hidden_size / heads; older form of config.json", "Qwen3",
                  old_config=True, head_dim=16, rope_parameters=rope("default", 1000000.0), rms_norm_eps=1e-6),
    "qwen3-lm-head": Case(
        "an adapter on the output head too", "Qwen3", targets=ALL + ["lm_head"], head_dim=16),
    "qwen3-tied-lm-head": Case(
        "an adapter on an output head that is the embedding; the embedding itself stays as it is", "Qwen3", rank=2,
        alpha=4, targets=["q_proj", "lm_head"], head_dim=8, tie_word_embeddings=True),
    "qwen3-sharded": Case("weights in several files with an index", "Qwen3", rank=2, head_dim=16,
                          shard_size="20KB"),
    "llama-bf16": Case("weights saved in bfloat16", "Llama", rank=3, dtype="bfloat16", hidden_size=48,
                       intermediate_size=64),
    "qwen3-bf16": Case("weights saved in bfloat16; tied output head", "Qwen3", rank=2, dtype="bfloat16", hidden_size=64,
                       intermediate_size=64, head_dim=32, tie_word_embeddings=True, vocab_size=128),
    "llama-fp16": Case("weights saved in float16", "Llama", rank=2, dtype="float16"),
    "qwen3-candidates": Case("several target tokens with weights at each position", "Qwen3", rank=2, head_dim=8,
                             losses=("cross_entropy",), candidates=3, hidden_size=24, intermediate_size=32),
}


# --- the model --------------------------------------------------------------------------------------------------

def write_model(case: Case, folder: Path) -> None:
    """Save a random model whose outputs are far from uniform and whose every parameter matters."""
    config_type = getattr(transformers, case.architecture + "Config")
    model_type = getattr(transformers, case.architecture + "ForCausalLM")
    model = model_type(config_type(**copy.deepcopy(case.config)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.copy_(1 + 0.2 * torch.randn_like(parameter))
            elif name.endswith("bias"):
                parameter.copy_(0.3 * torch.randn_like(parameter))
            elif "embed" in name or "lm_head" in name:
                parameter.copy_(torch.randn_like(parameter) * 2.0 / math.sqrt(parameter.shape[1]))
            else:
                parameter.copy_(torch.randn_like(parameter) * 1.2 / math.sqrt(parameter.shape[1]))
    model.to(getattr(torch, case.dtype))
    model.config.dtype = getattr(torch, case.dtype)
    model.save_pretrained(folder, **({"max_shard_size": case.shard_size} if case.shard_size else {}))
    (folder / "generation_config.json").unlink(missing_ok=True)
    if case.old_config:
        make_config_older(folder / "config.json")


def make_config_older(path: Path) -> None:
    """Rewrite a config.json in the form that most published models have."""
    config = json.loads(path.read_text())
    positions = config.pop("rope_parameters")
    config["rope_theta"] = positions.pop("rope_theta")
    kind = positions.pop("rope_type")
    config["rope_scaling"] = None if kind == "default" else {**positions, "rope_type": kind}
    config["torch_dtype"] = config.pop("dtype")
    config.pop("layer_types", None)
    path.write_text(json.dumps(config, indent=2) + "\n")


def read_model(case: Case, folder: Path, dtype: torch.dtype) -> torch.nn.Module:
    """Load the saved model for computation in `dtype`."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
    return model.eval().requires_grad_(False)


def with_adapter(case: Case, model: torch.nn.Module) -> torch.nn.Module:
    """Wrap a model with PEFT's LoRA."""
    config = LoraConfig(r=case.rank, lora_alpha=case.alpha, target_modules=list(case.targets), lora_dropout=0.0,
                        bias="none", task_type="CAUSAL_LM")
    return get_peft_model(model, config, autocast_adapter_dtype=False)


def adapter_of(model: torch.nn.Module) -> Dict[str, torch.nn.Parameter]:
    """The adapter's parameters under the names that PEFT saves them with."""
    return {name.replace(".default.", "."): parameter for name, parameter in sorted(model.named_parameters())
            if "lora_" in name}


# --- losses -----------------------------------------------------------------------------------------------------

def logprobs(model: torch.nn.Module, sequence: Dict[str, List[int]]) -> torch.Tensor:
    """The log-probability of each target of one sequence."""
    logits = model(input_ids=torch.tensor([sequence["tokens"]]), use_cache=False).logits[0]
    return torch.log_softmax(logits, -1).gather(1, torch.tensor(sequence["targets"])[:, None])[:, 0]


def loss_of(name: str, log_p: torch.Tensor, data: Dict[str, torch.Tensor], bounds: Dict[str, Dict[str, float]]
            ) -> torch.Tensor:
    """The sum of a loss over one sequence's positions."""
    weights, q, advantages = (data[key].to(log_p.dtype) for key in ("weights", "q", "advantages"))
    ratio = torch.exp(log_p - q)
    if name == "cross_entropy":
        return -(weights * log_p).sum()
    if name == "importance_sampling":
        return -(ratio * advantages).sum()
    if name == "ppo":
        clipped = ratio.clamp(bounds["ppo"]["low"], bounds["ppo"]["high"])
        return -torch.minimum(ratio * advantages, clipped * advantages).sum()
    if name == "cispo":
        clipped = ratio.clamp(bounds["cispo"]["low"], bounds["cispo"]["high"]).detach()
        return -(clipped * log_p * advantages).sum()
    if name == "dro":
        return -(log_p * advantages - 0.5 * bounds["dro"]["beta"] * (log_p - q) ** 2).sum()
    raise ValueError(name)


def random_candidates(count: int, sequences: List[Dict[str, List[int]]], vocabulary: int, seed: int
                      ) -> List[Tuple[torch.Tensor, torch.Tensor]]:
    """Targets [N, K] and their weights: many are zero, some negative, and some tokens occur twice in a row."""
    chance = torch.Generator().manual_seed(seed)
    out = []
    for index, sequence in enumerate(sequences):
        shape = (len(sequence["tokens"]), count + index % 2)
        targets = torch.randint(vocabulary, shape, generator=chance)
        weights = torch.rand(shape, generator=chance) * 1.2
        weights[torch.rand(shape, generator=chance) < 0.4] = 0.0
        targets[:, 1] = torch.where(torch.rand(shape[0], generator=chance) < 0.3, targets[:, 0], targets[:, 1])
        weights[0, 0], weights[-1, -1] = -0.5, 0.75
        out.append((targets, weights))
    return out


BOUNDS = {"ppo": {"low": 0.8, "high": 1.2}, "cispo": {"low": 0.7, "high": 1.3}, "dro": {"beta": 0.05}}


def random_data(sequences: List[Dict[str, List[int]]], log_p: List[torch.Tensor]) -> List[Dict[str, torch.Tensor]]:
    """Weights, sampler log-probabilities and advantages; no ratio lies at a bound, where gradients jump."""
    data = []
    for index, sequence in enumerate(sequences):
        count = len(sequence["tokens"])
        weights = torch.rand(count) * 1.5
        weights[torch.rand(count) < 0.25] = 0.0
        if index == 2:
            weights[count // 2] = -0.5
        if index == 0:
            weights[0] = 0.75
        shift = 0.4 * torch.randn(count)
        for bound in (0.7, 0.8, 1.2, 1.3):
            near = (torch.exp(shift) - bound).abs() < 0.02
            shift = torch.where(near, shift + 0.06, shift)
        for bound in (0.7, 0.8, 1.2, 1.3):
            assert ((torch.exp(shift) - bound).abs() > 0.005).all()
        advantages = torch.randn(count)
        advantages[torch.rand(count) < 0.2] = 0.0
        data.append({"weights": weights, "q": log_p[index].detach().float() - shift, "advantages": advantages})
    return data


# --- one case ---------------------------------------------------------------------------------------------------

def greedy(model: torch.nn.Module, prompt: List[int]) -> Tuple[List[int], List[float], float]:
    """Choose the most likely token 24 times: the tokens, their log-probabilities, the smallest margin."""
    tokens: List[int] = []
    chosen: List[float] = []
    margin = math.inf
    for _ in range(GREEDY):
        logits = model(input_ids=torch.tensor([prompt + tokens]), use_cache=False).logits[0, -1]
        best = torch.topk(logits, 2)
        margin = min(margin, (best.values[0] - best.values[1]).item())
        tokens.append(int(best.indices[0]))
        chosen.append(torch.log_softmax(logits, -1)[tokens[-1]].item())
    return tokens, chosen, margin


def compute(case: Case, folder: Path, dtype: torch.dtype, adapter: Dict[str, torch.Tensor],
            sequences: List[Dict[str, List[int]]], data: Optional[List[Dict[str, torch.Tensor]]],
            rates: List[float], candidates: List[Tuple[torch.Tensor, torch.Tensor]]) -> Dict[str, Any]:
    """Compute everything but the greedy choice, in `dtype`. `data` is made here if it is not given."""
    model = read_model(case, folder, dtype)
    results: Dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for index, sequence in enumerate(sequences):
            results[f"base.logprobs.{index}"] = logprobs(model, sequence)
    model = with_adapter(case, model)
    parameters = adapter_of(model)
    if not adapter:
        for name, parameter in parameters.items():
            adapter[name] = torch.randn(parameter.shape) * (0.15 if "lora_B" in name else parameter.shape[1] ** -0.5)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(adapter[name])
            assert parameter.requires_grad
        log_p = [logprobs(model, sequence) for sequence in sequences]
    for index, value in enumerate(log_p):
        results[f"adapter.logprobs.{index}"] = value
    data = data or random_data(sequences, log_p)

    def loss_and_gradient(loss_name: str) -> torch.Tensor:
        for parameter in parameters.values():
            parameter.grad = None
        total = torch.zeros((), dtype=dtype)
        for sequence, inputs in zip(sequences, data):
            loss = loss_of(loss_name, logprobs(model, sequence), inputs, BOUNDS)
            loss.backward()
            total = total + loss.detach()
        return total

    for name in case.losses:
        results[f"loss.{name}"] = loss_and_gradient(name).reshape(1)
        for key, parameter in parameters.items():
            results[f"gradient.{name}.{key}"] = parameter.grad.clone()

    if candidates:
        for parameter in parameters.values():
            parameter.grad = None
        total = torch.zeros((), dtype=dtype)
        for index, (sequence, (targets, weights)) in enumerate(zip(sequences, candidates)):
            logits = model(input_ids=torch.tensor([sequence["tokens"]]), use_cache=False).logits[0]
            chosen = torch.log_softmax(logits, -1).gather(1, targets)
            loss = -(weights.to(dtype) * chosen).sum()
            loss.backward()
            total = total + loss.detach()
            results[f"candidate_logprobs.{index}"] = chosen.detach()
        results["loss.candidates"] = total.reshape(1)
        for key, parameter in parameters.items():
            results[f"gradient.candidates.{key}"] = parameter.grad.clone()

    settings = case.optimizer
    optimizer = torch.optim.AdamW(parameters.values(), lr=0.0, betas=(settings["beta1"], settings["beta2"]),
                                  eps=settings["eps"], weight_decay=settings["weight_decay"])
    losses, norms = [], []
    for rate in rates:
        losses.append(loss_and_gradient("cross_entropy"))
        limit = settings["grad_clip_norm"] or math.inf
        norms.append(torch.nn.utils.clip_grad_norm_(parameters.values(), limit))
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    results["steps.losses"], results["steps.grad_norms"] = torch.stack(losses), torch.stack(norms)
    with torch.no_grad():
        for key, parameter in parameters.items():
            results[f"after.{key}"] = parameter.clone()
        for index, sequence in enumerate(sequences):
            results[f"after.logprobs.{index}"] = logprobs(model, sequence)
        for key, parameter in parameters.items():
            parameter.copy_(adapter[key])
    return {"results": results, "data": data, "model": model}


def difference(one: Dict[str, torch.Tensor], other: Dict[str, torch.Tensor], wanted: Callable[[str], bool]) -> float:
    """The largest absolute difference between results of the same name."""
    return max((one[key].double() - other[key].double()).abs().max().item() for key in one if wanted(key))


def make(name: str, case: Case, folder: Path, seed: int) -> None:
    """Write one case."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    rng = random.Random(f"{name}/{seed}")
    torch.manual_seed(zlib.crc32(f"{name}/{seed}".encode()))
    write_model(case, folder / "model")
    vocabulary = case.config["vocab_size"]
    sequences = []
    for length in LENGTHS:
        tokens = [rng.randrange(vocabulary) for _ in range(length + 1)]
        sequences.append({"tokens": tokens[:-1], "targets": tokens[1:]})
    rates = [round(0.01 * (1 - step / (2 * STEPS)), 6) for step in range(STEPS)]
    adapter: Dict[str, torch.Tensor] = {}
    candidates = random_candidates(case.candidates, sequences, vocabulary,
                                   zlib.crc32(f"candidates/{name}/{seed}".encode())) if case.candidates else []
    computed = compute(case, folder / "model", torch.float32, adapter, sequences, None, rates, candidates)
    results, data, model = computed["results"], computed["data"], computed["model"]
    precise = compute(case, folder / "model", torch.float64, adapter, sequences, data, rates, candidates)["results"]

    with torch.no_grad():
        best: Optional[Tuple[float, List[int], List[int], List[float]]] = None
        for _ in range(20):
            prompt = [rng.randrange(vocabulary) for _ in range(12)]
            tokens, chosen, margin = greedy(model, prompt)
            if best is None or margin > best[0]:
                best = (margin, prompt, tokens, chosen)
            if margin > 0.1:
                break
        assert best is not None
        margin, prompt, tokens, chosen = best
        prompt_logprobs = logprobs(model, {"tokens": prompt[:-1], "targets": prompt[1:]})

    expected: Dict[str, torch.Tensor] = dict(adapter)
    for index, inputs in enumerate(data):
        for key, value in inputs.items():
            expected[f"{key}.{index}"] = value
    for index, (_, weights) in enumerate(candidates):
        expected[f"candidate_weights.{index}"] = weights
    expected.update(results)
    expected["prompt.logprobs"] = torch.cat([torch.tensor([math.nan]), prompt_logprobs])
    expected["greedy.logprobs"] = torch.tensor(chosen)
    save_file({key: value.detach().float().contiguous() for key, value in expected.items()},
              folder / "expected.safetensors")
    noise = {
        "logprobs": difference(results, precise, lambda key: key.startswith(("base.logprobs", "adapter.logprobs"))),
        "gradients": {loss: difference(results, precise, lambda key: key.startswith(f"gradient.{loss}."))
                      for loss in case.losses},
        "after_logprobs": difference(results, precise, lambda key: key.startswith("after.logprobs")),
        "after_adapter": difference(results, precise, lambda key: key.startswith("after.base_model")),
        "grad_norms": (results["steps.grad_norms"].double() / precise["steps.grad_norms"].double() - 1).abs().max().item(),
    }
    description = {
        "case": name, "seed": seed, "description": case.description,
        "architecture": case.architecture + "ForCausalLM", "weights_dtype": case.dtype,
        "adapter": {"rank": case.rank, "alpha": case.alpha, "target_modules": list(case.targets)},
        "sequences": sequences, "losses": list(case.losses),
        **{key: value for key, value in BOUNDS.items() if key in case.losses},
        **({"candidates": [targets.tolist() for targets, _ in candidates]} if candidates else {}),
        "optimizer": {"learning_rates": rates, **case.optimizer},
        "greedy": {"prompt": prompt, "tokens": tokens, "margin": margin}, "noise": noise,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    (folder / "case.json").write_text(to_json(description))
    largest = max(value.abs().max().item() for key, value in results.items() if key.startswith("gradient.cross"))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{name:22} {size:7,} bytes  loss {results['steps.losses'][0]:9.3f} -> {results['steps.losses'][-1]:9.3f}  "
          f"margin {margin:.3f}  largest gradient {largest:7.2f}  noise: logprobs {noise['logprobs']:.1e} gradient "
          f"{noise['gradients']['cross_entropy']:.1e} adapter after {noise['after_adapter']:.1e} logprobs after "
          f"{noise['after_logprobs']:.1e}", flush=True)


def write_csr(path: Path, seed: int) -> None:
    """Write matrices as CSR and dense: targets and weights of different sparsity, empty rows, an empty matrix."""
    chance = torch.Generator().manual_seed(seed)
    lines = []
    for shape, share in (((4, 6), 0.3), ((5, 3), 0.6), ((3, 4), 0.0), ((1, 7), 1.0)):
        kept = torch.rand(shape, generator=chance) < share
        for dense in (torch.where(kept, torch.randint(1, 1 << 40, shape, generator=chance), 0),
                      torch.where(kept, torch.randn(shape, generator=chance), 0.0)):
            sparse = dense.to_sparse_csr()
            tensor = {"dtype": str(dense.dtype).replace("torch.", ""), "shape": list(shape),
                      "data": sparse.values().tolist(), "sparse_crow_indices": sparse.crow_indices().tolist(),
                      "sparse_col_indices": sparse.col_indices().tolist()}
            lines.append(json.dumps({"tensor": tensor, "dense": dense.flatten().tolist()}))
    path.write_text("[" + ",\n".join(lines) + "]\n")


def to_json(value: Any) -> str:
    """JSON with one line per top-level key."""
    lines = (f"  {json.dumps(key)}: {json.dumps(part)}" for key, part in value.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder to write the cases to")
    parser.add_argument("--csr", type=Path, help="file to write sparse matrices to")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", choices=sorted(CASES), help="make only this case (repeatable)")
    parser.add_argument("--list", action="store_true", help="print the cases and stop")
    arguments = parser.parse_args()
    if arguments.list:
        for name, case in CASES.items():
            print(f"{name:22} {case.description}")
        return
    if arguments.csr is not None:
        write_csr(arguments.csr, arguments.seed)
        return
    if arguments.out is None:
        parser.error("--out or --csr is needed")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name, case in CASES.items():
        if not arguments.only or name in arguments.only:
            make(name, case, arguments.out / name, arguments.seed)


if __name__ == "__main__":
    main()
