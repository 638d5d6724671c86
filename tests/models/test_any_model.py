"""Any language model goes the same way: trained, saved, loaded, generating with a cache, compressing, served.

Neither model here is a decoder with attention: one mixes tokens by gated convolutions, the other has no weights at all.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from fastapi.testclient import TestClient

from tinytext import write_notes
from underhood.cli.main import main
from underhood.core.errors import UserError
from underhood.evals.scoring import Continuation, score_continuations
from underhood.infer.cache import ContiguousCache
from underhood.infer.compress import compress, decompress
from underhood.infer.engine_spec import EngineSpec
from underhood.infer.generate import generate
from underhood.infer.load import LoadedModel, load
from underhood.infer.sliding_window_cache import SlidingWindowCache
from underhood.models.decoder import Decoder
from underhood.models.ngram import NGram
from underhood.recipes.spec import BuildSpec
from underhood.recipes.stage_jobs import open_or_create, run_stage
from underhood.recipes.stages.registry import get_stage
from underhood.web.app import create_app
from underhood.web.registry import ModelRegistry

SMALL = {
    "d_model": 32,
    "layers": 2,
    "heads": 2,
    "context_length": 96,
    "batch_size": 2,
    "vocab_size": 400,
    "minutes": 0.05,
}
PROMPT = "The old clock"


@pytest.fixture(scope="module", params=["gated-conv", "lstm", "nplm", "wavenet", "ngram"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = tmp_path_factory.mktemp(request.param)
    write_notes(folder / "notes")
    spec = BuildSpec(data=str(folder / "notes"), architecture=request.param, device="cpu", **SMALL)
    trained = run_stage(open_or_create(folder / "run", spec, restart=False), get_stage("pretrain"), steps=6)
    assert trained.tokens > 0
    return load(folder / "run")


def is_recurrent(loaded: LoadedModel) -> bool:
    return any(state.recurrent for state in loaded.model.state_specs)


@torch.inference_mode()
def test_model_reads_with_every_cache_what_it_reads_without(loaded: LoadedModel) -> None:
    model, ids = loaded.model, loaded.prompt_ids(PROMPT * 3)
    tokens = torch.tensor([ids])
    whole = model(tokens)
    caches = [ContiguousCache.for_model(model, 1, len(ids))]
    if not is_recurrent(loaded):
        caches.append(SlidingWindowCache.for_model(model, 1))
    for cache in caches:
        parts = [model(piece, cache=cache) for piece in tokens.split((3, 1, len(ids) - 4), dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-4, atol=1e-4)


def test_model_generates_with_a_cache_what_it_generates_without(loaded: LoadedModel) -> None:
    prompts = [loaded.prompt_ids(text) for text in (PROMPT, "It rains", "")]
    fast, slow = (generate(loaded.model, prompts, max_new_tokens=12, cache=cache) for cache in (True, False))
    assert [completion.ids for completion in fast] == [completion.ids for completion in slow]
    assert loaded.generate(PROMPT, max_tokens=5, seed=1) == loaded.generate(PROMPT, max_tokens=5, seed=1)


def test_model_is_scored_and_compresses(loaded: LoadedModel) -> None:
    context = loaded.prompt_ids(PROMPT)
    likely = Continuation(context, loaded.tokenizer.encode(" crosses a letter"))
    [logp] = score_continuations(loaded.model, [likely])
    assert -100 < logp < 0
    data = (PROMPT * 20).encode()
    assert decompress(compress(data, loaded=loaded), load=lambda _: loaded) == data


def test_model_is_served_like_a_decoder_with_prefix_caching(loaded: LoadedModel) -> None:
    registry = ModelRegistry.open([loaded.run], spec=EngineSpec(block=4))
    expected = generate(loaded.model, [loaded.prompt_ids(PROMPT * 4)], max_new_tokens=8)[0]
    with TestClient(create_app(registry), base_url="http://localhost") as client:
        body = {"model": registry.default.id, "prompt": PROMPT * 4, "max_tokens": 8, "temperature": 0}
        answers = [client.post("/v1/completions", json=body).json() for _ in range(2)]
    assert "choices" in answers[0], answers[0]
    texts = [answer["choices"][0]["text"] for answer in answers]
    assert texts == [loaded.tokenizer.decode(expected.ids)] * 2
    cached = answers[1]["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert (cached == 0) == is_recurrent(loaded)  # a recurrent state cannot go back to where two prompts part


def test_what_needs_a_decoder_says_so(loaded: LoadedModel) -> None:
    if not isinstance(loaded.model, Decoder):
        kind = type(loaded.model).__name__
        with pytest.raises(UserError, match=f"can't be used for this; expected a decoder, got {kind}"):
            _ = loaded.decoder
    else:
        assert loaded.decoder is loaded.model


def test_model_is_fine_tuned_or_says_that_a_model_of_counts_cannot_be(
    loaded: LoadedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(loaded.run, tmp_path / "run"))
    if not isinstance(loaded.model, NGram):
        assert main(["sft", str(run), "--steps", "2"]) == 0
        assert load(run).stage == "sft"
        return
    for stage in ("sft", "dpo"):
        assert main([stage, str(run)]) == 2
        error = capsys.readouterr().err
        assert f"only counts, so it can't be trained by {stage}" in error
        assert error.count("\n") == 1
        assert "--architecture qwen3" in error
