"""Prerequisites of topics: nobody is led to a topic past what it is made of."""

from __future__ import annotations

import pytest

from underhood.curriculum.topics import before, topics

MUST_PASS = {
    "attention-sdpa": {"bpe", "bengio-2003", "losses-activations", "autodiff-reverse"},
    "zth-gpt": {"attention-sdpa", "residual-layernorm", "adam", "mle-xent"},
    "rope": {"attention-sdpa", "bpe"},
    "kv-cache": {"attention-sdpa"},
    "bert": {"attention-sdpa", "bpe"},
    "vit": {"attention-sdpa", "lenet-1989"},
    "dpo": {"sft", "reward-model"},
    "ppo": {"policy-gradient", "reward-model", "sft"},
    "instructgpt": {"policy-gradient", "ppo", "reward-model", "sft"},
    "lora-appE": {"linalg-essence"},
    "rag-2020": {"bm25", "dpr", "attention-sdpa"},
    "ag-react": {"cot-fewshot", "sft", "decode-sampling"},
    "moe-mixtral": {"llama2-arch", "rope", "gqa"},
    "chinchilla": {"kaplan-2020", "zth-gpt"},
    "char-rnn": {"mle-xent", "backprop-1986"},
    "word2vec": {"bengio-2003"},
}
"""Topics whose way must pass others."""

WITHOUT_ATTENTION = {
    "residual-layernorm", "raschka-ch2", "raschka-appA", "3b1b-deep-learning", "mlp-digits", "rmsnorm", "swiglu",
    "bitter-lesson", "parallel-dp", "parallel-pp", "act-checkpoint", "fsdp-zero", "comm-overlap", "policy-gradient",
    "exposure-bias", "softmax-bottleneck", "hallu-inevitable", "tf-act", "ann-lsh", "ann-annoy", "ann-hnsw",
    "ann-faiss-ivfpq", "ann-scann", "bleu", "rouge", "bm25", "ulmfit",
}  # fmt: skip
"""Topics from the Transformer on that can be understood without it: parts, systems, search, scores, recurrent nets."""

ABOUT_A_LANGUAGE_MODEL = {"sft", "align", "peft", "softprompt", "icl", "reason", "agent", "tools", "finetune", "llama"}
"""Modules whose topics start from a trained language model, or are part of one."""


def way(id: str) -> set[str]:
    return {topic.id for topic in before(id)}


@pytest.mark.parametrize(("goal", "stops"), MUST_PASS.items(), ids=list(MUST_PASS))
def test_way_passes_what_the_topic_is_made_of(goal, stops):
    assert stops <= way(goal)


def test_every_topic_after_the_transformer_passes_attention_or_is_listed():
    later = {topic.id for topic in topics().values() if topic.section >= "E"}
    assert {id for id in later if "attention-sdpa" not in way(id)} == WITHOUT_ATTENTION


def test_topics_about_a_language_model_pass_one():
    models = {"zth-gpt", "raschka-ch4", "transformer-2017", "rnn-family"}
    for topic in topics().values():
        if topic.module in ABOUT_A_LANGUAGE_MODEL and topic.id not in {"rmsnorm", "swiglu"} | models:
            assert models & way(topic.id), topic.id


def test_policy_gradient_is_before_whatever_learns_from_rewards():
    for id in ("ppo", "rlhf-ppo-toy", "gpt4-calibration", "tf-gtrxl", "ag-algo-distill", "llama2-chat"):
        assert "policy-gradient" in way(id), id


def test_no_prerequisite_is_named_twice():
    for topic in topics().values():
        assert len(set(topic.needs)) == len(topic.needs), topic.id
