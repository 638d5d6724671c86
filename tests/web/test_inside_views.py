"""The payloads of the page that looks into a model, beside the views in Python, for every kind of model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from inside_payload import PROMPT, convolving_only, decoded, family, subject_of
from tiny_run import make_run, tiny_tokenizer
from traced import IDS, as_loaded

from underhood.core.errors import UserError
from underhood.infer.load import LoadedModel, load
from underhood.infer.sample import SamplingSpec, distribution
from underhood.inspect import default_training
from underhood.inspect.contributions import contributions
from underhood.inspect.lens import logit_lens
from underhood.inspect.patching import patch_residual
from underhood.models.decoder import qwen3_shaped
from underhood.web.inside.operations import operations_of
from underhood.web.inside.packing import Payload, half, shares, signed, whole
from underhood.web.inside.routes import create_inside_app
from underhood.web.inside.subjects import InsideModels, Subject
from underhood.web.inside.views import VIEWS, view
from underhood.web.settings import ServeSettings

FAMILIES = ["gpt2", "mistral", "mixtral", "gemma2", "qwen2_moe", "olmo2", "recurrent"]
OTHER = PROMPT[:3] + chr(0x100 + 77) + PROMPT[4:]
LAST = len(IDS) - 1


def read(subject: Subject, view_name: str, **given: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    return decoded(view(subject, view_name, given).to_bytes())


def assert_as_close_as_bytes(actual: np.ndarray, expected: torch.Tensor) -> None:
    """Each weight's root is off by half a step of 255 at most, so the weight by 2 √w / 510 + 1 / 510²."""
    weights = expected.double().numpy()
    assert (np.abs(actual - weights) <= 2 * np.sqrt(weights) / 510 + 510**-2 + 1e-7).all()


@pytest.fixture(scope="module", params=FAMILIES)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return subject_of(family(request.param, tmp_path_factory.mktemp(request.param)))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "tiny")


def test_payload_arrays_keep_as_many_digits_as_they_promise():
    generator = torch.Generator().manual_seed(0)
    weights_HTT = torch.rand(3, 9, 9, generator=generator).softmax(dim=-1).tril()
    values_TN = torch.randn(5, 7, generator=generator) * 3
    ids = torch.tensor([[0, 70_000], [3, 5]])
    payload = Payload(
        {"name": "é"},
        {
            "triangle": shares(weights_HTT, triangle=True),
            "square": shares(weights_HTT),
            "signed": signed(values_TN),
            "half": half(values_TN),
            "huge": half(values_TN * 1e6),
            "ids": whole(ids),
        },
    )
    facts, arrays = decoded(payload.to_bytes())
    assert facts == {"name": "é"}
    assert_as_close_as_bytes(arrays["triangle"], weights_HTT)
    assert np.array_equal(arrays["triangle"], arrays["square"] * np.tri(9))
    assert np.abs(arrays["signed"] - values_TN.numpy()).max() < 0.01 * values_TN.abs().max()
    assert np.abs(arrays["half"] / values_TN.numpy() - 1).max() < 5e-4
    assert np.abs(arrays["huge"] / (values_TN.numpy() * 1e6) - 1).max() < 1e-6
    assert arrays["ids"].tolist() == ids.tolist()


def test_lens_parts_and_patches_are_those_of_the_python_views(subject: Subject):
    loaded, recorded = subject.loaded, subject.trace
    lens = logit_lens(loaded, recorded)
    facts, arrays = read(subject, "lens", start=2, stop=9)
    assert arrays["ids"].tolist() == lens.ids[:, 2:9].tolist()
    assert np.allclose(arrays["probabilities"], lens.probabilities[:, 2:9], rtol=1e-3)
    assert arrays["ranks"].tolist() == lens.ranks[:, 2:9].tolist()
    assert facts["pieces"][str(int(lens.ids[0, 2, 0]))] == lens.pieces[int(lens.ids[0, 2, 0])]
    best = int(lens.ids[-1, 5, 0])
    expected = contributions(loaded, recorded, best, position=5)
    facts, arrays = read(subject, "parts", position=5)
    assert facts["token"]["id"] == best
    assert facts["names"] == list(expected.names)
    assert np.allclose(arrays["values"], expected.values, atol=1e-6)
    names = {"answer": chr(0x100 + 40), "other": chr(0x100 + 7)}
    sweep = patch_residual(loaded, subject_of(loaded, OTHER).ids, subject.ids, answer=40, other=7)
    facts, arrays = read(subject, "patch", against=OTHER, **names)
    assert np.allclose(arrays["restored"], sweep.restored, atol=1e-4)
    assert facts["source"] == pytest.approx(sweep.source, abs=1e-5)


def test_attention_is_the_trace_s_where_a_layer_attends(subject: Subject):
    facts, arrays = read(subject, "heads")
    assert [int(layer) for layer in facts["heads"]] == subject.attending
    for layer in subject.attending:
        pattern_HTT = subject.trace.pattern(layer)
        assert_as_close_as_bytes(read(subject, "patterns", layer=layer)[1]["weights"], pattern_HTT)
        assert_as_close_as_bytes(read(subject, "head", layer=layer, head=1)[1]["weights"], pattern_HTT[1])
        assert np.allclose(read(subject, "row", layer=layer, position=6)[1]["weights"], pattern_HTT[:, 6], atol=1e-6)
        assert arrays["measures"][layer, 1, 1] == pytest.approx(float(pattern_HTT[1].diagonal().mean()), abs=1e-3)
        facts, why = read(subject, "why", layer=layer, head=1, position=6, key=0)
        sums = (why["key"] * why["query"]).sum(axis=1)
        assert np.allclose(sums, why["dot"], rtol=5e-3, atol=5e-3)
        assert 0 in facts["keys"]
        for key, weight in zip(facts["keys"], why["weight"], strict=True):
            assert weight == pytest.approx(float(pattern_HTT[1, 6, key]), abs=1e-6)
        # Softmax over what the head sees: differences of scores are ratios of weights.
        first, second = 0, 1
        ratio = np.exp(why["score"][first] - why["score"][second])
        assert ratio == pytest.approx(why["weight"][first] / why["weight"][second], rel=1e-3)
    for layer in {*range(len(subject.model.blocks))} - {*subject.attending}:
        with pytest.raises(UserError, match=f"layer {layer} has no attention"):
            read(subject, "patterns", layer=layer)


def test_every_operation_is_the_modules_own_and_its_sums_come_out(subject: Subject):
    operations = operations_of(subject.model)
    names = [operation.name for operation in operations]
    assert names[0] == "embed"
    assert names[-1] == "unembed"
    assert len(set(names)) == len(names)
    outputs: dict[str, Any] = {}
    modules = dict(subject.model.named_modules())
    handles = [
        modules[name].register_forward_hook(lambda _m, _i, output, name=name: outputs.setdefault(name, output))
        for name in names
        if name in modules
    ]
    with torch.no_grad():
        subject.model(torch.tensor([subject.ids]))
    for handle in handles:
        handle.remove()
    for operation in operations:
        facts, arrays = read(subject, "operation", name=operation.name, position=6)
        row = arrays["row"]
        output = outputs.get(operation.name)
        if isinstance(output, torch.Tensor) and output.ndim == 3:
            assert np.allclose(row, output[0, 6].numpy(), atol=1e-5), operation.name
        for example in facts["examples"]:
            value = example["value"]
            assert value == pytest.approx(float(row[example["index"]]), abs=1e-6)
            if "sum" in example:
                softcapped = example.get("words", [["", 0]])[0][0] == "before the cap"
                cap = subject.model.spec.logit_softcap
                total = cap * np.tanh(example["sum"] / cap) if softcapped and cap else example["sum"]
                assert total == pytest.approx(value, abs=2e-3 * max(1.0, abs(value))), operation.name
    assert any(name.endswith(".attend") for name in names) == bool(subject.attending)


def train_everything(subject: Subject, folder: Path) -> None:
    """Trains what the page trains, on a text of the characters that the model knows."""
    assert subject.others is not None
    text = folder / "text.txt"
    draws = torch.randint(5, 16, (4_000,), generator=torch.Generator().manual_seed(0)).tolist()
    text.write_text("".join(chr(0x100 + id) for id in draws), encoding="utf-8")
    subject.others.fits.text = str(text)
    for kind, variant in (("tuned", ""), ("features", "1"), ("probes", "previous")):
        subject.others.fits.make(subject.choice.id, subject.loaded, kind, variant)


def test_page_views_answer_or_say_why_not(subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(default_training, "AUTOENCODER_STEPS", 5)
    monkeypatch.setattr(default_training, "LENS_STEPS", 3)
    train_everything(subject, tmp_path)
    given: dict[str, dict[str, Any]] = {
        "parts": {"position": 3},
        "patch": {"against": OTHER, "answer": PROMPT[0], "other": PROMPT[1]},
        "stream": {"position": 1},
        "patterns": {"layer": 0},
        "head": {"layer": 0, "head": 0},
        "row": {"layer": 0, "position": 2},
        "why": {"layer": 0, "head": 0, "position": 2},
        "operation": {"name": "embed", "position": 0, "rows": "one"},
        "attribution": {"position": 4},
        "ablation": {"position": 4},
        "cut": {"layer": 0, "head": 0, "position": 4, "what": "zero"},
        "training": {"position": 4},
        "ranks": {"position": 4},
        "difference": {"beside": "model", "against": OTHER},
        "generation": {"write": 3, "temperature": 0.7},
        "features": {"layer": 1, "position": 4},
        "feature": {"layer": 1, "number": 0},
        "steering": {"toward": PROMPT[0], "away": PROMPT[1], "layer": 1},
        "probes": {"task": "previous"},
    }
    lacking = set()
    for name in VIEWS:
        try:
            view(subject, name, given.get(name, {})).to_bytes()
        except UserError:
            lacking.add(name)
    attends_first = 0 in subject.attending
    assert lacking - {"experts", "factors", "merges", "training", "training_induction"} == (
        set() if attends_first else {"patterns", "head", "row", "why", "cut"}
    )
    assert ("experts" in lacking) == (type(subject.model.blocks[0].feedforward).__name__ != "MixtureOfExperts")


def test_a_model_without_attention_has_the_other_views(tmp_path: Path):
    subject = subject_of(convolving_only(tmp_path))
    facts, _ = read(subject, "overview")
    assert facts["heads"] == [0, 0]
    assert read(subject, "heads")[0] == {"heads": {}}
    assert all(check["holds"] for check in read(subject, "checks")[0]["checks"])
    assert read(subject, "lens")[1]["ids"].shape == (3, len(IDS), 5)


def test_questions_are_read_in_the_chat_template(run: Path):
    models = InsideModels.open(run, chat=True)
    subject = models.subject("dpo", "What is a list?")
    loaded = models.model("dpo")
    assert loaded.template is not None
    messages = [{"role": "user", "content": "What is a list?"}]
    assert subject.ids == loaded.template.render(loaded.tokenizer, messages, add_generation_prompt=True).ids
    with pytest.raises(UserError, match="has not learnt to chat"):
        _ = models.subject("base", "What is a list?").ids


def test_generation_is_the_sampler_s_distribution_and_goes_on_from_other_tokens(run: Path):
    loaded = load(run)
    subject = subject_of(loaded, "The list")
    sampling = SamplingSpec(temperature=0.6, top_k=7, top_p=0.9)
    facts, _ = read(subject, "generation", temperature=0.6, top_k=7, top_p=0.9)
    with torch.no_grad():
        logits_V = loaded.decoder(torch.tensor([subject.ids]))[0, -1]
    drawn_V = distribution(logits_V[None], sampling)[0]
    assert [token["drawn"] for token in facts["next"]] == pytest.approx(
        [float(drawn_V[token["id"]]) for token in facts["next"]], abs=1e-5
    )
    assert sum(token["drawn"] for token in facts["next"]) == pytest.approx(1.0, abs=1e-6)
    chosen = facts["next"][3]["id"]
    facts, _ = read(subject, "generation", extra=str(chosen), write=4, temperature=0)
    [greedy] = [token["id"] for token in facts["tokens"][1:2]]
    assert facts["tokens"][0]["id"] == chosen
    with torch.no_grad():
        assert int(loaded.decoder(torch.tensor([[*subject.ids, chosen]]))[0, -1].argmax()) == greedy
    with pytest.raises(UserError, match="can't be written"):
        read(subject, "generation", extra="999999")


def test_merges_end_at_the_tokenizer_s_tokens(run: Path):
    text = "The list is a mutable sequence, naïve"
    loaded = load(run)
    facts, arrays = read(subject_of(loaded, text), "merges")
    tokens = [loaded.tokenizer.decode_bytes([id]) for id in loaded.tokenizer.encode(text)]
    lengths = arrays["lengths"]
    assert facts["counts"][0] == len(text.encode())
    assert lengths[: facts["counts"][0]].tolist() == [1] * facts["counts"][0]
    assert lengths[-len(tokens) :].tolist() == [len(token) for token in tokens]
    assert facts["counts"] == sorted(facts["counts"], reverse=True)
    assert bytes(facts["text"]).decode() == text
    ranks = [step["rank"] for step in facts["steps"]]
    assert ranks == sorted(ranks)  # of a learnt list: what a merge makes merges later


def test_one_head_over_1024_tokens_takes_at_most_600_kb(tmp_path: Path):
    spec = qwen3_shaped(vocab_size=120, context_length=1024, d_model=16, layers=1, heads=2, d_ff=16)
    prompt = "".join(chr(0x100 + (7 * number) % 120) for number in range(1024))
    subject = subject_of(as_loaded(spec.initialize(seed=0).eval(), tmp_path), prompt)
    data = view(subject, "head", {"layer": 0, "head": 1}).to_bytes()
    assert len(data) <= 600_000
    assert_as_close_as_bytes(decoded(data)[1]["weights"], subject.trace.pattern(0, [1])[0])
    small = read(subject, "patterns", layer=0)
    assert small[0]["factor"] == 8
    assert small[1]["weights"].shape == (2, 128, 128)


@pytest.fixture(scope="module")
def client(run: Path) -> TestClient:
    app = create_inside_app(InsideModels.open(run), "The list", ServeSettings())
    return TestClient(app, base_url="http://127.0.0.1")


def test_server_has_every_stage_and_answers_what_python_does(client: TestClient, run: Path):
    start = client.get("/ui/inside/start").json()
    assert [model["id"] for model in start["models"]] == ["base", "sft", "dpo"]
    assert start["first"] == "dpo"
    for stage in ("base", "dpo"):
        request_body = {"model": stage, "prompt": "The list", "view": "lens", "params": {}}
        _, arrays = decoded(client.post("/ui/inside/view", json=request_body).content)
        loaded: LoadedModel = load(run, stage)
        assert arrays["ids"].tolist() == logit_lens(loaded, subject_of(loaded, "The list").trace).ids.tolist()
    assert client.get("/", follow_redirects=False).headers["location"] == "/inside"
    assert "default-src 'self'" in client.get("/inside").headers["content-security-policy"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"view": "lenses"}, "Did you mean lens"),
        ({"params": {"layer": 1}}, "has no 'layer'"),
        ({"view": "parts"}, "needs 'position'"),
        ({"view": "parts", "params": {"position": "1"}}, "position is not int"),
        ({"model": "rlhf"}, "base or sft or dpo"),
    ],
)
def test_mistakes_of_a_request_are_explained(changed: dict[str, Any], message: str, client: TestClient):
    request_body = {"model": "sft", "prompt": "The list", "view": "lens", "params": {}} | changed
    answer = client.post("/ui/inside/view", json=request_body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"view": "parts", "params": {"position": 99}}, "no token 99"),
        ({"prompt": "list " * 200}, "at most 96"),
        ({"view": "experts"}, "no experts"),
    ],
)
def test_views_that_do_not_apply_say_why(changed: dict[str, Any], message: str, client: TestClient):
    request_body = {"model": "sft", "prompt": "The list", "view": "lens", "params": {}} | changed
    answer = client.post("/ui/inside/view", json=request_body)
    assert answer.status_code == 200
    assert message in decoded(answer.content)[0]["refused"]


def test_other_hosts_and_pages_are_kept_out(client: TestClient):
    assert client.get("/inside", headers={"Host": "example.org"}).status_code == 400
    assert client.get("/ui/inside/start", headers={"Origin": "https://example.org"}).status_code == 403


def test_checkpoints_of_a_run_are_there_by_step(run: Path, tmp_path: Path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    shutil.copytree(copy / "checkpoints" / "base" / "step-00000010", copy / "snapshots" / "base" / "step-00000004")
    models = InsideModels.open(copy, "base")
    assert list(models.choices) == ["base@4", "base", "sft", "dpo"]
    assert models.first == "base"
    assert tiny_tokenizer().vocab_size == models.model("base").tokenizer.vocab_size
