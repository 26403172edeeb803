"""The loops of Tinker's cookbook, unmodified, against `bios up`: supervised, DPO, RL, multi-turn RL, distillation.

Needs the packages `tinker` and `tinker_cookbook` (with `chz`, `datasets`, `torch` and `transformers`); without them the check
says so and is skipped. Only data, model and sizes are given: the small shipped model, a handful of rows, a few steps. A loop
has passed when it has ended, written finite metrics of each step and saved a checkpoint that the service lists.
`--only WORD` runs the loops whose name has the word; `--write` puts the outcome into docs/reference/compatibility.md; `--url URL`
uses a server that runs already.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import math
import os
import re
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any, Callable, Dict, List

try:
    import chz  # noqa: F401
    import tinker
    import tinker_cookbook  # noqa: F401
except ImportError as missing:
    print(f"skipped: the cookbook is not installed ({missing})")
    sys.exit(0)

from harness import NAME, ROOT, against_server

PAGE = ROOT / "docs" / "reference" / "compatibility.md"
KEY = "tml-cookbook"
RENDERER = "role_colon"
STEPS = 2


class Loops:
    """Each loop of the cookbook with the least configuration that makes it a whole loop."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder

    def log(self, name: str) -> str:
        return str(self.folder / name)

    def rows(self, name: str, rows: List[Dict[str, Any]]) -> str:
        path = self.folder / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    def common(self, batch: int) -> Any:
        from tinker_cookbook.supervised.types import ChatDatasetBuilderCommonConfig

        return ChatDatasetBuilderCommonConfig(model_name_for_tokenizer=NAME, renderer_name=RENDERER, max_length=128,
                                              batch_size=batch)

    def supervised(self) -> None:
        from tinker_cookbook.supervised import train
        from tinker_cookbook.supervised.data import FromConversationFileBuilder

        chats = [{"messages": [{"role": "user", "content": f"What comes after {i}?"},
                               {"role": "assistant", "content": f"After {i} comes {i + 1}."}]} for i in range(12)]
        data = FromConversationFileBuilder(file_path=self.rows("chats.jsonl", chats), test_size=2,
                                           common_config=self.common(4))
        asyncio.run(train.main(train.Config(
            log_path=self.log("supervised"), model_name=NAME, recipe_name="supervised", renderer_name=RENDERER,
            dataset_builder=data, learning_rate=1e-3, lora_rank=8, base_url=self.url, eval_every=1, save_every=1,
            max_steps=STEPS)))

    def dpo(self) -> None:
        from tinker_cookbook.preference import train_dpo
        from tinker_cookbook.preference.dpo_datasets import DPODatasetBuilderFromComparisons
        from tinker_cookbook.preference.preference_datasets import ComparisonBuilderFromJsonl

        pairs = [{"comparison": {"prompt_conversation": [{"role": "user", "content": f"Say {i}."}],
                                 "completion_A": [{"role": "assistant", "content": f"{i}."}],
                                 "completion_B": [{"role": "assistant", "content": "No, I do not want to."}]},
                  "label": "A"} for i in range(12)]
        data = DPODatasetBuilderFromComparisons(
            comparison_builder=ComparisonBuilderFromJsonl(train_path=self.rows("pairs.jsonl", pairs)),
            common_config=self.common(4))
        train_dpo.main(train_dpo.Config(
            log_path=self.log("dpo"), model_name=NAME, recipe_name="dpo", renderer_name=RENDERER, dataset_builder=data,
            learning_rate=1e-3, lora_rank=8, base_url=self.url, save_every=1, max_steps=STEPS))

    def arithmetic(self) -> Any:
        from tinker_cookbook.recipes.math_rl.arithmetic_env import ArithmeticDatasetBuilder

        return ArithmeticDatasetBuilder(batch_size=2, model_name_for_tokenizer=NAME, renderer_name=RENDERER,
                                        n_batches=STEPS, group_size=4)

    def rl(self) -> None:
        from tinker_cookbook.rl import train

        asyncio.run(train.main(train.Config(
            learning_rate=1e-3, dataset_builder=self.arithmetic(), model_name=NAME, recipe_name="rl", max_tokens=8,
            log_path=self.log("rl"), renderer_name=RENDERER, lora_rank=8, base_url=self.url, save_every=1, eval_every=0,
            num_substeps=2, compute_post_kl=True, remove_constant_reward_groups=False, max_steps=STEPS)))

    def multi_turn(self) -> None:
        from tinker_cookbook.recipes.multiplayer_rl.guess_number.env import GuessNumberDatasetBuilder
        from tinker_cookbook.rl import train

        data = GuessNumberDatasetBuilder(batch_size=2, renderer_name=RENDERER, train_group_size=2, model_name=NAME,
                                         base_url=self.url)
        asyncio.run(train.main(train.Config(
            learning_rate=1e-3, dataset_builder=data, model_name=NAME, recipe_name="multi-turn", max_tokens=12,
            log_path=self.log("multi-turn"), renderer_name=RENDERER, lora_rank=8, base_url=self.url, save_every=1,
            eval_every=0, max_steps=STEPS)))

    def on_policy_distillation(self) -> None:
        from tinker_cookbook.distillation import train_on_policy as train
        from tinker_cookbook.distillation.datasets import DistillationDatasetConfig, TeacherConfig

        data = DistillationDatasetConfig(dataset_builder=self.arithmetic(), teacher_config=TeacherConfig(base_model=NAME),
                                         groups_per_batch=2)
        asyncio.run(train.main(train.Config(
            learning_rate=1e-3, dataset_configs=[data], model_name=NAME, recipe_name="on-policy", max_tokens=8,
            renderer_name=RENDERER, lora_rank=8, log_path=self.log("on-policy"), base_url=self.url, save_every=1,
            eval_every=0, max_steps=STEPS)))

    def off_policy_distillation(self) -> None:
        from tinker_cookbook.distillation import train_off_policy as train
        from tinker_cookbook.distillation.datasets import TeacherConfig
        from tinker_cookbook.supervised.data import FromConversationFileBuilder

        chats = [{"messages": [{"role": "user", "content": f"What comes after {i}?"},
                               {"role": "assistant", "content": f"After {i} comes {i + 1}."}]} for i in range(12)]
        data = train.DatasetWithTeacher(
            dataset_builder=FromConversationFileBuilder(file_path=self.rows("lessons.jsonl", chats),
                                                        common_config=self.common(4)),
            teacher_config=TeacherConfig(base_model=NAME))
        asyncio.run(train.main(train.Config(
            learning_rate=1e-3, dataset_configs=[data], model_name=NAME, recipe_name="off-policy", renderer_name=RENDERER,
            lora_rank=8, n_teacher_targets=4, batch_size=4, save_every=1, eval_every=0, max_steps=STEPS,
            log_path=self.log("off-policy"), base_url=self.url)))

    def all(self) -> Dict[str, Callable[[], None]]:
        """The loops by the name of their folder."""
        return {"supervised": self.supervised, "dpo": self.dpo, "rl": self.rl, "multi-turn": self.multi_turn,
                "on-policy": self.on_policy_distillation, "off-policy": self.off_policy_distillation}


def proved(folder: Path, client: Any) -> str:
    """`ok`, or what a loop that ended has not left behind."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines() if line.strip()]
    numbers = [v for row in lines for v in row.values() if isinstance(v, float)]
    if len(lines) < STEPS or not numbers:
        return f"wrong: {len(lines)} rows of metrics"
    if not all(math.isfinite(v) for v in numbers):
        return "wrong: a metric is not finite"
    saved = [json.loads(line) for line in (folder / "checkpoints.jsonl").read_text().splitlines()]
    paths = [value for row in saved for value in row.values() if isinstance(value, str) and value.startswith("tinker://")]
    listed = {c.tinker_path for c in client.list_user_checkpoints(limit=500).result().checkpoints}
    lost = [path for path in paths if path not in listed]
    return "ok" if paths and not lost else f"wrong: saved {paths}, not listed {lost}"


def outcomes(url: str, folder: Path, only: str) -> Dict[str, str]:
    """What became of each loop."""
    found = {}
    client = tinker.ServiceClient(base_url=url, api_key=KEY).create_rest_client()
    for name, loop in Loops(url, folder).all().items():
        if only not in name:
            continue
        try:
            loop()
            found[name] = proved(folder / name, client)
        except BaseException as failed:  # noqa: B902
            traceback.print_exc()
            text = re.sub(r"\s+", " ", str(failed))
            found[name] = f"{type(failed).__name__}: {text}"[:160]
        print(f"loop {name}: {found[name]}", flush=True)
    return found


def against(url: str, only: str) -> Dict[str, str]:
    """Runs the loops with what they take from the environment."""
    with tempfile.TemporaryDirectory(prefix="bios-cookbook-") as folder:
        os.environ.update(TINKER_API_KEY=KEY, TINKER_BASE_URL=url, HF_ENDPOINT=url, HF_HUB_OFFLINE="0",
                          HF_HOME=str(Path(folder) / "hub"), HF_TOKEN=KEY)
        return outcomes(url, Path(folder), only)


def write(found: Dict[str, str]) -> None:
    """The outcome as a column of the page's second table."""
    version = importlib.metadata.version("tinker")
    text = PAGE.read_text(encoding="utf-8")
    before, rows, after = re.split(r"<!-- (?:end of )?cookbook -->\n", text)
    table = [[cell.strip() for cell in line.strip("| \n").split("|")] for line in rows.splitlines()]
    columns = table[0][1:] if table else []
    known = {row[0]: dict(zip(columns, row[1:])) for row in table[2:]}
    columns = sorted(set(columns) | {version})
    for name, outcome in found.items():
        known.setdefault(name, {})[version] = outcome.replace("|", "\\|")
    lines = ["| loop | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(row.get(c, "") for c in columns) + " |" for name, row in known.items()]
    PAGE.write_text(f"{before}<!-- cookbook -->\n" + "\n".join(lines) + f"\n<!-- end of cookbook -->\n{after}",
                    encoding="utf-8")


def main() -> None:
    found = against_server(against)
    if "--write" in sys.argv:
        write(found)
    failed = [name for name, outcome in found.items() if outcome != "ok"]
    print(f"{len(found) - len(failed)} of {len(found)} loops ran")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
