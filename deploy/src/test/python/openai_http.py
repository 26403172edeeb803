"""The endpoints of OpenAI's clients against `bios up` with a real engine, by plain HTTP and without any package.

Whole and streamed answers are the same, tokens arrive while they are drawn, they are those that `asample` draws with the
same seed, a checkpoint is served by its path, a client that leaves ends its request, and one that does not read hurts
nobody.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
from typing import Any, Dict, Iterator, List, Optional, Tuple

from harness import NAME, holds, page, same, server, train, until
from bios import types

TURNS = [{"role": "user", "content": "Tell me a story about a fox. "}]


def call(port: int, path: str, body: Optional[Dict[str, Any]] = None) -> Tuple[int, Any]:
    """Status and JSON of a request."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    headers = {"Authorization": "Bearer any", "Content-Type": "application/json"}
    client.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body), headers)
    answer = client.getresponse()
    return answer.status, json.loads(answer.read())


def events(port: int, path: str, body: Dict[str, Any]) -> Iterator[Any]:
    """The events of a streamed answer; the last one is `[DONE]`."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    client.request("POST", path, json.dumps({**body, "stream": True}), {"Content-Type": "application/json"})
    answer = client.getresponse()
    assert answer.status == 200, answer.read()
    assert answer.headers["Content-Type"].startswith("text/event-stream"), answer.headers["Content-Type"]
    try:
        for line in answer:
            text = line.decode().rstrip("\n")
            if text.startswith("data: "):
                yield text[6:] if text == "data: [DONE]" else json.loads(text[6:])
    finally:
        answer.close()
        client.close()


def streamed(port: int, path: str, body: Dict[str, Any]) -> Tuple[List[str], List[Any], Dict[str, Any]]:
    """The texts of the choices, all events, and the numbers of tokens."""
    all_events = list(events(port, path, {**body, "stream_options": {"include_usage": True}}))
    assert all_events[-1] == "[DONE]", all_events[-1]
    texts = [""] * body.get("n", 1)
    for event in all_events[:-1]:
        for choice in event["choices"]:
            texts[choice["index"]] += choice["text"] if "text" in choice else choice["delta"].get("content", "")
    return texts, all_events[:-2], all_events[-2]["usage"]


def whole_and_streamed(port: int) -> None:
    """The same request in both forms."""
    chat = {"model": NAME, "messages": TURNS, "max_tokens": 60, "seed": 5, "n": 2, "temperature": 0.8}
    status, answer = call(port, "/v1/chat/completions", chat)
    same("a chat is answered", (status, answer.get("object")), (200, "chat.completion"))
    texts, pieces, usage = streamed(port, "/v1/chat/completions", chat)
    same("the streamed texts are the whole ones", texts, [c["message"]["content"] for c in answer["choices"]])
    same("so are the numbers of tokens", usage, answer["usage"])
    holds(f"they come in parts ({len(pieces)})", len(pieces) > 10)
    stop = texts[0][10:14]
    cut = {**chat, "stop": [stop], "n": 1}
    same("a stop string ends the text before it", call(port, "/v1/chat/completions", cut)[1]["choices"][0]["message"]["content"],
         texts[0][:texts[0].index(stop)])
    same("also in a stream", streamed(port, "/v1/chat/completions", cut)[0][0], texts[0][:texts[0].index(stop)])


def tops(choice: Any) -> List[List[float]]:
    """The three largest log-probabilities at each place of a completion, which also has that of the token there."""
    return [sorted((top or {}).values(), reverse=True)[:3] for top in choice["logprobs"]["top_logprobs"]]


def as_asample(port: int, service: Any) -> None:
    """Tokens and log-probabilities are those of the sampler."""
    prompt = service.create_sampling_client(base_model=NAME)
    tokens = [5, 300, 17, 42]
    drawn = prompt.sample(types.ModelInput.from_ints(tokens), types.SamplingParams(max_tokens=12, seed=9, temperature=0.7),
                          include_prompt_logprobs=True, topk_prompt_logprobs=3, topk_sample_logprobs=3).result()
    body = {"model": NAME, "prompt": tokens, "max_tokens": 12, "seed": 9, "temperature": 0.7, "logprobs": 3}
    status, answer = call(port, "/v1/completions", body)
    same("a completion of tokens is answered", status, 200)
    choice = answer["choices"][0]
    own = drawn.sequences[0].model_logprobs or drawn.sequences[0].logprobs
    same("its log-probabilities are those of the model to the bit", choice["logprobs"]["token_logprobs"],
         list(own)[:len(choice["logprobs"]["tokens"])])
    same("the most likely tokens too", tops(choice), [[p for _, p in row] for row in drawn.sequences[0].topk_logprobs])
    echoed = call(port, "/v1/completions", {**body, "echo": True})[1]["choices"][0]
    same("and those of the prompt", tops(echoed)[:4], [[p for _, p in row or []] for row in drawn.topk_prompt_logprobs])
    same("and what was drawn behind it", tops(echoed)[4:], tops(choice))
    same("with its log-probabilities", echoed["logprobs"]["token_logprobs"], drawn.prompt_logprobs + list(own))
    same("its tokens are its text", "".join(choice["logprobs"]["tokens"])[:len(choice["text"])], choice["text"])
    same("several prompts, several choices", [c["index"] for c in call(port, "/v1/completions", {
        **body, "prompt": ["One day", "A fox"], "n": 2})[1]["choices"]], [0, 1, 2, 3])


def checkpoint(port: int, service: Any) -> None:
    """A checkpoint by its path."""
    run = service.create_lora_training_client(base_model=NAME, rank=4, seed=1)
    for future in train(run, range(3), learning_rate=3e-2):
        future.result()
    path = run.save_weights_for_sampler("served").result().path
    chat = {"messages": TURNS, "max_tokens": 20, "temperature": 0}
    base = call(port, "/v1/chat/completions", {**chat, "model": NAME})[1]["choices"][0]["message"]["content"]
    tuned = call(port, "/v1/chat/completions", {**chat, "model": path})[1]["choices"][0]["message"]["content"]
    holds("a checkpoint gives another text than its base model", base != tuned)
    tinker = path.replace("bios://", "tinker://")
    same("by either scheme", call(port, "/v1/chat/completions", {**chat, "model": tinker})[1]["choices"][0]["message"]["content"], tuned)
    listed = [model["id"] for model in call(port, "/v1/models")[1]["data"]]
    holds("both are listed", NAME in listed and path in listed)
    same("a model is described", call(port, f"/v1/models/{path}")[1]["id"], path)
    status, problem = call(port, "/v1/chat/completions", {**chat, "model": path + "x"})
    same("another name is not found", (status, problem["error"]["code"], problem["error"]["param"]), (404, "model_not_found", "model"))


def leaves(running: Any, port: int) -> None:
    """Clients that leave, or do not read."""
    def busy() -> float:
        found = re.search(r"^bios_engine_sampling_sequences ([0-9.]+)", page(running, "/metrics")[1], re.M)
        return float(found.group(1)) if found else -1

    long = {"model": NAME, "prompt": [7] * 20, "max_tokens": 1000, "n": 64, "temperature": 1.5}
    reader = events(port, "/v1/completions", long)
    next(reader)
    holds("a long request is at work", busy() > 0)
    reader.close()
    until("it ends when its client has left", lambda: busy() == 0, 30)
    deaf = socket.create_connection(("127.0.0.1", port))
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    body = json.dumps({"model": NAME, "prompt": [7], "max_tokens": 200, "n": 16, "stream": True, "logprobs": 0}).encode()
    deaf.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    same("a client that does not read hurts nobody", call(port, "/v1/completions", {"model": NAME, "prompt": [1], "max_tokens": 3})[0], 200)
    deaf.close()


def refused(port: int) -> None:
    """Errors have OpenAI's form."""
    bad = {"model": NAME, "messages": TURNS}
    for field, value in {"tools": [{"type": "function"}], "top_logprobs": 21, "response_format": {"type": "json_object"}, "colour": 1,
                         "temperature": -1, "n": 0, "messages": []}.items():
        status, problem = call(port, "/v1/chat/completions", {**bad, "logprobs": True, field: value})
        same(f"{field} is refused by its name", (status, problem["error"]["param"], problem["error"]["type"]),
             (400, field, "invalid_request_error"))
    status, problem = call(port, "/v1/completions", {"model": NAME, "prompt": ["A fox", [7] * 100_000]})
    same("a prompt of several is named", (status, problem["error"]["param"], problem["error"]["code"]),
         (400, "prompt[1]", "context_length_exceeded"))


def main() -> None:
    with server() as running:
        whole_and_streamed(running.port)
        as_asample(running.port, running.client())
        checkpoint(running.port, running.client())
        refused(running.port)
        leaves(running, running.port)


if __name__ == "__main__":
    main()
