import json
import math
import os
import random
import struct
import tempfile
import unittest
from unittest import mock

from case import bios
from bios import export

NO_NUMPY = mock.patch.dict("sys.modules", {"numpy": None})


def write(name, tensors, metadata=None):
    """tensors: name -> (dtype, shape, numbers)"""
    head, content = {}, b""
    if metadata:
        head["__metadata__"] = metadata
    for key, (dtype, shape, numbers) in tensors.items():
        packed = pack(dtype, numbers)
        head[key] = {"dtype": dtype, "shape": shape, "data_offsets": [len(content), len(content) + len(packed)]}
        content += packed
    text = json.dumps(head).encode()
    with open(name, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text + content)


def pack(dtype, numbers):
    if dtype == "F32":
        return struct.pack(f"<{len(numbers)}f", *numbers)
    if dtype == "F16":
        return struct.pack(f"<{len(numbers)}e", *numbers)
    if dtype == "BF16":  # of numbers that bfloat16 holds
        return b"".join(struct.pack("<f", n)[2:] for n in numbers)
    return struct.pack(f"<{len(numbers)}q", *numbers)


def read(name):
    with open(name, "rb") as file:
        head = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        content = file.read()
    found = {}
    for key, entry in head.items():
        if key != "__metadata__":
            part = content[slice(*entry["data_offsets"])]
            n = math.prod(entry["shape"])
            found[key] = entry["dtype"], {
                "F32": lambda: struct.unpack(f"<{n}f", part), "F16": lambda: struct.unpack(f"<{n}e", part),
                "BF16": lambda: tuple(struct.unpack("<f", b"\0\0" + part[i:i + 2])[0] for i in range(0, 2 * n, 2)),
                "I64": lambda: struct.unpack(f"<{n}q", part)}[entry["dtype"]]()
    return found


class ExportTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.base, self.adapter = self.path("base"), self.path("adapter")
        chance = random.Random(5)
        some = lambda n: [chance.randrange(-64, 65) / 64 for _ in range(n)]  # noqa: E731
        os.mkdir(self.base)
        os.mkdir(self.adapter)
        self.weights = {
            "model.embed_tokens.weight": ("BF16", [4, 3], some(12)), "model.layers.0.q_proj.weight": ("BF16", [2, 3], some(6)),
            "model.layers.0.o_proj.weight": ("F16", [3, 2], some(6)), "model.layers.0.up_proj.weight": ("F32", [2, 3], some(6)),
            "model.norm.weight": ("F32", [3], some(3)), "model.steps": ("I64", [1], [7])}
        write(os.path.join(self.base, "model.safetensors"), self.weights, {"format": "pt"})
        self.text("base/config.json", {"model_type": "x", "tie_word_embeddings": True})
        self.text("base/tokenizer.json", {})
        self.text("base/pytorch_model.bin", {})
        self.factors = {}
        for module, (rows, columns) in {"model.layers.0.q_proj": (2, 3), "model.layers.0.o_proj": (3, 2),
                                        "model.layers.0.up_proj": (2, 3), "lm_head": (4, 3)}.items():
            self.factors[f"base_model.model.{module}.lora_A.weight"] = ("F32", [2, columns], some(2 * columns))
            self.factors[f"base_model.model.{module}.lora_B.weight"] = ("F32", [rows, 2], some(rows * 2))
        self.write_adapter()

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def text(self, name, value):
        with open(self.path(name), "w", encoding="utf-8") as out:
            json.dump(value, out)

    def write_adapter(self, **more):
        write(os.path.join(self.adapter, "adapter_model.safetensors"), self.factors)
        self.text("adapter/adapter_config.json", {"r": 2, "lora_alpha": 4, **more})

    def expected(self, target, module):
        _, (rows, columns), numbers = self.weights[target]
        a = self.factors[f"base_model.model.{module}.lora_A.weight"][2]
        b = self.factors[f"base_model.model.{module}.lora_B.weight"][2]
        return [numbers[i * columns + j] + 2.0 * sum(b[i * 2 + k] * a[k * columns + j] for k in range(2))
                for i in range(rows) for j in range(columns)]

    def merge(self, name, **more):
        os.mkdir(self.path(name))
        export.merge(self.adapter, self.base, self.path(name), **more)
        return read(self.path(name, "model.safetensors"))

    def check(self, found, dtype=None):
        self.assertEqual(list(found), [*self.weights, "lm_head.weight"])
        for name, (kind, numbers) in found.items():
            module = name[:-len(".weight")]
            of = name if name in self.weights else "model.embed_tokens.weight"
            first, _, plain = self.weights[of]
            self.assertEqual(kind, dtype if dtype and first != "I64" else first, name)
            changed = f"base_model.model.{module}.lora_A.weight" in self.factors
            wanted = self.expected(of, module) if changed else plain
            near = {"F32": 1e-6, "F16": 2e-3, "BF16": 2e-2}.get(kind, 0)
            for got, want in zip(numbers, wanted):
                self.assertAlmostEqual(got, want, delta=near * max(1, abs(want)), msg=name)

    def test_a_merged_weight_is_the_base_with_the_product_added(self):
        self.check(self.merge("out"))
        with open(self.path("out", "config.json"), encoding="utf-8") as file:
            self.assertEqual(json.load(file), {"model_type": "x", "tie_word_embeddings": False})
        self.assertEqual(sorted(os.listdir(self.path("out"))), ["config.json", "model.safetensors", "tokenizer.json"])
        self.check(self.merge("wide", dtype="float32"), "F32")

    def test_without_numpy_it_is_the_same(self):
        try:
            import numpy  # noqa: F401
        except ImportError:
            self.skipTest("numpy is not here: the other test is of plain Python")
        for more in ({}, {"dtype": "float32"}, {"dtype": "bfloat16"}, {"dtype": "float16"}):
            with_numpy = self.merge(f"a{len(os.listdir(self.folder))}", **more)
            with NO_NUMPY:
                without = self.merge(f"b{len(os.listdir(self.folder))}", **more)
            self.assertEqual(with_numpy, without)

    def test_shards_stay_shards(self):
        with open(os.path.join(self.base, "model.safetensors"), "rb") as file:
            self.assertTrue(file.read())
        os.unlink(os.path.join(self.base, "model.safetensors"))
        names = list(self.weights)
        parts = {"model-1.safetensors": names[:3], "model-2.safetensors": names[3:]}
        for shard, held in parts.items():
            write(os.path.join(self.base, shard), {name: self.weights[name] for name in held})
        self.text("base/model.safetensors.index.json", {"weight_map": {n: s for s, held in parts.items() for n in held}})
        os.mkdir(self.path("out"))
        export.merge(self.adapter, self.base, self.path("out"))
        found = {}
        with open(self.path("out", "model.safetensors.index.json"), encoding="utf-8") as file:
            homes = json.load(file)["weight_map"]
        for shard in parts:
            for name, value in read(self.path("out", shard)).items():
                self.assertEqual(homes[name], shard)
                found[name] = value
        self.check({name: found[name] for name in [*self.weights, "lm_head.weight"]})

    def test_what_does_not_fit_is_refused(self):
        self.factors["base_model.model.nose.lora_A.weight"] = ("F32", [2, 3], [0.0] * 6)
        self.factors["base_model.model.nose.lora_B.weight"] = ("F32", [2, 2], [0.0] * 4)
        self.write_adapter()
        with self.assertRaisesRegex(bios.BiosError, "nose.weight"):
            self.merge("a")
        for half in "AB":
            del self.factors[f"base_model.model.nose.lora_{half}.weight"]
        self.factors["base_model.model.lm_head.lora_B.weight"] = ("F32", [3, 2], [0.0] * 6)
        self.write_adapter()
        with self.assertRaisesRegex(bios.BiosError, "lm_head.*another base model"):
            self.merge("b")
        self.write_adapter(use_dora=True)
        with self.assertRaisesRegex(bios.BiosError, "PEFT"):
            self.merge("c")
        with open(os.path.join(self.base, "model.safetensors"), "wb") as out:
            out.write(b"nonsense")
        self.write_adapter()
        with self.assertRaisesRegex(bios.BiosError, "not a file of safetensors"):
            self.merge("d")


if __name__ == "__main__":
    unittest.main()
