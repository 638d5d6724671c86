"""A tiny decoder that has half learnt to add, and what policy optimisation needs around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from underhood.align.experience import PolicyPrompt
from underhood.align.policy_training import PolicyTask
from underhood.align.rewards import RewardFunction, exact_match
from underhood.align.sft import SFTLoss
from underhood.core.runlog import RunLog
from underhood.data.arithmetic_problems import Problem, addition_problems
from underhood.data.render import ChatBatches
from underhood.infer.generate import generate
from underhood.models.decoder import Decoder, qwen3_shaped
from underhood.text.chat import Rendered
from underhood.train.loop import FitSpec, fit
from underhood.train.optim import AdamWSpec

CHARACTERS = "0123456789+="
END = len(CHARACTERS)


@dataclass(frozen=True)
class DigitTokenizer:
    """One token per character, and one that ends an answer."""

    vocab_size: int = len(CHARACTERS) + 1
    special: Mapping[str, int] = field(default_factory=lambda: {"<end>": END})

    def encode(self, text: str) -> list[int]:
        return [CHARACTERS.index(character) for character in text]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join("<end>" if id == END else CHARACTERS[id] for id in ids)

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        return self.decode(ids).encode()


TOKENIZER = DigitTokenizer()
PROBLEMS = addition_problems(9)


def small_decoder(seed: int = 0) -> Decoder:
    spec = qwen3_shaped(vocab_size=END + 1, context_length=16, d_model=32, layers=2, heads=2, d_ff=64)
    return spec.initialize(seed=seed)


def half_trained(steps: int = 60, problems: Sequence[Problem] = PROBLEMS) -> Decoder:
    """A decoder after supervised training that was stopped early."""
    model = small_decoder()
    rows = []
    for problem in problems:
        prompt, answer = TOKENIZER.encode(problem.prompt), [*TOKENIZER.encode(problem.answer), END]
        rows.append(Rendered(prompt + answer, [False] * len(prompt) + [True] * len(answer)))
    batches = ChatBatches(rows, batch_size=8, context_length=32, seed=0)
    optimizer = AdamWSpec(lr=3e-3, weight_decay=0.0).build(model)
    fit(model, batches, SFTLoss(), optimizer, FitSpec(steps=steps), stage="sft", log=RunLog(None))
    return model.eval()


def task(reward: RewardFunction = exact_match, problems: Sequence[Problem] = PROBLEMS) -> PolicyTask:
    prompts = [PolicyPrompt(TOKENIZER.encode(each.prompt), each.prompt, each.record()) for each in problems]
    return PolicyTask(prompts=prompts, reward=reward, tokenizer=TOKENIZER, stop_ids=[END])


def greedy_accuracy(model: Decoder, problems: Sequence[Problem] = PROBLEMS) -> float:
    """Share of the problems that the model solves."""
    prompts = [TOKENIZER.encode(problem.prompt) for problem in problems]
    answers = generate(model, prompts, max_new_tokens=4, stop_ids=[END])
    return sum(
        TOKENIZER.decode(answer.ids) == problem.answer for answer, problem in zip(answers, problems, strict=True)
    ) / len(problems)


def expected_reward(model: Decoder, problems: Sequence[Problem] = PROBLEMS) -> float:
    """Exact probability that a sampled answer is right, the mean over the problems."""
    total = 0.0
    with torch.no_grad():
        for problem in problems:
            prompt, answer = TOKENIZER.encode(problem.prompt), [*TOKENIZER.encode(problem.answer), END]
            logp_TV = model(torch.tensor([prompt + answer[:-1]]))[0, len(prompt) - 1 :].log_softmax(-1)
            total += float(logp_TV.gather(1, torch.tensor(answer)[:, None]).sum().exp())
    return total / len(problems)
