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
