import json
import os
import sys
import tempfile
import types as python
import unittest
from unittest import mock

from case import bios
from bios import data
from bios.log import MetricLog
from bios.rlhf.preference import answers
from bios.rlhf.rollout import tokens_of


class Bytes:
    """A tokenizer of bytes, whose chats are lines."""

    def encode(self, text):
        return list(text.encode())

    def decode(self, tokens, skip_special_tokens=True):
        return bytes(tokens).decode()

    def apply_chat_template(self, messages, tokenize=True, add_generation_prompt=False, rewrites=False):
        text = "".join(f"<{m['role']}>{m['content']}|" for m in messages) + ("<assistant>" if add_generation_prompt else "")
        return f"{len(messages)}{text}" if rewrites else text


class Adds(Bytes):
    """The same, which begins each text with a token unless it is told not to, as transformers' do."""

    def encode(self, text, add_special_tokens=True):
        return [1] * add_special_tokens + super().encode(text)


CHAT = [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "bc"},
        {"role": "user", "content": "d"}, {"role": "assistant", "content": "e"}]


def learned(datum):
    pairs = zip(datum.loss_fn_inputs["target_tokens"].to_list(), datum.loss_fn_inputs["weights"].to_list())
    return bytes(t for t, w in pairs if w).decode()


class DataTest(unittest.TestCase):
    def test_a_chat_learns_what_the_assistant_says(self):
        datum = data.chat_to_datum(CHAT, Bytes())
        self.assertEqual(learned(datum), "bc|e|")
        self.assertEqual(bytes(datum.model_input.to_ints()).decode(), "<system>s|<user>a|<assistant>bc|<user>d|<assistant>e")
        self.assertEqual(learned(data.chat_to_datum(CHAT, Bytes(), train_on="last")), "e|")
        self.assertEqual(learned(data.chat_to_datum(CHAT[:3], Bytes(), train_on="all")), "system>s|<user>a|<assistant>bc|")
        self.assertEqual(data.chat_to_datum(CHAT, Bytes(), max_length=28).model_input.length, 27)

    def test_a_chat_that_cannot_be_cut_is_refused(self):
        with self.assertRaisesRegex(bios.InvalidArgumentError, r"messages\[\d\].*train_on"):
            data.chat_to_datum(CHAT, Bytes(), rewrites=True)
        with self.assertRaisesRegex(bios.InvalidArgumentError, r"messages\[4\].*train_on"):
            data.chat_to_datum(CHAT, Bytes(), train_on="last", rewrites=True)
        self.assertTrue(learned(data.chat_to_datum(CHAT, Bytes(), train_on="all", rewrites=True)))
        for messages, name in (([], "messages"), (CHAT[:2], "says nothing"), (["x"], r"messages\[0\]")):
            with self.assertRaisesRegex(bios.InvalidArgumentError, name):
                data.chat_to_datum(messages, Bytes())
        with self.assertRaisesRegex(bios.InvalidArgumentError, "train_on"):
            data.chat_to_datum(CHAT, Bytes(), train_on="user")

    def test_of_a_chat_that_drops_earlier_thoughts_the_last_answer_is_learned(self):
        class Forgets(Bytes):
            def apply_chat_template(self, messages, tokenize=True, add_generation_prompt=False):
                asked = max(i for i, m in enumerate(messages) if m["role"] == "user")
                kept = [m if i > asked else {**m, "content": m["content"].rpartition("}")[2]} for i, m in enumerate(messages)]
                return super().apply_chat_template(kept, tokenize, add_generation_prompt)

        chat = [{**m, "content": "{hm}" + m["content"]} if m["role"] == "assistant" else m for m in CHAT]
        with self.assertRaisesRegex(bios.InvalidArgumentError, r"messages\[\d\].*\"last\""):
            data.chat_to_datum(chat, Forgets())
        datum = data.chat_to_datum(chat, Forgets(), train_on="last")
        self.assertEqual(learned(datum), "{hm}e|")
        self.assertEqual(bytes(datum.model_input.to_ints()).decode(), "<system>s|<user>a|<assistant>bc|<user>d|<assistant>{hm}e")
        self.assertEqual(learned(data.chat_to_datum(chat[:4], Forgets(), train_on="last")), "{hm}bc|")

    def test_a_prompt_has_no_weight(self):
        datum = data.text_to_datum("ab", "cd", Bytes())
        self.assertEqual(learned(datum), "cd")
        self.assertEqual(learned(data.text_to_datum("", "cd", Bytes())), "d")
        self.assertIn("'c'", data.shown(datum, Bytes()))
        self.assertEqual(len(data.shown(datum, Bytes()).splitlines()), 4)
        with self.assertRaisesRegex(bios.InvalidArgumentError, "weights"):
            data.tokens_to_datum([1, 2], [1.0])

    def test_no_special_token_gets_into_the_middle(self):
        self.assertEqual(data.text_to_datum("ab", "cd", Adds()), data.text_to_datum("ab", "cd", Bytes()))
        self.assertEqual(data.chat_to_datum(CHAT, Adds()), data.chat_to_datum(CHAT, Bytes()))
        self.assertEqual(tokens_of("ab", "prompt", Adds()), [97, 98])
        self.assertEqual(answers(Adds(), "ab", "b", "a", "b"), (97, 98))

    def test_candidates_are_rows_of_one_length(self):
        datum = data.candidates_to_datum([97, 98, 99], [[98, 120], [], [100]], [[0.75, 0.25], [], [1]])
        self.assertEqual(datum.loss_fn_inputs["target_tokens"].to_list(), [[98, 120], [0, 0], [100, 0]])
        self.assertEqual(datum.loss_fn_inputs["weights"].to_list(), [[0.75, 0.25], [0, 0], [1, 0]])
        lines = data.shown(datum, Bytes()).splitlines()
        self.assertEqual([line.split()[2:4] for line in lines[1:]], [["98", "0.75"], ["120", "0.25"], ["100", "1"]])
        for candidates, weights in (([[1]], [[1]]), ([[1], [2], [3]], [[1], [2], []]), ([[], [], []], [[], [], []])):
            with self.assertRaises(bios.InvalidArgumentError):
                data.candidates_to_datum([97, 98, 99], candidates, weights)

    def test_files_are_read_row_by_row(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "rows.jsonl")
            with open(path, "w", encoding="utf-8") as file:
                file.write('{"a": 1}\n\n{"a": 2}\n{"a": \n')
            rows = data.read(path)
            self.assertEqual([next(rows), next(rows)], [{"a": 1}, {"a": 2}])
            with self.assertRaisesRegex(bios.InvalidArgumentError, "line 4"):
                next(rows)
        with mock.patch.dict(sys.modules, {"pyarrow": None}), self.assertRaisesRegex(bios.MissingExtraError, "pyarrow"):
            next(data.read("x.parquet"))

    def test_parquet_is_read_where_pyarrow_is(self):
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            self.skipTest("pyarrow is not installed")
        rows = [{"messages": [{"role": "user", "content": text}]} for text in ("hi", "ho")]
        with tempfile.TemporaryDirectory() as folder:
            name = os.path.join(folder, "chats.parquet")
            parquet.write_table(pyarrow.Table.from_pylist(rows), name)
            self.assertEqual(list(data.read(name)), rows)

    def test_batches_are_shuffled_by_their_seed(self):
        items = list(range(10))
        found = list(data.batches(items, 4, seed=1, epochs=2))
        self.assertEqual([len(b) for b in found], [4, 4, 2, 4, 4, 2])
        self.assertEqual(sorted(sum(found[:3], [])), items)
        self.assertNotEqual(found[:3], found[3:])
        self.assertEqual(found, list(data.batches(items, 4, seed=1, epochs=2)))
        self.assertEqual(next(data.batches(items, 3)), [0, 1, 2])
        with self.assertRaisesRegex(bios.InvalidArgumentError, "size"):
            next(data.batches(items, 0))


class Scalar:
    """As numpy's and torch's."""

    def __init__(self, value, shape=()):
        self.value, self.shape, self.dtype = value, shape, "float32"

    def item(self):
        return self.value

    def __str__(self):
        return "many"


class LogTest(unittest.TestCase):
    def test_metrics_are_lines_and_go_where_they_are_wanted(self):
        wandb = python.ModuleType("wandb")
        run = mock.Mock()
        wandb.init = mock.Mock(return_value=run)
        with tempfile.TemporaryDirectory() as folder, mock.patch.dict(sys.modules, {"wandb": wandb, "trackio": None}):
            where = os.path.join(folder, "run")
            with MetricLog(where, config={"lr": 1}, to=["wandb"]) as log:
                log.write(3, {"loss": 1.5, "bad": float("nan"), "note": "x"})
            with open(os.path.join(where, "metrics.jsonl"), encoding="utf-8") as file:
                row = json.loads(file.read())
            self.assertEqual((row["step"], row["loss"], row["bad"], row["note"]), (3, 1.5, None, "x"))
            self.assertEqual(run.log.call_args.kwargs, {"step": 3})
            run.finish.assert_called_once()
            with MetricLog(os.path.join(folder, "scalars")) as log:
                log.write(1, {"a": Scalar(0.5), "n": Scalar(3), "one": Scalar(2.5, (1, 1)), "many": Scalar(0.5, (2,))})
            with open(os.path.join(folder, "scalars", "metrics.jsonl"), encoding="utf-8") as file:
                row = json.loads(file.read())
            self.assertEqual((row["a"], row["n"], row["one"], row["many"]), (0.5, 3, 2.5, "many"))
            with self.assertRaisesRegex(bios.MissingExtraError, "trackio"):
                MetricLog(where, to=["trackio"])
            with self.assertRaisesRegex(bios.InvalidArgumentError, "to"):
                MetricLog(where, to=["paper"])


if __name__ == "__main__":
    unittest.main()
