"""The house keeps its shape: floors, light imports, short files, pinned versions."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from needs import REPOSITORY

SOURCES = sorted((REPOSITORY / "src" / "underhood").rglob("*.py"))
SCRIPTS = sorted((REPOSITORY / "src" / "underhood").rglob("*.js"))
OPENINGS = {".py": '"""', ".js": "//"}
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


def importable(*names: str) -> subprocess.CompletedProcess[str]:
    program = (
        f"import sys\nfor name in {names!r}: __import__(name)\n"
        "heavy = {'torch', 'numpy', 'tiktoken', 'scipy', 'pyarrow', 'rich'} & set(sys.modules)\n"
        "sys.exit(f'loads {sorted(heavy)}' if heavy else 0)"
    )
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)


def test_packages_load_nothing_heavy():
    packages = [
        ".".join(file.parent.relative_to(REPOSITORY / "src").parts) for file in SOURCES if file.name == "__init__.py"
    ]
    done = importable(*packages)
    assert done.returncode == 0, done.stderr
    # The ablation: the probe does see a heavy import.
    assert "numpy" in importable("numpy").stderr


@pytest.mark.parametrize("file", [*SOURCES, *SCRIPTS], ids=lambda file: str(file.relative_to(REPOSITORY / "src")))
def test_file_is_short_and_says_what_it_is(file):
    text = file.read_text(encoding="utf-8")
    assert text.count("\n") <= 400, "split it: a file is one idea"
    assert text.lstrip().startswith(OPENINGS[file.suffix]), "a file begins by saying what it is for"


def test_import_contract_names_every_floor_that_exists():
    layers = PYPROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    named = {name.strip() for layer in layers for name in layer.split("|")}
    built = {name for name in named if not name.startswith("(")}  # import-linter's word for a floor that may be missing
    floors = {file.parent.name for file in (REPOSITORY / "src" / "underhood").glob("*/__init__.py")}
    assert built <= floors <= {name.strip("()") for name in named}


def test_lint_imports_sees_a_lazy_import_that_goes_up(tmp_path):
    """The contract of pyproject on a two-floor house whose lower floor imports the upper one inside a function."""
    package = tmp_path / "twofloor"
    for floor in ("upper", "lower"):
        (package / floor).mkdir(parents=True)
        (package / floor / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    settings = "[importlinter]\nroot_package = twofloor\n[importlinter:contract:1]\nname = floors\ntype = layers\n"
    (tmp_path / ".importlinter").write_text(settings + "containers = twofloor\nlayers =\n    upper\n    lower\n")

    def lint() -> int:
        command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60).returncode

    assert lint() == 0
    (package / "lower" / "__init__.py").write_text("def f():\n    import twofloor.upper\n")
    assert lint() == 1


def required(name: str, extras: frozenset[str] = frozenset()) -> Iterator[str]:
    """Names of everything that `name` needs here, itself included."""
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = [(name, extras)]
    while todo:
        name, extras = todo.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        yield canonicalize_name(name)
        for text in importlib.metadata.requires(name) or []:
            need = Requirement(text)
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in {"", *extras}):
                todo.append((need.name, frozenset(need.extras)))


def test_constraints_pin_everything_that_a_clean_install_brings():
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    named = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pins = {canonicalize_name(name): version for name, version in named.items()}
    needed = set(required("underhood", frozenset({"test"}))) - {"underhood"}
    own_to_torch = {name for name in needed if name.startswith(("nvidia-", "cuda-", "triton"))}  # torch pins those
    assert needed - own_to_torch <= set(pins), "add to constraints.txt"
    assert all(re.fullmatch(r"[0-9][0-9a-z.]*", version) for version in pins.values())


def imported(*folders: str) -> dict[str, str]:
    """Third-party packages that the Python files below `folders` import, each with one file that does."""
    files = [file for folder in folders for file in (REPOSITORY / folder).rglob("*.py")]
    local = {file.stem for file in files} | {file.parent.name for file in files} | {"underhood"}
    actual: dict[str, str] = {}
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            actual |= {name.partition(".")[0]: str(file.relative_to(REPOSITORY)) for name in names}
    return {name: file for name, file in actual.items() if name not in sys.stdlib_module_names | local}


@pytest.mark.parametrize(
    ("folders", "extras"),
    [
        (["src"], ["classify", "harness", "compress", "pdf"]),
        (["src", "tests", "tools"], ["test"]),
        (["src", "tests", "tools", "benchmarks"], ["test", "peers"]),
    ],
    ids=["product", "tests", "benchmarks"],
)
def test_everything_imported_is_a_declared_dependency(folders: list[str], extras: list[str]):
    project = PYPROJECT["project"]
    texts = project["dependencies"] + [text for extra in extras for text in project["optional-dependencies"][extra]]
    declared = {canonicalize_name(Requirement(text).name) for text in texts}
    sold_by = {"llama_cpp": ["llama-cpp-python"]} | importlib.metadata.packages_distributions()
    undeclared = {
        name: file
        for name, file in imported(*folders).items()
        if not {canonicalize_name(seller) for seller in sold_by.get(name, [name])} & declared
    }
    assert not undeclared, "name it in pyproject.toml and constraints.txt"


def test_constraints_lie_within_the_ranges_of_pyproject():
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    project = PYPROJECT["project"]
    for text in project["dependencies"] + project["optional-dependencies"]["test"]:
        need = Requirement(text)
        assert need.specifier.contains(pins[canonicalize_name(need.name)]), text
