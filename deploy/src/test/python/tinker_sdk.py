"""The unmodified Tinker SDK against `bios up`, method by method.

Needs the package `tinker` (with transformers and torch); without it the check says so and is skipped. `--write` puts the
outcome into the column of the installed version in docs/reference/compatibility.md: `ok`, `absent` (the version lacks it),
`own fault` (it fails in the package itself), or why it failed. `--only WORD` runs the methods whose
name has the word, and what they need.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import pickle
import re
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import traceback
import urllib.request
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

try:
    import tinker as _tinker
except ImportError as missing:
    print(f"skipped: the Tinker SDK is not installed ({missing})")
    sys.exit(0)

from harness import NAME, ROOT, VOCABULARY, server

PAGE = ROOT / "docs" / "reference" / "compatibility.md"
LIMIT_SECONDS = 120
KEY = "tml-compatibility"
ABSENT = "absent"
OWN_FAULT = "own fault"
# Failures that are in the package itself, whatever the service answers, by words of the error.
OWN_FAULTS = {"tinker checkpoint delete": "Got unexpected extra argument"}  # a command `list` hides Python's own there
Checks = List[Tuple[str, Callable[[], Any]]]


def outcome(check: Callable[[], Any]) -> str:
    """`ok`, or why not; a check that does not end is not waited for."""
    ended: Dict[str, str] = {}

    def run() -> None:
        try:
            value = check()
            ended["as"] = "ok" if value is None or value is True else f"wrong: {value!r}"[:160]
        except BaseException as failed:  # noqa: B902
            if os.environ.get("BIOS_TRACE"):
                traceback.print_exc()
            text = re.sub(r"\s+", " ", str(failed))
            ended["as"] = f"{type(failed).__name__}: {text}"[:160]

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(LIMIT_SECONDS)
    return ended.get("as", f"no answer in {LIMIT_SECONDS} s")


def absent(name: str) -> bool:
    """Whether the installed version of the package lacks the method or the command of this name."""
    if name.startswith("tinker "):
        import click
        from tinker.cli.__main__ import main_cli
        command: Any = main_cli
        for word in name.split()[1:]:
            command = command.get_command(click.Context(command), word)
            if command is None:
                return True
        return False
    owner, _, method = name.partition("(")[0].partition(".")
    if not method:
        return False
    module = import_module("tinker.lib.public_interfaces." + re.sub(r"(?<!^)(?=[A-Z])", "_", owner).lower())
    return not hasattr(getattr(module, owner), method)


def judged(name: str, check: Callable[[], Any]) -> str:
    """`absent`, or the outcome of the check, a fault of the package told apart."""
    if absent(name):
        return ABSENT
    found = outcome(check)
    return OWN_FAULT if OWN_FAULTS.get(name, "\n") in found else found


def fails(check: Callable[[], Any], *words: str) -> bool:
    """Whether it raises an error that has these words."""
    try:
        check()
    except Exception as failed:
        text = f"{type(failed).__name__}: {failed}"
        assert all(word in text for word in words), text
        return True
    raise AssertionError("it raised nothing")


class Surface:
    """The methods of the SDK, in an order in which each finds what it needs."""

    def __init__(self, url: str) -> None:
        from tinker import types
        self.types = types
        self.service = _tinker.ServiceClient(base_url=url, api_key=KEY, user_metadata={"check": "compatibility"})
        self.rest = self.service.create_rest_client()
        self.url = url

    # ---- parts ----

    def tensor(self, values: Any, dtype: str, shape: Any = None) -> Any:
        return self.types.TensorData(data=values, dtype=dtype, shape=shape or [len(values)])

    def datum(self, seed: int, n: int = 6, **inputs: Any) -> Any:
        tokens = [(seed * 37 + 11 * i) % VOCABULARY for i in range(n + 1)]
        given = {"target_tokens": self.tensor(tokens[1:], "int64")}
        given.update(inputs)
        return self.types.Datum(model_input=self.types.ModelInput.from_ints(tokens[:-1]), loss_fn_inputs=given)

    def supervised(self, seed: int, n: int = 6) -> Any:
        return self.datum(seed, n, weights=self.tensor([1.0] * n, "float32"))

    def policy(self, seed: int, n: int = 6) -> Any:
        return self.datum(seed, n, logprobs=self.tensor([-6.0] * n, "float32"),
                          advantages=self.tensor([0.5 - i % 2 for i in range(n)], "float32"))

    def step(self) -> Any:
        return self.run.optim_step(self.types.AdamParams(learning_rate=1e-3)).result()

    def prompt(self) -> Any:
        return self.types.ModelInput.from_ints([5, 6, 7, 8])

    # ---- checks: service ----

    def of_service(self) -> Checks:
        def capabilities() -> Any:
            names = [m.model_name for m in self.service.get_server_capabilities().supported_models]
            return NAME in names or names

        def create() -> None:
            self.run = self.service.create_lora_training_client(
                base_model=NAME, rank=8, seed=1, train_unembed=False, user_metadata={"renderer_name": "plain"})

        def sampler() -> None:
            self.base = self.service.create_sampling_client(base_model=NAME)

        return [("ServiceClient.get_server_capabilities", capabilities),
                ("ServiceClient.create_lora_training_client", create),
                ("ServiceClient.create_sampling_client(base_model)", sampler)]

    # ---- checks: training ----

    def losses(self) -> Checks:
        def loss(name: str, **config: float) -> Callable[[], Any]:
            def check() -> Any:
                data = [(self.supervised if name == "cross_entropy" else self.policy)(i) for i in range(3)]
                result = self.run.forward_backward(data, name, dict(config) or None).result()
                values = [len(o["logprobs"].data) for o in result.loss_fn_outputs]
                return values == [6, 6, 6] and "loss:sum" in result.metrics or (values, result.metrics)
            return check

        def forward() -> Any:
            result = self.run.forward([self.supervised(1)], "cross_entropy").result()
            return len(result.loss_fn_outputs) == 1

        def custom() -> Any:
            def mean(data: Any, logprobs: Any) -> Any:
                total = -sum(lp.sum() for lp in logprobs)
                return total, {"mine": float(total)}
            result = self.run.forward_backward_custom([self.supervised(2)], mean).result()
            return "mine" in result.metrics or result.metrics

        checks = [("TrainingClient.forward", forward), ("TrainingClient.forward_backward_custom", custom)]
        for name in ("cross_entropy", "importance_sampling"):
            checks.append((f"TrainingClient.forward_backward({name})", loss(name)))
        for name in ("ppo", "cispo"):
            checks.append((f"TrainingClient.forward_backward({name})",
                           loss(name, clip_low_threshold=0.8, clip_high_threshold=1.2)))
        checks.append(("TrainingClient.forward_backward(dro)", loss("dro", beta=0.05)))
        return checks

    def of_training(self) -> Checks:
        def info() -> Any:
            got = self.run.get_info()
            return (got.model_data.model_name, got.lora_rank) == (NAME, 8) or got

        def tokenizer() -> Any:
            got = self.run.get_tokenizer()
            return got.decode(got.encode("hello there")) == "hello there"

        def chunks() -> Any:
            result = self.run.forward_backward([self.supervised(i, 3) for i in range(1500)], "cross_entropy").result()
            self.step()
            return len(result.loss_fn_outputs) == 1500

        def step() -> Any:
            return "grad_norm" in (self.step().metrics or {})

        return [("TrainingClient.get_info", info), ("TrainingClient.get_tokenizer", tokenizer)] + self.losses() + [
            ("TrainingClient.optim_step", step), ("a batch of 1500 sequences", chunks)] + self.distillation() + [
            ("a wrong sequence fails and the run goes on", self.wrong)]

    def distillation(self) -> Checks:
        def candidates() -> Any:
            many = self.datum(3, 4, target_tokens=self.tensor(list(range(8)), "int64", [4, 2]),
                              weights=self.tensor([0.5] * 8, "float32", [4, 2]))
            result = self.run.forward_backward([many, self.supervised(1)], "cross_entropy").result()
            shapes = [o["logprobs"].shape for o in result.loss_fn_outputs]
            self.step()
            return shapes == [[4, 2], [6]] or shapes

        def sparse() -> Any:
            import torch
            targets = torch.zeros(64, 16, dtype=torch.int64)
            weights = torch.zeros(64, 16)
            targets[::3, 2] = 17
            weights[::3, 2] = 0.25
            many = self.datum(4, 64, target_tokens=self.types.TensorData.from_torch(targets),
                              weights=self.types.TensorData.from_torch(weights))
            result = self.run.forward_backward([many], "cross_entropy").result()
            self.step()
            return result.loss_fn_outputs[0]["logprobs"].shape == [64, 16]

        def mask() -> None:
            self.run.forward_backward([self.datum(
                5, logprobs=self.tensor([-6.0] * 6, "float32"), advantages=self.tensor([0.5] * 6, "float32"),
                mask=self.tensor([1.0] * 6, "float32"))], "importance_sampling").result()
            self.step()

        def thresholds() -> Any:
            result = self.run.forward_backward([self.datum(
                6, logprobs=self.tensor([-6.0] * 6, "float32"), advantages=self.tensor([0.5] * 6, "float32"),
                clip_low_threshold=self.tensor([0.5] * 6, "float32"),
                clip_high_threshold=self.tensor([1.0 + i for i in range(6)], "float32"))], "ppo").result()
            self.step()
            return "kl_sample_train_v1:mean" in result.metrics or sorted(result.metrics)

        return [("an extra input mask", mask), ("cross_entropy with (N, K) targets", candidates),
                ("cross_entropy with sparse (N, K) targets", sparse), ("clip thresholds of each token", thresholds)]

    def wrong(self) -> Any:
        def norm() -> float:
            self.run.forward_backward([self.supervised(1)], "cross_entropy").result()
            return self.run.optim_step(self.types.AdamParams(learning_rate=0.0)).result().metrics["grad_norm"]

        alone = norm()
        data = [self.supervised(i, 3) for i in range(1500)]
        data[1200] = self.types.Datum(model_input=self.types.ModelInput.from_ints([10 ** 6] * 3),
                                      loss_fn_inputs=data[0].loss_fn_inputs)
        failing = self.run.forward_backward(data, "cross_entropy")
        stepping = self.run.optim_step(self.types.AdamParams(learning_rate=1e-3))
        fails(stepping.result, "RequestFailedError")
        fails(failing.result, "RequestFailedError", "is not a token id")
        return norm() == alone or "the step after it applied more than its own gradient"

    # ---- checks: weights ----

    def of_weights(self) -> Checks:
        def save() -> Any:
            self.state = self.run.save_state("state-1", ttl_seconds=3600).result().path
            return self.state == f"tinker://{self.run.model_id}/weights/state-1" or self.state

        def save_sampler() -> Any:
            self.weights = self.run.save_weights_for_sampler("final").result().path
            return self.weights == f"tinker://{self.run.model_id}/sampler_weights/final" or self.weights

        def snapshot() -> None:
            self.sampler = self.run.save_weights_and_get_sampling_client()

        def resume(optimizer: bool) -> Callable[[], Any]:
            def check() -> Any:
                make = (self.service.create_training_client_from_state_with_optimizer if optimizer
                        else self.service.create_training_client_from_state)
                resumed = make(self.state)
                resumed.forward_backward([self.supervised(1)], "cross_entropy").result()
                return resumed.model_id != self.run.model_id
            return check

        return [("TrainingClient.save_state", save), ("TrainingClient.save_weights_for_sampler", save_sampler),
                ("TrainingClient.save_weights_and_get_sampling_client", snapshot),
                ("TrainingClient.load_state", lambda: self.run.load_state(self.state).result() is not None),
                ("TrainingClient.load_state_with_optimizer",
                 lambda: self.run.load_state_with_optimizer(self.state).result() is not None),
                ("TrainingClient.create_sampling_client",
                 lambda: self.run.create_sampling_client(self.weights) is not None),
                ("ServiceClient.create_sampling_client(model_path)",
                 lambda: self.service.create_sampling_client(model_path=self.weights) is not None),
                ("ServiceClient.create_training_client_from_state", resume(False)),
                ("ServiceClient.create_training_client_from_state_with_optimizer", resume(True))]

    # ---- checks: sampling ----

    def of_sampling(self) -> Checks:
        def sample() -> Any:
            params = self.types.SamplingParams(max_tokens=5, temperature=0.7, seed=3, stop=[1, 2])
            got = self.sampler.sample(self.prompt(), 2, params).result()
            return len(got.sequences) == 2 and all(len(s.logprobs) == len(s.tokens) for s in got.sequences)

        def topk() -> Any:
            got = self.base.sample(self.prompt(), 1, self.types.SamplingParams(max_tokens=1),
                                   include_prompt_logprobs=True, topk_prompt_logprobs=3).result()
            rows = got.topk_prompt_logprobs
            return len(rows) == 4 and rows[0] is None and len(rows[1]) == 3 or rows

        def logprobs() -> Any:
            got = self.sampler.compute_logprobs(self.prompt()).result()
            return got[0] is None and all(value < 0 for value in got[1:]) or got

        def agree() -> Any:
            tokens = [5, 6, 7, 8, 9]
            sampled = self.base.compute_logprobs(self.types.ModelInput.from_ints(tokens)).result()
            fresh = self.service.create_lora_training_client(base_model=NAME, rank=4)
            trained = fresh.forward([self.types.Datum(
                model_input=self.types.ModelInput.from_ints(tokens[:-1]),
                loss_fn_inputs={"target_tokens": self.tensor(tokens[1:], "int64"),
                                "weights": self.tensor([1.0] * 4, "float32")})], "cross_entropy").result()
            return list(trained.loss_fn_outputs[0]["logprobs"].data) == sampled[1:]

        def pickled() -> Any:
            copy = pickle.loads(pickle.dumps(self.sampler))
            return len(copy.sample(self.prompt(), 1, self.types.SamplingParams(max_tokens=2)).result().sequences) == 1

        return [("SamplingClient.sample", sample), ("SamplingClient.sample(topk_prompt_logprobs)", topk),
                ("SamplingClient.compute_logprobs", logprobs), ("sampler and trainer agree to the bit", agree),
                ("SamplingClient.get_tokenizer", lambda: self.base.get_tokenizer().encode("a") is not None),
                ("SamplingClient.get_base_model", lambda: self.base.get_base_model() == NAME),
                ("a pickled SamplingClient", pickled),
                ("async twins", lambda: asyncio.run(self.twins()))]

    async def twins(self) -> Any:
        run = await self.service.create_lora_training_client_async(base_model=NAME, rank=4)
        future = await run.forward_backward_async([self.supervised(1)], "cross_entropy")
        stepped = await run.optim_step_async(self.types.AdamParams())
        await future
        await stepped
        saved = await (await run.save_state_async("of-async"))
        client = await run.save_weights_and_get_sampling_client_async()
        got = await client.sample_async(self.prompt(), 1, self.types.SamplingParams(max_tokens=2))
        return len(got.sequences) == 1 and saved.path.endswith("/of-async")

    # ---- checks: management ----

    def of_rest(self) -> Checks:
        rest = self.rest

        def runs() -> Any:
            got = rest.list_training_runs(limit=50).result()
            return self.run.model_id in [r.training_run_id for r in got.training_runs]

        def of_path() -> Any:
            got = rest.get_training_run_by_tinker_path(self.state).result()
            return got.user_metadata == {"renderer_name": "plain"} or got.user_metadata

        def checkpoints() -> Any:
            got = {c.checkpoint_id for c in rest.list_checkpoints(self.run.model_id).result().checkpoints}
            return {"weights/state-1", "sampler_weights/final"} <= got or got

        def of_user() -> Any:
            got = rest.list_user_checkpoints(limit=50).result().checkpoints
            return self.weights in [c.tinker_path for c in got]

        def archive() -> Any:
            url = rest.get_checkpoint_archive_url_from_tinker_path(self.weights).result().url
            with tempfile.NamedTemporaryFile(suffix=".tar") as file:
                file.write(urllib.request.urlopen(url).read())
                file.flush()
                names = tarfile.open(file.name, "r").getnames()
            wanted = {"adapter_config.json", "adapter_model.safetensors", "checkpoint_complete"}
            return wanted <= set(names) or names

        return [("RestClient.get_training_run",
                 lambda: rest.get_training_run(self.run.model_id).result().base_model == NAME),
                ("RestClient.get_training_run_by_tinker_path", of_path),
                ("RestClient.get_weights_info_by_tinker_path",
                 lambda: rest.get_weights_info_by_tinker_path(self.state).result().lora_rank == 8),
                ("RestClient.list_training_runs", runs), ("RestClient.list_checkpoints", checkpoints),
                ("RestClient.list_user_checkpoints", of_user),
                ("RestClient.get_checkpoint_archive_url",
                 lambda: bool(rest.get_checkpoint_archive_url(self.run.model_id, "sampler_weights/final").result().url)),
                ("RestClient.get_checkpoint_archive_url_from_tinker_path", archive)] + self.of_sessions() + [
            ("RestClient.set_checkpoint_ttl_from_tinker_path", self.ttl),
            ("RestClient.publish_checkpoint_from_tinker_path", self.publish),
            ("RestClient.unpublish_checkpoint_from_tinker_path", self.unpublish)]

    def ttl(self) -> Any:
        self.rest.set_checkpoint_ttl_from_tinker_path(self.weights, 600).result()
        expires = self.find(self.weights).expires_at
        self.rest.set_checkpoint_ttl_from_tinker_path(self.weights, None).result()
        return expires is not None and self.find(self.weights).expires_at is None

    def find(self, path: str) -> Any:
        all_of_run = self.rest.list_checkpoints(self.run.model_id).result().checkpoints
        return next(c for c in all_of_run if c.tinker_path == path)

    def publish(self) -> Any:
        self.rest.publish_checkpoint_from_tinker_path(self.weights).result()
        self.rest.publish_checkpoint_from_tinker_path(self.weights).result()
        return self.find(self.weights).public is True

    def unpublish(self) -> Any:
        self.rest.unpublish_checkpoint_from_tinker_path(self.weights).result()
        return self.find(self.weights).public is False

    def of_sessions(self) -> Checks:
        rest = self.rest

        def session() -> str:
            return self.service.holder._session_id if hasattr(self.service.holder, "_session_id") else \
                rest.list_sessions().result().sessions[0]

        def project() -> Any:
            rest.assign_session_project(session(), "project-1").result()
            for _ in range(100):  # the listing follows within moments
                got = rest.list_training_runs(project_id="project-1").result().training_runs
                if self.run.model_id in [r.training_run_id for r in got]:
                    break
                time.sleep(0.05)
            none = rest.list_training_runs(project_id="project-2").result().training_runs
            return self.run.model_id in [r.training_run_id for r in got] and not none

        def sampler() -> Any:
            ids = rest.get_session(session()).result().sampler_ids
            return rest.get_sampler(ids[0]).result().base_model == NAME

        return [("RestClient.list_sessions", lambda: session() in rest.list_sessions().result().sessions),
                ("RestClient.get_session",
                 lambda: self.run.model_id in rest.get_session(session()).result().training_run_ids),
                ("RestClient.get_sampler", sampler), ("RestClient.assign_session_project", project),
                ("RestClient.export_session_trace", lambda: self.traced(session())),
                ("RestClient.get_audit_log", self.audited), ("RestClient.get_billing_usage", self.billed),
                ("RestClient.whoami", lambda: "default" in repr(rest.whoami().result()))]

    def traced(self, session: str) -> Any:
        url = self.rest.export_session_trace(session).result()
        names = {event["name"] for event in json.loads(urllib.request.urlopen(url).read())["traceEvents"]}
        return {"forward_backward", "optim_step", "engine"} <= names or names

    def audited(self) -> Any:
        entries = self.rest.get_audit_log(event_type="checkpoints").result().entries
        return self.weights in [entry.tinker_path for entry in entries] or entries[:3]

    def billed(self) -> Any:
        hour = datetime.datetime.now(datetime.timezone.utc).replace(minute=0, second=0, microsecond=0)
        window = (hour - datetime.timedelta(hours=2), hour + datetime.timedelta(hours=2))
        for _ in range(100):  # sampling is counted every two seconds
            data = self.rest.get_billing_usage(*window).result().data
            kinds = {event.event_info.type for event in data}
            if kinds == {"training", "sampling_prefill", "sampling_sample", "checkpoint", "storage"}:
                return True
            time.sleep(0.1)
        return kinds

    # ---- checks: command line ----

    def of_command_line(self) -> Checks:
        def call(*words: str) -> Callable[[], Any]:
            def check() -> Any:
                given = [word.format(run=self.run.model_id, weights=self.weights, state=self.state,
                                     session=self.rest.list_sessions().result().sessions[0]) for word in words]
                environment = {**os.environ, "TINKER_BASE_URL": self.url, "TINKER_API_KEY": KEY}
                with tempfile.TemporaryDirectory() as folder:
                    done = subprocess.run([sys.executable, "-m", "tinker.cli", *given], env=environment, cwd=folder,
                                          capture_output=True, text=True, timeout=LIMIT_SECONDS)
                assert done.returncode == 0, (done.stderr or done.stdout)[-300:]
                return True
            return check

        return [("tinker version", call("version")), ("tinker run list", call("run", "list")),
                ("tinker run info", call("run", "info", "{run}")),
                ("tinker checkpoint list", call("checkpoint", "list", "--run-id", "{run}")),
                ("tinker checkpoint info", call("checkpoint", "info", "{weights}")),
                ("tinker checkpoint download", call("checkpoint", "download", "{weights}", "--output", "here")),
                ("tinker checkpoint set-ttl", call("checkpoint", "set-ttl", "{weights}", "--ttl", "3600")),
                ("tinker checkpoint publish", call("checkpoint", "publish", "{weights}")),
                ("tinker checkpoint unpublish", call("checkpoint", "unpublish", "{weights}")),
                ("tinker session export-trace", call("session", "export-trace", "{session}")),
                ("tinker billing usage", call("billing", "usage", "2026-01-01", "2026-01-02")),
                ("tinker checkpoint delete", call("checkpoint", "delete", "{state}", "--yes")),
                ("RestClient.delete_checkpoint_from_tinker_path",
                 lambda: self.rest.delete_checkpoint_from_tinker_path(self.weights).result()),
                ("a deleted checkpoint is gone", lambda: fails(
                    lambda: self.service.create_sampling_client(model_path=self.weights), "NotFound"))]

    def checks(self) -> Checks:
        return (self.of_service() + self.of_training() + self.of_weights() + self.of_sampling() + self.of_rest()
                + self.of_command_line())


def write(version: str, outcomes: Dict[str, str]) -> None:
    """Puts the outcomes into the column of the version."""
    text = PAGE.read_text()
    before, begin, rest = text.partition("<!-- table -->\n")
    table, end, after = rest.partition("<!-- end of table -->")
    rows = [[cell.strip() for cell in line.strip().strip("|").split(" | ")] for line in table.splitlines() if line]
    versions = rows[0][1:] if rows else []
    known = {row[0].strip("`"): dict(zip(versions, row[1:])) for row in rows[2:]}
    for name, result in outcomes.items():
        known.setdefault(name, {})[version] = result.replace("|", "/").replace("<", "&lt;")
    versions = sorted(set(versions) | {version}, key=lambda v: [int(part) for part in v.split(".")], reverse=True)
    lines = ["| method | " + " | ".join(versions) + " |", "|---" * (len(versions) + 1) + "|"]
    for name, results in known.items():
        lines.append(f"| `{name}` | " + " | ".join(results.get(v, "-") for v in versions) + " |")
    PAGE.write_text(before + begin + "\n".join(lines) + "\n" + end + after)


def main() -> None:
    from importlib.metadata import version
    only = sys.argv[sys.argv.index("--only") + 1] if "--only" in sys.argv else ""
    outcomes: Dict[str, str] = {}
    fine = ("ok", ABSENT, OWN_FAULT)
    os.environ["BIOS_TOKEN_SECRET"] = "a secret for this check"
    with server() as running, tempfile.TemporaryDirectory() as cache:
        os.environ.update(HF_ENDPOINT=running.url, HF_HOME=cache, HF_TOKEN=KEY, TINKER_BASE_URL=running.url,
                          TINKER_API_KEY=KEY)
        needed = ("create_lora", "create_sampling_client(base", "save_")
        for name, check in Surface(running.url).checks():
            if only in name or any(word in name for word in needed):
                outcomes[name] = result = judged(name, check)
                print(f"{result:<10}{name}" if result in fine else f"FAIL      {name}: {result}", flush=True)
                if "--write" in sys.argv:
                    write(version("tinker"), outcomes)
    counts = Counter(result if result in fine else "failed" for result in outcomes.values())
    print(f"tinker {version('tinker')}: " + ", ".join(f"{n} {result}" for result, n in counts.items())
          + f" of {len(outcomes)}", flush=True)
    os._exit(1 if counts["failed"] else 0)  # a call without an answer keeps its thread


if __name__ == "__main__":
    main()
