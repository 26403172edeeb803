import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

from case import HERE, GatewayCase
import listings

EXAMPLES = os.path.join(os.path.dirname(HERE), "examples")


class ListingsTest(GatewayCase):
    def run_listings(self, *arguments):
        out = io.StringIO()
        with mock.patch.dict(os.environ), contextlib.redirect_stdout(out):
            status = listings.main(["--base-url", self.server.url, *arguments])
        return status, out.getvalue()

    def test_every_listing_runs_as_written(self):
        self.state.models += ["ultrasafe/usf-healthcare", "ultrasafe/usf-code", "ultrasafe/usf-conversation"]
        status, out = self.run_listings()
        self.assertEqual(status, 0, out)
        self.assertEqual(len(re.findall("^-- ", out, re.M)), 11)

    def test_one_model_can_stand_in_for_all(self):
        self.state.models[:] = ["tiny"]
        status, out = self.run_listings("--base-model", "tiny", "--scale", "2500")
        self.assertEqual(status, 0, out)
        with self.assertRaisesRegex(SystemExit, "ultrasafe"):
            self.run_listings()

    def test_a_broken_promise_fails(self):
        real = self.state.post_save_weights
        with mock.patch.object(self.state, "post_save_weights", lambda body: real({**body, "path": "same"})):
            status, out = self.run_listings("--only", "naming", "--base-model", "tiny")
        self.assertEqual(status, 1)
        self.assertIn("1 listings failed: Checkpoint Naming Examples", out)

    def test_the_examples_are_the_pages_listings(self):
        for name, text in listings.examples().items():
            with open(os.path.join(EXAMPLES, name), encoding="utf-8") as f:
                self.assertEqual(f.read(), text, f"{name}: run tests/listings.py --examples")

    def test_an_example_runs_by_itself(self):
        env = {**os.environ, "BIOS_BASE_URL": self.server.url, "BIOS_EXAMPLE_SCALE": "2500", "PYTHONPATH": ""}
        with tempfile.TemporaryDirectory() as folder:
            for name in ("01_checkpoint_names.py", "06_resume.py", "07_download.py"):
                done = subprocess.run([sys.executable, "-W", "error", os.path.join(EXAMPLES, name)], env=env, cwd=folder,
                                      capture_output=True, text=True, timeout=60)
                self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertEqual(os.listdir(folder), ["model-checkpoint.tar.gz"])


if __name__ == "__main__":
    unittest.main()
