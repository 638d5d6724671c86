"""Panels of what is trained first: their values beside the Python views, and training in the background."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from inside_payload import decoded
from tiny_run import make_run
from trained_model import trained, training_texts

from underhood.core.errors import UserError
from underhood.infer.load import LoadedModel, load
from underhood.inspect import default_training
from underhood.inspect.corpus_values import SKIPPED, token_windows
from underhood.inspect.default_training import clipped, default_autoencoder, default_tuned_lens
from underhood.inspect.probe_tasks import probe_task
from underhood.inspect.probes import probe_layers
from underhood.inspect.sae_examples import feature_examples
from underhood.inspect.steering import steer, steering_vector
from underhood.inspect.tuned_lens import lens_divergences, tuned_lens
from underhood.web.inside.fit_kinds import TrainedFeatures, split_texts
from underhood.web.inside.fits import Fits, with_own_modules
from underhood.web.inside.known_text import known_text
from underhood.web.inside.routes import create_inside_app
from underhood.web.inside.subjects import InsideModels, Subject
from underhood.web.inside.views import answer, view
from underhood.web.settings import ServeSettings

SMALLEST_HALF = 2**-24
"""Step of the smallest numbers in half precision."""

PROMPT = "The table is mutable and holds 3 items of a list."


@pytest.fixture(autouse=True, scope="module")
def _short_training() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(default_training, "AUTOENCODER_STEPS", 120)
        patch.setattr(default_training, "LENS_STEPS", 30)
        yield


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("text") / "notes.txt"
    file.write_text("\n".join(training_texts()), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return trained(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def subject(loaded: LoadedModel, text: Path) -> Subject:
    models = InsideModels.of(loaded, "small")
    models.fits.text = str(text)
    for kind, variant in (("tuned", ""), ("features", "2"), ("probes", "previous")):
        models.fits.make("small", loaded, kind, variant)
    return models.subject("small", PROMPT)


def read(subject: Subject, view_name: str, **given: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    return decoded(view(subject, view_name, given).to_bytes())


def texts_of(loaded: LoadedModel, text: Path, characters: int) -> list[str]:
    return known_text(loaded, str(text)).sample(characters)


def test_tuned_lens_of_the_page_is_the_python_view(subject: Subject, loaded: LoadedModel, text: Path):
    training, held_out = split_texts(texts_of(loaded, text, default_training.LENS_CHARACTERS))
    lens = default_tuned_lens(loaded, training)
    expected = tuned_lens(loaded, subject.trace, lens, positions=range(2, 6))
    facts, arrays = read(subject, "tuned", start=2, stop=6)
    assert facts["start"] == 2
    assert arrays["ids"].tolist() == expected.ids.tolist()
    assert np.allclose(arrays["probabilities"], expected.probabilities, rtol=1e-3, atol=SMALLEST_HALF)
    assert arrays["ranks"].tolist() == expected.ranks.tolist()
    plain = read(subject, "lens", start=2, stop=6)[1]
    assert not np.allclose(arrays["probabilities"][0], plain["probabilities"][0], rtol=1e-2)
    divergences = read(subject, "divergences")[1]
    assert np.allclose(divergences["tuned"], lens_divergences(loaded, held_out, lens), rtol=1e-4)
    assert np.allclose(divergences["plain"], lens_divergences(loaded, held_out), rtol=1e-4)
    assert divergences["tuned"][0] < divergences["plain"][0]


def test_features_and_their_examples_are_the_python_view_s(subject: Subject, loaded: LoadedModel, text: Path):
    training, _ = split_texts(texts_of(loaded, text, default_training.AUTOENCODER_CHARACTERS))
    autoencoder = default_autoencoder(loaded, training, 2)
    position = len(subject.ids) - 2
    facts, arrays = read(subject, "features", layer=2, position=position, count=4)
    strengths_Tk, chosen_Tk = autoencoder.features(subject.trace["residual.2"])
    numbers = [each["feature"] for each in facts["features"]]
    sizes = [float(size) for size in strengths_Tk[position] if size > 0][:4]
    assert numbers == chosen_Tk[position].tolist()[: len(sizes)]
    assert np.allclose(arrays["strengths"][:, position], sizes, rtol=1e-4)
    for row, number in zip(arrays["strengths"], numbers, strict=True):
        for at in range(SKIPPED, len(row)):
            here = [float(s) for s, c in zip(strengths_Tk[at], chosen_Tk[at], strict=True) if int(c) == number]
            assert row[at] == pytest.approx(max([0.0, *here]), rel=1e-4)
    assert (arrays["strengths"][:, :SKIPPED] == 0).all()
    [expected] = feature_examples(loaded, autoencoder, training, features=numbers[:1], count=3, context=10)
    shown = read(subject, "feature", layer=2, number=numbers[0], count=3)[0]
    assert shown["density"] == pytest.approx(expected.density)
    assert facts["features"][0]["density"] == pytest.approx(expected.density)
    for ours, theirs in zip(shown["examples"], expected.examples, strict=True):
        at = ours["at"]
        assert "".join(ours["pieces"][:at]) == theirs.before
        assert ours["pieces"][at] == theirs.token
        assert "".join(ours["pieces"][at + 1 :]) == theirs.after
        assert ours["strengths"][at] == pytest.approx(theirs.strength, abs=1e-3) == max(ours["strengths"])


def test_features_say_why_they_do_not_apply(subject: Subject):
    assert "the first token is left out" in answer(subject, "features", {"layer": 2, "position": 0}).facts["refused"]
    assert "not trained yet" in answer(subject, "features", {"layer": 1, "position": 3}).facts["refused"]
    assert "has no feature" in answer(subject, "feature", {"layer": 2, "number": 10**6}).facts["refused"]


def test_steering_is_the_python_view(subject: Subject, loaded: LoadedModel):
    vector = steering_vector(loaded, "The table is mutable", "The tuple is immutable", layer=1)
    expected = steer(loaded, subject.ids, vector, strengths=[0.0, 3.0], max_tokens=12)
    given = {"toward": "The table is mutable", "away": "The tuple is immutable", "layer": 1, "write": 12}
    facts, arrays = read(subject, "steering", strength=3.0, **given)
    assert (facts["plain"], facts["steered"]) == expected.texts
    assert facts["norm"] == pytest.approx(vector.norm)
    streams = subject.trace.layers("residual")
    expected_LT = (streams @ vector.values) / (streams.norm(dim=-1) * vector.norm)
    assert np.allclose(arrays["cosine"], expected_LT, atol=2e-3)
    again = read(subject, "steering", strength=0.0, **given)[0]
    assert again["steered"] == facts["plain"]
    refused = answer(subject, "steering", given | {"toward": ""}).facts["refused"]
    assert "needs two texts" in refused


def test_probes_are_the_python_view_s(subject: Subject, loaded: LoadedModel, text: Path):
    windows = token_windows(loaded, texts_of(loaded, text, 30_000))
    task = probe_task("previous", loaded, windows)
    expected = probe_layers(loaded, windows, task.labels(windows))
    facts, arrays = read(subject, "probes", task="previous")
    assert facts["layers"] == [0, 1, 2, 3]
    for name in ("accuracy", "control", "untrained"):
        assert arrays[name].tolist() == pytest.approx([getattr(result, name) for result in expected])
    assert facts["majority"] == pytest.approx(expected[0].majority)
    assert facts["labels"] == task.labels([subject.ids])[0]
    for row, result in enumerate(expected):
        shares = result.probe.scores(subject.trace[f"residual.{row}"]).softmax(dim=-1)
        assert arrays["classes"][row].tolist() == shares.argmax(dim=-1).tolist()
        assert np.allclose(arrays["shares"][row], shares.amax(dim=-1), rtol=1e-3, atol=SMALLEST_HALF)


def test_own_modules_share_weights_but_not_hooks(loaded: LoadedModel):
    work = with_own_modules(loaded)
    for ours, theirs in zip(work.decoder.parameters(), loaded.decoder.parameters(), strict=True):
        assert ours.data_ptr() == theirs.data_ptr()
    calls: list[int] = []
    handle = loaded.decoder.blocks[0].register_forward_hook(lambda *_: calls.append(1))
    tokens = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        assert torch.equal(work.decoder(tokens), loaded.decoder(tokens))
    handle.remove()
    assert len(calls) == 1


def waited(fits: Fits, loaded: LoadedModel, kind: str, variant: str = "", until: str = "done") -> dict[str, Any]:
    end = time.monotonic() + 120
    while (state := fits.look("small", loaded, kind, variant))["state"] != until:
        assert state["state"] in ("waiting", "running"), state
        assert time.monotonic() < end
        time.sleep(0.02)
    return state


def test_training_runs_in_the_background_and_can_be_stopped(loaded: LoadedModel, text: Path, tmp_path: Path):
    fits = Fits(text=str(text), folder=tmp_path)
    before = fits.look("small", loaded, "tuned", "")
    assert before["state"] == "none"
    assert before["text"] == str(text)
    assert before["seconds"] > 0
    fits.start("small", loaded, "tuned", "")
    fits.start("small", loaded, "features", "1")
    fits.stop("small", loaded, "features", "1")
    assert fits.look("small", loaded, "features", "1")["state"] in ("waiting", "running", "stopped")
    waited(fits, loaded, "tuned")
    waited(fits, loaded, "features", "1", until="stopped")
    assert [each.name for each in tmp_path.iterdir()] == ["small-tuned.safetensors"]
    first = fits.value("small", loaded, "tuned").lens
    again = Fits(text=str(text), folder=tmp_path)
    again.make("small", loaded, "tuned", "")
    assert torch.equal(again.value("small", loaded, "tuned").lens.matrices[0], first.matrices[0])
    fits.start("small", loaded, "features", "1")
    waited(fits, loaded, "features", "1")
    value = fits.value("small", loaded, "features", "1")
    assert isinstance(value, TrainedFeatures)
    assert value.autoencoder.site == "residual.1"


def test_training_fails_with_its_reason_and_needs_a_text(loaded: LoadedModel, tmp_path: Path):
    fits = Fits()
    assert "--text FILE" in fits.look("small", loaded, "tuned", "")["message"]
    with pytest.raises(UserError, match="no text is known"):
        fits.make("small", loaded, "tuned", "")
    short = tmp_path / "short.txt"
    short.write_text("word", encoding="utf-8")
    fits = Fits(text=str(short))
    fits.start("small", loaded, "probes", "previous")
    assert waited(fits, loaded, "probes", "previous", until="failed")["message"]
    with pytest.raises(UserError, match="does not train 'other'"):
        fits.look("small", loaded, "other", "")
    with pytest.raises(UserError, match="no '9' sparse autoencoder"):
        fits.look("small", loaded, "features", "9")


def test_sample_spreads_over_a_text_and_a_run_s_own_is_its_training_text(tmp_path: Path):
    run = make_run(tmp_path / "run")
    model = load(run)
    with pytest.raises(UserError, match="no text is known"):
        known_text(model, None)
    long = tmp_path / "long.txt"
    long.write_text("".join(f"line {number}\n" for number in range(5000)), encoding="utf-8")
    sample = known_text(model, str(long)).sample(12_000)
    assert sum(map(len, sample)) == 12_000
    assert len({each[:20] for each in sample}) == len(sample) >= 3
    assert all(each in long.read_text(encoding="utf-8") for each in sample)
    assert clipped(["abc", "defg", "h"], 5) == ["abc", "de"]
    assert split_texts(["x" * 100]) == (["x" * 90], ["x" * 10])


def test_own_text_of_a_run_is_what_it_was_trained_on(tiny_run: Path):
    model = load(tiny_run)
    sample = known_text(model, None).sample(2_000)
    notes = {path.read_text(encoding="utf-8") for path in (tiny_run.parent / "notes").rglob("*") if path.is_file()}
    assert sum(map(len, sample)) > 200
    assert any(sample[0].strip()[:60] in each for each in notes)


def test_route_starts_looks_and_stops(loaded: LoadedModel, text: Path):
    models = InsideModels.of(loaded, "small")
    models.fits.text = str(text)
    client = TestClient(create_inside_app(models, PROMPT, ServeSettings()), base_url="http://127.0.0.1")

    def ask(**given: str) -> dict[str, Any]:
        response = client.post("/ui/inside/fit", json={"model": "small", **given})
        assert response.status_code == 200, response.text
        return response.json()

    assert ask(kind="probes", variant="word")["state"] == "none"
    assert ask(kind="probes", variant="word", action="start")["state"] in ("waiting", "running", "done")
    waited(models.fits, loaded, "probes", "word")
    done = ask(kind="probes", variant="word")
    assert (done["state"], done["step"], done["steps"]) == ("done", 4, 4)
    wrong = client.post("/ui/inside/fit", json={"model": "small", "kind": "nothing"})
    assert wrong.status_code == 400
    assert "tuned or features or probes" in wrong.text
