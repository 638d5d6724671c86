"""Pre-tokenizers of GGUF files: how llama.cpp's ``tokenizer.ggml.pre`` splits text before byte-level BPE.

A GGUF file does not hold the split rule itself, only a name for it, and llama.cpp keeps the regular expressions behind
the names (src/llama-vocab.cpp). A rule is a list of expressions. The first splits the text; each further
one splits the pieces that are there: its matches become pieces, and so does what is between them. This is a sequence
of ``Split`` steps with the behaviour "Isolated" in Hugging Face's ``tokenizer.json``.

Where llama.cpp's expression only approximates a published one (its engine has no ``\\p{Lu}``), the published one is
used here, because the model was trained with that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from underhood.core.errors import UserError
from underhood.text.split import PATTERNS
from underhood.text.tokenizer_json import BYTE_LEVEL

Json = dict[str, Any]


@dataclass(frozen=True)
class PreTokenizer:
    """A split rule and what llama.cpp ties to its name.

    Attributes:
        expressions: applied one after the other; see the module.
        ignore_merges: a piece that is in the vocabulary as a whole is one token, whatever the merges say.
        add_bos: whether a text opens with the beginning-of-text token where the file does not say.
    """

    expressions: tuple[str, ...]
    ignore_merges: bool = False
    add_bos: bool = False


_GPT2 = PATTERNS["gpt2"]
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_PUNCTUATION = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CASED_WORDS = (  # words end where a small letter is followed by a capital: "camelCase" is two pieces
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
)
_PATHS = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_DEEPSEEK = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_RULES: tuple[tuple[str, PreTokenizer], ...] = (
    ("default", PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"))),
    (
        "gpt-2 phi-2 mpt olmo jais trillion granite-docling exaone4 gigachat a.x-4.0 mellum modern-bert roberta-bpe "
        "jina-es jina-de jina-v1-en jina-v2-es jina-v2-de jina-v2-code",
        PreTokenizer((_GPT2,)),
    ),
    ("smollm starcoder refact command-r codeshell exaone minerva-7b mellum2", PreTokenizer((r"\p{N}", _GPT2))),
    ("falcon", PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]"))),
    (
        "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
        PreTokenizer((PATTERNS["llama3"],), ignore_merges=True, add_bos=True),
    ),
    ("dbrx smaug-bpe glm4 chatglm-bpe", PreTokenizer((PATTERNS["llama3"],))),
    ("minicpm5", PreTokenizer((r"\p{N}{1,3}", PATTERNS["llama3"]), ignore_merges=True)),
    (
        "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2",
        PreTokenizer((PATTERNS["qwen2"],)),
    ),
    (
        "qwen35",
        PreTokenizer(
            (
                _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
                r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            )
        ),
    ),
    (
        "seed-coder",
        PreTokenizer(
            (
                _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
                r"| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+",
            )
        ),
    ),
    (
        "bailingmoe bailingmoe2 llada-moe",
        PreTokenizer(
            (
                r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
                r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
            )
        ),
    ),
    ("ufakzeka", PreTokenizer((rf"[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_PUNCTUATION}",))),
    ("laguna", PreTokenizer((r"[^\n]+|[\n]+", PATTERNS["qwen2"]))),
    (
        "tekken",
        PreTokenizer((rf"{_CASED_WORDS[0]}|{_CASED_WORDS[1]}|\p{{N}}|{_PATHS}",), ignore_merges=True, add_bos=True),
    ),
    (
        "gpt-4o llama4 kanana2 talkie minimax-m2",
        PreTokenizer(
            (rf"{_CASED_WORDS[0]}{_CONTRACTIONS}?|{_CASED_WORDS[1]}{_CONTRACTIONS}?|\p{{N}}{{1,3}}|{_PATHS}",)
        ),
    ),
    (
        "deepseek-coder",
        PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+", r"\p{N}")),
    ),
    (
        "deepseek-v3 hunyuan-dense joyai-llm hy_v4",
        PreTokenizer((r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", _DEEPSEEK)),
    ),
    ("poro-chat bloom gpt3-finnish", PreTokenizer((" ?[^(\\s|.,!?…。，、।۔،)]+",))),
    ("viking", PreTokenizer((" ?[^(\\s|.,!?…。，、।۔،)]+", r"\p{N}"))),
)

PRE_TOKENIZERS: Mapping[str, PreTokenizer] = {name: rule for names, rule in _RULES for name in names.split()}
"""The split rules by llama.cpp's names; the first name of equal rules is the one to write."""


def pre_tokenizer(name: object, where: str) -> PreTokenizer:
    """The rule of this name.

    Raises:
        UserError: the file names none, or one that is not known; a wrong guess would change ids without a word.
    """
    if name is None:
        raise UserError(
            f"{where} does not say how its text is split: it has no tokenizer.ggml.pre",
            expected=", ".join(PRE_TOKENIZERS),
            fix="Convert the model again with a current llama.cpp; files from before May 2024 lack this",
        )
    if name not in PRE_TOKENIZERS:
        raise UserError(
            f"{where} splits text in a way that is not known here: tokenizer.ggml.pre = {name!r}",
            expected=", ".join(PRE_TOKENIZERS),
            fix="Use the model's Hugging Face folder, which holds the rule itself",
        )
    return PRE_TOKENIZERS[str(name)]


def split_steps(rule: PreTokenizer) -> Json:
    """The rule as the ``pre_tokenizer`` of a ``tokenizer.json``."""
    cuts = [
        {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
        for expression in rule.expressions
    ]
    return {"type": "Sequence", "pretokenizers": [*cuts, BYTE_LEVEL]}


def pre_of(data: Json) -> str | None:
    """llama.cpp's name of the rule by which a ``tokenizer.json`` splits text; None where it has no such rule."""
    expressions = _expressions(data.get("pre_tokenizer"))
    ignores = bool(data["model"].get("ignore_merges"))
    rules = PRE_TOKENIZERS.items()
    return next(
        (name for name, rule in rules if (rule.expressions, rule.ignore_merges) == (expressions, ignores)), None
    )


def _expressions(step: Any) -> tuple[str, ...] | None:
    """What the steps of a pre-tokenizer split by, the last of them being the change to GPT-2's byte alphabet."""
    steps = step.get("pretokenizers") if isinstance(step, dict) and step.get("type") == "Sequence" else [step]
    if not isinstance(steps, list) or not all(isinstance(each, dict) for each in steps):
        return None
    expressions: list[str] = []
    for number, each in enumerate(steps):
        kind, last = each.get("type"), number == len(steps) - 1
        if kind == "Split" and each.get("behavior") == "Isolated" and not each.get("invert") and not last:
            expressions.append(str(each.get("pattern", {}).get("Regex")))
        elif kind == "Digits" and each.get("individual_digits") and not last:
            expressions.append(r"\p{N}")
        elif kind == "ByteLevel" and not each.get("add_prefix_space", True) and last:
            expressions += [_GPT2] if each.get("use_regex", True) else []
        else:
            return None
    return tuple(expressions)
