"""The repository checked against its own rules: rooms and arrows, one version, light imports, documented names."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import attnflow

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "python" / "attnflow"

# --- Arrows between the rooms of the Python package (docs/design/architecture.md) ------------------------------------

PUBLIC = "the public names"
# room -> what it may import: rooms of the package, and third-party packages. The standard library is open to all.
ARROWS = {
    "errors": set(),
    "_positions": {"errors"},
    "_frozen": {"numpy"},
    "storage": {"_positions", "_frozen", "numpy", "errors"},
    "_kernel": {"_core", "storage", "_positions", "numpy", "errors"},
    "maxflow": {"_kernel", "storage", "_positions", "_frozen", "numpy", "errors"},
    "games": {"_kernel", "maxflow", "_positions", "_frozen", "numpy", "errors", "scipy (lazily)"},
    "bottlenecks": {"maxflow", "storage", "_positions", "_frozen", "numpy", "errors"},
    "differentiable": {"maxflow", "_positions", "errors", "numpy", "torch"},
    "matrices": {"storage", "_positions", "errors", "numpy"},
    "_links": {"matrices", "maxflow", "storage", "_positions", "errors", "numpy"},
    "_encoder_decoder": {"matrices", "maxflow", "_positions", "errors", "numpy"},
    "_queries": {"_sweeps", "bottlenecks", "games", "maxflow", "_kernel", "_positions", "numpy"},
    "network": {
        *("_links", "_encoder_decoder", "_queries", "matrices", "maxflow", "storage", "_positions", "errors", "numpy"),
    },
    "adapters": {"network", "matrices", "errors"},  # and nothing of the libraries that they read
    "_sweeps": {"storage", "_positions", "numpy", "errors"},
    "baselines": {"_sweeps", "_positions", "numpy", "errors"},
    "instances": {"numpy", "errors"},
    "packaged_models": {"errors", "numpy", "torch (lazily)", "transformers (lazily)", "tokenizers (lazily)"},
    "bench": {
        *("maxflow", "instances", "packaged_models", "_positions", "numpy", "errors"),
        *("matplotlib (lazily)", "torch (lazily)"),
    },
    "bench/peers": {"bench", "numpy", "igraph", "maxflow", "networkx", "ortools", "scipy"},  # loaded when looked for
    "attribution": {"_positions", "_frozen", "numpy", "errors", "maxflow", "views (lazily)"},
    "capture": {"torch", "transformers", "numpy", "errors"},
    "explain": {"capture (lazily)", "torch (lazily)", "network", "attribution", "_positions", "errors", "numpy"},
    "views": {"attribution", "errors", "numpy", "rich", "jinja2", "markupsafe", "IPython (lazily)", "pandas (lazily)"},
    "cli": {PUBLIC, "numpy", "PIL (lazily)"},
    "__main__": {"cli"},
}
# Packages that only a command line or a picture needs: never loaded while a module is being imported by another room.
CLI_PACKAGES = {"torch", "transformers", "rich"}


class Import(NamedTuple):
    """One imported thing: a room of the package, the public names, or another top-level package."""

    target: str
    lazy: bool  # inside a function
    line: int


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    inner = "/".join(parts[:2])
    return inner if inner in ARROWS else parts[0].removesuffix(".py")


def imports(path: Path) -> list[Import]:
    """What a module imports when it runs: imports for type checkers alone do not count."""
    found: list[Import] = []
    # The package that a relative import of one dot starts from.
    here = ["attnflow", *path.relative_to(PACKAGE).parent.parts]

    def visit(node: ast.AST, lazy: bool) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                visit(child, lazy)
            return
        if isinstance(node, ast.Import):
            found.extend(Import(room_or_package(alias.name), lazy, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) + 1 - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                submodule = module == "attnflow" and (
                    alias.name == "_core" or (PACKAGE / alias.name).is_dir() or (PACKAGE / f"{alias.name}.py").exists()
                )
                name = f"{module}.{alias.name}" if submodule else module
                found.append(Import(room_or_package(name), lazy, node.lineno))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            name = node.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                dots = len(name.value) - len(name.value.lstrip("."))
                base = here[: len(here) + 1 - dots] if dots else []
                found.append(Import(room_or_package(".".join([*base, name.value.lstrip(".")])), lazy, node.lineno))
        inner = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, inner)

    visit(ast.parse(path.read_text()), lazy=False)
    return found


def room_or_package(name: str) -> str:
    package, *rest = name.split(".")
    if package != "attnflow":
        return package
    return rest[0] if rest else PUBLIC


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_forbidden_arrow(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        pytest.skip("the package itself opens every room")
    assert room in ARROWS, f"{path.name} is a room that docs/design/architecture.md does not know"
    allowed = ARROWS[room] | {room} | sys.stdlib_module_names
    if room == "cli":
        allowed |= CLI_PACKAGES
    for target, lazy, line in imports(path):
        assert target in allowed or (lazy and f"{target} (lazily)" in allowed), (
            f"{path.relative_to(ROOT)}:{line}: {room} may not import {target}{'' if lazy else ' when it is loaded'}"
        )


def test_arrows_are_read_from_every_form_of_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    (tmp_path / "views").mkdir()
    (tmp_path / "network.py").touch()
    module = tmp_path / "views" / "svg.py"
    module.write_text(
        "import torch.nn\nfrom .. import network\nfrom ..errors import X\nfrom . import colour\nimport attnflow\n"
        "if TYPE_CHECKING:\n    import rich\n"
        "def f():\n    from attnflow.capture import y\n    import_module('..explain', __package__)\n"
    )
    assert [(found.target, found.lazy) for found in imports(module)] == [
        ("torch", False),
        ("network", False),
        ("errors", False),
        ("views", False),
        (PUBLIC, False),
        ("capture", True),
        ("explain", True),
    ]


# --- Arrows of the C++ side -----------------------------------------------------------------------------------------

CPP = ROOT / "cpp"
INCLUDE = re.compile(r'^\s*#\s*include\s*(<[^>]+>|"[^"]+")', re.MULTILINE)


def cpp_files(*folders: str) -> list[Path]:
    return sorted(
        path for folder in folders for path in (CPP / folder).rglob("*") if path.suffix in (".hpp", ".h", ".cpp")
    )


@pytest.mark.parametrize(
    "path", cpp_files("include", "src", "reference", "bindings"), ids=lambda path: str(path.relative_to(CPP))
)
def test_no_forbidden_include(path: Path) -> None:
    folder = path.relative_to(CPP).parts[0]
    for match in INCLUDE.findall(path.read_text()):
        name = match[1:-1]
        kernel = name.startswith("attnflow/") and (CPP / "include" / name).exists()
        standard = match[0] == "<" and "/" not in name and (not name.endswith(".h") or name == "immintrin.h")
        beside = match[0] == '"' and (path.parent / name).exists() and folder != "include"
        python = folder == "bindings" and (name.startswith("pybind11/") or name == "Python.h")
        assert kernel or standard or beside or python, f"{path.relative_to(ROOT)} may not include {match}"


@pytest.mark.parametrize("path", cpp_files("include", "src"), ids=lambda path: str(path.relative_to(CPP)))
def test_the_kernel_never_prints_aborts_or_exits(path: Path) -> None:
    code = re.sub(r"//[^\n]*|/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
    found = re.search(r"std::(cout|cerr|clog|abort|exit|terminate)\b|\b(f?printf|abort|exit)\s*\(", code)
    assert found is None, f"{path.relative_to(ROOT)}: {found and found.group()}"


# --- One version, small files ---------------------------------------------------------------------------------------


def test_the_version_is_the_same_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    core = importlib.import_module("attnflow._core")
    citation = re.search(r"^version: (\S+)", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    changes = re.search(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert citation is not None
    assert changes is not None
    assert {
        "attnflow.__version__": attnflow.__version__,
        "attnflow._core.__version__": getattr(core, "__version__", version),
        "CITATION.cff": citation.group(1),
        "CHANGELOG.md": changes.group(1),
    } == dict.fromkeys(("attnflow.__version__", "attnflow._core.__version__", "CITATION.cff", "CHANGELOG.md"), version)


def sources() -> Iterator[Path]:
    for folder in ("python", "cpp", "tests", "benchmarks", "examples"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".pyi", ".cpp", ".hpp", ".h"):
                yield path


def test_no_file_is_longer_than_a_person_reads_in_one_sitting() -> None:
    long = {str(path.relative_to(ROOT)): lines for path in sources() if (lines := path.read_text().count("\n")) > 600}
    assert not long


# --- Importing is light ---------------------------------------------------------------------------------------------

HEAVY = ("torch", "transformers", "matplotlib", "rich", "jinja2", "scipy", "networkx", "ortools", "igraph", "maxflow")
LOAD = """
import json, sys, time
for finder in sys.meta_path:  # of a development install that compiles on import: measure the import alone
    if hasattr(finder, "rebuild_flag"):
        finder.rebuild_flag = False
started = time.thread_time()  # not the wall clock, nor what threads of numpy wait: the machine may be busy
import attnflow
{use}
print(json.dumps([time.thread_time() - started, [name for name in {heavy} if name in sys.modules]]))
"""


def load(use: str) -> tuple[float, list[str]]:
    """Seconds, and the heavy packages that were loaded."""
    code = LOAD.format(use=use, heavy=HEAVY)
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    seconds, loaded = json.loads(output)
    return seconds, loaded


@pytest.mark.parametrize("use", ["", "attnflow.maxflow, attnflow.Network, attnflow.Attribution, attnflow.explain"])
def test_importing_takes_a_fifth_of_a_second_and_loads_nothing_heavy(use: str) -> None:
    best = float("inf")
    for _ in range(5):
        seconds, loaded = load(use)
        assert loaded == []
        best = min(best, seconds)
    assert best < 0.2


def test_choosing_what_to_benchmark_loads_nobody() -> None:
    assert load("attnflow.bench.select()")[1] == []
    assert load("attnflow.bench.peers.find()")[1] != []


# --- Names and their documentation ----------------------------------------------------------------------------------

OPEN_ROOMS = [
    "attnflow",
    *(
        f"attnflow.{room}"
        for room in ("maxflow", "network", "adapters", "baselines", "instances", "packaged_models", "bench", "capture")
    ),
]


@pytest.mark.parametrize("name", OPEN_ROOMS)
def test_every_public_function_has_an_example(name: str) -> None:
    module = importlib.import_module(name)
    bare = [
        f"{name}.{public}"
        for public in module.__all__
        if inspect.isfunction(thing := getattr(module, public)) and ">>>" not in (inspect.getdoc(thing) or "")
    ]
    assert not bare


def module_names() -> list[str]:
    """Modules that say what they export; a name with an underscore is nobody's business."""
    names = []
    for path in modules():
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        competitor = parts[:2] == ("bench", "peers") and parts[-1] != "__init__"  # loads a library that may be missing
        if not competitor and not any(part.startswith("_") and part != "__init__" for part in parts):
            names.append(".".join(["attnflow", *(part for part in parts if part != "__init__")]))
    return names


@pytest.mark.parametrize("name", module_names())
def test_all_names_exist_and_none_is_forgotten(name: str) -> None:
    module = importlib.import_module(name)
    exported = set(module.__all__)
    assert {public for public in exported if not hasattr(module, public)} == set()
    own = {
        public
        for public, thing in vars(module).items()
        if not public.startswith("_")
        and (inspect.isfunction(thing) or inspect.isclass(thing))
        and thing.__module__ == name
    }
    assert own <= exported


def test_the_stub_of_the_extension_names_what_it_holds() -> None:
    core = importlib.import_module("attnflow._core")
    declared = {
        name
        for node in ast.parse((PACKAGE / "_core.pyi").read_text()).body
        for name in (
            [node.name]
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
            else [node.target.id]
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
            else []
        )
    }
    held = {name for name in vars(core) if not name.startswith("_")}
    assert {name for name in declared if not name.startswith("_")} == held


# --- The wheel ------------------------------------------------------------------------------------------------------


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    # The same build folder as the installed package, so only what changed is compiled.
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", str(ROOT), "--quiet"),
            *("--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)),
        ],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = [Path(name) for name in zipfile.ZipFile(wheel).namelist()]
    inside = {name.relative_to("attnflow") for name in names if name.parts[0] == "attnflow"}
    outside = {name.parts[0] for name in names} - {"attnflow"}
    assert all(folder.endswith(".dist-info") for folder in outside), outside
    wanted = {
        path.relative_to(PACKAGE)
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix not in (".so", ".pyc")
    }
    assert wanted <= inside
    assert Path("py.typed") in inside
    extra = {str(name) for name in inside - wanted}
    assert len(extra) == 1, extra
    assert extra.pop().startswith("_core.")
