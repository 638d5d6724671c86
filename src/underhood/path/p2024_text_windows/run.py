"""Raschka 2024, chapter 2: words and tokens of a short story, sliding windows, and embeddings as a matrix product."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from underhood.core.figures import Series
from underhood.core.text_files import read_text
from underhood.core.trial import Trial
from underhood.path.lib import raschka_numbers as printed
from underhood.text.bpe import BytePairTokenizer

STORY, OTHER, VOCABULARY = "text/books/the-verdict.txt", "text/books/alice.txt", "tokenizers/gpt2"
CUT = re.compile(r"""([,.:;?_!"()']|--|\s)""")
END, UNKNOWN = "<|endoftext|>", "<|unk|>"

SENTENCE = '"It\'s the last he painted, you know," \n           Mrs. Gisburn said with pardonable pride.'
TWO = "Hello, do you like tea? <|endoftext|> In the sunlit terraces of the palace."
ODD = ("Hello, do you like tea? ", " In the sunlit terracesof someunknownPlace.")
LENGTH, HELD_OUT = 256, 0.1


def run(trial: Trial) -> None:
    if trial.wants("tokens"):
        about_the_story(trial)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(123)
            drawn = nn.Embedding(6, 3).weight.detach().flatten()
        trial.measure("table", float((drawn - torch.tensor(printed.EMBEDDINGS)).abs().max()))
    for seed in trial.each_seed():
        generator = torch.Generator().manual_seed(seed)
        if trial.wants("one_hot"):
            trial.measure("one_hot", lookup_difference(generator))
            trial.measure("once", tokens_not_once(generator))
            trial.measure("overlap", random_deals(LENGTH // 2, generator))
        first = not trial.ablated("split_first")
        trial.measure("leak", shared_targets(5145, LENGTH, LENGTH // 2, generator, split_first=first))
    if not trial.is_ablation:
        show(trial)


def words(text: str) -> list[str]:
    """Words and punctuation marks, without the spaces."""
    return [piece.strip() for piece in CUT.split(text) if piece.strip()]


def windows(ids_N: Tensor, length: int, stride: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets, each (windows, length): the targets are the inputs one token later."""
    pieces_NT = ids_N.unfold(0, length + 1, stride)
    return pieces_NT[:, :-1], pieces_NT[:, 1:]


def by_product(ids_N: Tensor, table_VD: Tensor) -> Tensor:
    """The rows of the ids as one-hot vectors times the table: what a lookup spares."""
    return F.one_hot(ids_N, len(table_VD)).to(table_VD.dtype) @ table_VD


def lookup_difference(generator: torch.Generator) -> float:
    """How far lookup and product are apart, in the vectors and in the gradient of the table."""
    ids_N = torch.randint(50, (200,), generator=generator)
    start_VD, pull_ND = torch.randn(50, 16, generator=generator), torch.randn(200, 16, generator=generator)
    results = []
    for read in (lambda table: F.embedding(ids_N, table), lambda table: by_product(ids_N, table)):
        table_VD = start_VD.clone().requires_grad_()
        rows_ND = read(table_VD)
        (rows_ND * pull_ND).sum().backward()
        assert table_VD.grad is not None
        results.append((rows_ND.detach(), table_VD.grad))
    return max(float((ours - theirs).abs().max() / theirs.abs().max()) for ours, theirs in zip(*results, strict=True))


def tokens_not_once(generator: torch.Generator) -> int:
    """Tokens that are not exactly once a target, windows stepping by their length; the first and the tail left out."""
    tokens, length = (
        int(torch.randint(least, most, (), generator=generator)) for least, most in ((500, 6000), (4, 257))
    )
    targets_NT = windows(torch.arange(tokens), length, length)[1]
    times_N = torch.bincount(targets_NT.flatten(), minlength=tokens)
    tail = (tokens - 1) % length
    return int((times_N[1 : tokens - tail] != 1).sum())


def shared_targets(tokens: int, length: int, stride: int, generator: torch.Generator, *, split_first: bool) -> float:
    """The share of the validation targets that are training targets too, by their place in the text."""
    at_N = torch.arange(tokens)
    if split_first:
        cut = round((1 - HELD_OUT) * tokens)
        learnt, held = windows(at_N[:cut], length, stride)[1], windows(at_N[cut:], length, stride)[1]
    else:
        targets_NT = windows(at_N, length, stride)[1]
        order_N = torch.randperm(len(targets_NT), generator=generator)
        count = max(1, round(HELD_OUT * len(order_N)))
        learnt, held = targets_NT[order_N[count:]], targets_NT[order_N[:count]]
    return float(torch.isin(held.unique(), learnt).float().mean())


def about_the_story(trial: Trial) -> None:
    """Counts and ids of the story by a vocabulary of words and by GPT-2's tokens."""
    story, other = trial.file(STORY), trial.file(OTHER)
    encoder, merges = trial.file(f"{VOCABULARY}/encoder.json"), trial.file(f"{VOCABULARY}/vocab.bpe")
    if story is None or other is None or encoder is None or merges is None:
        for key in ("characters", "words", "vocabulary", "tokens", "ids", "unknown"):
            trial.skip_claim(key, f"needs {STORY}, {OTHER} and {VOCABULARY} below --data")
        return
    text, gpt2 = read_text(story), BytePairTokenizer.from_gpt2_files(encoder, merges)
    pieces = words(text)
    kinds = sorted(set(pieces))
    ids = gpt2.encode(text)
    for key, count in (("characters", len(text)), ("words", len(pieces)), ("vocabulary", len(kinds))):
        trial.measure(key, count)
    trial.measure("tokens", len(ids))
    numbers = {piece: number for number, piece in enumerate([*kinds, END, UNKNOWN])}
    odd = [*gpt2.encode(ODD[0]), gpt2.special[END], *gpt2.encode(ODD[1])]
    first, second = windows(torch.tensor(ids), 4, 4)
    pairs = [
        ([numbers[word] for word in words(SENTENCE)], printed.WORD_IDS),
        ([numbers.get(word, numbers[UNKNOWN]) for word in words(TWO)], printed.UNKNOWN_WORD_IDS),
        (odd, printed.GPT2_IDS),
        (ids[50:55], [290, 4920, 2241, 287, 257]),
        (first[:8].flatten().tolist(), printed.STORY_IDS[:-1]),
        (second[:8].flatten().tolist(), printed.STORY_IDS[1:]),
    ]
    trial.measure("ids", sum(differing(ours, theirs) for ours, theirs in pairs))
    foreign = words(read_text(other))
    trial.measure("unknown", sum(word not in numbers for word in foreign) / len(foreign))
    spelled = gpt2.decode(gpt2.encode(read_text(other))) == read_text(other)
    trial.oracle("GPT-2's tokens spell the other book exactly", spelled)
    trial.oracle(*from_data_loader(ids))


def differing(ours: Sequence[int], theirs: Sequence[int]) -> int:
    return sum(a != b for a, b in zip(ours, theirs, strict=False)) + abs(len(ours) - len(theirs))


def from_data_loader(ids: Sequence[int]) -> tuple[str, bool, str]:
    """The chapter's own loop over the text, in PyTorch's DataLoader, against `windows`."""
    starts = range(0, len(ids) - LENGTH, 128)
    inputs, targets = (torch.tensor([ids[s + shift : s + shift + LENGTH] for s in starts]) for shift in (0, 1))
    read = [torch.cat(column) for column in zip(*DataLoader(TensorDataset(inputs, targets), batch_size=4), strict=True)]
    same = all(torch.equal(a, b) for a, b in zip(read, windows(torch.tensor(ids), LENGTH, 128), strict=True))
    return "the chapter's loop in torch.utils.data.DataLoader cuts the same windows", same, f"{len(inputs)} windows"


def random_deals(stride: int, generator: torch.Generator, deals: int = 50) -> float:
    """The mean share of validation targets that are trained on, where overlapping windows are dealt out at random."""
    return sum(shared_targets(5145, LENGTH, stride, generator, split_first=False) for _ in range(deals)) / deals


def show(trial: Trial) -> None:
    strides = (16, 32, 64, 96, 128, 160, 192, 224, 256)
    shares = tuple(random_deals(stride, torch.Generator().manual_seed(0)) for stride in strides)
    title = "Windows dealt out at random: how much of the validation text was trained on"
    series = [Series("mean of 50 deals", strides, shares)]
    trial.plot(title=title, x="stride (windows of 256 tokens)", y="share of the targets", series=series)
