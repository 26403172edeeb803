"""Over a hundred bad requests: each is refused with a 4xx that names the field, and the run is not affected."""

from __future__ import annotations

import base64
import copy
import json
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, List, Optional, Tuple

from harness import adapter, holds, results, same, server, train

KEY, OTHER = "tml-one-key-of-alice", "tml-another-key-of-bob"


def call(url: str, method: str, path: str, body: Any, key: Optional[str] = KEY, content_type: str = "application/json") -> Tuple[int, Any]:
    """Status and JSON of one request; `body` is sent as it is when it is bytes. A path below `/v1` is one of OpenAI's clients."""
    data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    request = urllib.request.Request(url + ("" if path.startswith("/v1/") else "/api/v1") + path, data=data, method=method)
    if key is not None:
        request.add_header("X-API-Key", key)
    if data is not None:
        request.add_header("Content-Type", content_type)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
            return answer.status, json.loads(text) if text else {}
    except urllib.error.HTTPError as problem:
        text = problem.read()
        try:
            return problem.code, json.loads(text)
        except ValueError:
            raise SystemExit(f"✗ {method} {path}: {problem.code} without JSON: {text[:200]!r}")


def put(body: Any, path: str, value: Any) -> Any:
    """A copy of `body` with the value at a dotted path (numbers index lists) replaced; `...` removes it."""
    out = copy.deepcopy(body)
    *parents, last = [int(p) if p.isdigit() else p for p in path.split(".")]
    at = out
    for parent in parents:
        at = at[parent]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return out


def cases(run: str, session: str, others_run: str) -> List[Tuple[str, str, Any, str]]:
    """Bad requests: method and path, body, and the word that the answer's field must hold."""
    tensor = {"dtype": "float32", "shape": [3], "data": [1.0, 1.0, 1.0]}
    good = {"model_id": run, "seq_id": 900, "forward_backward_input": {
        "data": [{"model_input": {"chunks": [{"type": "encoded_text", "tokens": [1, 2, 3]}]},
                  "loss_fn_inputs": {"target_tokens": {"dtype": "int64", "shape": [3], "data": [2, 3, 4]}, "weights": tensor}}],
        "loss_fn": "cross_entropy"}}
    rl = put(good, "forward_backward_input.loss_fn", "ppo")
    rl["forward_backward_input"]["data"][0]["loss_fn_inputs"] = {
        "target_tokens": {"dtype": "int64", "shape": [3], "data": [2, 3, 4]}, "logprobs": tensor, "advantages": tensor}
    step = {"model_id": run, "seq_id": 901, "adam_params": {"learning_rate": 1e-3}}
    save = {"model_id": run, "seq_id": 902, "path": "fine"}
    load = {"model_id": run, "seq_id": 903, "path": f"bios://{run}/good"}
    model = {"session_id": session, "model_seq_id": 77, "base_model": "bios/tiny", "lora_config": {"rank": 4}}
    sampler = {"session_id": session, "sampling_session_seq_id": 500, "base_model": "bios/tiny"}
    sample = {"sampling_session_id": f"{session}:sample:0", "seq_id": 5, "prompt": {"chunks": [{"type": "encoded_text", "tokens": [1, 2]}]},
              "sampling_params": {"max_tokens": 2}, "num_samples": 1}
    fb, d = "forward_backward_input", "forward_backward_input.data.0"
    inputs, chunk = d + ".loss_fn_inputs", d + ".model_input.chunks.0"

    out: List[Tuple[str, str, Any, str]] = []

    def bad(where: str, body: Any, *changes: Tuple[str, Any, str]) -> None:
        for path, value, word in changes:
            out.append(("POST", where, put(body, path, value), word))

    bad("/forward_backward", good,
        ("model_id", ..., "model_id"), ("model_id", 7, "model_id"), ("model_id", "", "model_id"), ("model_id", "no-such", "model_id"),
        ("model_id", "bios-tiny-0123456789abcdef", "model_id"), ("model_id", "x" * 5000, "model_id"), ("model_id", others_run, "model_id"),
        ("model_id", "../../etc/passwd", "model_id"), ("seq_id", ..., "seq_id"), ("seq_id", -1, "seq_id"), ("seq_id", 1.5, "seq_id"),
        ("seq_id", "1", "seq_id"), ("seq_id", 2 ** 63, "seq_id"), ("seq_id", True, "seq_id"), ("seq_id", [], "seq_id"),
        (fb, ..., fb), (fb, [], fb), (fb, "x", fb), (fb + ".data", [], "data"), (fb + ".data", {}, "data"), (fb + ".data", None, "data"),
        (fb + ".data.0", 3, "data[0]"), (fb + ".loss_fn", ..., "loss_fn"), (fb + ".loss_fn", "mse", "loss_fn"), (fb + ".loss_fn", 1, "loss_fn"),
        (fb + ".loss_fn_config", {"x": 1.0}, "loss_fn_config"), (fb + ".loss_fn_config", [1], "loss_fn_config"), (fb + ".surprise", 1, "surprise"),
        ("surprise", 1, "surprise"), (d + ".surprise", 1, "surprise"), (d + ".model_input", ..., "model_input"), (d + ".model_input", [1], "model_input"),
        (d + ".model_input.chunks", [], "model_input"), (d + ".model_input.chunks", 5, "chunks"), (d + ".model_input.surprise", 5, "surprise"),
        (chunk + ".type", "image", "type"), (chunk + ".tokens", [], "token"), (chunk + ".tokens", ["a"], "tokens"),
        (chunk + ".tokens", [1, 2, -3], "tokens"), (chunk + ".tokens", [1, 2, 10 ** 7], "tokens"), (chunk + ".tokens", [1, 2, 2.5], "tokens"),
        (chunk + ".tokens", [1, 2, 2 ** 40], "tokens"), (chunk + ".tokens", [1] * 5000, "model_input"), (chunk + ".surprise", 1, "surprise"),
        (inputs, ..., "loss_fn_inputs"), (inputs, [], "loss_fn_inputs"), (inputs + ".target_tokens", ..., "target_tokens"),
        (inputs + ".masks", tensor, "masks"), (inputs + ".target_tokens", tensor, "target_tokens"), (inputs + ".target_tokens.data", [2, 3], "target_tokens"),
        (inputs + ".target_tokens.data", [2, 3, 10 ** 9], "target_tokens"), (inputs + ".target_tokens.data", [2, 3, -4], "target_tokens"),
        (inputs + ".target_tokens.shape", [4], "target_tokens"), (inputs + ".target_tokens.shape", [-3], "target_tokens"),
        (inputs + ".target_tokens.shape", [3, 1], "weights"), (inputs + ".target_tokens.shape", [1, 3], "target_tokens"),
        (inputs + ".target_tokens", {"dtype": "int64", "shape": [3, 0], "data": []}, "target_tokens"),
        (inputs + ".target_tokens", {"dtype": "int64", "shape": [3, 2], "data": [2, 3, 4, 5, 10 ** 9, 7]}, "target_tokens"),
        (inputs + ".clip_low_threshold", tensor, "clip_low_threshold"),
        (inputs + ".target_tokens.shape", "3", "target_tokens"), (inputs + ".target_tokens.dtype", "int8", "dtype"),
        (inputs + ".target_tokens.dtype", ..., "dtype"), (inputs + ".target_tokens.data", "2,3,4", "target_tokens"),
        (inputs + ".weights.data", [1.0, "a", 2.0], "weights"), (inputs + ".weights.data", [1.0, 1.0, 1e300], "weights"),
        (inputs + ".weights.data", [[1.0], 1.0, 1.0], "weights"), (inputs + ".weights", {"dtype": "float32", "shape": [3], "data_base64": "!!"}, "weights"),
        (inputs + ".weights", {"dtype": "float32", "shape": [3], "data_base64": base64.b64encode(b"1234").decode()}, "weights"),
        (inputs + ".weights", {"dtype": "float32", "data_base64": base64.b64encode(b"\0" * 12).decode()}, "weights"),
        (inputs + ".weights.surprise", 1, "surprise"), (inputs + ".weights", 1, "weights"),
        (inputs + ".weights", {"dtype": "float32", "shape": [3], "data_base64": base64.b64encode(b"\0\0\xc0\x7f" * 3).decode()}, "weights"))
    bad("/forward_backward", rl,
        (inputs + ".logprobs", ..., "logprobs"), (inputs + ".advantages", ..., "advantages"), (inputs + ".weights", tensor, "weights"),
        (fb + ".loss_fn_config", {"clip_low_threshold": "a"}, "clip_low_threshold"),
        (fb + ".loss_fn_config", {"clip_low_threshold": 1.5, "clip_high_threshold": 1.2}, "clip_low_threshold"),
        (inputs + ".clip_low_threshold", {"dtype": "float32", "data": [0.5, 1.5, 0.5]}, "clip_low_threshold"),
        (inputs + ".clip_high_threshold", {"dtype": "float32", "data": [1.5, 0.5, 1.5]}, "clip_high_threshold"),
        (inputs + ".clip_high_threshold", {"dtype": "float32", "data": [1.5]}, "clip_high_threshold"),
        (inputs + ".target_tokens.shape", [3, 1], "target_tokens"),
        (fb + ".loss_fn_config", {"epsilon": 0.2}, "epsilon"))
    bad("/optim_step", step,
        ("adam_params", 5, "adam_params"), ("adam_params.learning_rate", -1.0, "learning_rate"), ("adam_params.learning_rate", "fast", "learning_rate"),
        ("adam_params.beta1", 1.0, "beta1"), ("adam_params.beta2", -0.1, "beta2"), ("adam_params.eps", -1e-8, "eps"),
        ("adam_params.weight_decay", -1, "weight_decay"), ("adam_params.grad_clip_norm", -1, "grad_clip_norm"),
        ("adam_params.lr", 0.1, "lr"), ("adam_params.learning_rate", 1e999, ""), ("seq_id", None, "seq_id"))
    bad("/save_weights", save,
        ("path", ..., "path"), ("path", "", "path"), ("path", "a/b", "path"), ("path", "../up", "path"), ("path", "weights", "path"),
        ("path", "sampler_weights", "path"), ("path", ".hidden", "path"), ("path", "x" * 129, "path"), ("path", 5, "path"), ("path", "naïve", "path"),
        ("path", "a b", "path"), ("ttl_seconds", 0, "ttl_seconds"), ("ttl_seconds", -5, "ttl_seconds"), ("ttl_seconds", 1.5, "ttl_seconds"),
        ("metadata", [1], "metadata"), ("metadata", "x", "metadata"), ("surprise", 1, "surprise"))
    bad("/save_weights_for_sampler", save, ("path", ..., "path"), ("path", "a/b", "path"), ("sampling_session_seq_id", -1, "sampling_session_seq_id"))
    bad("/load_weights", load,
        ("path", ..., "path"), ("path", "good", "path"), ("path", "bios://", "path"), ("path", f"bios://{run}", "path"),
        ("path", f"bios://{run}/a/b/c", "path"), ("path", f"bios://{run}/other/good", "path"), ("path", f"http://{run}/good", "path"),
        ("path", "bios://Run/good", "path"), ("optimizer", "yes", "optimizer"), ("weights_access_token", 5, "weights_access_token"),
        ("weights_access_token", "tml-nobodys-key", "weights_access_token"))
    bad("/create_model", model,
        ("session_id", ..., "session_id"), ("session_id", str(uuid.uuid4()), "session_id"), ("model_seq_id", -1, "model_seq_id"),
        ("base_model", ..., "base_model"), ("base_model", "no/such", "base_model"), ("base_model", "a b", "base_model"),
        ("lora_config.rank", 0, "rank"), ("lora_config.rank", 257, "rank"), ("lora_config.rank", "8", "rank"), ("lora_config.rank", 8.5, "rank"),
        ("lora_config.alpha", 0, "alpha"), ("lora_config.alpha", -1, "alpha"), ("lora_config.target_modules", [], "target_modules"),
        ("lora_config.target_modules", ["q"], "target_modules"), ("lora_config.dropout", 0.1, "dropout"), ("lora_config", 5, "lora_config"),
        ("lora_config", {"train_mlp": False, "train_attn": False, "train_unembed": False}, "train_"), ("lora_config.seed", "a", "seed"),
        ("user_metadata", 5, "user_metadata"))
    bad("/create_sampling_session", sampler,
        ("base_model", ..., "model"), ("base_model", "no/such", "base_model"), ("model_path", f"bios://{run}/good", "model"),
        ("session_id", "nope", "session_id"), ("sampling_session_seq_id", "a", "sampling_session_seq_id"))
    bad("/asample", sample,
        ("sampling_session_id", ..., "sampling_session_id"), ("sampling_session_id", "nope", "sampling_session_id"), ("prompt", ..., "prompt"),
        ("prompt", "hello", "prompt"), ("prompt.chunks.0.tokens", [], "token"), ("prompt.chunks.0.tokens", [10 ** 6], "tokens"),
        ("sampling_params.max_tokens", 0, "max_tokens"), ("sampling_params.max_tokens", 10 ** 6, "max_tokens"),
        ("sampling_params.temperature", -1, "temperature"), ("sampling_params.top_p", 0, "top_p"), ("sampling_params.top_p", 1.5, "top_p"),
        ("sampling_params.top_k", 0, "top_k"), ("sampling_params.stop", [""], "stop"), ("sampling_params.stop", {"a": 1}, "stop"),
        ("sampling_params.seed", "x", "seed"), ("sampling_params.surprise", 1, "surprise"), ("num_samples", 0, "num_samples"),
        ("num_samples", 10 ** 6, "num_samples"), ("topk_prompt_logprobs", -1, "topk_prompt_logprobs"))
    out += [("POST", "/retrieve_future", b, "request_id") for b in ({}, {"request_id": 5}, {"request_id": "x"}, {"request_id": f"{run}:424242"},
                                                                    {"request_id": f"{others_run}:1"})]
    out += [("POST", "/get_info", {"model_id": others_run}, "model_id"), ("POST", "/weights_info", {"tinker_path": "x"}, "path"),
            ("POST", "/weights_info", {}, "path"), ("POST", "/tokenize", {"base_model": "bios/tiny"}, "text"),
            ("POST", "/detokenize", {"base_model": "bios/tiny", "tokens": [10 ** 8]}, "tokens"),
            ("GET", f"/training_runs/{others_run}", None, ""), ("GET", f"/training_runs/{others_run}/checkpoints", None, ""),
            ("GET", f"/training_runs/{run}/checkpoints/weights/none/archive", None, ""), ("GET", "/training_runs?limit=-1", None, "limit"),
            ("GET", "/training_runs?limit=many", None, "limit"), ("DELETE", f"/training_runs/{others_run}/checkpoints/weights/good", None, ""),
            ("DELETE", f"/training_runs/{run}/checkpoints/weights/none", None, ""), ("GET", "/nothing", None, ""),
            ("PUT", f"/training_runs/{run}/checkpoints/weights/good/ttl", {"ttl_seconds": 0}, "ttl_seconds"),
            ("GET", f"/training_runs/{run}/checkpoints/weights/none", None, ""), ("GET", "/sessions?access_scope=all", None, "access_scope"),
            ("GET", f"/training_runs/{others_run}/checkpoints/weights/good?access_scope=accessible", None, ""),
            ("GET", "/forward_backward", None, ""), ("DELETE", "/optim_step", None, "")]
    for text in (b"", b"{", b"[]", b"5", b"null", b'{"a": NaN}', b"\xff\xfe", b'{"model_id": "a", "model_id": "b"}', json.dumps(step).encode() + b"x",
                 b"[" * 100000, b'{"seq_id": 1e400}'):
        out.append(("POST", "/optim_step", text, ""))
    return out


def of_openai(run: str, others_run: str) -> Tuple[List[Tuple[str, str, Any, str]], List[Tuple[str, Any]]]:
    """The same of OpenAI's endpoints, and requests that are good, some of them just so."""
    text = {"model": "bios/tiny", "prompt": [1, 2], "max_tokens": 2}
    chat = {"model": "bios/tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
    out: List[Tuple[str, str, Any, str]] = []
    for body, path, own in ((text, "/v1/completions", "prompt"), (chat, "/v1/chat/completions", "messages")):
        for field, value, word in (
                ("model", ..., "model"), ("model", 7, "model"), ("model", "gpt-x", "model"), ("model", "bios://x", "model"),
                ("model", f"bios://{others_run}/sampler_weights/good", "model"), ("model", f"bios://{run}/sampler_weights/none", "model"),
                (own, ..., own), (own, None, own), (own, {}, own), (own, [], own), ("max_tokens", 0, "max_tokens"), ("max_tokens", 2.5, "max_tokens"),
                ("max_tokens", 10 ** 6, "max_tokens"), ("n", 0, "n"), ("n", 10 ** 6, "n"), ("temperature", -1, "temperature"),
                ("temperature", "hot", "temperature"), ("top_p", 0, "top_p"), ("top_p", 1.5, "top_p"), ("top_k", -2, "top_k"), ("seed", "x", "seed"),
                ("seed", 2 ** 64, "seed"), ("stop", [""], "stop"), ("stop", {"a": 1}, "stop"), ("stop", ["x" * 5000], "stop"), ("stream", "yes", "stream"),
                ("stream_options", {"include_usage": True}, "stream_options"), ("logit_bias", {"3": 1}, "logit_bias"),
                ("presence_penalty", 0.5, "presence_penalty"), ("frequency_penalty", 0.5, "frequency_penalty"), ("surprise", 1, "surprise")):
            out.append(("POST", path, put(body, field, value) if field in body else {**body, field: value}, word))
        out += [("POST", path, bad, "") for bad in (b"", b"{", b"[]", b"null")] + [("GET", path, None, "")]
    out += [("POST", "/v1/completions", {**text, **more}, word) for more, word in (
        ({"prompt": [1, 10 ** 6]}, "prompt[1]"), ({"prompt": [1, "a"]}, "prompt[1]"), ({"prompt": [[1], []]}, "prompt[1]"), ({"prompt": ""}, "prompt"),
        ({"prompt": [1] * 5000}, "prompt"), ({"logprobs": 21}, "logprobs"), ({"echo": 1}, "echo"), ({"best_of": 2}, "best_of"),
        ({"suffix": "x"}, "suffix"))]
    out += [("POST", "/v1/chat/completions", {**chat, **more}, word) for more, word in (
        ({"messages": [{"content": "a"}]}, "messages[0].role"), ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"), ({"logprobs": 3}, "logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"), ({"tools": [{"type": "function"}]}, "tools"), ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"chat_template_kwargs": 3}, "chat_template_kwargs"), ({"max_completion_tokens": 10 ** 6}, "max_completion_tokens"))]
    out += [("POST", "/v1/messages", put(chat, field, value) if field in chat else {**chat, field: value}, word) for field, value, word in (
        ("model", ..., "model"), ("model", "gpt-x", "model"), ("max_tokens", ..., "max_tokens"), ("max_tokens", 0, "max_tokens"), ("messages", [], "messages"),
        ("messages", [{"role": "system", "content": "a"}], "messages[0].role"), ("messages", [{"role": "assistant", "content": "a"}], "messages[0].role"),
        ("system", 7, "system"), ("stop_sequences", [""], "stop_sequences"), ("tools", [{"name": "x"}], "tools"), ("surprise", 1, "surprise"))]
    out += [("GET", "/v1/models/none", None, "model"), ("POST", "/v1/models", {}, ""), ("POST", "/v1/embeddings", {}, "")]
    neutral = {"user": "me", "metadata": {"a": "b"}, "store": False, "presence_penalty": 0, "logit_bias": {}, "stop": None, "seed": -1}
    good = [("/v1/completions", {**text, **more}) for more in (
        {}, neutral, {"prompt": "hello"}, {"prompt": ["a", [1, 2]]}, {"n": 2, "seed": 2 ** 64 - 1}, {"temperature": 0, "logprobs": 20},
        {"echo": True, "logprobs": 1, "max_tokens": 0},
        {"model": f"bios://{run}/sampler_weights/drawn"}, {"echo": True}, {"stop": ["a", "b"]}, {"best_of": 1, "suffix": ""})]
    good += [("/v1/chat/completions", {**chat, **more}) for more in (
        {}, neutral, {"logprobs": True, "top_logprobs": 20}, {"max_completion_tokens": 1}, {"tools": [], "tool_choice": "none"},
        {"messages": [{"role": "developer", "content": [{"type": "text", "text": "a"}]}, {"role": "user", "content": "b", "name": "me"}]},
        {"response_format": {"type": "text"}, "chat_template_kwargs": {"deep": [1, {"a": None}]}})]
    good += [("/v1/messages", {**chat, **more}) for more in ({}, {"system": "be brief", "stop_sequences": ["x"], "top_k": 5, "metadata": {"user_id": "me"}})]
    return out, good


def check(url: str, refused: List[Tuple[str, str, Any, str]]) -> None:
    """Sends each and looks at the answer; 4xx, a code, a message, and the field's name."""
    wrong = []
    for method, path, body, word in refused:
        status, answer = call(url, method, path, body)
        error = answer["error"] if isinstance(answer.get("error"), dict) else answer
        named = str(error.get("field") or error.get("param") or "") + " " + str(error.get("message") or "")
        if not 400 <= status < 500 or not answer.get("error") or not error.get("message") or word not in named:
            shown = body if isinstance(body, bytes) else json.dumps(body)
            wrong.append(f"{method} {path} {shown[:160]!r}: {status} {json.dumps(answer)[:200]} (expected '{word}')")
    if wrong:
        raise SystemExit("✗ of %d bad requests, %d were answered wrongly:\n  %s" % (len(refused), len(wrong), "\n  ".join(wrong)))
    print(f"✓ {len(refused)} bad requests, each a 4xx that names its field", flush=True)


def main() -> None:
    with TemporaryDirectory() as folder:
        keys = Path(folder, "keys")
        keys.write_text(f"# accounts\nalice {KEY}\nbob {OTHER}\n")
        with server(arguments=["--keys", str(keys)]) as running:
            alice, bob = running.client(KEY), running.client(OTHER)
            run = alice.create_lora_training_client(base_model="bios/tiny", rank=4, seed=1)
            quiet = alice.create_lora_training_client(base_model="bios/tiny", rank=4, seed=1)
            theirs = bob.create_lora_training_client(base_model="bios/tiny", rank=4, seed=1)
            results(train(theirs, range(1)))
            theirs.save_state("good").result()
            results(train(run, range(2)))
            run.save_state("good").result()

            session = str(uuid.uuid4())
            holds("a session opens", call(running.url, "POST", "/create_session", {"session_id": session})[0] == 200)
            holds("a sampler opens", call(running.url, "POST", "/create_sampling_session", {
                "session_id": session, "sampling_session_seq_id": 0, "base_model": "bios/tiny"})[0] == 200)
            refused = cases(run.model_id, session, theirs.model_id)
            holds("there are over a hundred", len(refused) > 100)
            check(running.url, refused)
            run.save_weights_for_sampler("drawn").result()
            refused, good = of_openai(run.model_id, theirs.model_id)
            check(running.url, refused)
            for path, body in good:
                status, answer = call(running.url, "POST", path, body)
                if status != 200 or not (answer.get("choices") or answer.get("content") is not None):
                    raise SystemExit(f"✗ POST {path} {json.dumps(body)}: {status} {json.dumps(answer)[:300]}")
            holds(f"{len(good)} good requests of OpenAI's clients are answered", True)
            holds("an unknown key is 401", call(running.url, "GET", "/training_runs", None, key="tml-wrong")[0] == 401)
            holds("a missing key is 401", call(running.url, "GET", "/training_runs", None, key=None)[0] == 401)
            holds("plain text is 415", call(running.url, "POST", "/optim_step", b"{}", content_type="text/plain")[0] == 415)
            status, _ = call(running.url, "POST", "/load_weights", {"model_id": run.model_id, "seq_id": 950, "path": f"bios://{theirs.model_id}/good"})
            holds("another account's checkpoint is refused, at once or by its future", status in (200, 202, 404))
            if status < 300:
                _, answer = call(running.url, "POST", "/retrieve_future", {"request_id": f"{run.model_id}:950"})
                holds("its future fails as the user's mistake", answer.get("category") == "user" and "error" in answer)

            results(train(quiet, range(2)))
            same("afterwards the run trains on as if nothing had come", results(train(run, range(2, 5))), results(train(quiet, range(2, 5))))
            same("its adapter too", adapter(alice, run, "end"), adapter(alice, quiet, "end"))


if __name__ == "__main__":
    main()
