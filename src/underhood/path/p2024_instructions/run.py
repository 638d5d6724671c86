"""Raschka 2024, chapter 7: instructions in the Alpaca form, masked padding, and a small model that learns to answer."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from underhood.align.sft import SFTLoss
from underhood.core.figures import Series
from underhood.core.text_files import read_text
from underhood.core.trial import Trial
from underhood.data.batch import IGNORE
from underhood.infer.generate import generate
from underhood.infer.sample import SamplingSpec
from underhood.models.decoder import Decoder, qwen3_shaped
from underhood.path.lib.alpaca_rows import Row, encoded, full_text, padded
from underhood.text.bpe import BytePairTokenizer, train_bpe
from underhood.train.optim import MuonAdamWSpec, scale_lr
from underhood.train.small_lm import train_small

DATA, NOVEL, VOCABULARY = "instruct/raschka/instruction-data.json", "text/books/alice.txt", "tokenizers/gpt2"
CLAIMS = ("entries", "collated", "widths", "ignored", "no_gradient", "learnt", "ends", "masking")
END, BATCH, CONTEXT, ANSWER_MAX = "<|endoftext|>", 8, 128, 60
INPUTS = [[0, 1, 2, 3, 4], [5, 6, 50256, 50256, 50256], [7, 8, 9, 50256, 50256]]
TARGETS = [[1, 2, 3, 4, 50256], [6, 50256, -100, -100, -100], [8, 9, 50256, -100, -100]]
WIDTHS = [61, 76, 73, 68, 65, 72, 80, 67]


def run(trial: Trial) -> None:
    data, novel = trial.file(DATA), trial.file(NOVEL)
    if data is None or novel is None:
        for key in CLAIMS:
            trial.skip_claim(key, f"needs {DATA} and {NOVEL} below --data")
        return
    entries = json.loads(read_text(data))
    trial.measure("collated", differing_cells(ended=not trial.ablated("end")))
    if trial.wants("entries"):
        trial.measure("entries", len(entries))
        trial.measure("ignored", ignored_difference())
        widths(trial, entries)
    learnt, test = entries[: int(0.85 * len(entries))], entries[int(0.85 * len(entries)) : int(0.95 * len(entries))]
    tokenizer = train_bpe([full_text(entry) for entry in learnt], vocab_size=512)
    rows, test_rows = ([encoded(tokenizer, entry) for entry in group] for group in (learnt, test))
    rows = [row for row in rows if len(row[0]) < CONTEXT]
    width, layers = trial.by_scale(smoke=(64, 1), report=(96, 2))
    shape = {"d_model": width, "layers": layers, "heads": 4, "context_length": CONTEXT}
    spec = qwen3_shaped(vocab_size=tokenizer.vocab_size, tied=True, **shape)
    pages = read_text(novel)[: trial.by_scale(smoke=40_000, report=None)]
    losses: list[tuple[float, float]] = []
    for seed in trial.each_seed():
        steps, batch = trial.by_scale(smoke=(20, 4), report=(150, 8))
        base = train_small([pages], tokenizer, spec, steps=steps, batch_size=batch, seed=seed)
        tuned = tune(trial, base, rows, tokenizer, seed, masked=False)
        trial.measure("ends", share_ended(tuned, test_rows, tokenizer, trial.by_scale(smoke=20, report=40), seed))
        if not trial.is_ablation:
            losses.append((answer_loss(base, test_rows, tokenizer), answer_loss(tuned, test_rows, tokenizer)))
            trial.measure("learnt", losses[-1][0] - losses[-1][1])
            trial.measure("no_gradient", masked_gradient(tuned, rows[:BATCH], tokenizer, trial if seed == 0 else None))
        if trial.wants("masking"):
            other = tune(trial, base, rows, tokenizer, seed, masked=True)
            trial.measure("masking", answer_loss(other, test_rows, tokenizer) - losses[-1][1])
    if losses:
        bars = [sum(column) / len(column) for column in zip(*losses, strict=True)]
        series = [Series("mean over seeds", (0.0, 1.0), tuple(bars))]
        title = "Loss on answers that were not trained on"
        trial.plot(title=title, x="", y="nats per token", kind="bars", names=("pretrained", "tuned"), series=series)


def differing_cells(*, ended: bool) -> int:
    batch = padded([([0, 1, 2, 3, 4], 0), ([5, 6], 0), ([7, 8, 9], 0)], 50256, ended=ended)
    pairs = ((batch.tokens, INPUTS), (batch.targets, TARGETS))
    return sum(int((ours != torch.tensor(printed)).sum()) for ours, printed in pairs)


def ignored_difference() -> float:
    """The chapter's three losses of two and three rows of scores, against the printed ones."""
    scores = torch.tensor([[-1.0, 1.0], [-0.5, 1.5], [-0.5, 1.5]])
    losses = [F.cross_entropy(scores[: len(t)], torch.tensor(t)) for t in ([0, 1], [0, 1, 1], [0, 1, IGNORE])]
    return max(abs(float(ours) - printed) for ours, printed in zip(losses, (1.1269, 0.7936, 1.1269), strict=True))


def widths(trial: Trial, entries: list[dict[str, str]]) -> None:
    """The first batches of the chapter's loader with its seed, in GPT-2's tokens."""
    encoder, merges = trial.file(f"{VOCABULARY}/encoder.json"), trial.file(f"{VOCABULARY}/vocab.bpe")
    if encoder is None or merges is None:
        trial.skip_claim("widths", f"needs {VOCABULARY} below --data")
        return
    gpt2 = BytePairTokenizer.from_gpt2_files(encoder, merges)
    texts = [full_text(entry) for entry in entries[: int(0.85 * len(entries))]]
    collate: Callable[[list[str]], Tensor] = lambda some: padded([(gpt2.encode(t), 0) for t in some], 50256).tokens  # noqa: E731
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)
        loader = DataLoader(texts, batch_size=BATCH, shuffle=True, drop_last=True, collate_fn=collate)  # type: ignore[arg-type]
        seen = [batch.shape[1] for batch, _ in zip(loader, WIDTHS, strict=False)]
    trial.measure("widths", sum(ours != printed for ours, printed in zip(seen, WIDTHS, strict=True)))


def tune(
    trial: Trial, base: Decoder, rows: Sequence[Row], tokenizer: BytePairTokenizer, seed: int, *, masked: bool
) -> Decoder:
    model, end = copy.deepcopy(base).train(), tokenizer.special[END]
    optimizer, generator = MuonAdamWSpec(matrix_lr=0.02, lr=0.01).build(model), torch.Generator().manual_seed(seed)
    steps, loss_of = trial.by_scale(smoke=80, report=250), SFTLoss()
    for step in range(steps):
        chosen = torch.randint(len(rows), (BATCH,), generator=generator).tolist()
        batch = padded([rows[n] for n in chosen], end, masked=masked, ended=not trial.ablated("end"))
        loss, _ = loss_of(model, batch)
        optimizer.zero_grad()
        (loss / batch.target_count).backward()
        scale_lr(optimizer, 1 - step / steps)
        optimizer.step()
        trial.progress(step / steps, "tuning")
    return model.eval()


@torch.no_grad()
def answer_loss(model: Decoder, rows: Sequence[Row], tokenizer: BytePairTokenizer) -> float:
    batch = padded([row for row in rows if len(row[0]) < CONTEXT], tokenizer.special[END], masked=True)
    return float(SFTLoss()(model, batch)[0]) / batch.target_count


def masked_gradient(model: Decoder, rows: Sequence[Row], tokenizer: BytePairTokenizer, trial: Trial | None) -> float:
    """The largest gradient of a score at a masked position; the library's loss is compared with PyTorch's."""
    batch = padded(rows, tokenizer.special[END], masked=True)
    logits_BTV = model(batch.tokens).detach().requires_grad_()
    mean = F.cross_entropy(logits_BTV.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE)
    mean.backward()
    assert logits_BTV.grad is not None
    if trial is not None:
        apart = abs(float(SFTLoss()(model, batch)[0].detach()) / batch.target_count - float(mean.detach()))
        trial.oracle("torch's cross_entropy with −100 is the library's loss", apart < 1e-4, f"difference {apart:.1e}")
    return float(logits_BTV.grad[batch.targets == IGNORE].abs().max())


def share_ended(model: Decoder, rows: Sequence[Row], tokenizer: BytePairTokenizer, count: int, seed: int) -> float:
    """How many of the answers end themselves, drawn at temperature 1: the likeliest token alone runs in circles."""
    prompts = [ids[:opening] for ids, opening in rows if opening + ANSWER_MAX < CONTEXT][:count]
    sampling = SamplingSpec(temperature=1.0, seed=seed)
    done = generate(model, prompts, max_new_tokens=ANSWER_MAX, sampling=sampling, stop_ids=[tokenizer.special[END]])
    return sum(completion.finish == "stop" for completion in done) / len(done)
