"""A pytest plugin: a test that did not run counts as a failure, unless it names what the machine lacks."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    return _without_excuse((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    return _without_excuse((yield))


def _without_excuse(report: Any) -> Any:
    """Turns a skip that does not name what the machine lacks, and any expected failure, into a failure."""
    if hasattr(report, "wasxfail"):
        del report.wasxfail
        report.outcome, report.longrepr = "failed", "expected failures are not used here: mend or remove the test"
    elif report.skipped:
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if not reason.removeprefix("Skipped: ").startswith("needs "):
            report.outcome = "failed"
            report.longrepr = f'a skipped test must say what is missing ("needs …", see needs.py), not: {reason}'
    return report
