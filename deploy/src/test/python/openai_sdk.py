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
    same("the most likely token is the drawn one", [list(top) for top in greedy.choices[0].logprobs.top_logprobs],
         [[token] for token in greedy.choices[0].logprobs.tokens])
    parts = list(client.completions.create(model=NAME, prompt="A fox", max_tokens=30, temperature=0, stream=True))
    same("streamed", "".join(p.choices[0].text for p in parts),
         client.completions.create(model=NAME, prompt="A fox", max_tokens=30, temperature=0).choices[0].text)
    same("echo", client.completions.create(model=NAME, prompt="A fox", max_tokens=1, echo=True).choices[0].text[:5], "A fox")


def likeliest(client: Any) -> None:
    """The most likely tokens of chats and completions, whole and streamed."""
    asked: Any = dict(model=NAME, messages=TURNS, max_tokens=20, seed=3, logprobs=True, top_logprobs=20)
    places = client.chat.completions.create(**asked).choices[0].logprobs.content
    same("20 at each place of a chat", {len(place.top_logprobs) for place in places}, {20})
    holds("best first", all(a.logprob >= b.logprob for p in places for a, b in zip(p.top_logprobs, p.top_logprobs[1:])))
    holds("the drawn one has one log-probability", all(top.logprob == place.logprob for place in places
                                                       for top in place.top_logprobs if place.token and top.token == place.token))
    holds("bytes are those of the name", all(bytes(top.bytes).decode() == top.token for p in places for top in p.top_logprobs
                                             if top.bytes is not None))
    parts = client.chat.completions.create(**asked, stream=True)
    streamed = [place for part in parts for choice in part.choices if choice.logprobs for place in choice.logprobs.content]
    same("streamed they are the same", [p.model_dump() for p in streamed], [p.model_dump() for p in places])
    same("without the wish there are none", {len(p.top_logprobs) for p in client.chat.completions.create(
        **{**asked, "top_logprobs": 0}).choices[0].logprobs.content}, {0})

    text: Any = dict(model=NAME, prompt=["A fox", "One day"], max_tokens=12, seed=3, logprobs=5)
    whole = {choice.index: choice for choice in client.completions.create(**text).choices}
    for choice in whole.values():
        holds("5 at each place, and the drawn one", all(
            token in top and len(top) in (5, 6) and top[token] == logprob for token, logprob, top in
            zip(choice.logprobs.tokens, choice.logprobs.token_logprobs, choice.logprobs.top_logprobs)))
    same("10 as other harnesses ask", {len(top) in (10, 11) for top in client.completions.create(
        **{**text, "logprobs": 10}).choices[0].logprobs.top_logprobs}, {True})
    lists: Any = {index: ([], [], [], []) for index in whole}
    for part in client.completions.create(**text, stream=True):
        for choice in part.choices:
            if choice.logprobs:
                for all_of_it, more in zip(lists[choice.index], _lists(choice)):
                    all_of_it += more
    same("streamed they are the same", lists, {index: tuple(map(list, _lists(choice))) for index, choice in whole.items()})


def _lists(choice: Any) -> Any:
    found = choice.logprobs
    return found.tokens, found.token_logprobs, found.top_logprobs, found.text_offset


def scores(client: Any) -> None:
    """What evaluation harnesses ask for: the log-probabilities of given texts, by `echo`."""
    asked: Any = dict(model=NAME, prompt="A fox ran home. naïve 日本", max_tokens=1, temperature=0, logprobs=1, echo=True, seed=1)
    one = client.completions.create(**asked).choices[0]
    tokens, logprobs, tops, offsets = _lists(one)
    same("lists of one length", {len(logprobs), len(tops), len(offsets)}, {len(tokens)})
    same("nothing of the first token", (logprobs[0], tops[0]), (None, None))
    holds("of all others", all(value <= 0 for value in logprobs[1:]) and all(tops[1:]))
    holds("greedy is where the best one is the token's", logprobs[-1] == max(tops[-1].values()))
    same("offsets are into the text", [one.text[at:at + len(token)] for token, at in zip(tokens[:-1], offsets)], tokens[:-1])
    holds("the text begins with the prompt", one.text.startswith(asked["prompt"]))
    none = client.completions.create(**{**asked, "max_tokens": 0})
    same("without a drawn token", _lists(none.choices[0]), (tokens[:-1], logprobs[:-1], tops[:-1], offsets[:-1]))
    same("none is counted", none.usage.completion_tokens, 0)
    same("streamed it is the same", [_lists(c) for p in client.completions.create(**asked, stream=True) for c in p.choices
                                     if c.logprobs], [_lists(one)])
    several = client.completions.create(**{**asked, "n": 2, "max_tokens": 0}).choices
    same("for each choice", [_lists(choice) for choice in several], 2 * [_lists(none.choices[0])])
    ids = [[5, 6, 7], [8, 9, 10, 11]]
    several = sorted(client.completions.create(**{**asked, "prompt": ids}).choices, key=lambda choice: choice.index)
    same("a list of token ids", [len(c.logprobs.tokens) for c in several], [4, 5])
    joined = client.completions.create(model=NAME, prompt="A fox", max_tokens=12, temperature=0, logprobs=2, echo=True).choices[0]
    alone = client.completions.create(model=NAME, prompt="A fox", max_tokens=12, temperature=0, logprobs=2).choices[0]
    n = len(alone.logprobs.tokens)
    same("behind an echo are the same", (joined.logprobs.token_logprobs[-n:], joined.logprobs.top_logprobs[-n:]),
         (alone.logprobs.token_logprobs, alone.logprobs.top_logprobs))


def special_prompts(client: Any) -> None:
    """Prompts with special tokens and with what a normalizer changes come back as they are."""
    asked: Any = dict(model=NAME, max_tokens=1, temperature=0, echo=True)
    context = "<|user|>Hi e\u0301 日<|assistant|>"
    scored = client.completions.create(prompt=context + "Yes", logprobs=1, **asked).choices[0]
    tokens, _, _, offsets = _lists(scored)
    same("the text is what was sent", scored.text[:len(context) + 3], context + "Yes")
    same("with or without log-probabilities", scored.text,
         client.completions.create(prompt=context + "Yes", **asked).choices[0].text)
    same("offsets are into it", [scored.text[at:at + len(token)] for token, at in zip(tokens[:-1], offsets)], tokens[:-1])
    same("what follows the context is found by its place",
         "".join(token for token, at in zip(tokens[:-1], offsets) if at >= len(context)), "Yes")
    ids: Any = [1, 75, 2, 80]
    scored = client.completions.create(prompt=ids, logprobs=1, **asked).choices[0]
    holds("special tokens of token ids are text", scored.text.startswith("<|user|>") and "<|assistant|>" in scored.text)
    same("that is the same without log-probabilities", scored.text, client.completions.create(prompt=ids, **asked).choices[0].text)


def stopped(client: Any) -> None:
    """Answers that a stop string ends at once."""
    asked: Any = dict(model=NAME, prompt="A fox", max_tokens=10, temperature=0)
    text = client.completions.create(**asked).choices[0].text
    for echo in (False, True):
        answer = client.completions.create(**asked, logprobs=1, stop=[text[:1]], echo=echo)
        choice = answer.choices[0]
        same("nothing before a stop string", choice.text, "A fox" if echo else "")
        drawn = len(choice.logprobs.tokens) - (answer.usage.prompt_tokens if echo else 0)
        same("its tokens are listed", drawn, answer.usage.completion_tokens)
    chat: Any = dict(model=NAME, messages=TURNS, max_tokens=10, temperature=0)
    begin = client.chat.completions.create(**chat).choices[0].message.content[:1]
    empty = client.chat.completions.create(**chat, logprobs=True, top_logprobs=2, stop=[begin]).choices[0]
    same("an empty answer has its log-probabilities", (empty.message.content, empty.logprobs.content), ("", []))


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
    same("too many top_logprobs", refused(openai.BadRequestError, logprobs=True, top_logprobs=21).param, "top_logprobs")
    same("top_logprobs alone", refused(openai.BadRequestError, top_logprobs=2).param, "top_logprobs")
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
        likeliest(client)
        scores(client)
        special_prompts(client)
        stopped(client)
        checkpoints(client, running.client())
        errors(client)
        asyncio.run(at_once(url))


if __name__ == "__main__":
    main()
