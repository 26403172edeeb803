import contextlib
import io
import json
import os
import sys
import tarfile
import tempfile
import unittest
from types import SimpleNamespace
from unittest import mock

from case import MODEL, GatewayCase, bios, datum
from bios import cli, config


class CommandLineTest(GatewayCase):
    def run_command(self, *words, typed=None):
        out, err = io.StringIO(), io.StringIO()
        with mock.patch.object(sys, "stdin", io.StringIO(typed or "")), contextlib.redirect_stdout(out), \
                contextlib.redirect_stderr(err), mock.patch.object(cli, "CALL_SECONDS", 0.0):
            status = cli.main([*words, "--url", self.server.url] if words[0] not in cli.SERVER_COMMANDS else list(words))
        return status, out.getvalue(), err.getvalue()

    def test_runs_and_checkpoints(self):
        client = self.training()
        client.train([datum()])
        path = client.save_state("final").result().path
        status, out, _ = self.run_command("models")
        self.assertEqual((status, out.splitlines()[0].split()), (0, "MODEL ARCHITECTURE DTYPE PARAMETERS CONTEXT".split()))
        self.assertIn(client.model_id, self.run_command("runs")[1])
        self.assertEqual(json.loads(self.run_command("runs", "--json")[1])["training_runs"][0]["step"], 1)
        self.assertIn("recovery_point", self.run_command("runs", "history", client.model_id)[1])
        self.assertIn(MODEL, self.run_command("runs", "show", client.model_id)[1])
        self.assertIn(path, self.run_command("checkpoints")[1])
        self.assertIn(path, self.run_command("checkpoints", "--run", client.model_id)[1])
        self.assertIn("base_model", self.run_command("checkpoints", "show", path)[1])
        self.run_command("checkpoints", "ttl", path, "60")
        self.assertEqual(self.state.checkpoints[(client.model_id, "training", "final")]["ttl"], 60)
        self.run_command("checkpoints", "publish", path)
        self.assertTrue(self.state.checkpoints[(client.model_id, "training", "final")]["public"])
        with tempfile.TemporaryDirectory() as folder:
            name = os.path.join(folder, "a.tar.gz")
            self.assertEqual(self.run_command("download", path, name)[0], 0)
            with tarfile.open(name) as tar:
                self.assertIn("metadata.json", tar.getnames())
            exported = os.path.join(folder, "adapter")
            self.assertEqual(self.run_command("export", path, exported)[0], 0)
            self.assertEqual(sorted(os.listdir(exported)), ["adapter_config.json", "adapter_model.safetensors",
                                                            "metadata.json", "tokenizer.json"])
            status, _, err = self.run_command("export", path, exported)
            self.assertEqual((status, os.listdir(folder)), (2, ["a.tar.gz", "adapter"]), err)
            status, _, err = self.run_command("export", path, exported + "2", "--merge")
            self.assertEqual((status, os.path.exists(exported + "2")), (2, False))
            self.assertIn("base", err)
        self.assertEqual(self.run_command("checkpoints", "delete", path)[1], f"deleted {path}\n")
        status, out, err = self.run_command("checkpoints", "show", path)
        self.assertEqual((status, out), (1, ""))
        self.assertIn("no checkpoint", err)

    def test_wrong_words(self):
        status, _, err = self.run_command("up")
        self.assertEqual(status, 2)
        self.assertIn("./bios up", err)
        self.assertEqual(self.run_command("nonsense")[0], 2)
        self.assertEqual(self.run_command("runs", "show")[0], 2)
        self.assertEqual(self.run_command("checkpoints", "delete", "nonsense")[0], 2)
        self.state.usage = False
        self.assertIn("does not count usage", self.run_command("usage")[2])

    def test_usage(self):
        lines = [line.split() for line in self.run_command("usage", "--run", "r-1")[1].splitlines()]
        self.assertEqual(lines[1], ["r-1", "m", "5", "0", "0", "0", "1.5", "s", "2.0", "MB"])
        self.assertEqual(lines[-1], ["all", "-", "5", "0", "0", "7", "1.5", "s", "2.0", "MB"])
        self.assertEqual(json.loads(self.run_command("usage", "--json")[1])["base_models"][0]["tokens_sampled"], 7)
        self.assertEqual(self.run_command("usage", "--csv")[1], "training_run_id,tokens_trained\r\nr,5\r\n")
        rest = self.service().create_rest_client()
        usage = rest.get_usage("r-2", owner="a b").result()
        self.assertEqual((usage.owner, usage.runs[0].training_run_id, usage.total("tokens_sampled")), ("ann", "r-2", 7))
        self.assertIn("usage of ann", usage._repr_html_())
        self.assertEqual(rest.whoami().result().account, "ann")

    def test_login_is_remembered_and_checked(self):
        with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ):
            os.environ["BIOS_CONFIG"] = os.path.join(folder, "config.json")
            os.environ.pop("BIOS_API_KEY", None)
            os.environ.pop("BIOS_BASE_URL", None)
            self.state.fault("capabilities", (401, {}))
            self.assertEqual(self.run_command("login", "--key", "tml-wrong")[0], 1)
            self.assertEqual(config.read(), {})
            self.assertEqual(self.run_command("login", "--key", "tml-secret")[0], 0)
            self.assertEqual(self.state.headers[-1].get("X-API-Key"), "tml-secret")
            self.assertEqual(config.server(None, None), (self.server.url, "tml-secret"))
            status, out, _ = self.run_command("config")
            self.assertIn("tml-...", out)
            self.assertNotIn("secret", out)
            self.assertEqual(self.run_command("logout")[0], 0)
            self.assertEqual(config.read(), {})

    def test_sampling(self):
        status, out, err = self.run_command("sample", MODEL, "hello", "--max-tokens", "5", "--seed", "3", "--num", "2", "--json")
        self.assertEqual(status, 0, err)
        found = json.loads(out)
        self.assertEqual([len(f["tokens"]) for f in found], [5, 5])
        self.assertEqual(found[0]["text"], bytes(found[0]["tokens"]).decode())
        self.assertEqual(self.run_command("sample", MODEL, "--max-tokens", "5", "--seed", "3", typed="hello")[1].strip(),
                         found[0]["text"])

    def test_a_chat_is_streamed_with_its_template(self):
        try:
            import jinja2  # noqa: F401
        except ImportError:
            self.skipTest("needs jinja2")
        self.state.files[f"/{MODEL}/resolve/main/tokenizer_config.json"] = json.dumps({
            "chat_template": "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
                             "{% if add_generation_prompt %}<assistant>{% endif %}"}).encode()
        self.state.files[f"/{MODEL}/resolve/main/tokenizer.json"] = json.dumps({"model": {"vocab": {"a": 0}}}).encode()
        status, out, err = self.run_command("chat", MODEL, "--system", "be brief", "--max-tokens", "20", "--seed", "1",
                                            typed="hi\nagain\n\n")
        self.assertEqual(status, 0, err)
        asked = [body for _, path, body in self.state.calls if path == "/asample"]
        prompts = [bytes(_ints(body["prompt"])).decode() for body in asked]
        self.assertEqual(prompts[0], "<system>be brief<user>hi<assistant>")
        self.assertEqual([body["sampling_params"]["max_tokens"] for body in asked[:2]], [8, 12])
        self.assertTrue(prompts[1].startswith(prompts[0]) and len(prompts[1]) == len(prompts[0]) + 8)
        answers = out.splitlines()
        self.assertIn(f"<assistant>{answers[0]}<user>again<assistant>", prompts[2])
        self.assertEqual([len(a) for a in answers], [20, 20])

    def test_what_is_streamed(self):
        def pieces(texts, stop=(), ends=()):
            class Tokens:
                eos_token_id = 0

                def convert_tokens_to_ids(self, name):
                    return None

                def decode(self, tokens):
                    return b"".join(bytes([t]) for t in tokens).decode("utf-8", "replace")

            given = iter(texts)
            sampler = mock.Mock()
            sampler.sample.side_effect = lambda prompt, params: mock.Mock(**{"result.return_value": SimpleNamespace(
                sequences=[SimpleNamespace(tokens=list(next(given)))])})
            options = SimpleNamespace(max_tokens=100, temperature=1.0, top_p=1.0, top_k=-1, seed=None, stop=list(stop))
            return [new for _, new in cli.streamed(sampler, Tokens(), [1], options)]

        self.assertEqual(pieces([b"ab", b"cd\0"]), ["ab", "cd"])
        self.assertEqual(pieces(["ü".encode()[:1], "ü".encode()[1:] + b"\0"]), ["ü"])
        self.assertEqual(pieces([b"abEN", b"Dcd"], stop=["END"]), ["ab"])
        self.assertEqual(pieces([b"abEN", b"Tcd\0"], stop=["END"]), ["ab", "ENTcd"])


def _ints(model_input):
    from fake_gateway import ints
    return ints(model_input)


if __name__ == "__main__":
    unittest.main()
