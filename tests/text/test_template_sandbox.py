from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from underhood.core.errors import UserError
from underhood.text import template_sandbox, template_worker
from underhood.text.template_sandbox import DEFAULT_LIMITS, RenderLimits, render_template

MESSAGES = [{"role": "user", "content": "Hi"}]


def render(source: str, limits: RenderLimits = DEFAULT_LIMITS, **variables: Any) -> str:
    return render_template(source, {"messages": MESSAGES, **variables}, limits).text


def test_environment_is_the_one_templates_are_written_for():
    assert render("{% for m in messages %}\n    {% if true %}\n{{ m.role }}\n    {% endif %}\n{% endfor %}") == "user\n"
    assert render("{{ value | tojson }}", value={"a": "<é>&'"}) == '{"a": "<é>&\'"}'
    assert render("{{ [1] | tojson(indent=2) }}") == "[\n  1\n]"
    assert render("{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}") == "012"
    assert render("{{ strftime_now('%Y') }}") == time.strftime("%Y")
    assert render("{% set ns = namespace(a=1) %}{% set ns.a = 2 %}{{ ns.a }}{{ dict(b=3).b }}") == "23"
    assert render("{{ tools is none }} {{ documents is none }} {{ add_generation_prompt }}") == "True True False"
    assert render("{{ missing is defined }}{{ missing }}") == "False"


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ raise_exception.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{{ (''|attr('format'))('{0.__class__}', 1) }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{{ messages.append(1) }}",
        "{% set ns = namespace(__class__=1) %}",
        "{% set ns = namespace() %}{% set ns['_x'] = 1 %}",
        "{{ open('/etc/passwd') }}",
        "{{ self._TemplateReference__context.environment }}",
    ],
)
def test_templates_reach_neither_files_nor_pythons_insides(source: str):
    try:
        text = render(source)
    except UserError as error:
        text = error.what.split(":")[0]
    assert text in ("", "the chat template cannot render the conversation", "the chat template is not valid Jinja")


def test_worker_knows_no_secrets_of_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SOME_TOKEN", "secret")
    limits = RenderLimits(memory=900 << 20)  # a process of its own
    assert render("{{ 1 }}", limits) == "1"
    process = template_sandbox._PROCESSES[os.getpid(), limits.memory]._process
    assert process is not None
    environment = Path(f"/proc/{process.pid}/environ")
    if environment.exists():
        assert b"SOME_TOKEN" not in environment.read_bytes()


FOREVER = "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3


def test_endless_template_is_stopped_and_the_next_one_rendered():
    started = time.monotonic()
    with pytest.raises(UserError, match=r"does not come to an end.* within 0.5 s"):
        render(FOREVER, RenderLimits(seconds=0.5))
    assert time.monotonic() - started < 60
    assert render("{{ messages[0].content }}") == "Hi"


def worker_that_first(does: str, folder: Path) -> Path:
    script = folder / "worker.py"
    worker = str(Path(template_worker.__file__))
    script.write_text(f"import runpy, time\n{does}\nrunpy.run_path({worker!r}, run_name='__main__')\n")
    return script


def test_time_to_start_is_not_counted_as_rendering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(template_sandbox, "WORKER", worker_that_first("time.sleep(3)", tmp_path))
    limits = RenderLimits(seconds=2, memory=910 << 20)  # a process of its own
    assert render("{{ 3 }}", limits) == "3"


def test_worker_that_does_not_start_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    limits = RenderLimits(memory=920 << 20)
    monkeypatch.setattr(template_sandbox, "WORKER", worker_that_first("raise SystemExit(1)", tmp_path))
    with pytest.raises(UserError, match="does not start"):
        render("{{ 3 }}", limits)
    monkeypatch.setattr(template_sandbox, "STARTING", 0.5)
    monkeypatch.setattr(template_sandbox, "WORKER", worker_that_first("time.sleep(30)", tmp_path))
    with pytest.raises(UserError, match="does not start"):
        render("{{ 3 }}", limits)
    monkeypatch.undo()
    assert render("{{ 3 }}", limits) == "3"


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 4000000000 }}",
        "{% set n = namespace(s='a') %}{% for i in range(40) %}{% set n.s = n.s * 2 %}{% endfor %}{{ n.s | length }}",
        "{{ 'a' | center(4000000000) }}",
        "{{ '%4000000000d' | format(1) }}",
        "{{ [0] * 4000000000 }}",
    ],
)
def test_exploding_template_is_stopped(source: str):
    with pytest.raises(UserError, match=r"too much memory|writes too much|cannot render"):
        render(source, RenderLimits(memory=400 << 20))
    assert render("{{ 1 + 1 }}") == "2"


def test_long_output_is_stopped():
    source = "{% for i in range(99999) %}{{ 'abcdefghij' }}{% endfor %}"
    with pytest.raises(UserError, match=r"writes too much.* at most 1000 characters"):
        render(source, RenderLimits(characters=1000))
    assert len(render(source)) == 999_990


def test_endless_recursion_is_an_error():
    with pytest.raises(UserError, match="cannot render the conversation: RecursionError"):
        render("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}")


def test_errors_say_what_the_template_did():
    for source, message in [
        ("{% if %}", "not valid Jinja: line 1: "),
        ("\n\n{% endfor %}", "line 3: "),
        ("{{ raise_exception('no system role, please') }}", "refuses the conversation: no system role, please"),
        ("{{ messages[0].absent.deeper }}", "UndefinedError"),
        ("{{ 1 + 'a' }}", "TypeError"),
    ]:
        with pytest.raises(UserError, match=message):
            render(source)
    with pytest.raises(UserError, match="JSON cannot express"):
        render("", value=object())


def test_worker_that_dies_is_an_error_and_replaced():
    assert render("{{ 1 }}") == "1"
    worker = template_sandbox._process(RenderLimits())._process
    assert worker is not None
    worker.kill()
    worker.wait()
    assert render("{{ 2 }}") == "2"


def test_threads_get_their_own_answers():
    actual: dict[int, str] = {}

    def work(number: int) -> None:
        for _ in range(20):
            actual[number] = render("{{ value }}", value=number)
            assert actual[number] == str(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert actual == {number: str(number) for number in range(4)}


def test_generation_spans_are_where_the_blocks_are():
    source = "{% for m in 'ab' %}x{% generation %}{{ m * 3 }}{% endgeneration %}y{% endfor %}z"
    rendered = render_template(source, {})
    assert rendered.text == "xaaayxbbbyz"
    assert [rendered.text[start:end] for start, end in rendered.spans] == ["aaa", "bbb"]
    kept = "{% set s %}{% generation %}abc{% endgeneration %}{% endset %}q{{ s }}"
    assert [(start, end) for start, end in render_template(kept, {}).spans] == [(1, 4)]


def test_worker_keeps_few_compiled_templates():
    known: dict = {}
    sandbox = template_worker.environment()
    for number in range(template_worker.KEPT + 2):
        request = {"template": f"{{{{ {number} }}}}", "variables": {}, "characters": 99}
        assert template_worker.answer(sandbox, known, request) == {"text": str(number), "spans": []}
    assert len(known) == 2
