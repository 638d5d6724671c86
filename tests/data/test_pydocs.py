"""The embedded corpus: what it holds, that it never varies, and that its questions have one true answer."""

import importlib
import inspect
import subprocess
import sys

import pytest

from underhood.data.pydocs import (
    known_names,
    owners_by_short_name,
    pydocs_corpus,
    pydocs_functions,
    summary_of,
)


@pytest.fixture(scope="module")
def corpus():
    return pydocs_corpus()


@pytest.fixture(scope="module")
def functions():
    return {function.name: function for function in pydocs_functions()}


def test_corpus_has_the_size_and_the_documents_it_promises(corpus):
    assert 1_500_000 < corpus.bytes < 6_000_000
    assert 450 < len(corpus) < 1000
    names = [document.name for document in corpus.documents]
    assert len(set(names)) == len(names)
    assert {"topic with", "module textwrap", "module os.path", "module builtins", "module asyncio.tasks"} <= set(names)
    assert corpus.facts["python"] == sys.version.split()[0].rstrip("+")


def test_document_states_name_signature_and_docstring_together(corpus):
    import textwrap

    text = next(document.text for document in corpus.documents if document.name == "module textwrap")
    assert f"textwrap.dedent(text)\n{inspect.getdoc(textwrap.dedent)}" in text
    assert "textwrap.TextWrapper.wrap(text)" in text  # no self


def test_corpus_is_the_same_in_another_process_and_imports_no_python_module(corpus):
    """Hash randomisation, import order and test runner must not show: the digest is written into every run. Sources
    are parsed: a corpus that imported modules would run `this` and `antigravity`."""
    code = (
        "import sys, underhood.data.pydocs as p; before = set(sys.modules); print(p.pydocs_corpus().digest);"
        "print([m for m in set(sys.modules) - before if m in {'this', 'antigravity', 'turtle', 'tkinter', 'imaplib',"
        "'smtplib', 'telnetlib', 'sched', 'chunk', 'wave', 'mailbox', 'nntplib', 'torch'}])"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.split("\n")[:2] == [corpus.digest, "[]"]


@pytest.mark.parametrize(
    ("name", "owner", "parameters"),
    [
        ("textwrap.dedent", "textwrap", ("text",)),
        ("os.path.join", "os.path", ("a", "*p")),
        ("os.path.exists", "os.path", ("path",)),  # defined in genericpath
        ("str.split", "builtins", ("sep", "maxsplit")),  # written in C
        ("asyncio.gather", "asyncio", ("*coros_or_futures", "return_exceptions")),  # shown by the package
        ("math.sqrt", "math", ("x",)),
        ("json.dumps", "json", None),
        ("collections.Counter.most_common", "collections", ("n",)),
    ],
)
def test_function_has_the_name_people_type(functions, name, owner, parameters):
    function = functions[name]
    assert function.owner == owner
    assert function.short_name == name.removeprefix(owner + ".")
    if parameters is not None:
        assert function.parameters == parameters


def test_summaries_answer_one_question_each(functions):
    assert len(functions) > 3000
    plain = [" ".join(function.summary.lower().split()) for function in functions.values()]
    assert len(set(plain)) == len(plain)
    for function in functions.values():
        assert 15 <= len(function.summary) <= 160
        assert "\n" not in function.summary
        assert function.summary[-1] in ".!?"
        assert not any(piece.startswith("_") for piece in function.name.split("."))


LIVE = ("textwrap", "shutil", "math", "itertools", "functools", "heapq", "os", "os.path", "json", "random", "hashlib")


def test_summaries_match_live_docstrings(functions):
    """Oracle: Python's own objects. Every name resolves, and the first sentence is in what `help` would show."""
    checked, missing, differing = 0, [], []
    for function in functions.values():
        if function.owner not in LIVE:
            continue
        thing = importlib.import_module(function.owner)
        for piece in function.short_name.split("."):
            thing = getattr(thing, piece, None)
        checked += 1
        if thing is None:
            missing.append(function.name)
        elif function.summary.rstrip(".").lower() not in " ".join((inspect.getdoc(thing) or "").split()).lower():
            differing.append(function.name)
    assert checked > 300
    assert set(missing) <= {"os.add_dll_directory"}  # defined in the sources for another platform
    assert len(differing) <= 0.02 * checked, differing  # a C twin may word it differently (heapq.heapify)


def test_parameters_match_inspect_signature(functions):
    import shutil
    import statistics

    for module in (shutil, statistics):
        for name, thing in inspect.getmembers(module, inspect.isfunction):
            function = functions.get(f"{module.__name__}.{name}")
            if function is None or thing.__module__ != module.__name__:
                continue
            stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
            real = tuple(stars.get(p.kind, "") + p.name for p in inspect.signature(thing).parameters.values())
            assert function.parameters == real, name


def test_known_names_hold_undocumented_and_imported_names():
    names = known_names()
    assert {"os.sep", "glob.os", "textwrap.dedent", "str.split", "asyncio.gather", "socket.AF_INET"} <= names
    assert "textwrap.listdir" not in names
    assert "os.path" in owners_by_short_name()["join"]
    assert len(owners_by_short_name()["join"]) > 1


@pytest.mark.parametrize(
    ("doc", "summary"),
    [
        ("Return the sine of x. More follows.", "Return the sine of x."),
        ("Join paths, e.g. a and b, into one.", "Join paths, e.g. a and b, into one."),
        ("pow(x, y) -> number\n\nRaise x to the power y", "Raise x to the power y."),
        ("wrap a single\n    paragraph of text", "Wrap a single paragraph of text."),
        ("Return repr(self).", None),
        ("See the base class for more information.", None),
        ("Short.", None),
        ("word " * 60, None),
        (">>> f(1)\n1", None),
    ],
)
def test_summary_takes_the_first_useful_sentence(doc, summary):
    assert summary_of(doc, "f") == summary
