"""The unmodified `openai` package against `bios up`: models, completions and chats, whole and streamed, sync and async.

Needs the package `openai`; without it the check says so and is skipped.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, List

try:
    import openai
except ImportError as missing:
    print(f"skipped: the package openai is not installed ({missing})")
    sys.exit(0)

from harness import NAME, holds, same, server, train

TURNS: Any = [{"role": "user", "content": "Tell me a story about a fox. "}]


def models(client: Any) -> None:
    """The list and one of it."""
    holds("the base model is listed", NAME in [model.id for model in client.models.list()])
    same("a model is retrieved", client.models.retrieve(NAME).id, NAME)


def chats(client: Any) -> None:
    """Whole, streamed, with the helper of the package, and as raw response."""
    asked = dict(model=NAME, messages=TURNS, max_tokens=40, seed=3, temperature=0.7)
    whole = client.chat.completions.create(**asked, logprobs=True, n=2, user="me", metadata={"a": "b"})
    same("two choices", [choice.index for choice in whole.choices], [0, 1])
    text = whole.choices[0].message.content
    same("the tokens are the text", "".join(t.token for t in whole.choices[0].logprobs.content), text)
    same("the bytes are the text", bytes(b for t in whole.choices[0].logprobs.content for b in t.bytes).decode(), text)
    holds("log-probabilities are at most 0", all(t.logprob <= 0 for t in whole.choices[0].logprobs.content))
    turns = [*TURNS, whole.choices[0].message.model_dump(), *TURNS]
    holds("the message of an answer goes back as it is",
          client.chat.completions.create(model=NAME, messages=turns, max_tokens=5).usage.completion_tokens > 0)
    parts = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    same("the streamed text is the whole one", "".join(p.choices[0].delta.content or "" for p in parts if p.choices), text)
    same("a finish reason", parts[-2].choices[0].finish_reason, whole.choices[0].finish_reason)
    holds("the numbers of tokens come last", parts[-1].usage.total_tokens > 10 and not parts[-1].choices)
    holds("in many parts", len(parts) > 10)
    if hasattr(client.chat.completions, "stream"):
        with client.chat.completions.stream(**asked) as stream:
            for _ in stream:
                pass
            # What reached its length is no final completion for the helper, but collected it is.
            same("the helper collects the same", stream.current_completion_snapshot.choices[0].message.content, text)
    raw = client.chat.completions.with_raw_response.create(**asked)
    holds("a request id", bool(raw.headers["x-request-id"]))
    stop = text[8:12]
    same("a stop string", client.chat.completions.create(**asked, stop=[stop]).choices[0].message.content, text[:text.index(stop)])


def completions(client: Any) -> None:
    """Prompts of all forms."""
    for prompt in ("A fox", ["A fox", "One day"], [5, 6, 7], [[5, 6], [7]]):
        answer = client.completions.create(model=NAME, prompt=prompt, max_tokens=8, logprobs=0, seed=1)
        holds(f"a completion of {prompt}", len(answer.choices[0].logprobs.tokens) > 0 and answer.usage.completion_tokens > 0)
    greedy = client.completions.create(model=NAME, prompt="A fox", max_tokens=8, logprobs=1, temperature=0, echo=False)
    same("the most likely token is the drawn one", list(greedy.choices[0].logprobs.top_logprobs[0]), greedy.choices[0].logprobs.tokens[:1])
    parts = list(client.completions.create(model=NAME, prompt="A fox", max_tokens=30, temperature=0, stream=True))
    same("streamed", "".join(p.choices[0].text for p in parts),
         client.completions.create(model=NAME, prompt="A fox", max_tokens=30, temperature=0).choices[0].text)
    same("echo", client.completions.create(model=NAME, prompt="A fox", max_tokens=1, echo=True).choices[0].text[:5], "A fox")


def checkpoints(client: Any, service: Any) -> None:
    """A checkpoint as the model."""
    run = service.create_lora_training_client(base_model=NAME, rank=4, seed=1)
    for future in train(run, range(2), learning_rate=3e-2):
        future.result()
    path = run.save_weights_for_sampler("served").result().path
    same("a checkpoint is retrieved", client.models.retrieve(path).id, path)
    holds("a checkpoint chats", bool(client.chat.completions.create(model=path, messages=TURNS, max_tokens=5).usage.completion_tokens))


def errors(client: Any) -> None:
    """The exceptions of the package, with the field."""
    def refused(kind: Any, **more: Any) -> Any:
        try:
            client.chat.completions.create(**{"model": NAME, "messages": TURNS, **more})
        except kind as error:
            return error
        raise SystemExit(f"✗ {more} was accepted")

    same("an unknown model", refused(openai.NotFoundError, model="gpt-x").code, "model_not_found")
    same("tools", refused(openai.BadRequestError, tools=[{"type": "function", "function": {"name": "f"}}]).param, "tools")
    same("top_logprobs", refused(openai.BadRequestError, logprobs=True, top_logprobs=2).param, "top_logprobs")
    same("too long", refused(openai.BadRequestError, max_tokens=5000).code, "context_length_exceeded")
    same("a wrong temperature", refused(openai.BadRequestError, temperature=-1).param, "temperature")


async def at_once(url: str) -> None:
    """Many streams of the asynchronous client at the same time."""
    async with openai.AsyncOpenAI(base_url=url, api_key="any") as client:
        async def one(seed: int) -> str:
            stream = await client.chat.completions.create(model=NAME, messages=TURNS, max_tokens=30, seed=seed, stream=True)
            return "".join([part.choices[0].delta.content or "" async for part in stream])

        together: List[str] = await asyncio.gather(*(one(seed) for seed in range(8)))
        same("a stream among others is the stream alone", await one(3), together[3])


def main() -> None:
    with server() as running:
        url = running.url + "/v1"
        client = openai.OpenAI(base_url=url, api_key="any")
        print(f"openai {openai.__version__}")
        models(client)
        chats(client)
        completions(client)
        checkpoints(client, running.client())
        errors(client)
        asyncio.run(at_once(url))


if __name__ == "__main__":
    main()
