"""Runs the listings of the reference page against a real server, and checks what they promise.

    python3 protocol/python/tests/listings.py --base-url http://127.0.0.1:8400 [--base-model NAME]

The server should serve the page's models (``bios up --model ultrasafe/usf-finance=DIR ...``: -finance, -healthcare,
-code); for those it does not, ``--base-model`` stands in. The calls are the page's own. Only three things are changed:
loop counts (``scaled(1000)``), made-up paths (``example_path("...")``), and how many tokens to draw. ``--examples DIR``
writes the listings with the first two changes as files instead, and needs no server.

Ends with status 0 if every listing ran and kept its promises.
"""

import argparse
import io
import json
import math
import os
import re
import sys
import tarfile
import tempfile
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(os.path.dirname(HERE), "src"), os.path.join(os.path.dirname(HERE), "examples")]

import bios  # noqa: E402
from bios import types  # noqa: E402
from bios.paths import CheckpointPath  # noqa: E402
from prelude import Prelude  # noqa: E402

#: title -> (file of the example, names that the listing takes from the prelude)
LISTINGS = {
    "Checkpoint Naming Examples": ("01_checkpoint_names.py", "epoch step training_client"),
    "Save Weights for Sampling": ("02_save_weights_for_sampling.py", "tokenizer"),
    "Shortcut: Save and Sample": ("03_save_and_sample.py", "params prompt tokenizer training_client"),
    "Save and Load Training State": ("04_save_and_load_state.py", "batch scaled"),
    "Training with Checkpoints": ("05_training_with_checkpoints.py", "batches scaled tokenizer"),
    "Resume from Checkpoint": ("06_resume.py", "batch example_path scaled"),
    "Multi-Stage Training": ("11_multi_stage.py", "prompts scaled sft_dataloader"),
    "Download Checkpoint Archive": ("07_download.py", "example_path"),
    "Extract and Load Weights": ("08_extract_and_load.py", "example_base"),
    "Automated Checkpointing": ("09_automated_checkpointing.py", "batch scaled training_client"),
    "Checkpoint with Metadata": ("10_metadata.py", "current_epoch current_loss current_lr datetime step "
                                                   "training_client training_config"),
}


def page():
    """The page's listings by title."""
    with open(os.path.join(HERE, "reference_listings.md"), encoding="utf-8") as f:
        return dict(re.findall(r"^## (.+?)\n\n```python\n(.*?)^```$", f.read(), re.M | re.S))


def runnable(source):
    """A listing with loop counts that scale and paths that exist."""
    source = re.sub(r"range\(([\d, ]+)\)", lambda m: f"range({re.sub('[0-9]+', scaled, m[1])})", source)
    source = re.sub(r"(_interval = |% )(\d+)", lambda m: m[1] + scaled(m, 2), source)
    source = re.sub(r'(checkpoint_path = )("bios://[^"]+")', r"\1example_path(\2)", source)
    return source.replace('"ultrasafe/usf-finance-base"', 'example_base("ultrasafe/usf-finance-base")')


def scaled(match, group=0):
    return f"scaled({match[group]})" if int(match[group]) >= 100 else match[group]


def examples():
    """The examples: file name -> text."""
    listings = page()
    return {
        name: f'"""{title}: a listing of the reference page; prelude.py has what the page leaves out."""\n\n'
              f"from prelude import {', '.join(needs.split())}\n\n{runnable(listings[title])}"
        for title, (name, needs) in LISTINGS.items()}


class Stage:
    """Runs listings in namespaces that hold the prelude's names, and checks them."""

    def __init__(self, base_url, base_model, scale, max_tokens):
        self.url, self.max_tokens = base_url, max_tokens
        os.environ["BIOS_BASE_URL"] = base_url  # the listings say bios.ServiceClient()
        self.service = bios.ServiceClient()
        self.rest = self.service.create_rest_client()
        self.served = [m.model_name for m in self.service.get_server_capabilities().supported_models]
        self.base_model = base_model
        self.scale = scale
        self.sources = page()
        self.shared = {}

    def model(self, name):
        if name in self.served:
            return name
        if self.base_model is None:
            raise SystemExit(f"the server does not serve {name} (but {self.served}); name a stand-in with --base-model")
        return self.base_model

    def prelude(self):
        made = Prelude(self.url, self.model("ultrasafe/usf-finance"), self.scale)
        made.params = types.SamplingParams(max_tokens=self.max_tokens, temperature=0.7)
        return made

    def run(self, title, names):
        source = runnable(self.sources[title])
        source = re.sub(r'"(ultrasafe/[a-z-]+)"(?!\))', lambda m: json.dumps(self.model(m[1])), source)
        source = re.sub(r"(max_(?:new_)?tokens=)\d+", lambda m: m[1] + str(self.max_tokens), source)
        exec(compile(source, f"<{title}>", "exec"), names)
        return names

    def names(self, title, prelude):
        return {name: getattr(prelude, name) for name in LISTINGS[title][1].split()}

    def checkpoints(self, client, kind=None):
        """Names of a run's checkpoints once all that was asked of it is done."""
        client.save_weights_for_sampler("all-done-before").result()
        found = self.rest.list_checkpoints(client.model_id).result().checkpoints
        return sorted(c.name for c in found if c.name != "all-done-before" and kind in (None, c.checkpoint_type))

    def step_of(self, path):
        return self.rest.get_weights_info_by_bios_path(path).result().step


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def close(a, b, tolerance=1e-3):
    return len(a) == len(b) and all((x is None) == (y is None) and (x is None or abs(x - y) <= tolerance)
                                    for x, y in zip(a, b))


def naming(stage, title):
    names = stage.run(title, stage.names(title, stage.prelude()))
    wanted = ["0000", "0001", "epoch_2_step_750", "finance_model_v1_final", "step_1000", "step_2000"]
    found = stage.checkpoints(names["training_client"], "training")
    check(found == wanted, f"six states that nobody waited for: {found}")


def sampling(stage, title):
    prelude = stage.prelude()
    names = stage.run(title, stage.names(title, prelude))
    client, path, result = names["training_client"], names["sampling_path"], names["result"]
    where = CheckpointPath.parse(path)
    check((where.run, where.kind, where.name) == (client.model_id, "sampler_weights", "checkpoint_1000"), path)
    check(1 <= len(result.sequences[0].tokens) <= stage.max_tokens, "at most max_tokens tokens")
    check(all(isinstance(t, int) for t in result.sequences[0].tokens), "tokens are ints")
    check(client.get_info().lora_rank == 32, "rank 32")
    prelude.training_client = client
    stage.shared["first"] = (prelude, names)


def shortcut(stage, title):
    prelude, before = stage.shared.get("first") or (stage.prelude(), None)
    old = before and before["sampling_client"]
    probe = prelude.prompt.append(types.EncodedTextChunk(prelude.tokenizer.encode(" eight percent")))
    told = old and old.compute_logprobs(probe).result()
    for _ in range(3):
        prelude.training_client.train(prelude.batch, learning_rate=0.02)
    names = stage.run(title, stage.names(title, prelude))
    check(isinstance(names["sampling_client"], bios.SamplingClient), "a SamplingClient, not a future")
    check(len(names["result"].sequences[0].tokens) <= stage.max_tokens, "at most max_tokens tokens")
    if old:  # the name was used before: the old client keeps the old weights, the new one has the new
        check(close(old.compute_logprobs(probe).result(), told), "the older client still has its own weights")
        check(not close(names["sampling_client"].compute_logprobs(probe).result(), told, 0), "the newer has others")


def save_and_load(stage, title):
    prelude = stage.prelude()
    names = stage.run(title, stage.names(title, prelude))
    half = prelude.scaled(1000)
    check(stage.step_of(names["resume_path"]) == half, f"the state holds exactly the {half} steps before it")
    last = names["training_client"].save_state("after").result()
    check(last.step == prelude.scaled(2000), f"{prelude.scaled(2000)} steps in the end, not {last.step}")
    check(names["training_client"].get_info().lora_rank == 16, "rank 16")


def with_checkpoints(stage, title):
    prelude = stage.prelude()
    names = stage.run(title, stage.names(title, prelude))
    client, steps = names["training_client"], prelude.scaled(10000)
    states = stage.checkpoints(client, "training")
    samplers = stage.checkpoints(client, "sampler")
    check(len(states) == math.ceil(steps / prelude.scaled(500)) + 1, f"states: {states}")
    check(len(samplers) == math.ceil(steps / prelude.scaled(1000)), f"samplers: {samplers}")
    check("step_0" in states and "eval_0" in samplers and "final_model" in states, "both kinds at step 0, and the last")
    check(stage.step_of(names["final_path"]) == steps, f"{steps} steps")


def resume(stage, title):
    prelude = stage.prelude()
    names = stage.run(title, stage.names(title, prelude))
    path, client = names["checkpoint_path"], names["training_client"]
    went = prelude.scaled(10000) - prelude.scaled(5000)
    check(client.save_state("end").result().step == stage.step_of(path) + went, "the step count goes on from the path's")
    check(client.get_info().lora_rank == 16, "a client without a rank takes the checkpoint's")
    loaded = bios.ServiceClient().load_training_client(path)
    other = bios.ServiceClient().create_lora_training_client(base_model=prelude._model)
    other.load_state(path)
    check(len({loaded.model_id, other.model_id, CheckpointPath.parse(path).run}) == 3, "three runs")
    losses = [[c.train(prelude.batch, learning_rate=1e-3).loss for _ in range(3)] for c in (loaded, other)]
    check(close(losses[0], losses[1], 1e-4), f"both ways to load train alike: {losses}")
    try:
        bios.ServiceClient().load_training_client("bios://usf-finance-abc123abc123/step_5000")
    except bios.NotFoundError:
        pass
    else:
        raise AssertionError("a path that leads nowhere was loaded")


def multi_stage(stage, title):
    names = stage.run(title, stage.names(title, stage.prelude()))
    sft, final = names["sft_path"], names["final_path"]
    trained, iterations = stage.step_of(sft), stage.prelude().scaled(1000)
    check(trained == 3 * len(names["sft_dataloader"]), f"three epochs of SFT: {trained}")
    check(trained <= stage.step_of(final) <= trained + iterations, f"{iterations} updates go on from the SFT's step")
    check(names["rlhf_client"].model_id != names["sft_client"].model_id, "another run")
    check(stage.checkpoints(names["rlhf_client"]) == ["rlhf_final"], "rollouts leave no checkpoint behind")
    size = names["ppo_trainer"].config.group_size
    check(len(names["rollouts"]) == len(names["rewards"]) == size * len(names["prompts"]), "a group for each prompt")
    check(stage.step_of(sft) == trained, "the SFT's state stays as it was")


def download(stage, title):
    names = stage.run(title, stage.names(title, stage.prelude()))
    data, path = names["archive_data"], names["checkpoint_path"]
    check(isinstance(data, bytes) and data[:2] == b"\x1f\x8b", "bytes of a gzip file")
    check(stage.rest.download_checkpoint_archive_from_bios_path(path).result() == data, "the same bytes each time")
    with tarfile.open("model-checkpoint.tar.gz", "r:gz") as tar:
        members = tar.getmembers()
    files = {m.name for m in members if m.isfile()}
    check({"adapter/adapter_config.json", "adapter/adapter_model.safetensors", "metadata.json"} <= files, f"{files}")
    check(any(f.startswith("tokenizer/") for f in files), f"a tokenizer: {files}")
    check(all((m.isfile() or m.isdir()) and not m.name.startswith("/") and ".." not in m.name.split("/")
              for m in members), "members that are safe to extract")


def extract(stage, title):
    if hasattr(tarfile, "data_filter"):  # what extractall does by itself from Python 3.14 on
        tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        import peft  # noqa: F401
        import transformers
        transformers.AutoConfig.from_pretrained(stage.prelude().example_base(None))
    except (ImportError, OSError, ValueError) as e:
        print(f"(no PEFT or base model here: {e}; only the extraction is run)")
        source = re.search(r"^with tarfile.*?^\n", stage.sources[title], re.M | re.S)[0]
        exec(compile("import tarfile\n" + source, f"<{title}>", "exec"), {})
    else:
        names = stage.run(title, stage.names(title, stage.prelude()))
        check(names["outputs"].shape[0] == 1, "one sequence")
    with open("downloaded_model/adapter/adapter_config.json", encoding="utf-8") as f:
        config = json.load(f)
    check(config["peft_type"] == "LORA" and config["r"] == 16 and config["target_modules"], f"{config}")
    check(config["task_type"] == "CAUSAL_LM" and config["base_model_name_or_path"], f"{config}")
    check(os.listdir("downloaded_model/tokenizer"), "a tokenizer")


def automated(stage, title):
    prelude = stage.prelude()
    names = stage.run(title, stage.names(title, prelude))
    interval = prelude.scaled(500)
    saved = [step for step in range(prelude.scaled(10000)) if step % interval == 0]
    check([c["step"] for c in names["manager"].checkpoints] == saved[-5:], "the deque holds the last five")
    states = stage.checkpoints(names["training_client"], "training")
    check(states == sorted(f"auto_checkpoint_{s}" for s in saved), f"the server holds all {len(saved)}: {states}")
    after = names["training_client"].save_state("after").result().step
    check(after == stage.step_of(names["latest"]["path"]) == saved[-1] + 1, f"loaded the latest: {after}")


def with_metadata(stage, title):
    prelude = stage.prelude()
    names = stage.run(title, stage.names(title, prelude))
    checkpoint = names["checkpoint"]
    wanted = {"step": prelude.step, "epoch": 2, "loss": 1.25, "learning_rate": 1e-4, "dataset": "financial_corpus_v2",
              "timestamp": checkpoint.metadata.get("timestamp"), "config": prelude.training_config}
    check(checkpoint.metadata == wanted and isinstance(wanted["timestamp"], str), f"{checkpoint.metadata}")
    info = bios.ServiceClient().create_rest_client().get_weights_info_by_bios_path(checkpoint.path).result()
    check(info.metadata == wanted and info.kind == "training", f"kept with the checkpoint: {info}")
    archive = stage.rest.download_checkpoint_archive_from_bios_path(checkpoint.path).result()
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        told = json.load(tar.extractfile("metadata.json"))
        check(not any("optim" in n for n in tar.getnames()), "no optimizer state in an archive")
    check(told["user_metadata"] == wanted, f"in the archive's metadata.json: {told}")
    check(prelude.training_client.save_state("bare").result().metadata == {}, "no metadata is {}")


PLAYS = dict(zip(LISTINGS, (naming, sampling, shortcut, save_and_load, with_checkpoints, resume, multi_stage, download, extract,
                            automated, with_metadata)))


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Runs the reference page's listings against a server.")
    parser.add_argument("--base-url", default=os.environ.get("BIOS_BASE_URL") or "http://127.0.0.1:8400")
    parser.add_argument("--base-model", help="stands in for models of the page that the server does not serve")
    parser.add_argument("--scale", type=int, default=250, help="divides the page's loop counts; 1: in full")
    parser.add_argument("--max-tokens", type=int, default=16, help="tokens to draw, instead of the page's 256 and 512")
    parser.add_argument("--only", help="run the listings whose title holds this")
    parser.add_argument("--examples", metavar="DIR", help="write the examples there and end")
    given = parser.parse_args(arguments)
    if given.examples:
        for name, text in examples().items():
            with open(os.path.join(given.examples, name), "w", encoding="utf-8") as f:
                f.write(text)
        return 0
    stage = Stage(given.base_url, given.base_model, given.scale, given.max_tokens)
    failed = []
    home = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # the listings write files
        try:
            for title, play in PLAYS.items():
                if given.only and given.only.lower() not in title.lower():
                    continue
                print(f"-- {title}", flush=True)
                try:
                    play(stage, title)
                except Exception:
                    traceback.print_exc(file=sys.stdout)
                    failed.append(title)
        finally:
            os.chdir(home)
    print(f"{len(failed)} listings failed: {', '.join(failed)}" if failed else "every listing ran as written", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
