"""The pass of compiled loops gives what the model's own forward pass gives, for every family and any company."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import torch
from test_optimize import FAMILIES, small
from torch import Tensor

from underhood.infer import opening
from underhood.infer.cache import ContiguousCache
from underhood.infer.generate import generate
from underhood.infer.optimize import compiled_decoder, optimize_for_inference
from underhood.infer.paged_cache import PagedCache, Span
from underhood.infer.session import Session
from underhood.kernels import elementwise, jit, paged_attention
from underhood.kernels.cpu_decoder import CpuDecoder
from underhood.kernels.decode_layers import DECODE_BATCH_MAX
from underhood.models.decoder import Decoder
from underhood.nn.feedforward import ACTIVATIONS

TEXT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9]


def step_of(model: Decoder) -> CpuDecoder:
    step = compiled_decoder(model)
    assert step is not None
    return step


@torch.inference_mode()
def one_by_one(model: Decoder, ids: list[int]) -> Tensor:
    """The scores (T, V) of a text that is read one token at a time."""
    step, cache = step_of(model), ContiguousCache.for_model(model, 1, len(ids))
    scores = []
    for index, id in enumerate(ids):
        cache.extend(1, None)
        scores.append(step([id], [index], cache)[0])
    return torch.stack(scores)


@pytest.mark.parametrize("name", FAMILIES)
def test_one_text_reads_as_the_plain_model_reads_it(name: str) -> None:
    plain = small(name)
    with torch.inference_mode():
        expected_TV = plain(torch.tensor([TEXT]))[0]
    torch.testing.assert_close(one_by_one(optimize_for_inference(plain), TEXT), expected_TV, rtol=2e-4, atol=2e-4)


@torch.inference_mode()
@pytest.mark.parametrize("texts", [2, 7])
@pytest.mark.parametrize("name", FAMILIES)
def test_texts_side_by_side_read_as_each_alone(name: str, texts: int) -> None:
    plain = small(name)
    model = optimize_for_inference(plain)
    step, rng = step_of(model), random.Random(texts)
    size, length = 4, 20
    blocks = list(range(texts * length // size))
    rng.shuffle(blocks)
    held = [blocks[text * length // size : (text + 1) * length // size] for text in range(texts)]
    cache = PagedCache(model.state_specs, size * len(blocks))
    ids = [[rng.randrange(model.vocab_size) for _ in range(length)] for _ in range(texts)]
    read = [0] * texts
    expected = [plain(torch.tensor([text]))[0] for text in ids]
    while any(count < length for count in read):
        now = [text for text in range(texts) if read[text] < length and rng.random() < 0.8]
        if not now:
            continue
        runs = [[(block * size, size) for block in held[text]] for text in now]
        positions = [read[text] for text in now]
        cache.arrange([Span(location, 1, run) for location, run in zip(positions, runs, strict=True)])
        scores_NV = step([ids[text][read[text]] for text in now], positions, cache)
        for text, score_V in zip(now, scores_NV, strict=True):
            torch.testing.assert_close(score_V, expected[text][read[text]], rtol=2e-4, atol=2e-4)
            read[text] += 1


@torch.inference_mode()
@pytest.mark.parametrize("name", FAMILIES)
def test_several_tokens_of_a_text_see_what_came_before_them(name: str) -> None:
    plain = small(name)
    model = optimize_for_inference(plain)
    expected_TV = plain(torch.tensor([TEXT]))[0]
    step, cache = step_of(model), ContiguousCache.for_model(model, 1, len(TEXT))
    actual, parts = [], [range(2), range(2, 9), range(9, 10), range(10, len(TEXT))]
    for piece in parts:
        cache.extend(len(piece), None)
        actual.append(step(TEXT[piece.start : piece.stop], piece, cache))
    torch.testing.assert_close(torch.cat(actual), expected_TV, rtol=2e-4, atol=2e-4)
    cache.truncate(10)
    cache.extend(5, None)
    torch.testing.assert_close(step(TEXT[10:], parts[-1], cache, [1, 4]), expected_TV[[11, 14]], rtol=2e-4, atol=2e-4)


@torch.inference_mode()
def test_a_pass_of_chunks_and_single_tokens_reads_each_text_as_alone() -> None:
    plain = small("gemma-2-2b")
    for block in plain.blocks:
        if block.mixer.spec.window:  # type: ignore[union-attr]
            object.__setattr__(block.mixer.spec, "window", 5)  # type: ignore[union-attr]
    model = optimize_for_inference(plain)
    step, cache = step_of(model), PagedCache(model.state_specs, 64)
    texts = [TEXT, TEXT[::-1], TEXT[3:]]
    runs = [[(0, 16)], [(32, 8), (16, 8)], [(48, 16)]]
    read = [0, 0, 0]
    for counts in ((4, 1, 2), (1, 6, 1), (3, 3, 3)):
        spans = [Span(start, count, run) for start, count, run in zip(read, counts, runs, strict=True)]
        cache.arrange(spans)
        tokens = [id for text, span in zip(texts, spans, strict=True) for id in text[span.start : span.end]]
        scores_NV = step(tokens, [index for span in spans for index in range(span.start, span.end)], cache)
        parts = scores_NV.split(counts)
        for text, span, found_TV in zip(texts, spans, parts, strict=True):
            expected_TV = plain(torch.tensor([text[: span.end]]))[0, span.start :]
            torch.testing.assert_close(found_TV, expected_TV, rtol=2e-4, atol=2e-4)
        read = [span.end for span in spans]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_session_writes_the_text_of_the_naive_loop(name: str) -> None:
    plain = small(name)
    expected = generate(plain, [TEXT], max_new_tokens=12, cache=False)[0].ids
    session = Session(optimize_for_inference(plain))
    assert [token.id for token in session.stream(TEXT, max_new_tokens=12)] == expected


@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_rounded_weights_read_as_their_own_forward_pass_does(quantize: str) -> None:
    model = optimize_for_inference(small("llama-3.2-1b"), quantize)  # type: ignore[arg-type]
    cache = ContiguousCache.for_model(model, 1, len(TEXT))
    with torch.inference_mode():
        expected_TV = torch.stack([model(torch.tensor([[id]]), cache=cache)[0, 0] for id in TEXT])
    off_TV = (one_by_one(model, TEXT) - expected_TV.float()) / expected_TV.float().std()
    # Both round activations to 16 bits, each after sums of its own order; compare 0.03 and 0.3 for rounded weights.
    assert float(off_TV.std()) < 1e-3


def test_a_window_hides_what_it_should() -> None:
    model = optimize_for_inference(small("gemma-2-2b"))
    windows = [model.spec.block(layer).mixer.window for layer in range(2)]  # type: ignore[attr-defined]
    assert any(windows)
    assert all(window is None or window > len(TEXT) for window in windows)
    narrow = small("gemma-2-2b")
    for block in narrow.blocks:
        if block.mixer.spec.window:  # type: ignore[union-attr]
            object.__setattr__(block.mixer.spec, "window", 4)  # type: ignore[union-attr]
    with torch.inference_mode():
        expected_TV = narrow(torch.tensor([TEXT]))[0]
    found_TV = one_by_one(optimize_for_inference(narrow), TEXT)
    torch.testing.assert_close(found_TV, expected_TV, rtol=2e-4, atol=2e-4)
    assert not torch.allclose(found_TV, one_by_one(model, TEXT), atol=0.01)


def test_passes_of_all_sizes_share_their_memory() -> None:
    model = optimize_for_inference(small("llama-3.2-1b"))
    step, cache = step_of(model), ContiguousCache.for_model(model, 1, 200)
    sizes = []
    for count in (DECODE_BATCH_MAX, 1, 7, 33):
        cache.extend(count, None)
        step([1] * count, range(cache.length - count, cache.length), cache)
        sizes.append(sum(piece.numel() for piece in step._memory.values()))
    assert sizes == sizes[:1] * 4


@pytest.mark.parametrize("quantize", [None, "int8", "int4"])
def test_passes_of_all_sizes_read_as_the_forward_pass_does(quantize: Any) -> None:
    model = optimize_for_inference(small("llama-3.2-1b"), quantize)
    ids = [(7 * index) % model.vocab_size for index in range(DECODE_BATCH_MAX)]
    with torch.inference_mode():
        expected_TV = model(torch.tensor([ids]))[0].float()
    for size in (DECODE_BATCH_MAX, 40, 24, 12, 5):
        cache, actual = ContiguousCache.for_model(model, 1, DECODE_BATCH_MAX), []
        for start in range(0, DECODE_BATCH_MAX, size):
            some = ids[start : start + size]
            cache.extend(len(some), None)
            actual.append(step_of(model)(some, range(start, start + len(some)), cache))
        off_TV = (torch.cat(actual) - expected_TV) / expected_TV.std()
        assert float(off_TV.std()) < (1e-5 if quantize is None else 1e-3)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_attention_of_long_texts_is_shared_out(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = optimize_for_inference(small("llama-3.2-1b"))
    expected_TV = one_by_one(model, TEXT)
    monkeypatch.setattr(paged_attention, "SERIAL_WORK_MAX", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        torch.testing.assert_close(one_by_one(model, TEXT), expected_TV, rtol=1e-5, atol=1e-5)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_what_is_not_known_is_left_to_the_forward_pass() -> None:
    assert compiled_decoder(small("llama-3.2-1b")) is None  # not prepared
    assert compiled_decoder(optimize_for_inference(small("llama-3.2-1b").double())) is None

    model = optimize_for_inference(small("llama-3.2-1b"))
    assert compiled_decoder(model) is not None
    model.blocks[0].feedforward_norm = torch.nn.Tanh()
    assert compiled_decoder(model) is None


def test_what_is_no_number_shows() -> None:
    model = optimize_for_inference(small("llama-3.2-1b"))
    model.embed.weight.data[7, 3] = torch.nan
    assert torch.isnan(one_by_one(model, [1, 7])[1]).all()
    others = [id for id in range(model.vocab_size) if id != 7]  # the unembedding is the same matrix
    assert torch.isfinite(one_by_one(model, [1, 2])[:, others]).all()


def test_exp_is_right_to_the_last_bits() -> None:
    x = np.linspace(-87, 88, 200_001, dtype=np.float32)
    off = np.array([elementwise.exp(item) for item in x]) / np.exp(x.astype(np.float64)) - 1
    assert np.abs(off).max() < 2.5e-7
    assert np.isnan(elementwise.exp(np.float32("nan")))
    assert elementwise.exp(np.float32(-1e9)) < 1e-37


@pytest.mark.parametrize("kind", elementwise.ACTIVATIONS)
@pytest.mark.parametrize("gated", [True, False])
def test_activations_are_those_of_the_layers(kind: str, gated: bool) -> None:
    x = torch.linspace(-30, 30, 4_001)[None]
    up = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    actual = torch.empty_like(x)
    both = torch.cat((x, up), dim=1) if gated else x
    elementwise.activate(both.numpy(), gated, *elementwise.ACTIVATIONS[kind], actual.numpy())
    expected = ACTIVATIONS[kind](x) * (up if gated else 1)
    torch.testing.assert_close(actual, expected, rtol=2e-6, atol=2e-6)
    columns = torch.empty(x.shape[1], 1)
    arguments = both.t().numpy(), gated, *elementwise.ACTIVATIONS[kind], columns.numpy()
    jit.run_parallel(elementwise.activate_columns, *arguments)
    torch.testing.assert_close(columns.t(), expected, rtol=2e-6, atol=2e-6)


def test_bfloat16_is_rounded_as_torch_rounds_it() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-(2**31), 2**31, (1, 100_000), generator=generator).to(torch.int32).view(torch.float32)
    actual = torch.empty(x.shape, dtype=torch.bfloat16)
    elementwise.copy(x.numpy(), actual.view(torch.uint16).numpy())
    finite = torch.isfinite(x)
    assert torch.equal(actual[finite], x.bfloat16()[finite])
    assert torch.equal(torch.isnan(actual), torch.isnan(x))


def test_argmax_and_logsumexp_match_torch() -> None:
    scores_NV = torch.randn(5, 1_003, generator=torch.Generator().manual_seed(0)) * 8
    scores_NV[1, 7] = scores_NV[1, 700] = 50.0  # the first of two
    scores_NV[2] = -torch.inf
    scores_NV[2, 11] = 0.0
    scores_NV[4, 3] = torch.nan
    best_N, log_sum_N = np.empty(5, dtype=np.int64), np.empty(5, dtype=np.float32)
    jit.run_parallel(elementwise.argmax_and_logsumexp, scores_NV.numpy(), best_N, log_sum_N)
    assert best_N[:4].tolist() == scores_NV[:4].argmax(dim=-1).tolist()
    torch.testing.assert_close(torch.from_numpy(log_sum_N[:4]), scores_NV[:4].logsumexp(dim=-1))
    assert np.isnan(log_sum_N[4])
    assert 0 <= best_N[4] < 1_003


@dataclass(frozen=True)
class Loaded:
    """What `opening.optimize_if_large` needs of a loaded model."""

    model: Decoder


def test_large_models_are_opened_ready_for_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = Loaded(small("llama-3.2-1b"))
    assert compiled_decoder(opening.optimize_if_large(loaded).model) is None  # type: ignore[arg-type]
    monkeypatch.setattr(opening, "MIN_OPTIMIZED_PARAMETERS", 1_000)
    assert compiled_decoder(opening.optimize_if_large(loaded).model) is not None  # type: ignore[arg-type]


def test_loops_are_compiled_where_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    real = numba.njit

    def nowhere(*, cache: bool = False, **options: Any) -> Any:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return real(**options)

    monkeypatch.setattr(numba, "njit", nowhere)

    @jit.kernel
    def double(x: Any) -> Any:
        return 2 * x

    assert double(np.float32(4.0)) == 8.0


def test_cached_code_belongs_to_its_sources() -> None:
    folder = Path(elementwise.add_rows.stats.cache_path).parent  # type: ignore[attr-defined]
    assert folder.name == f"kernels-{jit._sources()}"


def test_the_number_of_threads_stays_what_it_was() -> None:
    code = """
import torch
torch.set_num_threads(1)
import numpy as np
from underhood.kernels import elementwise, jit
assert torch.get_num_threads() == 1
arguments = np.zeros((2, 3), np.float32), np.zeros(2, np.int64), np.zeros(2, np.float32)
jit.run_parallel(elementwise.argmax_and_logsumexp, *arguments)
assert torch.get_num_threads() == 1
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a POSIX system")
def test_a_forked_process_is_told_so() -> None:
    code = """
import os
import numpy as np
from underhood.kernels import elementwise, jit
arguments = np.zeros((2, 3), np.float32), np.zeros(2, np.int64), np.zeros(2, np.float32)
if os.fork():
    assert os.wait()[1] == 0  # before the first call there is nothing to miss
    jit.run_parallel(elementwise.argmax_and_logsumexp, *arguments)
    if os.fork():
        assert os.wait()[1] == 0
    else:
        try:
            jit.run_parallel(elementwise.argmax_and_logsumexp, *arguments)
        except RuntimeError as error:
            os._exit("spawn" not in str(error))
        os._exit(1)
else:
    jit.run_parallel(elementwise.argmax_and_logsumexp, *arguments)
    os._exit(0)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_engines_in_several_threads_may_ask_at_once() -> None:
    scores_NV = np.random.default_rng(0).standard_normal((8, 999), dtype=np.float32)

    def ask(_: int) -> list[int]:
        best_N = np.empty(8, dtype=np.int64)
        jit.run_parallel(elementwise.argmax_and_logsumexp, scores_NV, best_N, np.empty(8, dtype=np.float32))
        return best_N.tolist()

    with ThreadPoolExecutor(4) as pool:
        assert all(actual == scores_NV.argmax(axis=1).tolist() for actual in pool.map(ask, range(40)))
