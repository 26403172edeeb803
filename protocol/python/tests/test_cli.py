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
        self.run_command("runs", "give-up", client.model_id, "--seq", "3")
        self.assertEqual(self.state.decisions, [("give_up", {"seq_id": 3})])
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

    def test_listings_are_whole_or_say_that_they_are_not(self):
        clients = [self.training() for _ in range(3)]
        paths = [client.save_state(f"s{i}").result().path for client in clients for i in range(2)]
        with mock.patch.object(cli, "PAGE", 4):
            status, out, err = self.run_command("checkpoints")
            self.assertEqual((status, err, [line.split()[0] for line in out.splitlines()[1:]]), (0, "", paths[::-1]))
            self.assertEqual(len(json.loads(self.run_command("checkpoints", "--json")[1])["checkpoints"]), 6)
        status, out, err = self.run_command("runs", "--limit", "2")
        self.assertEqual((status, len(out.splitlines())), (0, 3))
        self.assertIn("2 of 3 runs; --offset 2", err)
        self.assertEqual(self.run_command("runs", "--limit", "2", "--offset", "2")[2], "")

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

    def test_a_chat_is_streamed(self):
        status, out, err = self.run_command("chat", MODEL, "--system", "be brief", "--max-tokens", "20", "--seed", "1",
                                            "--stop", "END", typed="hi ü\nagain\n\n")
        self.assertEqual((status, out), (0, "hi ü\nagain\n"), err)
        asked = [body for _, path, body in self.state.calls if path == "~/v1/chat/completions"]
        self.assertEqual(asked[0], {"model": MODEL, "messages": [{"role": "system", "content": "be brief"},
                                                                 {"role": "user", "content": "hi ü"}],
                                    "max_tokens": 20, "temperature": 0.7, "top_p": 1.0, "top_k": -1, "stream": True, "seed": 1,
                                    "stop": ["END"]})
        self.assertEqual([m["content"] for m in asked[1]["messages"]], ["be brief", "hi ü", "hi ü", "again"])

    def test_a_chat_says_why_it_ends(self):
        status, out, err = self.run_command("chat", MODEL, typed="fail\n")
        self.assertEqual((status, out), (1, "a"))
        self.assertIn("it overflows", err)
        status, out, err = self.run_command("chat", MODEL, typed="break\n")
        self.assertEqual((status, out), (1, "break"))
        self.assertIn("broke off", err)
        status, _, err = self.run_command("chat", "nobody/none", typed="hi\n")
        self.assertEqual(status, 1)
        self.assertIn("no model nobody/none", err)
        of_openai = b'{"error": {"message": "is no model", "type": "x", "param": "model", "code": "model_not_found"}}'
        error = bios.errors.status_error(404, of_openai)
        self.assertEqual((error.code, error.field, str(error)),
                         ("model_not_found", "model", "is no model (HTTP 404, model_not_found)"))

    def test_a_chat_is_seen_as_it_comes_and_can_be_interrupted(self):
        service = bios.ServiceClient(base_url=self.server.url)
        options = SimpleNamespace(model=MODEL, max_tokens=9, temperature=1.0, top_p=1.0, top_k=-1, stop=[])
        pieces = cli.streamed(service, [{"role": "user", "content": "abc"}], None, options)
        self.assertEqual([next(pieces), next(pieces)], ["a", "b"])
        pieces.close()


if __name__ == "__main__":
    unittest.main()
