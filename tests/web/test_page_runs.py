"""The places of runs in a real browser: the list, one run while it goes on, two side by side."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_server import Live
from page_visit import Visit, headless, page_server
from playwright.sync_api import Browser, expect

from underhood.core.runlog import RunLog


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with headless() as opened:
        yield opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def live(folder: Path) -> Iterator[Live]:
    with page_server(folder) as live:
        yield live


def steps(log: RunLog, begin: int, end: int) -> None:
    for step in range(begin, end):
        loss = 2 + 3 * math.exp(-step / 20)
        log.event("pretrain", "step", step=step, steps=100, loss=loss, tokens=step * 512, seconds_left=9.0)


def test_page_runs_lists_all_and_finds_by_name(browser: Browser, live: Live) -> None:
    with Visit(browser, live.url, "/runs") as visit:
        page = visit.page
        expect(page.locator("tbody tr")).to_have_count(3)
        row = page.locator("tr", has=page.get_by_role("link", name="half"))
        expect(row).to_contain_text("running")
        expect(row).to_contain_text("Fine-tuning")
        expect(page.locator("tr", has=page.get_by_role("link", name="whole"))).to_contain_text("finished")
        expect(page.locator("tr", has=page.get_by_role("link", name="small")).locator(".stage-name")).to_have_count(3)
        page.get_by_label("Search the runs").fill("hal")
        expect(page.locator("tbody tr")).to_have_count(1)
        assert "q=hal" in page.url
        page.reload()
        expect(page.locator("tbody tr")).to_have_count(1)
        page.get_by_role("link", name="half").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("half")
        page.go_back()
        expect(page.get_by_label("Search the runs")).to_have_value("hal")
        assert visit.quiet, visit.complaints


def test_page_run_curves_grow_while_the_training_goes_on(browser: Browser, live: Live, folder: Path) -> None:
    log = RunLog(folder / "runs" / "growing" / "events.jsonl")
    log.event("pretrain", "start", steps=100)
    steps(log, 1, 30)
    with Visit(browser, live.url, "/runs/growing") as visit:
        page = visit.page
        read = page.locator(".curve .read .value")
        expect(read).to_have_text(re.compile("^step 29 ·"))
        expect(page.locator(".run-state")).to_contain_text("29")
        before = page.locator(".curve .line").get_attribute("d") or ""
        page.locator(".curve .area").focus()
        page.keyboard.press("Home")
        steps(log, 30, 61)
        expect(page.locator(".run-state")).to_contain_text("60")
        expect(read).to_have_text(re.compile("^step 1 ·"))  # what is being read off stays
        expect(page.locator(".curve .area")).to_be_focused()
        page.keyboard.press("End")
        expect(read).to_have_text(re.compile("^step 60 ·"))
        after = page.locator(".curve .line").get_attribute("d") or ""
        assert after.count("L") > before.count("L")
        log.event("pretrain", "end", seconds=3.0)
        expect(page.locator(".log li").first).to_contain_text("Pretraining: end")
        assert visit.quiet, visit.complaints
    log.close()


def test_page_run_asks_the_server_only_for_what_is_new(browser: Browser, live: Live) -> None:
    with live.http() as client:
        first = client.get("/ui/runs/whole/live").json()
        assert first["stages"]
        again = client.get(f"/ui/runs/whole/live?seen={first['seen']}").json()
        assert again["same"] is True
        assert "stages" not in again
    begun = time.monotonic()
    urls: list[str] = []
    with Visit(browser, live.url, "/runs/whole") as visit:
        visit.page.on("request", lambda request: urls.append(request.url))
        visit.page.locator(".stages li").first.wait_for()
        visit.page.wait_for_timeout(1500)
        assert sum("/live" in url for url in urls) <= 2 + (time.monotonic() - begun) / 4  # a finished run: each 5 s
        assert visit.quiet


def test_page_run_shows_further_curves_and_keeps_them_in_the_address(browser: Browser, live: Live) -> None:
    with Visit(browser, live.url, "/runs/whole") as visit:
        page = visit.page
        expect(page.locator("[data-stage=pretrain] .curve")).to_have_count(1)
        page.locator("[data-stage=pretrain]").get_by_role("checkbox", name="Gradient norm").check()
        expect(page.locator("[data-stage=pretrain] .curve")).to_have_count(2)
        assert "show=pretrain.grad_norm" in page.url
        page.reload()
        expect(page.locator("[data-stage=pretrain] .curve")).to_have_count(2)
        expect(page.locator("[data-stage=pretrain]").get_by_role("checkbox", name="Gradient norm")).to_be_checked()
        assert visit.quiet


def test_page_run_asks_every_checkpoint_the_same(browser: Browser, live: Live) -> None:
    with Visit(browser, live.url, "/runs/small") as visit:
        page = visit.page
        page.get_by_label("Prompt").fill("What is a list?")
        page.get_by_role("button", name="Ask every checkpoint").click()
        frames = page.locator(".sample-form + .film .frame")
        expect(frames).to_have_count(3)
        expect(frames.locator(".token-view")).to_have_count(3)
        expect(frames.first.locator("header")).to_contain_text("step 10")
        expect(frames.first).to_have_attribute("aria-current", "step")
        page.locator(".sample-form + .film .film-strip").press("ArrowRight")
        expect(frames.nth(1)).to_have_attribute("aria-current", "step")
        scrubber = page.get_by_label("Frame of Answers of the checkpoints")
        expect(scrubber).to_have_value("1")
        scrubber.fill("2")
        expect(frames.nth(2)).to_have_attribute("aria-current", "step")
        expect(page.get_by_role("button", name="Next frame")).to_be_disabled()
        loaded = live.registry.find("small:sft").loaded
        wanted = loaded.chat("What is a list?", max_tokens=96, temperature=0.0)
        with live.http() as client:
            request = {"stage": "sft", "step": 10, "prompt": "What is a list?"}
            assert client.post("/ui/runs/small/sample", json=request).json()["text"] == wanted
            gone = client.post("/ui/runs/small/sample", json=request | {"step": 11})
            assert gone.status_code == 400
            assert "gone" in gone.json()["error"]["message"]
        assert "prompt=What" in page.url
        assert visit.quiet


def test_page_run_shows_the_samples_of_training_as_a_film_that_grows(
    browser: Browser, live: Live, folder: Path
) -> None:
    log = RunLog(folder / "runs" / "filmed" / "events.jsonl")
    log.event("pretrain", "start", steps=100)
    texts = {1: "x7#q", 4: "the the the", 16: "The list is", 64: "The list holds items."}
    for step, text in texts.items():
        log.event("pretrain", "sample", step=step, share=step / 100, prompt="The", text=text)
    with Visit(browser, live.url, "/runs/filmed", viewport={"width": 360, "height": 800}) as visit:
        frames = visit.page.locator(".films .frame")
        expect(frames).to_have_count(4)
        assert [frame.rpartition("\n")[2] for frame in frames.all_inner_texts()] == list(texts.values())
        expect(visit.page.locator(".film-prompt")).to_contain_text("The")
        visit.page.locator(".films .film-strip").press("End")
        expect(frames.nth(3)).to_have_attribute("aria-current", "step")
        expect(frames.nth(3)).to_be_in_viewport()
        log.event("pretrain", "sample", step=90, share=0.9, prompt="The", text="A list holds items.")
        expect(frames).to_have_count(5)
        expect(frames.nth(4)).to_have_attribute("aria-current", "step")  # who looks at the newest goes on doing so
        # An attempt made again from step 16 on drops what the first one sampled from there.
        log.event("pretrain", "sample", step=16, share=0.16, prompt="The", text="Another list is")
        expect(frames).to_have_count(3)
        expect(frames.nth(2)).to_contain_text("Another list is")
        assert visit.overflow <= 0
        assert visit.quiet, visit.complaints
    log.close()


def test_page_compare_draws_two_runs_on_one_scale_and_lists_what_differs(browser: Browser, live: Live) -> None:
    with Visit(browser, live.url, "/runs") as visit:
        page = visit.page
        page.get_by_label("Compare whole").check()
        page.get_by_label("Compare half").check()
        page.get_by_role("button", name="Compare two").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("whole and half")
        curve = page.locator(".curve").first
        expect(curve.locator(".line")).to_have_count(2)
        expect(curve.locator(".read .value")).to_contain_text("half")
        dashes = curve.locator(".line").evaluate_all("all => all.map((line) => getComputedStyle(line).strokeDasharray)")
        assert dashes[0] == "none"
        assert dashes[1] != "none"
        expect(page.locator(".diff tr.differs").first).to_be_visible()
        expect(page.locator(".diff tr.same")).to_have_count(0)
        page.get_by_label("also what is the same").check()
        expect(page.locator(".diff tr.same").first).to_be_visible()
        assert "all=1" in page.url
        page.get_by_label("Second run").select_option("small")
        expect(page.get_by_role("heading", level=1)).to_have_text("whole and small")
        assert visit.quiet, visit.complaints


def test_page_run_report_opens_without_an_origin(browser: Browser, live: Live, folder: Path) -> None:
    (folder / "runs" / "whole" / "report.html").write_text(
        "<!doctype html><script>document.title = self.origin + '|' + (() => { try { localStorage; return 'open' }"
        " catch { return 'shut' } })()</script>"
    )
    with Visit(browser, live.url, "/ui/runs/whole/report") as visit:
        assert visit.page.title() == "null|shut"


def test_page_of_an_unknown_run_names_those_there_are(browser: Browser, live: Live) -> None:
    with Visit(browser, live.url, "/runs/wholee") as visit:
        expect(visit.page.get_by_role("alert")).to_contain_text("Did you mean whole?")
