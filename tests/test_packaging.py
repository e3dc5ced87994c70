"""The installed package is the tree: folders, stages, configs, version."""

import ast
import importlib
import importlib.util
import re
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

import astri_gpu
from astri_gpu.config import STAGES

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]
MAPPED = {"kernels": "astri_gpu.kernels", "configs": "astri_gpu.configs"}


def packages_in_tree():
    for top, name in {"astri_gpu": "astri_gpu", **MAPPED}.items():
        for init in (ROOT / top).rglob("__init__.py"):
            inner = init.parent.relative_to(ROOT / top).parts
            yield ".".join((name, *inner)), init.parent.relative_to(ROOT).as_posix()


def test_package_list_equals_the_tree():
    assert sorted(SETUPTOOLS["packages"]) == sorted(name for name, _ in packages_in_tree())


def test_mapped_folders_are_declared():
    mapped = {
        name: folder
        for name, folder in packages_in_tree()
        if name.startswith(tuple(MAPPED.values()))
    }
    assert SETUPTOOLS["package-dir"] == mapped


def test_every_folder_with_python_files_is_a_package():
    for top in ("astri_gpu", "kernels", "configs"):
        for file in (ROOT / top).rglob("*.py"):
            assert (file.parent / "__init__.py").is_file(), file


@pytest.mark.parametrize("name", SETUPTOOLS["packages"])
def test_package_imports(name):
    importlib.import_module(name)


def test_version():
    assert astri_gpu.__version__ == PROJECT["project"]["version"]


def test_typed_and_configs_are_installed():
    assert (files("astri_gpu") / "py.typed").is_file()
    assert (files("astri_gpu.configs") / "experiment" / "ctapipe.yaml").is_file()


def test_stages_configs_and_modules_agree():
    yaml = {file.stem for file in (ROOT / "configs").glob("*.yaml")}
    modules = {
        file.stem.replace("_", "-")
        for file in (ROOT / "astri_gpu" / "stages").glob("*.py")
        if re.search(r"^def run\(config", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert yaml == set(STAGES)
    assert modules == set(STAGES)


def test_shapes_of_every_kernel_module_are_checked():
    found = re.search(
        r"--jaxtyping-packages=(\S+)", PROJECT["tool"]["pytest"]["ini_options"]["addopts"]
    )
    checked = set(found[1].split(",")) - {"beartype.beartype"}
    modules = {file.stem for file in (ROOT / "kernels").glob("*.py")}
    assert checked == {f"astri_gpu.kernels.{name}" for name in modules if name[0] != "_"}


def imported_names():
    for top in ("astri_gpu", "kernels"):
        for file in (ROOT / top).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    yield from (alias.name.split(".")[0] for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                    yield node.module.split(".")[0]


def test_every_import_is_a_declared_dependency():
    declared = {
        re.split(r"[\[<>= ]", line)[0].replace("-", "_")
        for line in PROJECT["project"]["dependencies"]
    }
    distribution = {
        "hydra": "hydra_core",
        "omegaconf": "hydra_core",  # hydra-core's own foundation, as is its YAML reader
        "yaml": "hydra_core",
        "erfa": "pyerfa",
        "llvmlite": "numba",
        "joblib": "scikit_learn",  # and the launcher that is asked for
        "sklearn": "scikit_learn",
        "threadpoolctl": "scikit_learn",  # which needs it, too
    }
    extras = {"cupy", "cupyx", "dask", "distributed", "pyarrow", "tables", "zarrs"}
    extras |= {"gammapy", "regions"}
    outside = set(imported_names()) - set(sys.stdlib_module_names) - extras - {"astri_gpu"}
    assert {distribution.get(name, name) for name in outside} <= declared


def test_importing_kernels_under_its_bare_name_is_refused(monkeypatch):
    spec = importlib.util.spec_from_file_location("kernels", ROOT / "kernels" / "__init__.py")
    with pytest.raises(ImportError, match=r"astri_gpu\.kernels"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
