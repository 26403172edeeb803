"""A gateway for tests: the wire page in one process, with trouble on order.

What it knows lives in `State`, apart from the sockets, so that a test can kill the server and start another.
"""

import base64
import gzip
import hashlib
import io
import json
import math
import re
import struct
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LATER = object()


class Events(list):
    """A stream of server-sent events: lines, and None where the connection breaks."""


class Refused(Exception):
    def __init__(self, status, code, message, field=None):
        super().__init__(message)
        self.status, self.code, self.field = status, code, field


class Run:
    def __init__(self, run_id, base_model, lora, metadata):
        self.id, self.base_model, self.lora, self.metadata = run_id, base_model, lora, metadata
        self.operations = []      # (seq, kind, body) in the order of acceptance
        self.answers = {}         # seq -> (request_id, kind, body)
        self.step = 0
        self.gathered = 0
        self.learning_rate = 1e-4
        self.poison = None        # (request_id, error)
        self.lacks = None         # the error of a refused part, which the next step has too
        self.parent = None
        self.explicit_rank = bool(lora and lora.get("rank"))


class State:
    def __init__(self, models=("ultrasafe/usf-finance", "tiny")):
        self.lock = threading.RLock()
        self.models = list(models)
        self.sessions, self.runs, self.futures, self.samplers, self.checkpoints = {}, {}, {}, {}, {}
        self.created, self.lost, self.pending = {}, set(), {}
        self.calls = []           # (method, path, body) of every request that arrived
        self.headers = []
        self.faults = []          # [pattern, action, count]
        self.refuse_operation = None
        self.polls_before_result = 0
        self.heartbeats = 0
        self.uploads = {}         # upload -> what was asked for, and the files
        self.files = {}           # path below the address -> content
        self.ranges = True        # whether downloads can go on where they broke off
        self.usage = True         # whether usage is counted
        self.waiting = None       # the operation that waits for its owner
        self.numbered = True      # whether the server reads the numbers of such operations
        self.decisions = []       # (retry or give_up, body) of what was done about them

    def fault(self, pattern, action, count=1):
        """`action`: 'drop' (before anything happened), 'lose' (after it happened), or (status, headers)."""
        self.faults.append([pattern, action, count])

    def take_fault(self, path):
        with self.lock:
            for fault in self.faults:
                if fault[2] > 0 and re.search(fault[0], path):
                    fault[2] -= 1
                    return fault[1]
        return None

    # -- calls -----------------------------------------------------------------------------------------------

    def call(self, method, path, query, body, accept=""):
        with self.lock:
            name = path.strip("/")
            if path == "~/v1/chat/completions":
                return self.chat(body)
            if path.startswith("~"):
                if path[1:] not in self.files:
                    raise Refused(404, "not_found", "no such file")
                return self.files[path[1:]]
            if method == "POST" and "/" not in name:
                return getattr(self, "post_" + name.replace("/", "_"), self.unknown)(body)
            if name == "get_server_capabilities":
                return {"supported_models": [{"model_name": m, "max_context_length": 128} for m in self.models]}
            if name.startswith("samplers/"):
                sampler = self.samplers[name[len("samplers/"):]]
                return {"sampler_id": name[9:], "base_model": sampler["base_model"]}
            return self.rest(method, name.split("/"), query, body, accept)

    def chat(self, body):
        """Says again what the last message says, a character at a time."""
        if body["model"] not in self.models:
            raise Refused(404, "unknown_model", f"no model {body['model']}", "model")
        assert body["stream"] is True

        def event(delta):
            return "data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]})

        said = body["messages"][-1]["content"]
        if said == "fail":
            return Events([event({"content": "a"}), 'data: {"error": {"message": "it overflows", "code": "non_finite"}}'])
        pieces = [event({"content": c}) for c in said]
        rest = [None] if said == "break" else [event({}), "data: [DONE]"]
        return Events([event({"role": "assistant", "content": ""}), ": waiting", *pieces, *rest])

    def unknown(self, body):
        raise Refused(404, "not_found", "no such call")

    def post_create_session(self, body):
        self.sessions.setdefault(body["session_id"], {"made": 0, "body": body})["made"] += 1
        return {"type": "create_session", "session_id": body["session_id"]}

    def post_session_heartbeat(self, body):
        self.heartbeats += 1
        return {"type": "session_heartbeat"}

    def post_tokenize(self, body):
        return {"tokens": list(body["text"].encode())}

    def post_detokenize(self, body):
        return {"text": bytes(body["tokens"]).decode("utf-8", "replace")}

    def post_get_info(self, body):
        run = self.run(body["model_id"])
        return {"type": "get_info", "model_id": run.id, "model_name": run.base_model, "is_lora": True,
                "lora_rank": run.lora.get("rank", 32), "step": run.step, "news": 1,
                "model_data": {"arch": "fake", "model_name": run.base_model, "tokenizer_id": run.base_model}}

    def post_create_model(self, body):
        if body["base_model"] not in self.models:
            raise Refused(404, "model_not_found", "no such model; served are " + ", ".join(self.models), "base_model")
        return self.create(body, body["base_model"], body.get("lora_config") or {}, None)

    def post_load_training_client(self, body):
        found = self.find(body["path"])
        return self.create(body, found["base_model"], found["lora"], found)

    def create(self, body, base_model, lora, parent):
        key = (body["session_id"], body["model_seq_id"])
        if key not in self.created:
            slug = base_model.rpartition("/")[2]
            run = Run(f"{slug}-{len(self.runs) + 0xabc000000000:012x}", base_model, lora, body.get("user_metadata"))
            if parent:
                run.step, run.parent, run.learning_rate = parent["step"], body["path"], parent["learning_rate"]
            self.runs[run.id] = run
            result = {"type": "create_model", "model_id": run.id}
            self.created[key] = self.future(run.id, 0, result)
        return self.created[key]

    def future(self, run_id, seq, result):
        request_id = f"{run_id}:{seq}"
        self.futures[request_id] = result
        self.pending[request_id] = self.polls_before_result
        return {"request_id": request_id, "model_id": run_id}

    def run(self, run_id):
        if run_id not in self.runs:
            raise Refused(404, "run_not_found", "no such run", "model_id")
        return self.runs[run_id]

    def operation(self, kind, body, act):
        run = self.run(body["model_id"])
        seq = body["seq_id"]
        if seq in run.answers:
            request_id, known, first = run.answers[seq]
            if known != kind or first != body:
                raise Refused(400, "sequence_reused", "another operation has this number", "seq_id")
            return {"request_id": request_id, "model_id": run.id}
        wrong = self.wrong(kind, body)
        if wrong and not body.get("part"):
            raise wrong
        if wrong:
            act = self.refused_part(wrong)
        run.operations.append((seq, kind, body))
        if kind == "load_weights":
            run.poison = run.lacks = None
        if run.poison:
            result = run.poison[1]
        elif run.lacks and kind == "optim_step":
            result, run.lacks, run.gathered = run.lacks, None, 0
        else:
            try:
                result = act(run, body)
            except Refused as e:
                result = {"error": str(e), "category": "user", "code": e.code}
                run.poison = (f"{run.id}:{seq}", result)
        answer = self.future(run.id, seq, result)
        run.answers[seq] = (answer["request_id"], kind, body)
        return answer

    def wrong(self, kind, body):
        """Why a body is refused."""
        loss = body.get(kind + "_input", {}).get("loss_fn", "cross_entropy")
        if loss not in ("cross_entropy", "importance_sampling", "ppo", "cispo", "dro"):
            return Refused(400, "invalid", f"'{loss}' is unknown", "loss_fn")
        if self.refuse_operation and self.refuse_operation(kind, body):
            return Refused(400, "invalid", "refused by the test", "data[0]")
        return None

    def refused_part(self, wrong):
        def act(run, body):
            run.lacks = {"error": str(wrong), "category": "user", "code": wrong.code}
            raise wrong
        return act

    def post_forward(self, body):
        return self.operation("forward", body, lambda run, b: self.passed(run, b, "forward"))

    def post_forward_backward(self, body):
        return self.operation("forward_backward", body, lambda run, b: self.passed(run, b, "forward_backward"))

    def passed(self, run, body, kind):
        given = body[kind + "_input"]
        outputs, loss, tokens, weights = [], 0.0, 0, 0.0
        for datum in given["data"]:
            ids = ints(datum["model_input"])
            inputs = {k: tensor(v) for k, v in datum["loss_fn_inputs"].items()}
            if len(inputs["target_tokens"]) != len(ids):
                raise Refused(400, "invalid", "shape")
            w = inputs.get("weights") or [1.0] * len(ids)
            logprob = [-1.0 / (1 + run.step + t % 3) for t in inputs["target_tokens"]]
            loss -= sum(a * b for a, b in zip(w, logprob))
            tokens += len(ids)
            weights += sum(w)
            packed = base64.b64encode(struct.pack(f"<{len(ids)}f", *logprob)).decode()
            outputs.append({"logprobs": {"dtype": "float32", "shape": [len(ids)], "data_base64": packed}})
        if math.isnan(loss):
            raise Refused(400, "nan", "the loss is not a number")
        if kind == "forward_backward":
            run.gathered += len(outputs)
        return {"type": kind, "loss_fn_output_type": "TensorDict", "loss_fn_outputs": outputs,
                "metrics": {"loss:sum": loss, "tokens:sum": tokens, "weights:sum": weights}}

    def post_optim_step(self, body):
        def act(run, b):
            if not run.gathered:
                raise Refused(400, "nothing_to_apply", "no gradient was gathered")
            run.learning_rate = (b.get("adam_params") or {}).get("learning_rate", run.learning_rate)
            run.step, run.gathered = run.step + 1, 0
            return {"type": "optim_step", "metrics": {"grad_norm": 1.5, "learning_rate": run.learning_rate},
                    "step": run.step}
        return self.operation("optim_step", body, act)

    def keep(self, run, kind, name, metadata):
        path = f"bios://{run.id}/" + ("sampler_weights/" if kind == "sampler" else "") + name
        self.checkpoints[(run.id, kind, name)] = {
            "path": path, "kind": kind, "name": name, "run": run.id, "step": run.step, "metadata": metadata or {},
            "base_model": run.base_model, "lora": run.lora, "learning_rate": run.learning_rate}
        return path

    def post_save_weights(self, body):
        def act(run, b):
            path = self.keep(run, "training", b["path"], b.get("metadata"))
            return {"type": "save_weights", "path": path, "metadata": b.get("metadata") or {}, "step": run.step}
        return self.operation("save_weights", body, act)

    def post_save_weights_for_sampler(self, body):
        def act(run, b):
            if b.get("path"):
                return {"type": "save_weights_for_sampler", "sampling_session_id": None,
                        "path": self.keep(run, "sampler", b["path"], None)}
            sampler = self.sampler(run.id + ":sample:" + str(b["sampling_session_seq_id"]), run.base_model, run.step)
            return {"type": "save_weights_for_sampler", "path": None, "sampling_session_id": sampler}
        return self.operation("save_weights_for_sampler", body, act)

    def post_load_weights(self, body):
        def act(run, b):
            found = self.find(b["path"])
            if found["kind"] == "sampler":
                raise Refused(400, "weights_only", "sampler weights hold no optimizer state")
            if found["base_model"] != run.base_model:
                raise Refused(400, "base_model_mismatch", "another base model")
            if not run.explicit_rank:
                run.lora = found["lora"]
            run.step, run.gathered = found["step"], 0
            return {"type": "load_weights", "path": b["path"], "model_id": run.id, "step": run.step}
        return self.operation("load_weights", body, act)

    def post_unload_model(self, body):
        return self.future(self.run(body["model_id"]).id, "unload", {"type": "unload_model", "model_id": body["model_id"]})

    def post_save_weights_external(self, body):
        def act(run, b):
            return {"type": "save_weights_external", "size_bytes": 7, "path": self.keep(run, "sampler", b["path"], None)}
        return self.operation("save_weights_external", body, act)

    def post_external_weights_upload_start(self, body):
        upload = str(len(self.uploads))
        self.uploads[upload] = {"asked": body}
        return {"upload_id": upload, "expires": "2026-01-02T03:04:05Z", "urls": {
            name: f"/api/v1/external_weights_uploads/{upload}/{name}?token=t"
            for name in ("adapter_config.json", "adapter_model.safetensors")}}

    def post_external_weights_upload_finish(self, body):
        made = self.uploads[body["upload_id"]]
        if len(made) < 3:
            raise Refused(400, "invalid", "was not uploaded", "adapter_model.safetensors")
        path = f"tiny-abc/sampler_weights/{made['asked'].get('name', 'uploaded')}"
        return {"path": "bios://" + path, "tinker_path": "tinker://" + path, "lora_rank": 4, "size_bytes": 9}

    def post_copy_weights(self, body):
        found = self.find(body["source_path"])
        path = f"tiny-copy{body['model_seq_id']}/{found['kind']}/{found['name']}"
        return {"path": "bios://" + path, "tinker_path": "tinker://" + path}

    def post_search_checkpoints(self, body):
        every = [self.checkpoint_view(c) for c in reversed(list(self.checkpoints.values()))]
        found = [c for c in every if body.get("checkpoint_type") in (None, c["checkpoint_type"])]
        begin = int(body["cursor"]["last_checkpoint_uuid"]) if body.get("cursor") else 0
        end = begin + body["limit"]
        return {"checkpoints": found[begin:end], "next_cursor": None if end >= len(found) else {
            "last_created_at": "2026-01-02T03:04:05.120Z", "last_checkpoint_uuid": str(end)}}

    def find(self, path):
        parts = path.split("://")[1].split("/")
        kinds = {"weights": ["training"], "sampler_weights": ["sampler"]}.get(parts[1]) if len(parts) == 3 \
            else ["training", "sampler"]
        for kind in kinds:
            if (parts[0], kind, parts[-1]) in self.checkpoints:
                return self.checkpoints[(parts[0], kind, parts[-1])]
        raise Refused(404, "checkpoint_not_found", f"there is no checkpoint {path}", "path")

    def post_weights_info(self, body):
        found = self.find(body["path"])
        return {"base_model": found["base_model"], "is_lora": True, "lora_rank": found["lora"].get("rank", 32),
                "step": found["step"], "metadata": found["metadata"], "kind": found["kind"]}

    def sampler(self, sampler_id, base_model, step):
        self.samplers[sampler_id] = {"base_model": base_model, "step": step, "answers": {}}
        return sampler_id

    def post_create_sampling_session(self, body):
        sampler_id = f"{body['session_id']}:sample:{body['sampling_session_seq_id']}"
        if sampler_id not in self.samplers:
            found = self.find(body["model_path"]) if body.get("model_path") else {"base_model": body["base_model"], "step": 0}
            self.sampler(sampler_id, found["base_model"], found["step"])
        return {"type": "create_sampling_session", "sampling_session_id": sampler_id}

    def post_asample(self, body):
        sampler = self.samplers.get(body["sampling_session_id"])
        if sampler is None:
            raise Refused(404, "sampler_not_found", "no such sampler", "sampling_session_id")
        known = sampler["answers"].get(body["seq_id"])
        if known:
            if known[1] != body:
                raise Refused(400, "sequence_reused", "another request has this number", "seq_id")
            return known[0]
        params, prompt = body["sampling_params"], ints(body["prompt"])
        count = params.get("max_tokens", 8)
        sequences = []
        for i in range(body["num_samples"]):
            tokens = [(params["seed"] + 7 * k + 31 * i + sampler["step"]) % 96 + 32 for k in range(count)]
            sequences.append({"tokens": tokens, "logprobs": [-0.5] * count, "stop_reason": "length"})
            if body.get("topk_sample_logprobs"):
                sequences[-1]["topk_logprobs"] = [[[t, -0.5], [1, -2]][:body["topk_sample_logprobs"]] for t in tokens]
        result = {"type": "sample", "sequences": sequences}
        if body.get("prompt_logprobs"):
            result["prompt_logprobs"] = [None] + [-1.0 / (1 + sampler["step"])] * (len(prompt) - 1)
        if body.get("topk_prompt_logprobs"):
            result["topk_prompt_logprobs"] = [None] + [[[1, -0.1]]] * (len(prompt) - 1)
        answer = self.future(body["sampling_session_id"], body["seq_id"], result)
        sampler["answers"][body["seq_id"]] = (answer, body)
        return answer

    def post_retrieve_future(self, body):
        request_id = body["request_id"]
        if request_id in self.lost:
            raise Refused(410, "gone", "submit it again")
        if request_id not in self.futures:
            raise Refused(404, "no_such_request", "no such request", "request_id")
        if self.pending.get(request_id, 0) > 0:
            self.pending[request_id] -= 1
            return LATER
        for run in self.runs.values():
            if run.poison and run.poison[1] is self.futures[request_id]:
                run.poison = None  # told once, by whichever future
        return self.futures[request_id]

    # -- listing ---------------------------------------------------------------------------------------------

    def rest(self, method, parts, query, body, accept=""):
        if parts[0] == "external_weights_uploads":
            self.uploads[parts[1]][parts[2]] = body
            return {"file": parts[2], "size_bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        if parts[5:] == ["external_weights_urls"]:
            return {"urls": {"adapter_config.json": "/api/v1/external_weights/x?token=t"}, "expires": "2026-01-02T03:04:05Z"}
        if parts == ["training_runs"]:
            runs = [self.run_view(r) for r in reversed(list(self.runs.values()))]
            offset, limit = int(query.get("offset", 0)), int(query.get("limit", 20))
            return {"training_runs": runs[offset:offset + limit],
                    "cursor": {"offset": offset, "limit": limit, "total_count": len(runs)}}
        if parts == ["checkpoints"]:
            every = [self.checkpoint_view(c) for c in reversed(list(self.checkpoints.values()))]
            offset, limit = int(query.get("offset", 0)), int(query.get("limit", 100))
            return {"checkpoints": every[offset:offset + limit],
                    "cursor": {"offset": offset, "limit": limit, "total_count": len(every)}}
        if parts == ["billing", "usage", "events"]:
            return {"data": [{"bucket_start": query["starting_on"]}], "sessions": {}}
        if parts[2:] == ["trace_export"]:
            return {"status": "ready", "url": "/api/v1/traces/s?token=x", "error": None}
        if parts == ["whoami"]:
            return {"account": "ann", "scope": "write"}
        if parts == ["usage"] and self.usage:
            if "text/csv" in accept:
                return b"training_run_id,tokens_trained\r\nr,5\r\n"
            return {"owner": "ann", "tokens_trained": 5, "base_models": [{"base_model": "m", "tokens_sampled": 7}], "runs": [
                {"training_run_id": query.get("training_run_id", "r"), "base_model": "m", "tokens_trained": 5, "news": 1,
                 "device_seconds": 1.5, "stored_bytes": 2_000_000, "project_id": None}]}
        if parts == ["audit"]:
            return {"entries": [{"timestamp": "2026-01-02T03:04:05Z", "event": "create_model", "model_id": "x", **query}]}
        if parts[0] == "sessions" and parts[2:] == ["project"]:
            self.sessions[parts[1]]["project"] = body["project_id"]
            return None
        if parts == ["sessions"]:
            return {"sessions": list(self.sessions)}
        if parts[0] == "sessions" and parts[1] in self.sessions:
            return {"training_run_ids": list(self.runs), "sampler_ids": []}
        if parts[0] == "training_runs" and parts[2:] == ["history"]:
            notes = [{"time": "2026-01-02T03:04:05Z", "node": "node-1", "kind": "created", "position": None,
                      "seq_id": None, "detail": {"rank": 8}},
                     {"time": "2026-01-02T03:04:06Z", "node": "node-1", "kind": "recovery_point", "position": 4,
                      "seq_id": 5, "detail": {"step": 2, "bytes": 10}}]
            if parts[1] not in self.runs:
                raise Refused(404, "not_found", "there is no such run")
            return {"history": notes[-int(query.get("limit", 100)):]}
        if parts[0] == "training_runs" and parts[2:] in (["retry"], ["give_up"]):
            self.decisions.append((parts[2], body))
            return {}
        if parts[0] == "training_runs":
            run = self.run(parts[1])
            if len(parts) == 2:
                return {**self.run_view(run), **({"waiting_operation": self.waiting} if self.numbered else {})}
            if len(parts) == 3:
                mine = [c for c in self.checkpoints.values() if c["run"] == run.id]
                return {"checkpoints": [self.checkpoint_view(c) for c in mine], "cursor": None}
            key = (run.id, {"weights": "training", "sampler_weights": "sampler"}[parts[3]], parts[4])
            if key not in self.checkpoints:
                raise Refused(404, "checkpoint_not_found", "no such checkpoint")
            if parts[5:] == ["publish"]:
                self.checkpoints[key]["public"] = method == "POST"
                return None
            if method == "DELETE":
                del self.checkpoints[key]
                return None
            if method == "PUT":
                self.checkpoints[key]["ttl"] = body["ttl_seconds"]
                return None
            return archive(self.checkpoints[key])
        raise Refused(404, "no_such_call", "no such thing")

    def run_view(self, run):
        return {"training_run_id": run.id, "base_model": run.base_model, "model_owner": "default", "is_lora": True,
                "lora_rank": 32, "corrupted": False, "last_request_time": "2026-01-02T03:04:05.123456789Z",
                "user_metadata": run.metadata, "step": run.step, "parent_path": run.parent, "surprise": True}

    def checkpoint_view(self, c):
        segment = "sampler_weights" if c["kind"] == "sampler" else "weights"
        return {"checkpoint_id": f"{segment}/{c['name']}", "checkpoint_type": c["kind"], "path": c["path"],
                "time": "2026-01-02T03:04:05Z", "tinker_path": f"tinker://{c['run']}/{segment}/{c['name']}",
                "size_bytes": 10, "public": c.get("public", False), "step": c["step"], "metadata": c["metadata"],
                "base_model": c["base_model"]}


def ints(model_input):
    if "tokens_base64" in model_input:
        data = base64.b64decode(model_input["tokens_base64"])
        return list(struct.unpack(f"<{len(data) // 4}i", data))
    return [t for chunk in model_input["chunks"] for t in chunk["tokens"]]


def tensor(wire):
    if "data_base64" in wire:
        data = base64.b64decode(wire["data_base64"])
        size, code = (8, "q") if wire["dtype"] == "int64" else (4, "f")
        return list(struct.unpack(f"<{len(data) // size}{code}", data))
    return wire["data"]


def archive(checkpoint):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("adapter/adapter_config.json", "adapter/adapter_model.safetensors", "tokenizer/tokenizer.json",
                     "metadata.json"):
            content = json.dumps({
                "path": checkpoint["path"], "user_metadata": checkpoint["metadata"], "peft_type": "LORA",
                "task_type": "CAUSAL_LM", "r": checkpoint["lora"].get("rank", 32), "target_modules": ["q_proj"],
                "base_model_name_or_path": "/no/such/model"}).encode()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return gzip.compress(out.getvalue(), mtime=0)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def serve(self):
        state = self.server.state
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        path, _, query = self.path.partition("?")
        path = path[len("/api/v1"):] if path.startswith("/api/v1") else "~" + path
        octets = self.headers.get("Content-Type") == "application/octet-stream"
        body = raw if octets else json.loads(raw) if raw else None
        with state.lock:
            state.calls.append((self.command, path, body))
            state.headers.append(dict(self.headers))
        action = state.take_fault(path)
        if action == "drop":
            self.close_connection = True
            return
        if isinstance(action, tuple):
            status, headers = action
            self.answer(status, {"error": "test", "category": "server", "message": "trouble on order"}, headers)
            return
        try:
            result, status = state.call(self.command, path, dict(p.split("=") for p in query.split("&") if p), body,
                                        self.headers.get("Accept", "")), 200
        except Refused as e:
            result, status = {"error": e.code, "category": "user", "message": str(e), "detail": str(e),
                              "field": e.field, "request_id": "http-1"}, e.status
        if action == "lose":
            self.close_connection = True
            return
        if result is LATER:
            result, status = {"type": "try_again", "request_id": body["request_id"], "queue_state": "active"}, 408
        if result is None:
            status = 204
        headers = {}
        if path.endswith("/archive") and isinstance(result, bytes):
            if "application/gzip" not in self.headers.get("Accept", ""):
                result = {"url": "/api/v1/archives/x?token=y", "expires": "2026-01-02T03:04:05Z"}
            elif state.ranges:
                tag = '"' + hashlib.sha256(result).hexdigest()[:16] + '"'
                headers = {"ETag": tag, "Accept-Ranges": "bytes"}
                told = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
                if told and self.headers.get("If-Range") == tag and int(told[1]) < len(result):
                    headers["Content-Range"] = f"bytes {told[1]}-{len(result) - 1}/{len(result)}"
                    result, status = result[int(told[1]):], 206
        if action == "cut":
            self.cut(status, result, headers)
            return
        self.answer(status, result, headers)

    def cut(self, status, result, headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(result) + 100))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(result[:len(result) // 2])
        self.close_connection = True

    def stream(self, events):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in events:
            if event is None:
                self.close_connection = True
                return
            line = f"{event}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.write(b"0\r\n\r\n")

    def answer(self, status, result, headers):
        if isinstance(result, Events):
            self.stream(result)
            return
        if result is None:
            content, kind = b"", None
        elif isinstance(result, bytes):
            content, kind = result, "application/gzip"
        else:
            content, kind = json.dumps(result).encode(), "application/json"
        self.send_response(status)
        if kind:
            self.send_header("Content-Type", kind)
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = serve


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, state, port=0):
        self.state = state
        self.connections = []
        super().__init__(("127.0.0.1", port), Handler)
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def process_request(self, request, client_address):
        self.connections.append(request)
        super().process_request(request, client_address)

    def handle_error(self, request, client_address):
        pass

    def kill(self):
        """Ends as kill -9 does: every connection is cut."""
        self.shutdown()
        self.server_close()
        for connection in self.connections:
            try:
                connection.shutdown(2)
            except OSError:
                pass
