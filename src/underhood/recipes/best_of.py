"""Best-of-n on a file of prompts: a file of conversations with the best answers, to fine-tune on.

Rejection-sampling fine-tuning is this and ``underhood finetune`` in turns; Llama 2 went on with PPO (Touvron et al.
2023, section 3.2.3).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from underhood.align.rejection import BestAnswer, sample_best
from underhood.core.device import choose_device
from underhood.core.files import write_text
from underhood.core.runlog import RunLog
from underhood.data.prompts import read_prompts
from underhood.infer.engine import Engine
from underhood.infer.engine_spec import EngineSpec
from underhood.infer.load import load
from underhood.infer.opening import optimize_if_large
from underhood.infer.sample import SamplingSpec
from underhood.recipes.policy_run import policy_prompts
from underhood.recipes.policy_settings import BestOfSettings
from underhood.recipes.reward_choice import check_references, choose_reward

STAGE = "best-of"


@dataclass(frozen=True)
class BestOfWritten:
    """What came out.

    Attributes:
        kept: best answers in the file; cut_off, low: those that were left out, and why.
        mean: mean reward of all answers; best: of the best ones.
        equal: prompts whose answers all got the same reward.
    """

    path: Path
    prompts: int
    kept: int
    cut_off: int
    low: int
    mean: float
    best: float
    equal: int


def write_best(spec: BestOfSettings, out: Path, log: RunLog) -> BestOfWritten:
    """Samples, scores, and writes the best answers as JSON lines.

    Raises:
        UserError: the model, the prompts or the reward can't be used, or the file can't be written.
    """
    records = read_prompts(Path(spec.data))
    check_references(spec.reward, records)
    reward = choose_reward(spec.reward)
    reading = log.counter(STAGE, "reading the model")
    loaded = load(spec.model, spec.stage, device=choose_device(spec.device), progress=reading)
    prompts, _ = policy_prompts(loaded, records, loaded.decoder.context_length, spec.max_new_tokens, log, STAGE)
    best = sample_best(
        Engine(optimize_if_large(loaded).model, loaded.tokenizer, EngineSpec()),
        prompts,
        reward,
        loaded.tokenizer,
        n=spec.n,
        max_new_tokens=spec.max_new_tokens,
        sampling=SamplingSpec(temperature=spec.temperature, top_k=spec.top_k, top_p=spec.top_p),
        stop_ids=loaded.stop_ids,
        seed=spec.seed,
        reward_name=spec.reward,
        progress=log.counter(STAGE, f"best of {spec.n}", "prompts"),
    )
    high = [each for each in best if spec.min_reward is None or each.reward >= spec.min_reward]
    kept = [each for each in high if each.answer.finished or spec.cut_off]
    write_text(out, "".join(json.dumps(_record(each), ensure_ascii=False) + "\n" for each in kept))
    return BestOfWritten(
        path=out,
        prompts=len(best),
        kept=len(kept),
        cut_off=len(high) - len(kept),
        low=len(best) - len(high),
        mean=float(np.mean([each.rewards for each in best])),
        best=float(np.mean([each.reward for each in best])),
        equal=sum(len(set(each.rewards)) == 1 for each in best),
    )


def _record(best: BestAnswer) -> dict[str, object]:
    """A conversation as ``underhood finetune`` reads it."""
    answer = {"role": "assistant", "content": best.answer.answer}
    return {"messages": [*best.prompt.messages, answer], "score": best.reward}
