"""Newcomers' questions, written before the search was tuned, each with the targets that would help.

A target is an entry's target or the beginning of one: a page of the documentation, a glossary term, a command or
option, a source file, a milestone. Topics that are not written yet never count. The ranking and its synonyms were tuned
on the first half of the questions only (`TUNED_ON`); `HELD_OUT` was looked at afterwards.
"""

from __future__ import annotations

TUNED_ON: dict[str, tuple[str, ...]] = {
    "what is attention": ("glossary: attention", "nn/attention.py"),
    "my loss is nan": ("train/loop.py", "train/schedule.py", "glossary: learning-rate", "p2017_schedules"),
    "load llama": ("docs/checkpoints.md", "underhood import", "infer/importing.py", "models/huggingface.py"),
    "gguf": ("models/gguf", "docs/checkpoints.md", "underhood import", "underhood export", "recipes/export/"),
    "learning rate": ("glossary: learning-rate", "p2017_schedules", "train/schedule.py", "underhood finetune --l"),
    "temperature": ("docs/sampling.md", "glossary: temperature", "infer/sample.py", "underhood generate --temperature"),
    "RoPE": ("nn/rope.py", "glossary: rotary"),
    "train on my own text": ("underhood build", "docs/build.md", "README.md"),
    "what does quantization do": (
        "glossary: weight-only", "kernels/weight_only", "infer/optimize.py", "docs/engine.md",
    ),
    "run on gpu": ("core/device.py", "underhood build --device", "underhood finetune --device"),
    "what is perplexity": ("glossary: perplexity", "evals/perplexity.py"),
    "continue training after ctrl-c": ("underhood build --resume", "docs/build.md", "train/stopping.py"),
    "is my model overfitting": ("glossary: held-out", "p2012_alexnet", "data/split.py", "p2016_stochastic"),
    "what is a kv cache": ("glossary: kv cache", "infer/cache.py"),
    "how do I test my model": ("underhood eval", "docs/checkpoints.md", "docs/walk.md"),
    "multiple gpus": ("docs/build.md", "train/distributed.py", "train/processes.py", "underhood pretrain --parallel"),
    "difference between adam and sgd": ("p2014_adam", "p2016_stochastic", "train/optim.py", "glossary: adamw"),
    "who invented language models": ("p1913_markov", "p1948_shannon", "p2022_every_model"),
    "entropy of english": ("p1951_entropy", "p1948_entropy"),
    "visualise what the model thinks": ("web/token_view.py", "docs/page.md", "docs/serve.md", "underhood report"),
}  # fmt: skip

HELD_OUT: dict[str, tuple[str, ...]] = {
    "how do I make the answers less random": (
        "docs/sampling.md", "glossary: temperature", "infer/sample.py", "underhood generate --temperature",
    ),
    "chat with my notes": ("docs/retrieve.md", "underhood chat", "underhood index", "README.md"),
    "what is a token": ("glossary: token", "underhood tokenizer", "text/bpe.py"),
    "speed up": ("docs/engine.md", "glossary: speculative", "infer/optimize.py", "underhood generate --speculative"),
    "why softmax": ("p2015_losses",),
    "fine-tune": ("docs/checkpoints.md", "underhood finetune", "recipes/finetune.py", "docs/walk.md"),
    "how much memory do I need": (
        "infer/memory.py", "README.md", "docs/engine.md", "underhood serve --", "docs/build.md",
    ),
    "stop the model from making things up": (
        "docs/retrieve.md", "glossary: unlikelihood", "align/unlikelihood.py", "retrieve/quote.py",
        "glossary: retrieval", "glossary: quote", "glossary: hallucination",
    ),
    "openai api": ("docs/serve.md", "underhood serve", "web/"),
    "how does backpropagation work": ("p1986_backprop", "p2015_reverse_mode"),
    "export to llama.cpp": ("underhood export", "docs/checkpoints.md", "recipes/export/"),
    "lora rank": ("underhood finetune --lora-rank", "nn/lora.py", "glossary: lora"),
    "json output": ("docs/sampling.md", "infer/grammar.py", "glossary: constrained", "underhood generate --schema"),
    "mixture of experts": ("nn/moe.py", "glossary: mixture"),
    "reward from human feedback": (
        "docs/serve.md", "align/dpo.py", "underhood dpo", "glossary: preference", "glossary: direct",
    ),
    "compress a file": ("underhood compress", "docs/compress.md", "p2003_compressor"),
    "context window too small": (
        "glossary: context length", "glossary: rope scaling", "nn/rope_scaling.py", "underhood build --context",
    ),
    "embeddings": ("nn/embedding.py", "infer/embedding.py", "docs/serve.md"),
    "tool use": ("web/tools.py", "docs/serve.md"),
    "how do I add my own layer": ("docs/architecture.md",),
}  # fmt: skip

ANSWERED: dict[str, tuple[str, ...]] = {
    "what is an embedding": ("p2013_word2vec", "p2024_text_windows"),
    "how does attention work": ("p2017_attention",),
    "why divide by √d": ("p2017_attention",),
    "what is RoPE": ("p2021_rope",),
    "what is a KV cache": ("p2022_kv_cache",),
    "what is a mixture of experts": ("p2024_mixtral",),
    "why did LSTMs lose": ("p1997_lstm",),
    "what is a GPT": ("p2023_gpt", "p2019_gpt2"),
    "what is a tokenizer": ("p2024_bpe",),
}
"""Questions whose first answer must be a page that explains it, and the milestones that do."""
