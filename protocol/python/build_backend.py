"""setuptools, in a copy of the sources: building leaves nothing beside them."""

import contextlib
import os
import shutil
import tempfile

from setuptools import build_meta

_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist", ".*")


@contextlib.contextmanager
def _copy():
    source = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="bios-build-") as folder:
        copied = os.path.join(folder, "bios")
        shutil.copytree(source, copied, ignore=_LEFT_OUT)
        os.chdir(copied)
        try:
            yield
        finally:
            os.chdir(source)


def get_requires_for_build_wheel(config_settings=None):
    with _copy():
        return build_meta.get_requires_for_build_wheel(config_settings)


def get_requires_for_build_sdist(config_settings=None):
    with _copy():
        return build_meta.get_requires_for_build_sdist(config_settings)


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    with _copy():
        return build_meta.prepare_metadata_for_build_wheel(metadata_directory, config_settings)


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    with _copy():
        return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_sdist(sdist_directory, config_settings=None):
    with _copy():
        return build_meta.build_sdist(sdist_directory, config_settings)


# An editable installation is of the sources themselves.
get_requires_for_build_editable = getattr(build_meta, "get_requires_for_build_editable", get_requires_for_build_wheel)
prepare_metadata_for_build_editable = getattr(build_meta, "prepare_metadata_for_build_editable",
                                              prepare_metadata_for_build_wheel)
if hasattr(build_meta, "build_editable"):
    build_editable = build_meta.build_editable
