"""The package as pip installs it."""

import os
import subprocess
import sys
import tempfile
import unittest
import zipfile

from case import HERE

SOURCES = os.path.dirname(HERE)


def left():
    """Every file and folder beside and below the sources, but for what Python itself caches."""
    return sorted(os.path.join(where, name) for where, folders, files in os.walk(SOURCES) for name in folders + files
                  if "__pycache__" not in os.path.join(where, name))


class PackageTest(unittest.TestCase):
    def run_python(self, *words):
        env = {**os.environ, "PYTHONPATH": os.path.join(SOURCES, "src")}
        return subprocess.run([sys.executable, *words], capture_output=True, text=True, env=env)

    def test_modules_are_imported_when_they_are_used(self):
        done = self.run_python("-c", "import bios, sys\n"
                                     "assert 'bios.export' not in sys.modules\n"
                                     "bios.data.batches, bios.export.merged, bios.log.MetricLog, bios.rlhf.PPOTrainer\n"
                                     "assert not hasattr(bios, 'nothing')")
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_a_datum_is_typed_by_what_it_takes(self):
        try:
            import mypy  # noqa: F401
        except ImportError:
            self.skipTest("mypy is not installed")
        done = self.run_python("-m", "mypy", "--strict", "--cache-dir", os.devnull, "-c",
                               "import bios\n"
                               "datum = bios.Datum(model_input=bios.ModelInput.from_ints([1]),\n"
                               "                   loss_fn_inputs={'target_tokens': [2], 'weights': [1.0]})\n"
                               "tensor: bios.TensorData = datum.loss_fn_inputs['weights']\n"
                               "log = bios.log.MetricLog('x')\n"
                               "bios.nothing  # type: ignore[attr-defined]\n")
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)

    def test_a_wheel_is_built_and_leaves_nothing_in_the_sources(self):
        try:
            import setuptools  # noqa: F401
        except ImportError:
            self.skipTest("setuptools is not installed")
        before = left()
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [sys.executable, "-c", "import sys, build_backend; sys.path.append(%r); "
                 "build_backend.prepare_metadata_for_build_wheel(%r); print(build_backend.build_wheel(%r))"
                 % (SOURCES, folder, folder)],
                cwd=SOURCES, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": SOURCES,
                                                                  "PYTHONDONTWRITEBYTECODE": "1"})
            if "wheel" in done.stderr and "invalid command" in done.stderr:
                self.skipTest("this setuptools cannot build wheels without the package wheel")
            self.assertEqual(done.returncode, 0, done.stderr)
            wheel = os.path.join(folder, done.stdout.split()[-1])
            with zipfile.ZipFile(wheel) as archive:
                names = archive.namelist()
                entry = archive.read(next(n for n in names if n.endswith("entry_points.txt"))).decode()
                facts = archive.read(next(n for n in names if n.endswith("METADATA"))).decode()
            self.assertIn("bios/py.typed", names)
            self.assertIn("bios/rlhf/ppo.py", names)
            self.assertIn("bios = bios.__main__:main", entry)
            self.assertFalse([line for line in facts.splitlines()
                              if line.startswith("Requires-Dist") and "extra ==" not in line])
        self.assertEqual(left(), before)


if __name__ == "__main__":
    unittest.main()
