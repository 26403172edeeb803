"""The command line of the client: what a user does with a service from a laptop.

The server has a launcher of its own, ``./bios`` in its folder, for starting and operating it. Where both have a command
(``models``, ``runs``, ``checkpoints``), it is the same one.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import getpass
import json
import os
import sys
from datetime import datetime
from typing import Any, Callable, Dict, Generator, List, Mapping, Optional, Sequence

from . import config, export
from ._progress import size
from ._transport import VERSION, RetryPolicy, NoResponse
from .errors import APIConnectionError, APIStatusError, BiosError, InvalidArgumentError
from .rest import RestClient, usage_url
from .sampling import SamplingClient
from .service import ServiceClient
from .types import CheckpointsListResponse, SamplingParams

#: Commands of the server's launcher.
SERVER_COMMANDS = ("up", "cluster", "node", "demo", "schema", "fsck", "restore", "bench", "doctor", "gpu-check", "aot-cache",
                   "keys", "audit")
CALL_SECONDS = 30.0
PAGE = 1000


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Runs one command; returns 0 (success), 1 (failure), 2 (wrong usage) or 130 (interrupted)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in SERVER_COMMANDS:
        print(f"bios: '{words[0]}' is a command of the server: run './bios {words[0]}' in the server's folder", file=sys.stderr)
        return 2
    try:
        given = _parser().parse_args(words)
    except SystemExit as e:
        return int(e.code or 0) if not isinstance(e.code, str) else 2
    try:
        status = given.run(given)
        sys.stdout.flush()
        return int(status or 0)
    except InvalidArgumentError as e:
        return _failed(str(e), 2)
    except BiosError as e:
        return _failed(str(e), 1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return _failed("interrupted", 130)
    except OSError as e:
        return _failed(str(e), 1)


def _failed(why: str, status: int) -> int:
    print(f"bios: {why}", file=sys.stderr)
    return status


# ---------------------------------------------------------------------------------------------------------------
# The parser

def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bios", description="Use a Bios service: models, runs, checkpoints, sampling.",
                                     epilog="The server is started by its own launcher, ./bios in its folder.")
    parser.add_argument("--version", action="version", version=f"bios {VERSION}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _settings(commands)
    _listings(commands)
    _checkpoints(commands)
    _models(commands)
    return parser


def _command(commands: Any, name: str, run: Callable[[argparse.Namespace], Optional[int]], about: str) -> Any:
    parser = commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
    parser.add_argument("--url", help="address of the service (default: BIOS_BASE_URL, else that of 'bios login', else "
                                      + config.DEFAULT_BASE_URL + ")")
    parser.add_argument("--key", help="API key (default: BIOS_API_KEY, else that of 'bios login')")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)
    return parser


def _settings(commands: Any) -> None:
    _command(commands, "login", _login, "save the address and the key of a service")
    _command(commands, "logout", _logout, "forget what 'bios login' has saved")
    _command(commands, "config", _config, "show which service is used, and where that is said")
    _command(commands, "models", _show_models, "list the base models of the service")
    usage = _command(commands, "usage", _usage, "show what was trained, sampled and stored")
    usage.add_argument("--csv", action="store_true", help="print CSV")
    usage.add_argument("--run", dest="run_id", help="only this run")
    usage.add_argument("--project", help="only this project's runs")
    usage.add_argument("--owner", help="another account's, for operators")


def _listings(commands: Any) -> None:
    runs = _command(commands, "runs", _show_runs, "list runs; 'bios runs show RUN', 'bios runs history RUN'")
    runs.add_argument("action", nargs="?", choices=("list", "show", "history", "retry", "give-up"), default="list")
    runs.add_argument("run_id", nargs="?", metavar="RUN")
    runs.add_argument("--seq", type=int, default=None,
                      help="of retry and give-up: the operation's number, as 'bios runs show' tells it")
    runs.add_argument("--limit", type=int, default=None)
    runs.add_argument("--offset", type=int, default=0)


def _checkpoints(commands: Any) -> None:
    checkpoints = _command(commands, "checkpoints", _show_checkpoints,
                           "list, download, publish and delete checkpoints: 'bios checkpoints delete bios://...'")
    checkpoints.add_argument("action", nargs="?", default="list",
                             choices=("list", "show", "download", "delete", "ttl", "publish", "unpublish"))
    checkpoints.add_argument("path", nargs="?", metavar="PATH", help="bios://...")
    checkpoints.add_argument("value", nargs="?", metavar="VALUE", help="of download: the file; of ttl: seconds, or never")
    checkpoints.add_argument("--run", dest="run_id", help="only this run's")
    download = _command(commands, "download", _download,
                        "download a checkpoint as .tar.gz, for PEFT; goes on where it broke off")
    download.add_argument("path", metavar="PATH", help="bios://...")
    download.add_argument("value", nargs="?", metavar="FILE")
    upload = _command(commands, "upload", _upload, "bring in an adapter that was made elsewhere, from PEFT's folder")
    upload.add_argument("folder", metavar="FOLDER", help="with adapter_config.json and adapter_model.safetensors")
    upload.add_argument("base_model", metavar="MODEL", help="the base model as the server calls it")
    upload.add_argument("--name", help="of the checkpoint (default: uploaded)")
    upload.add_argument("--ttl", type=int, metavar="SECONDS", help="when it expires (default: never)")
    upload.add_argument("--project", metavar="PROJECT", help="the project that it belongs to")
    exported = _command(commands, "export", _export, "write a checkpoint as an adapter's folder, or merged into a model's")
    exported.add_argument("path", metavar="PATH", help="bios://...")
    exported.add_argument("folder", metavar="FOLDER", help="a new folder")
    exported.add_argument("--merge", action="store_true", help="a full model folder: the base model with the adapter added")
    exported.add_argument("--base", metavar="FOLDER", help="the base model's folder")
    exported.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="of all weights of a merged model")
    exported.add_argument("--check", action="store_true",
                          help="compare log-probabilities with the service's (needs torch and transformers)")
    exported.add_argument("--text", action="append", default=[], help="a text to check with; may be repeated")
    exported.add_argument("--tolerance", type=float, help="largest difference that passes the check")


def _models(commands: Any) -> None:
    sample = _command(commands, "sample", _sample, "continue a text")
    sample.add_argument("model", metavar="MODEL", help="a base model, or a checkpoint: bios://...")
    sample.add_argument("prompt", nargs="?", help="the text (default: standard input)")
    sample.add_argument("--num", type=int, default=1, help="how many continuations")
    chat = _command(commands, "chat", _chat, "talk to a model; an empty line ends")
    chat.add_argument("model", metavar="MODEL", help="a base model, or a checkpoint: bios://...")
    chat.add_argument("--system", help="what the model is told first")
    for parser, tokens in ((sample, 64), (chat, 512)):
        parser.add_argument("--max-tokens", type=int, default=tokens)
        parser.add_argument("--temperature", type=float, default=0.7)
        parser.add_argument("--top-p", type=float, default=1.0)
        parser.add_argument("--top-k", type=int, default=-1)
        parser.add_argument("--seed", type=int)
        parser.add_argument("--stop", action="append", default=[], help="a text that ends it; may be repeated")


# ---------------------------------------------------------------------------------------------------------------
# Parts

def _service(given: argparse.Namespace) -> ServiceClient:
    return ServiceClient(given.key, given.url, timeout=CALL_SECONDS)


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    lines = [list(header)] + [[_cell(value) for value in row] for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, (dict, list)):
        return json.dumps(value, default=str)
    return "".join(c if c.isprintable() else "?" for c in str(value))


def _json(value: Any) -> None:
    def plain(other: Any) -> Any:
        return dataclasses.asdict(other) if dataclasses.is_dataclass(other) and not isinstance(other, type) else str(other)

    print(json.dumps(value, default=plain, indent=2))


def _facts(rows: Mapping[str, Any]) -> None:
    width = max(map(len, rows), default=0)
    for name, value in rows.items():
        print(f"{name.ljust(width)}  {_cell(value)}")


# ---------------------------------------------------------------------------------------------------------------
# Settings

def _login(given: argparse.Namespace) -> None:
    url, key = given.url, given.key
    if url is None:
        known = config.server(None, "")[0]
        url = _asked(f"address of the service [{known}]: ") or known
    if key is None:
        key = getpass.getpass("API key (empty: none): ") if sys.stdin.isatty() else ""
    found = ServiceClient(key, url, retry=RetryPolicy(call_seconds=0.0)).get_server_capabilities()
    name = config.write({"base_url": url, **({"api_key": key} if key else {})})
    print(f"{url} answers, with {len(found.supported_models)} models; saved in {name}")


def _asked(question: str) -> str:
    if not sys.stdin.isatty():
        return ""
    return input(question).strip()


def _logout(given: argparse.Namespace) -> None:
    try:
        os.unlink(config.path())
    except FileNotFoundError:
        print("nothing was saved")
    else:
        print(f"{config.path()} is gone")


def _config(given: argparse.Namespace) -> None:
    url, key = config.server(given.url, given.key)
    saved = config.read()
    where = {"address": url, "address from": _origin(given.url, "BIOS_BASE_URL", "base_url" in saved),
             "key": f"{key[:4]}... ({len(key)} characters)" if key else None,
             "key from": _origin(given.key, "BIOS_API_KEY", bool(key)) if key else None, "file": config.path()}
    _json(where) if given.json else _facts(where)


def _origin(argument: Optional[str], variable: str, saved: bool) -> str:
    if argument is not None:
        return "the command line"
    if os.environ.get(variable):
        return variable
    return config.path() if saved else "default"


def _show_models(given: argparse.Namespace) -> None:
    found = _service(given).get_server_capabilities()
    if given.json:
        return _json(found)
    _table(["MODEL", "ARCHITECTURE", "DTYPE", "PARAMETERS", "CONTEXT"], [
        [m.model_name, m.architecture, m.dtype, f"{m.parameters / 1e6:.1f} M" if m.parameters else None,
         m.max_context_length] for m in found.supported_models])
    for model in found.unserved_models:
        print(f"not served: {model.model_name}: {model.reason}")


def _usage(given: argparse.Namespace) -> None:
    service = _service(given)
    try:
        if given.csv:
            path = usage_url(given.run_id, given.project, given.owner)
            sys.stdout.write(service._session.transport.call("GET", path, accept="text/csv").body.decode("utf-8"))
            return
        found = service.create_rest_client().get_usage(given.run_id, project_id=given.project, owner=given.owner).result()
    except APIStatusError as e:
        if e.code == "no_such_call":
            raise BiosError("this service does not count usage") from None
        raise
    if given.json:
        return _json(found)
    names = ["tokens_trained", "tokens_evaluated", "tokens_prefilled", "tokens_sampled", "device_seconds", "stored_bytes"]
    rows = [[u.training_run_id or "(base model)", u.base_model, *(getattr(u, name) for name in names)] for u in found.lines]
    rows.append(["all", None, *(found.total(name) for name in names)])
    _table(["RUN", "BASE MODEL", "TRAINED", "EVALUATED", "PROMPTS", "SAMPLED", "DEVICE", "STORED"], [
        [*row[:6], f"{row[6]:.1f} s", size(row[7])] for row in rows])


# ---------------------------------------------------------------------------------------------------------------
# Runs and checkpoints

def _needed(value: Optional[str], name: str) -> str:
    if not value:
        raise InvalidArgumentError(name, "is missing")
    return value


def _show_runs(given: argparse.Namespace) -> None:
    rest = _service(given).create_rest_client()
    if given.action == "list":
        page = rest.list_training_runs(given.limit or 20, given.offset).result()
        if given.json:
            return _json(page)
        _table(["RUN", "BASE MODEL", "RANK", "STEP", "LAST REQUEST", "LAST CHECKPOINT"], [
            [r.training_run_id, r.base_model, r.lora_rank, r.step, r.last_request_time,
             r.last_checkpoint.path if r.last_checkpoint else None] for r in page.training_runs])
        end = given.offset + len(page.training_runs)
        if page.cursor is not None and page.cursor.total_count > end:
            print(f"bios: {len(page.training_runs)} of {page.cursor.total_count} runs; --offset {end} shows those that follow,"
                  " --limit more at once", file=sys.stderr)
        return
    run = _needed(given.run_id, "RUN")
    if given.action == "show":
        found = rest.get_training_run(run).result()
        _json(found) if given.json else _facts(dataclasses.asdict(found))
    elif given.action == "history":
        history = rest.get_training_run_history(run, given.limit or 100).result()
        if given.json:
            return _json(history)
        _table(["TIME", "NODE", "KIND", "POSITION", "DETAIL"], [
            [n.time, n.node, n.kind, n.position, n.detail or None] for n in history.history])
    elif given.action == "retry":
        rest.retry_set_aside(run, given.seq).result()
        print(f"the operation of {run} that was set aside is tried again")
    else:
        rest.give_up_set_aside(run, given.seq).result()
        print(f"the operation of {run} that was set aside is given up")


def _show_checkpoints(given: argparse.Namespace) -> None:
    rest = _service(given).create_rest_client()
    if given.action == "list":
        page = rest.list_checkpoints(given.run_id).result() if given.run_id else _every_checkpoint(rest)
        if given.json:
            _json(page)
        else:
            _table(["PATH", "TYPE", "STEP", "SIZE", "TIME", "EXPIRES", "PUBLIC"], [
                [c.path, c.checkpoint_type, c.step, size(c.size_bytes), c.time, c.expires_at or "never",
                 "yes" if c.public else "no"] for c in page.checkpoints])
        return
    path = _needed(given.path, "PATH")
    if given.action == "download":
        _download(given)
    elif given.action == "show":
        info = rest.get_weights_info_by_bios_path(path).result()
        _json(info) if given.json else _facts(dataclasses.asdict(info))
    elif given.action == "delete":
        rest.delete_checkpoint_from_bios_path(path).result()
        print(f"deleted {path}")
    elif given.action == "ttl":
        seconds = _seconds(_needed(given.value, "VALUE"))
        rest.set_checkpoint_ttl_from_bios_path(path, seconds).result()
        print(f"{path} " + ("never expires" if seconds is None else f"expires in {seconds} s"))
    elif given.action == "publish":
        rest.publish_checkpoint_from_bios_path(path).result()
        print(f"{path} can be read by every account")
    else:
        rest.unpublish_checkpoint_from_bios_path(path).result()
        print(f"{path} can be read by its owner alone")


def _every_checkpoint(rest: RestClient) -> CheckpointsListResponse:
    page = rest.list_user_checkpoints(PAGE).result()
    every = list(page.checkpoints)
    while page.checkpoints and page.cursor is not None and len(every) < page.cursor.total_count:
        page = rest.list_user_checkpoints(PAGE, len(every)).result()
        every += page.checkpoints
    return CheckpointsListResponse(every, page.cursor)


def _seconds(text: str) -> Optional[int]:
    if text == "never":
        return None
    if not text.isdigit():
        raise InvalidArgumentError("VALUE", f"expected seconds or never, got {text!r}")
    return int(text)


def _download(given: argparse.Namespace) -> None:
    file = given.value or "model-checkpoint.tar.gz"
    if os.path.isdir(file):
        raise InvalidArgumentError("FILE", f"{file} is a folder")
    rest = _service(given).create_rest_client()
    count = rest.download_checkpoint_archive_from_bios_path_to_file(given.path, file).result()
    print(f"{file}: {count} bytes")


def _upload(given: argparse.Namespace) -> None:
    rest = _service(given).create_rest_client()
    path = rest.upload_adapter(given.folder, given.base_model, name=given.name, ttl_seconds=given.ttl,
                               project_id=given.project).result()
    _json({"path": path}) if given.json else print(path)


def _export(given: argparse.Namespace) -> int:
    service = _service(given)
    rest = service.create_rest_client()
    if given.merge:
        folder = export.merged(rest, given.path, given.folder, base=given.base, dtype=given.dtype)
    elif given.dtype:
        raise InvalidArgumentError("--dtype", "is for a merged model: add --merge")
    else:
        folder = export.adapter(rest, given.path, given.folder)
    print(f"{folder}: {'a model with the adapter merged in' if given.merge else 'an adapter for PEFT'}")
    if not given.check:
        return 0
    found = export.check(service, given.path, folder, base=given.base, texts=given.text, tolerance=given.tolerance)
    _json({**dataclasses.asdict(found), "passed": found.passed}) if given.json else print(found)
    return 0 if found.passed else 1


# ---------------------------------------------------------------------------------------------------------------
# Sampling

def _sampler(given: argparse.Namespace) -> SamplingClient:
    service = _service(given)
    if "://" in given.model:
        return service.create_sampling_client(model_path=given.model)
    return service.create_sampling_client(base_model=given.model)


def _sample(given: argparse.Namespace) -> None:
    sampler = _sampler(given)
    tokenizer = sampler.get_tokenizer()
    text = given.prompt if given.prompt is not None else sys.stdin.read()
    params = SamplingParams(max_tokens=given.max_tokens, temperature=given.temperature, top_p=given.top_p, top_k=given.top_k,
                            seed=given.seed, stop=given.stop or None)
    result = sampler.sample(tokenizer.encode(text, True), params, given.num).result()
    texts = [tokenizer.decode(sequence.tokens) for sequence in result.sequences]
    if given.json:
        return _json([{"text": text, **dataclasses.asdict(s)} for text, s in zip(texts, result.sequences)])
    for i, found in enumerate(texts):
        if len(texts) > 1:
            print(f"--- {i + 1}")
        print(found)


def _chat(given: argparse.Namespace) -> None:
    service = _service(given)
    messages: List[Dict[str, str]] = [{"role": "system", "content": given.system}] if given.system else []
    seed = given.seed
    while True:
        try:
            said = input("you> " if sys.stdin.isatty() else "")
        except EOFError:
            return
        if not said.strip():
            return
        messages.append({"role": "user", "content": said})
        answer = ""
        # Closing the stream ends the request on the server.
        with contextlib.closing(streamed(service, messages, seed, given)) as pieces:
            try:
                for piece in pieces:
                    answer += piece
                    print(piece, end="", flush=True)
            except KeyboardInterrupt:
                pass  # ends the answer, not the chat
        print()
        messages.append({"role": "assistant", "content": answer})
        seed = None if seed is None else seed + 1


def streamed(service: ServiceClient, messages: Sequence[Mapping[str, str]], seed: Optional[int],
             given: argparse.Namespace) -> Generator[str, None, None]:
    """The model's answer as it is drawn, token by token."""
    asked: Dict[str, Any] = {"model": given.model, "messages": list(messages), "max_tokens": given.max_tokens,
                             "temperature": given.temperature, "top_p": given.top_p, "top_k": given.top_k, "stream": True}
    if seed is not None:
        asked["seed"] = seed
    if given.stop:
        asked["stop"] = given.stop
    try:
        with contextlib.closing(service._session.transport.events("~/v1/chat/completions", asked)) as events:
            for event in events:
                if "error" in event:
                    raise BiosError(str(event["error"].get("message") or event["error"]))
                for choice in event["choices"]:
                    piece = choice["delta"].get("content")
                    if piece:
                        yield piece
    except NoResponse as e:
        raise APIConnectionError(f"the answer broke off: {e}") from e


if __name__ == "__main__":
    raise SystemExit(main())
