"""What is shown: in notebooks, on a terminal, of settings."""

import copy
import dataclasses
import io
import json
import os
import pickle
import stat
import sys
import tempfile
import time
import unittest
from unittest import mock

from case import MODEL, GatewayCase, bios, datum, types
from bios import _progress, config


class Terminal(io.StringIO):
    def isatty(self):
        return True


class NotebookTest(GatewayCase):
    def test_tokens_are_coloured_and_escaped(self):
        sampler = self.training().save_weights_and_get_sampling_client("x")
        result = sampler.sample([1, 2, 3], types.SamplingParams(max_tokens=4, seed=7)).result()
        self.state.post_detokenize = lambda body: {"text": "<b>&'\"\n\x07"}
        html = result._repr_html_()
        self.assertEqual(html.count("<span style='background-color:hsla(73,75%,55%,0.35)'"), 4)
        self.assertIn("log-probability -0.5 (60.7 %)", html)
        self.assertIn("&lt;b&gt;&amp;&#x27;&quot;&#9166;\n\\x07</span>", html)
        self.assertNotIn("<b>", html)

    def test_a_result_is_shown_without_a_server_and_copied_without_its_client(self):
        sampler = self.training().save_weights_and_get_sampling_client("x")
        result = sampler.sample([1, 2, 3], types.SamplingParams(max_tokens=4, seed=7)).result()
        for copied in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
            self.assertEqual(copied, result)
        self.assertEqual(set(dataclasses.asdict(result)), {"sequences", "prompt_logprobs", "topk_prompt_logprobs"})
        self.server.kill()
        self.assertIn(f">{result.sequences[0].tokens[0]} </span>", result._repr_html_())
        self.assertEqual(self.naps.naps, [], "nothing was tried again")

    def test_runs_and_checkpoints_are_tables(self):
        client = self.training(user_metadata={"<i>": "<script>"})
        result = client.train([datum()])
        client.save_state("final", metadata={"a": "<x>"}).result()
        rest = self.service().create_rest_client()
        self.assertIn("step 1", result._repr_html_())
        shown = {
            "run": rest.get_training_run(client.model_id).result(), "runs": rest.list_training_runs().result(),
            "checkpoints": rest.list_checkpoints(client.model_id).result(),
            "models": self.service().get_server_capabilities(),
            "pass": client.forward([datum()], "cross_entropy").result(), "audit": rest.get_audit_log().result()}
        shown["checkpoint"] = shown["checkpoints"].checkpoints[0]
        for name, value in shown.items():
            html = value._repr_html_()
            self.assertTrue(html.startswith("<table>") and html.endswith("</table>"), name)
            self.assertNotIn("<script>", html)
            self.assertNotIn("<x>", html)
        self.assertIn("&lt;script&gt;", shown["run"]._repr_html_())
        self.assertIn(MODEL, shown["runs"]._repr_html_())


class ProgressTest(GatewayCase):
    def test_nothing_is_shown_where_nobody_looks(self):
        plain, terminal = io.StringIO(), Terminal()
        with mock.patch.dict(os.environ):
            os.environ.pop("BIOS_PROGRESS")
            for stream, asked, shows in ((plain, None, False), (plain, True, True), (terminal, None, True),
                                         (terminal, False, False)):
                with mock.patch.object(sys, "stderr", stream):
                    self.assertEqual(_progress.wanted(asked), shows)
            os.environ["BIOS_PROGRESS"] = "0"
            with mock.patch.object(sys, "stderr", terminal):
                self.assertFalse(_progress.wanted(True))
            os.environ["BIOS_PROGRESS"] = "1"
            with mock.patch.object(sys, "stderr", plain):
                self.assertTrue(_progress.wanted())

    def test_a_bar_without_tqdm_is_a_line(self):
        out = io.StringIO()
        with mock.patch.dict(os.environ), mock.patch.dict("sys.modules", {"tqdm": None}), \
                mock.patch.object(sys, "stderr", out):
            os.environ.pop("BIOS_PROGRESS")
            with _progress.Bar("final", True, 2_000_000) as bar:
                bar.add(1_500_000)
            self.assertRegex(out.getvalue(), r"^final: 1.5 MB of 2.0 MB, \S+ [kMG]?B/s\n$")
            with _progress.Bar("final", None, 100) as bar:
                bar.add(100)
            self.assertEqual(out.getvalue().count("\n"), 1)

    def test_a_wait_is_told_on_a_terminal_and_taken_away(self):
        out = Terminal()
        with mock.patch.dict(os.environ), mock.patch.object(sys, "stderr", out), \
                mock.patch.object(_progress, "FIRST_SECONDS", 0.01), mock.patch.object(_progress, "EVERY_SECONDS", 0.01):
            os.environ.pop("BIOS_PROGRESS")
            with _progress.waiting(lambda: "forward 1 of run"):
                until = time.monotonic() + 20
                while "forward 1 of run" not in out.getvalue() and time.monotonic() < until:
                    time.sleep(0.01)
            self.assertIn("bios: forward 1 of run", out.getvalue())
            self.assertRegex(out.getvalue(), r"\r +\r$")
            self.assertEqual(_progress._shown, 0)


class ConfigTest(unittest.TestCase):
    def test_what_was_saved_is_used_for_its_own_server_only(self):
        with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ):
            os.environ["BIOS_CONFIG"] = os.path.join(folder, "new", "config.json")
            for name in ("BIOS_BASE_URL", "BIOS_API_KEY"):
                os.environ.pop(name, None)
            self.assertEqual(config.server(None, None), (config.DEFAULT_BASE_URL, None))
            name = config.write({"base_url": "http://gpu:8400/", "api_key": "tml-1"})
            self.assertEqual(stat.S_IMODE(os.stat(name).st_mode) & 0o077, 0)
            self.assertEqual(config.server(None, None), ("http://gpu:8400/", "tml-1"))
            self.assertEqual(config.server("http://gpu:8400", None)[1], "tml-1")
            self.assertEqual(config.server("http://other:8400", None)[1], None)
            self.assertEqual(config.server(None, ""), ("http://gpu:8400/", None))
            os.environ["BIOS_BASE_URL"] = "http://third:1"
            self.assertEqual(config.server(None, None), ("http://third:1", None))
            os.environ["BIOS_API_KEY"] = "tml-2"
            self.assertEqual(bios.ServiceClient().base_url, "http://third:1")
            self.assertEqual(config.server(None, None), ("http://third:1", "tml-2"))
            with open(name, "w", encoding="utf-8") as file:
                json.dump([1], file)
            self.assertEqual(config.read(), {})


if __name__ == "__main__":
    unittest.main()
