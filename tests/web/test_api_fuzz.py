"""Schemathesis asks every route, with data that fits the API's description and data that does not.

``UNDERHOOD_FUZZ_SECONDS=600 UNDERHOOD_FUZZ_SEED=7 pytest tests/web/test_api_fuzz.py`` is a long run; without a seed of
its own every run asks the same, so that a change is judged by what it changed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from live_server import tiny_server

SECONDS = float(os.environ.get("UNDERHOOD_FUZZ_SECONDS", "160"))
SEED = os.environ.get("UNDERHOOD_FUZZ_SEED", "0")
HERE = Path(__file__).parent
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "negative_data_rejection,unsupported_method,no_traceback"
)
# A body that breaks the rules may also be too large to be looked at; Schemathesis' own list has no 413.
SETTINGS = """[checks]
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429]
"""
WRITERS = "^/v1/(chat/)?completions$"


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 200)
@pytest.mark.parametrize("writers", [True, False], ids=["completions", "all other routes"])
def test_no_request_breaks_the_server_or_its_description(tmp_path: Path, writers: bool):
    with tiny_server(tmp_path, context=64) as live:
        (tmp_path / "schemathesis.toml").write_text(SETTINGS)
        described = live.http().get("/openapi.json").json()["paths"]
        command = [
            str(Path(sys.executable).with_name("schemathesis")),
            "run",
            f"{live.url}/openapi.json",
            *("--include-path-regex" if writers else "--exclude-path-regex", WRITERS),
            *("--mode", "all", "--checks", CHECKS, "--max-time", str(round(SECONDS / 2))),
            *("--max-examples", "100000", "--phases", "examples,coverage,fuzzing", "--generation-database", "none"),
            *("--suppress-health-check", "all", "--continue-on-failure", "--no-color", "--request-timeout", "30"),
            *("--seed", SEED),
        ]
        environment = os.environ | {"SCHEMATHESIS_HOOKS": "fuzz_hooks", "PYTHONPATH": str(HERE)}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=SECONDS + 150, check=False
        )
        (tmp_path / "schemathesis.txt").write_text(done.stdout + done.stderr)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        routes = set(re.findall(r'requests_total\{route="([^"]+)",status="\d+"\}', live.http().get("/metrics").text))
        mine = {path for path in described if bool(re.search(WRITERS, path)) == writers}
        assert {path.replace("{model}", "{model:path}") for path in mine} <= routes
        assert live.http().get("/health").json()["status"] == "ok"
        for model in live.registry.served:
            assert model.engine.stats().failures == 0
