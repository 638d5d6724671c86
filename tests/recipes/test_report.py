"""report.html: what it says follows from what was recorded, whatever was recorded, and nothing in it can act."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from made_run import SPEC, STEPS, make_run

from underhood.cli.main import main
from underhood.core.errors import UserError
from underhood.core.runlog import RunLog
from underhood.models.base import parameter_count
from underhood.models.decoder import Decoder
from underhood.recipes.report.anatomy import anatomy
from underhood.recipes.report.curves import curves
from underhood.recipes.report.page import write_report
from underhood.recipes.report.pipeline import pipeline
from underhood.recipes.report.reproduce_commands import commands
from underhood.recipes.report.results import panels
from underhood.recipes.report.run_reader import read_run, steps_of
from underhood.train.plan import training_flops

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&{{7*7}}<svg onload=alert(2)>\ud800\u2028".replace("\ud800", "")


class Page(HTMLParser):
    """Tags with their attributes, the text of the page, and the content of its scripts."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self._inside: str | None = None
        self.feed(html)

    @classmethod
    def of(cls, run: Path) -> Page:
        return cls(write_report(run).read_text(encoding="utf-8"))

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).replace("\u00a0", " ").split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside is None:
            self.words.append(data)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "whole")


def changed(run: Path, into: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of a run's summary and events with something changed in the summary."""
    into.mkdir()
    summary = json.loads((run / "summary.json").read_text())
    change(summary)
    (into / "summary.json").write_text(json.dumps(summary))
    (into / "events.jsonl").write_text((run / "events.jsonl").read_text())
    return into


def test_report_headline_states_the_measured_numbers(whole: Path) -> None:
    text = Page.of(whole).text
    results = json.loads((whole / "summary.json").read_text())["results"]
    base = next(m for m in results["stages"][0]["measurements"] if m["name"] == "bits per byte")
    assert "A 3.34 M-parameter language model, built from Python’s own documentation in 5 min 01 s" in text
    assert f"the base model needs {base['value']:.3f} bits per byte (95 % interval {base['low']:.3f}–" in text
    assert f"{1.74 - base['value']:.3f} better than xz, the strongest baseline." in text
    assert "picks the right one for 68 % of functions it has read about and 36 % of functions it has never seen" in text


def test_report_headline_says_when_a_baseline_is_better(whole: Path, tmp_path: Path) -> None:
    def stronger(summary: dict[str, Any]) -> None:
        summary["results"]["baselines"][2]["value"] = 1.5

    assert "worse than xz, the strongest baseline." in Page.of(changed(whole, tmp_path / "run", stronger)).text

    def level(summary: dict[str, Any]) -> None:
        summary["results"]["baselines"][2]["value"] = 1.68  # inside the base model's interval

    text = Page.of(changed(whole, tmp_path / "level", level)).text
    assert "better than xz, the strongest baseline, a difference too small to be sure of." in text


def test_report_headline_says_when_choices_are_guesses(whole: Path, tmp_path: Path) -> None:
    def guessing(summary: dict[str, Any]) -> None:
        for stage in summary["results"]["stages"]:
            for measured in stage["measurements"]:
                if measured["name"] == "multiple choice, held-out":
                    measured |= {"value": 0.27, "low": 0.22, "high": 0.33}

    assert "can’t be told from chance" not in Page.of(whole).text
    assert "can’t be told from chance" in Page.of(changed(whole, tmp_path / "run", guessing)).text


def test_report_says_that_a_stage_did_not_help(whole: Path, tmp_path: Path) -> None:
    def useless(summary: dict[str, Any]) -> None:
        for comparison in summary["results"]["comparisons"]:
            if comparison["after"] == "dpo":
                comparison["verdict"] = "no difference"

    output = "Preference training (DPO) did not help here: nothing that was measured got better."
    assert output not in Page.of(whole).text
    assert Page.of(changed(whole, tmp_path / "run", useless)).text.count(output) == 2  # on top, and with the results


def test_report_says_what_a_stage_made_better_and_worse(whole: Path) -> None:
    text = Page.of(whole).text
    assert "made refusals of invented functions and preference accuracy better, and bits per byte worse; on the" in text


def test_report_does_not_blame_a_stage_for_what_only_it_can_do(whole: Path, tmp_path: Path) -> None:
    def nothing_better(summary: dict[str, Any]) -> None:
        for comparison in summary["results"]["comparisons"]:
            if comparison["after"] == "sft":
                comparison["verdict"] = "no difference"

    text = Page.of(changed(whole, tmp_path / "run", nothing_better)).text
    assert "Fine-tuning (SFT) improved nothing that was measured before it; what it is there for, such as" in text
    assert "Fine-tuning (SFT) did not help" not in text


def test_report_command_to_repeat_a_run_is_understood_by_build(whole: Path) -> None:
    from underhood.cli import build
    from underhood.cli.options import parse

    command = next(command for command, _ in commands(read_run(whole)) if "--config" in command)
    args = parse(build.Args, shlex.split(command)[2:], prog="underhood build")
    assert (args.d_model, args.layers, args.heads, args.kv_heads, args.context_length) == (192, 4, 3, 3, 256)
    assert args.stages == {name: {"steps": steps} for name, steps in STEPS.items()}
    assert (args.dtype, args.minutes, args.seed) == ("float32", 5.0, 0)


def test_report_panels_draw_value_interval_and_chance_to_scale(whole: Path) -> None:
    results = json.loads((whole / "summary.json").read_text())["results"]
    choice = next(panel for panel in panels(results) if panel.key == "choice-held-out")
    measured = next(m for m in results["stages"][1]["measurements"] if m["name"] == "multiple choice, held-out")
    row = choice.row("sft")
    assert row is not None
    assert [row.low, row.at, row.high] == pytest.approx([100 * measured[k] for k in ("low", "value", "high")], abs=0.01)
    assert choice.reference == (25.0, "chance 25\u00a0%")
    bits = next(panel for panel in panels(results) if panel.key == "bits-per-byte")
    assert [r.name for r in bits.rows] == ["gzip", "bz2", "xz", "Kneser–Ney 5-gram", "Base", "SFT", "DPO"]
    places, values = [r.at for r in bits.rows], [r.value for r in bits.rows]
    slopes = [(p - places[0]) / (v - values[0]) for p, v in zip(places[1:], values[1:], strict=True)]
    assert slopes == pytest.approx([slopes[0]] * len(slopes), rel=1e-3)


def test_report_asks_about_texts_when_the_corpus_is_not_about_functions(whole: Path, tmp_path: Path) -> None:
    other = changed(whole, tmp_path / "run", lambda summary: summary["corpus"].update(name="letters.txt"))
    text = Page.of(other).text
    assert "built from letters.txt" in text
    assert "Among four continuations" in text
    assert "functions it has read about" not in text


def test_report_anatomy_matches_the_built_model() -> None:
    actual = anatomy(json.loads(json.dumps(_spec_json())))
    assert actual is not None
    with torch.device("meta"):
        model = Decoder(SPEC)
    assert actual.total == parameter_count(model)
    assert actual.parts["embedding"] == model.embed.weight.numel()
    assert actual.parts["feedforward"] == sum(parameter_count(block.feedforward) for block in model.blocks)  # type: ignore[arg-type]
    assert actual.training_flops == training_flops(SPEC)


def test_report_of_a_spec_from_elsewhere_does_without_anatomy(whole: Path, tmp_path: Path) -> None:
    assert anatomy(_spec_json() | {"novelty": 1}) is None
    Page.of(changed(whole, tmp_path / "run", lambda summary: summary["spec"].update(novelty=1)))


def test_report_pipeline_gives_each_stage_its_share_of_the_time(whole: Path) -> None:
    run = read_run(whole)
    drawn = pipeline(run, None, {}, [], [])
    total = json.loads((whole / "summary.json").read_text())["seconds"]
    for node in drawn.nodes:
        assert (node.end - node.start) * total == pytest.approx(run.stages[node.name].seconds)
    ends = [node.end for node in drawn.nodes]
    assert ends == sorted(ends)
    assert ends[-1] < 1  # starting up and planning belong to no stage


def test_report_curve_keeps_ends_and_mean(whole: Path) -> None:
    run = read_run(whole)
    curve = curves(run, "pretrain")[0]
    events = steps_of(run, "pretrain")
    assert (curve.x[0], curve.x[-1]) == (1, STEPS["pretrain"])
    assert curve.y[0] == events[0]["bits_per_byte"]
    middle = len(curve.x) // 2
    step = curve.x[middle]
    around = [event["bits_per_byte"] for event in events if abs(event["step"] - step) <= len(events) // 50]
    assert curve.y[middle] == pytest.approx(sum(around) / len(around))
    assert all(low <= y <= high for low, y, high in zip(curve.low, curve.y, curve.high, strict=True))
    assert curve.turn == pytest.approx(STEPS["pretrain"] / 2, abs=2)


def test_report_curve_of_a_resumed_stage_counts_each_step_once(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "events.jsonl")
    for order, step in enumerate([1, 2, 3, 4, 5, 3, 4, 5, 6]):  # killed after step 5, resumed after step 2
        log.event("sft", "step", step=step, steps=6, loss=float(order))
    log.close()
    events = steps_of(read_run(tmp_path), "sft")
    assert [event["step"] for event in events] == [1, 2, 3, 4, 5, 6]
    assert [event["loss"] for event in events] == [0, 1, 5, 6, 7, 8]


@pytest.mark.parametrize("stage", ["data", "pretrain", "sft", "dpo", "eval"])
def test_report_of_an_interrupted_run_says_what_is_missing(tmp_path: Path, stage: str) -> None:
    run = make_run(tmp_path / "half", stop=(stage, 40))
    text = Page.of(run).text
    assert "This run is not complete." in text
    assert f"underhood build --out {run} --resume" in text
    assert "Nothing has been measured yet." in text
    if stage in STEPS:
        assert f"was interrupted after step 40 of {STEPS[stage]:,}." in text
    assert ("Preference training (DPO) has not been run." in text) == (stage in ("data", "pretrain", "sft"))


def test_report_of_a_run_that_only_has_settings(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('data = "pydocs"\n')
    assert "Pretraining has not been run." in Page.of(tmp_path).text


def test_report_leaves_nothing_of_data_unescaped(tmp_path: Path) -> None:
    harmless = Page.of(make_run(tmp_path / "harmless", text="x" + "a" * 60, hostile=""))
    page = Page.of(make_run(tmp_path / "hostile", text="x", hostile=HOSTILE))
    expected = {"img", "iframe", "object", "embed", "link", "base", "form", "a", "script", "style"}
    counts = {
        tag: [sum(name == tag for name, _ in p.tags) for p in (harmless, page)] for tag in expected - {"script", "link"}
    }
    assert all(with_hostile == without for without, with_hostile in counts.values()), counts
    assert [s for s in page.scripts if "onerror" in s] == []
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert "49" not in re.findall(r"onerror=alert\(1\)>\"'&(\S\S)", page.text)  # the template engine ran nothing
    assert page.text.count("</script><img src=x onerror=alert(1)>") >= 8  # it is there, as text


def test_report_chart_data_can_not_end_its_script(whole: Path) -> None:
    html = write_report(whole).read_text(encoding="utf-8")
    blocks = re.findall(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        assert "<" not in block
        assert set(json.loads(block)) == {"x", "y", "words"}


def test_report_allows_its_own_scripts_and_no_request(whole: Path) -> None:
    page = Page.of(whole)
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv"))
    assert policy is not None
    assert "default-src 'none'" in policy
    assert policy.count("sha256-") == 2
    assert "unsafe-inline" not in policy.split("script-src")[1].split(";")[0]
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "xlink:href", "srcset", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:image/svg+xml,")), (tag, name, value)


def test_report_shows_each_token_with_its_exact_bytes(tmp_path: Path) -> None:
    page = Page.of(make_run(tmp_path / "run", text="né\n\tx y"))
    tokens = [a for tag, a in page.tags if tag == "span" and (a.get("class") or "").startswith("token ")]
    assert b"".join(bytes.fromhex(a["data-hex"] or "") for a in tokens) == "né\n\tx y".encode()
    assert "⟨c3⟩" in page.text
    assert "⏎" in page.text
    assert "·y" in page.text


def test_report_is_light(whole: Path) -> None:
    assert write_report(whole).stat().st_size < 600_000


def test_report_replaces_the_old_page_in_one_move(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = write_report(whole).read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match="disk is full"):
        write_report(whole)
    assert (whole / "report.html").read_bytes() == before
    assert list(whole.glob(".making-*")) == []


def test_report_command_writes_the_page_and_prints_its_path(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (whole / "report.html").unlink(missing_ok=True)
    assert main(["report", str(whole)]) == 0
    assert capsys.readouterr().out.strip() == str(whole / "report.html")
    assert (whole / "report.html").is_file()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "there is no run folder"),
        ({}, "is not a run folder"),
        ({"summary.json": "{"}, "is damaged"),
        ({"summary.json": "[]"}, "is damaged"),
        ({"run.toml": "= 3"}, "is damaged"),
    ],
)
def test_report_command_names_what_is_wrong_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: dict[str, str] | None, message: str
) -> None:
    run = tmp_path / "run"
    if files is not None:
        run.mkdir()
        for name, content in files.items():
            (run / name).write_text(content)
    assert main(["report", str(run)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]
    assert not (run / "report.html").exists()


def _spec_json() -> dict[str, Any]:
    from underhood.core.config import to_json

    return to_json(SPEC, tagged=True)
