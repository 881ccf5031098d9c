"""Test that the environment of the tests has the versions of the lock file."""

from __future__ import annotations

import sysconfig
from importlib import metadata

import lock_file


def test_the_tests_run_with_the_pinned_versions() -> None:
    # Not the whole path: setuptools, once torch has imported it, adds libraries of its own to that.
    places = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    installed = {
        dist.metadata["Name"].lower().replace("_", "-"): dist.version.split("+")[0]
        for dist in metadata.distributions(path=places)
    }
    pinned = {item.name: item.version for item in lock_file.read(lock_file.path_for())}
    tools = {"pip", "setuptools"}
    different = {
        name: installed[name] for name in (pinned.keys() & installed.keys()) - tools if installed[name] != pinned[name]
    }
    assert different == {}
