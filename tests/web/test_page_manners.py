"""The manners of every place of the page: quiet, accessible, within its window, closed to strangers, in the wheel."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from live_server import Live
from page_visit import GREEDY, Visit, headless, page_server
from playwright.sync_api import Browser
from tiny_run import make_run

from needs import REPOSITORY
from underhood.ui import formatting
from underhood.web.page_files import POLICY, SHARED

HOSTILE = "</script><img src=x onerror=\"document.title='hacked'\">"
PLACES = {
    "chat": GREEDY,
    "two models": GREEDY + "&model=small:dpo&model=small:sft",
    "runs": "/runs",
    "run": "/runs/small",
    "compare": "/compare?a=whole&b=half",
}
SERIOUS = ("serious", "critical")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with headless() as opened:
        yield opened


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with page_server(tmp_path_factory.mktemp("page"), hostile=HOSTILE) as live:
        yield live


def settle(visit: Visit, section: str) -> None:
    """Waits until the place shows what it is for, with everything open that can be."""
    page = visit.page
    if section == "chat":
        visit.ask("What is a list?")
        page.get_by_role("button", name="Tokens", exact=True).click()
        page.locator(".strip .token").first.wait_for()
        page.get_by_role("button", name="Settings", exact=True).click()
    elif section == "two models":
        visit.ask("What is a list?")
        page.locator("mark.differs").first.wait_for()
    else:
        page.locator({"runs": "tbody tr", "run": ".stages li", "compare": ".diff tr"}[section]).first.wait_for()
    page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")


@pytest.mark.parametrize("section", PLACES)
@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (360, "light")])
def test_page_is_quiet_accessible_and_fits(browser: Browser, live: Live, section: str, width: int, scheme: Any) -> None:
    viewport = {"width": width, "height": 800}
    with Visit(browser, live.url, PLACES[section], viewport=viewport, color_scheme=scheme, bypass_csp=True) as visit:
        settle(visit, section)
        assert visit.overflow <= 0
        actual = Axe().run(visit.page).response["violations"]
        serious = [(item["id"], item["nodes"][0]["html"][:120]) for item in actual if item["impact"] in SERIOUS]
        assert serious == []
        assert visit.quiet, (visit.complaints, visit.foreign)
        assert visit.page.title() != "hacked"


def test_page_axe_sees_what_it_is_meant_to_see(browser: Browser, live: Live) -> None:
    """The ablation: with a name taken away and pale letters the same check fails."""
    with Visit(browser, live.url, bypass_csp=True) as visit:
        visit.page.locator(".welcome").wait_for()
        visit.page.evaluate("""() => {
          document.querySelector("#ask").removeAttribute("aria-label");
          document.querySelector("#ask").removeAttribute("placeholder");
          document.querySelector("h1").style.color = "#ccc";
        }""")
        actual = {
            violation["id"]
            for violation in Axe().run(visit.page).response["violations"]
            if violation["impact"] in SERIOUS
        }
        assert {"label", "color-contrast"} <= actual


@pytest.mark.parametrize("section", PLACES)
def test_page_holds_under_its_own_policy(browser: Browser, live: Live, section: str) -> None:
    with Visit(browser, live.url, PLACES[section]) as visit:
        settle(visit, section)
        assert visit.quiet, (visit.complaints, visit.foreign)
        with live.http() as client:
            answer = client.get(PLACES[section].partition("?")[0])
        assert answer.headers["content-security-policy"] == POLICY
        assert POLICY.startswith("default-src 'self'")


def test_page_policy_stops_inline_script_style_and_foreign_pictures(browser: Browser, live: Live) -> None:
    """The ablation of escaping: raw markup that slipped in could neither run nor fetch."""
    with Visit(browser, live.url) as visit:
        visit.page.locator(".welcome").wait_for()
        visit.page.evaluate("""() => {
          const picture = `<img src="https://example.org/x.png" onerror="document.title='hacked'">`;
          document.body.insertAdjacentHTML("beforeend", picture);
          const script = document.createElement("script");
          script.textContent = "document.title = 'hacked'";
          document.body.append(script);
        }""")
        visit.page.wait_for_timeout(200)
        assert visit.page.title() != "hacked"
        assert len(visit.complaints) >= 2


def test_page_theme_switch_is_remembered_across_places(browser: Browser, live: Live) -> None:
    with Visit(browser, live.url, color_scheme="light") as visit:
        page = visit.page
        ground = "getComputedStyle(document.body).backgroundColor"
        page.get_by_role("button", name="Theme").click()
        page.get_by_role("button", name="Theme").click()
        assert page.evaluate(ground) == "rgb(20, 20, 22)"
        visit.go("/runs")
        assert page.evaluate(ground) == "rgb(20, 20, 22)"


def test_page_numbers_read_as_in_the_report(browser: Browser, live: Live) -> None:
    values = [
        0,
        0.0004,
        0.3,
        1,
        7.23,
        9.94,
        9.96,
        12.4,
        59.6,
        60,
        99.96,
        999.4,
        999.6,
        3599,
        3600,
        41_234,
        3_344_832,
        7.2e9,
    ]
    pairs = [(0, 1), (1.62, 4.3), (-0.8, 2.1), (0, 638), (0.031, 0.0345), (100, 2400)]
    with Visit(browser, live.url) as visit:
        actual = visit.page.evaluate(
            """async ([values, pairs]) => {
              const n = await import("/static/numbers.js");
              return { count: values.map(n.count), size: values.map(n.size), whole: values.map(n.whole),
                decimal: values.map((v) => n.decimal(-v, 2)), duration: values.map(n.duration),
                percent: values.map((v) => n.percent(Math.min(v / 100, 1))),
                ticks: pairs.map(([low, high]) => n.niceTicks(low, high, 4).map((t) => [t, n.tick(t, 0.25)])) };
            }""",
            [values, pairs],
        )
    assert actual["count"] == [formatting.count(v) for v in values]
    assert actual["size"] == [formatting.size(v) for v in values]
    assert actual["whole"] == [formatting.whole(v) for v in values]
    assert actual["decimal"] == [formatting.decimal(-v, 2) for v in values]
    assert actual["duration"] == [formatting.duration(v) for v in values]
    assert actual["percent"] == [formatting.percent(min(v / 100, 1)) for v in values]
    assert actual["ticks"] == [
        [[t, formatting.tick_label(t, 0.25)] for t in formatting.nice_ticks(*pair, 4)] for pair in pairs
    ]


def test_page_serves_its_own_files_and_no_others(live: Live) -> None:
    with live.http() as client:
        assert client.get("/static/tokens.css").headers["content-type"].startswith("text/css")
        assert client.get("/static/app.js").headers["content-type"].startswith("text/javascript")
        for path in (
            "/static/../pages_api.py",
            "/static/%2e%2e/pages_api.py",
            "/static/nothing.js",
            "/static/%2e%2e/app.py",
        ):
            assert client.get(path).status_code == 404
        assert client.get("/runs/small/other").status_code == 404


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as an installer unpacks it."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*command, "-w", str(folder), str(REPOSITORY)], capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    [wheel] = folder.glob("underhood-*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "installed")
    return folder / "installed"


def test_page_files_are_all_in_the_wheel(installed: Path) -> None:
    static = REPOSITORY / "src" / "underhood" / "web" / "static"
    wanted = [file.name for file in static.iterdir()]
    assert sorted(file.name for file in (installed / "underhood" / "web" / "static").iterdir()) == sorted(wanted)
    assert all((installed / "underhood" / "ui" / "assets" / name).is_file() for name in SHARED)


def test_page_of_the_installed_wheel_answers(browser: Browser, installed: Path, tmp_path: Path) -> None:
    """As a user has it: the command of the unpacked wheel, in a folder of its own, with no checkout in sight."""
    run = make_run(tmp_path / "small", context=512)
    origin = "import underhood; print(underhood.__file__)"
    start = "from underhood.cli.main import main; main()"
    environment = os.environ | {"PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", f"{origin}; {start}", "serve", str(run), "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            lines = []
            while not (lines and lines[-1].startswith("Page: ")):
                line = server.stdout.readline()
                assert line, lines
                lines.append(line)
            assert lines[0].startswith(str(installed))
            with Visit(browser, lines[-1].split()[1], PLACES["chat"]) as visit:
                visit.ask("What is a list?")
                assert visit.page.locator(".answer .trouble").count() == 0
                visit.page.get_by_role("link", name="Runs").click()
                visit.page.get_by_role("link", name="small").wait_for()
                assert visit.quiet, (visit.complaints, visit.foreign)
        finally:
            server.terminate()
            server.wait(120)
