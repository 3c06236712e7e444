"""What is in the package, and what it is built from."""

import doctest
import importlib
import re
from importlib.metadata import distribution
from pathlib import Path

import pytest

import visual_rl_grade

ROOT = Path(__file__).parents[2]


def locked(path):
    found = {}
    for name, version in re.findall(r'^name = "(.+)"\nversion = "(.+)"$', path.read_text(), re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


def test_dependencies_are_those_that_the_workspace_has_tested():
    ours, workspace = locked(ROOT / "python/Cargo.lock"), locked(ROOT / "Cargo.lock")
    assert len(ours) > 30
    new = {name for name in ours if name not in workspace}
    bindings = {"pyo3", "pyo3-build-config", "pyo3-ffi", "pyo3-macros", "pyo3-macros-backend", "target-lexicon"}
    assert new - {"visual-rl-grade"} <= bindings
    differ = {name: ours[name] for name in ours if name not in new and not ours[name] <= workspace[name]}
    assert not differ, f"not the versions of ../Cargo.lock: {differ}"


def test_files():
    files = {str(file) for file in distribution("visual-rl-grade").files}
    for name in ["visual_rl_grade/py.typed", "visual_rl_grade/_core.pyi"]:
        assert name in files
    for name in ["LICENSE-APACHE", "LICENSE-MIT"]:
        inside = next(file for file in distribution("visual-rl-grade").files if file.name == name)
        assert inside.read_text() == (ROOT / name).read_text()
    # What is built in, with its licences.
    assert any("sboms" in name for name in files)
    assert visual_rl_grade.__version__ == distribution("visual-rl-grade").version


@pytest.mark.parametrize("name", ["visual_rl_grade", "visual_rl_grade._rule"])
def test_examples(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0 and found.failed == 0


def test_the_readme_tells_the_truth():
    found = doctest.testfile(str(ROOT / "python/README.md"), module_relative=False)
    assert found.attempted > 0 and found.failed == 0
