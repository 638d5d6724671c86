"""The command ``underhood inspect`` without a view: the page as a file, and served."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from tiny_run import TEXT, make_run

from underhood.cli.main import main
from underhood.inspect import default_training


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "tiny")


def test_html_writes_one_file_and_says_so(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "list.html"
    assert main(["inspect", str(run), "The list is a", "--html", str(path)]) == 0
    out = capsys.readouterr().out
    assert str(path) in out
    assert "without a network" in out
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert '"prompt":"The list is a"' in text
    assert main(["inspect", str(run), "The list", "--html", str(path), "--view", "lens"]) == 2


def test_html_has_what_is_trained_and_steered_if_it_is_asked_for(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(default_training, "AUTOENCODER_STEPS", 20)
    monkeypatch.setattr(default_training, "LENS_STEPS", 5)
    text, folder, path = tmp_path / "text.txt", tmp_path / "trained", tmp_path / "list.html"
    text.write_text("\n\n".join(f"{sentence} {number}" for number in range(60) for sentence in TEXT), encoding="utf-8")
    words = ["inspect", str(run), "The list is a", "--html", str(path)]
    options = ["--text", str(text), "--trained", str(folder), "--layer", "0"]
    assert main([*words, *options, "--toward", "a list", "--against", "a tuple"]) == 0
    held = path.read_text(encoding="utf-8")
    fits = [f'"0&{name}"' for name in ("tuned&", "features&0", "probes&previous", "probes&word", "probes&line")]
    assert f'"fits":[{",".join(fits)}]' in held
    assert '"steering":{"toward":"a list","away":"a tuple","strength":1}' in held
    for view in ("tuned&start=0&stop=", "features&layer=0&position=2", "feature&layer=0&number=", "probes&task=line"):
        assert f'"0&{view}' in held
    assert '"0&steering&away=a tuple&layer=0&strength=1&toward=a list"' in held
    assert [file.name for file in sorted(folder.iterdir())] == ["dpo-features-0.safetensors", "dpo-tuned.safetensors"]
    assert main(words) == 0
    assert '"fits":[]' in path.read_text(encoding="utf-8")
    assert main([*words, "--trained", str(folder)]) == 2
    assert "no text is known for this model" in capsys.readouterr().err


def test_page_is_served_until_it_is_stopped(run: Path):
    command = [sys.executable, "-m", "underhood", "inspect", str(run), "The list is a", "--position", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            assert line.startswith("Page: http://127.0.0.1:"), line
            address = line.split()[1]
            assert address.endswith("/inside#token=1")
            page = httpx.get(address.partition("#")[0], timeout=60)
            assert page.status_code == 200
            assert "inside/main.js" in page.text
            assert httpx.get(address.partition("/inside")[0] + "/ui/inside/start", timeout=60).json()["first"] == "dpo"
        finally:
            server.send_signal(signal.SIGINT)
            assert server.wait(60) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--position", "99"], "has no token 99"),
        (["--stage", "rlhf"], "expected base or sft or dpo"),
        (["--beside", "nowhere"], "there is no run at nowhere"),
        (["--port", "99999"], "--port is out of range"),
        (["--toward", "a list"], "--toward needs a text to lead away from"),
        (["--trained", __file__], "expected on the page a folder"),
    ],
)
def test_mistakes_end_before_anything_is_served(
    words: list[str], message: str, run: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["inspect", str(run), "The list is a", *words]) == 2
    assert message in capsys.readouterr().err
