"""``underhood path`` and ``underhood reproduce`` as they are typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from underhood.cli.claims import MARKS
from underhood.cli.main import main
from underhood.curriculum.topics import topics


def run(*words: str) -> int:
    return main(list(words))


def test_map_as_json_has_every_row(capsys):
    assert run("path", "--json") == 0
    actual = json.loads(capsys.readouterr().out)
    assert set(actual["topics"]) == set(topics())
    markov = actual["topics"]["markov-1913"]
    assert set(markov) == {"milestone", "verdict", "result"}
    assert markov["milestone"] == "p1913_markov"
    assert actual["topics"]["rag-2020"] is None
    assert "p1913_markov" in [milestone["stem"] for milestone in actual["milestones"]]


@pytest.mark.parametrize(("words", "says"), [(["path"], "p1913_markov"), (["path", "search", "RoPE"], "nn/rope.py")])
def test_map_and_search_load_no_torch(words, says):
    program = f"import sys; from underhood.cli.main import main; main({words}); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert says in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_way_is_told_with_its_minutes(capsys):
    assert run("path", "to", "shannon-1948", "--json") == 0
    actual = json.loads(capsys.readouterr().out)
    assert actual["steps"][-1]["topics"] == ["shannon-1948"]
    assert actual["read_minutes"] == sum(step["read_minutes"] for step in actual["steps"])
    assert run("path", "to", "shannon-1948") == 0
    assert " p1913_markov " in capsys.readouterr().out
    for known in ("markov-1913", "p1913_markov"):
        assert run("path", "to", "p1948_shannon", "--knows", known) == 0
        assert "p1913_markov" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [("path",), ("path", "show", "markov-1913"), ("path", "search", "vowels", "in", "a", "poem"), ("path", "check")],
)
def test_views_say_the_same_as_text_and_as_json(words, capsys):
    assert run(*words) == 0
    text = capsys.readouterr().out
    assert run(*words, "--json") == 0
    assert json.loads(capsys.readouterr().out)
    assert "\x1b" not in text
    assert "NotImplemented" not in text


def test_recomputed_statements_have_the_verdicts_of_claims(capsys):
    assert run("path", "check", "--json") == 0
    statements = json.loads(capsys.readouterr().out)
    verdicts = {(statement["paper"], statement["what"]): statement["verdict"] for statement in statements}
    assert verdicts["Shannon 1951", "bits per word of that model"] == "source's misprint"
    assert verdicts["Bengio et al. 2003", "% by which the net is better on Brown"] == "exact"  # 312 / 252 is 1.238
    assert set(verdicts.values()) == {"exact", "source's misprint"} <= set(MARKS)
    assert run("path", "check") == 0
    text = capsys.readouterr().out
    assert "agree" not in text
    assert max(map(len, text.splitlines())) <= 80
    for verdict, mark in MARKS.items():
        assert text.count(f"  {mark} {verdict}: ") == list(verdicts.values()).count(verdict)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("path", "shwo", "markov-1913"), "expected map, show, to, search, check"),
        (("path", "show"), "takes one NAME"),
        (("path", "to", "markov-1914"), "Did you mean"),
        (("path", "search", "zzqx"), "nothing speaks of"),
        (("reproduce",), "name milestones, or say --all"),
        (("reproduce", "markov-1914"), "Did you mean"),
        (("reproduce", "markov-1913", "--seeds", "0"), "--seeds takes 1 or more"),
        (("reproduce", "markov-1913", "--data", "/no/such/folder"), "is not a folder"),
    ],
)
def test_mistake_is_one_line(words, says, capsys):
    assert run(*words) == 2
    output = capsys.readouterr().err
    assert says in output
    assert output.count("\n") == 1


def test_reproduce_writes_what_it_shows(tmp_path: Path, capsys):
    words = ("reproduce", "markov-1913", "--scale", "smoke", "--seeds", "2", "--results", str(tmp_path))
    assert run(*words) == 0
    shown = capsys.readouterr().out
    (file,) = (tmp_path / "p1913_markov").glob("*.json")
    actual = json.loads(file.read_text(encoding="utf-8"))
    assert actual["seeds"] == [0, 1]
    assert actual["command"] == "underhood reproduce p1913_markov --scale smoke --seeds 2"
    assert "holds" in shown
    assert "needs" not in shown.splitlines()[0]
    assert "Without dependence" in shown
    assert (tmp_path / "pages" / "p1913_markov.html").exists()
    assert run("path", "show", "markov-1913", "--results", str(tmp_path), "--json") == 0
    assert json.loads(capsys.readouterr().out)["result"]["scale"] in ("smoke", "report")


def test_reproduce_all_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch, capsys):
    from underhood.curriculum import index

    only = {"p1913_markov": index.find("p1913_markov")}
    monkeypatch.setattr(index, "milestones", lambda: only)
    words = ("reproduce", "--all", "--scale", "smoke", "--results", str(tmp_path))
    assert run(*words) == 0
    first = capsys.readouterr().out
    assert "p1913_markov" in first
    (file,) = (tmp_path / "p1913_markov").glob("*.json")
    written = file.stat().st_mtime_ns
    assert run(*words) == 0
    assert "1 of 1 are up to date" in capsys.readouterr().out
    assert file.stat().st_mtime_ns == written


def test_recompute_judges_stored_values_again_by_the_present_rules(tmp_path: Path, capsys):
    words = ("markov-1913", "--scale", "smoke", "--results", str(tmp_path))
    assert run("reproduce", *words) == 0
    (file,) = (tmp_path / "p1913_markov").glob("*.json")
    result = json.loads(file.read_text(encoding="utf-8"))
    verdicts = {claim["key"]: claim["verdict"] for claim in result["claims"]}
    for claim in result["claims"]:
        if "values" in claim:
            claim["verdict"] = "does not hold here"
    file.write_text(json.dumps(result), encoding="utf-8")
    capsys.readouterr()
    assert run("reproduce", "markov-1913", "--recompute", "--results", str(tmp_path)) == 0
    assert "p1913_markov" in capsys.readouterr().out
    result = json.loads(file.read_text(encoding="utf-8"))
    assert {claim["key"]: claim["verdict"] for claim in result["claims"]} == verdicts
