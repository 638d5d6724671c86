"""Seventy-five years of models on one text: equal sizes, a unit checked by hand, and how it is shown."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from underhood.cli.main import main
from underhood.curriculum import index, results
from underhood.curriculum.pages.markdown import write_docs
from underhood.curriculum.pages.site import page
from underhood.curriculum.years import STEM
from underhood.curriculum.years.measure import bits_per_byte, measure_years
from underhood.curriculum.years.picture import picture
from underhood.curriculum.years.rungs import RUNGS
from underhood.curriculum.years.story import main_result
from underhood.models.base import parameter_count
from underhood.models.ngram import NGramSpec
from underhood.text.bpe import train_bpe

BY_NAME = {rung.name: rung for rung in RUNGS}


def test_networks_have_equally_many_parameters():
    for rung in RUNGS:
        if rung.optimizer is not None:
            assert parameter_count(rung.spec(2048).build()) == pytest.approx(855_000, rel=0.025), rung.name


def test_models_are_in_order_of_their_years_and_span_seventy_five():
    years = [rung.year for rung in RUNGS]
    assert years == sorted(years)
    assert years[-1] - years[0] >= 75


def test_bits_per_byte_of_equal_chances_is_tokens_times_log_of_the_vocabulary():
    texts = ["the cat sat on the mat", "a cat"]
    tokenizer = train_bpe(texts * 3, vocab_size=264)
    model = NGramSpec(vocab_size=tokenizer.vocab_size, order=1).build()
    tokens = sum(len(tokenizer.encode(text)) + 1 for text in texts)
    expected = tokens * math.log2(tokenizer.vocab_size) / sum(map(len, texts))
    assert bits_per_byte(model, texts, tokenizer) == pytest.approx(expected, rel=1e-6)
    in_bytes = NGramSpec(vocab_size=257, order=1).build()
    expected = (sum(map(len, texts)) + 2) * math.log2(257) / sum(map(len, texts))
    assert bits_per_byte(in_bytes, texts, tokenizer, in_bytes=True) == pytest.approx(expected, rel=1e-6)


@pytest.fixture(scope="module")
def small() -> dict:
    chosen = [BY_NAME["pairs of letters"], BY_NAME["bag of word vectors"]]
    return measure_years("smoke", seeds=2, rungs=chosen)


def test_measurement_says_what_it_cost_and_how_sure_it_is(small: dict):
    counted, network = small["models"]
    assert counted["low"] == counted["mean"] == counted["high"]
    assert counted["operations"] == 0
    assert len(counted["bits_per_byte"]) == 1
    assert len(network["bits_per_byte"]) == 2
    assert network["low"] < network["mean"] < network["high"]
    spec = BY_NAME["bag of word vectors"].spec(small["training"]["vocabulary"])
    assert network["operations"] == pytest.approx(3 * spec.flops_per_token * 6 * 8 * 128)
    json.dumps(small)


def test_page_and_picture_show_every_model(small: dict, tmp_path: Path):
    results.save(tmp_path, small)
    html = page(STEM, [tmp_path])
    root = ElementTree.fromstring(picture(small))
    for model in small["models"]:
        assert model["name"] in html
        assert f"{model['mean']:.3f}" in html
        assert any(text.text == model["name"] for text in root.iter("{http://www.w3.org/2000/svg}text"))
    dots = [float(dot.get("cx", "nan")) for dot in root.iter("{http://www.w3.org/2000/svg}circle")]
    means = [model["mean"] for model in small["models"]]
    assert (dots[0] < dots[1]) == (means[0] < means[1])
    written = write_docs(tmp_path / "docs", [tmp_path])
    assert {f"{STEM}.md", f"{STEM}.svg"} <= {file.name for file in written}


def test_page_without_a_result_says_how_to_get_one(tmp_path: Path):
    html = page(STEM, [tmp_path])
    assert "Nothing has been measured yet" in html
    assert f"underhood reproduce {STEM}" in html


def test_command_measures_it_alone(capsys: pytest.CaptureFixture[str]):
    assert main(["reproduce", STEM, "p1913_markov"]) == 2
    assert "alone" in capsys.readouterr().err


def test_published_comparison_is_whole_and_every_page_exists(capsys: pytest.CaptureFixture[str]):
    result = main_result(results.places(None))
    assert result is not None
    assert result["scale"] == "report"
    assert result["seeds"] >= 3
    assert [model["name"] for model in result["models"]] == [rung.name for rung in RUNGS]
    assert {rung.page for rung in RUNGS if rung.page} <= set(index.milestones())
    assert main(["path", "years"]) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"{rung.year} +{re.escape(rung.name)}", shown) for rung in RUNGS)


@pytest.mark.slow
def test_every_model_of_the_comparison_learns_something():
    result = measure_years("smoke", seeds=1)
    assert [model["name"] for model in result["models"]] == [rung.name for rung in RUNGS]
    even = math.log2(2048) / 2.5  # bits per byte of equal chances, at 2.5 bytes or more per token
    assert all(model["mean"] < even for model in result["models"])
