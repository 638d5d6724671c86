"""Adapter for EleutherAI's lm-evaluation-harness: our models on any of its tasks.

It needs the package ``lm-eval``. In Python::

    lm_eval.simple_evaluate(UnderhoodLM.of(underhood.load("runs/NAME")), tasks=["arc_easy"])

and once this module is imported, the harness knows the model type ``underhood`` with the argument ``run=FOLDER``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from underhood.core.errors import UserError
from underhood.evals.likelihood import LikelihoodScorer
from underhood.evals.scoring import Continuation
from underhood.evals.writing import write_until

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from underhood.infer.load import LoadedModel

try:
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
except ImportError as error:
    raise UserError("the package lm-eval is missing", fix="Install it with pip install lm-eval") from error

MAX_NEW_TOKENS = 256
"""Where a task does not say how long an answer may be: what the harness takes for other models."""


@register_model("underhood")
class UnderhoodLM(LM):
    """A model of ours in the harness's form.

    Args:
        reader: the model, its tokenizer, and what its texts open with.
        stop_ids: tokens that end what it writes.
    """

    def __init__(self, reader: LikelihoodScorer, *, stop_ids: tuple[int, ...] = ()):
        super().__init__()
        self.reader, self.stop_ids = reader, stop_ids

    @classmethod
    def of(cls, loaded: LoadedModel, *, batch_tokens: int = 8192, device: str = "cpu") -> UnderhoodLM:
        """A loaded model, opened by `underhood.load`."""
        reader = LikelihoodScorer.of(loaded, batch_tokens=batch_tokens, device=device)
        return cls(reader, stop_ids=tuple(loaded.stop_ids))

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict[str, Any] | None = None) -> UnderhoodLM:
        """What the harness calls for ``--model underhood --model_args run=FOLDER,stage=sft``.

        Raises:
            UserError: no run is named, or it can't be loaded.
        """
        return cls.create_from_arg_obj(dict(pair.split("=", 1) for pair in arg_string.split(",") if "=" in pair))

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> UnderhoodLM:
        """The same from Python: ``simple_evaluate("underhood", model_args={"run": FOLDER})``."""
        from underhood.infer.load import load

        if "run" not in arg_dict or set(arg_dict) - {"run", "stage"}:
            got = ",".join(f"{key}={value}" for key, value in arg_dict.items())
            raise UserError("the model arguments name no run", expected="run=FOLDER or run=FOLDER,stage=STAGE", got=got)
        return cls.of(load(arg_dict["run"], arg_dict.get("stage")))

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Σ log p of each continuation after its context, and whether the model would write it itself."""
        pieces = [self.reader.pair(*request.args) for request in requests]
        scores = zip(self.reader.score(pieces).tolist(), self.reader.greedy(pieces).tolist(), strict=True)
        return [(float(log), bool(greedy)) for log, greedy in scores]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """log p of whole texts, in windows of the model's context that overlap only where the last one has room."""
        pieces: list[Continuation] = []
        counts = []
        for request in requests:
            windows = _windows(self.reader.text(request.args[0]), self.reader.model.context_length)
            pieces += windows
            counts.append(len(windows))
        values = iter(self.reader.score(pieces).tolist())
        return [sum(next(values) for _ in range(count)) for count in counts]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Greedy answers up to each task's stop strings.

        Raises:
            UserError: a task asks for sampling, which would not be repeatable.
        """
        alike: dict[tuple[tuple[str, ...], int], list[int]] = {}
        contexts: list[tuple[str, dict[str, Any]]] = [request.args for request in requests]  # pyright: ignore[reportAssignmentType]
        for number, (_, options) in enumerate(contexts):
            if options.get("do_sample"):
                raise UserError("this task asks for sampled answers", expected="do_sample: false")
            stops = options.get("until") or ()
            stops = (stops,) if isinstance(stops, str) else tuple(stops)
            alike.setdefault((stops, int(options.get("max_gen_toks", MAX_NEW_TOKENS))), []).append(number)
        answers = [""] * len(requests)
        for (stops, tokens), numbers in alike.items():
            prompts = [self.reader.open(contexts[number][0]) for number in numbers]
            texts = write_until(
                self.reader.model,
                self.reader.tokenizer,
                prompts,
                stops,
                max_new_tokens=tokens,
                stop_ids=self.stop_ids,
            )
            for number, text in zip(numbers, texts, strict=True):
                answers[number] = text
        return answers

    @property
    def tokenizer_name(self) -> str:
        """Part of the key under which the harness caches requests; prompts here never depend on the tokenizer."""
        return f"underhood-{self.reader.tokenizer.vocab_size}"


def _windows(text: Continuation, context: int | None) -> list[Continuation]:
    """A text in pieces that the model can read, each token scored once; the last piece looks back as far as it can."""
    ids, start = [*text.context, *text.tokens], len(text.context)
    if context is None or len(ids) <= context + 1:
        return [text] if text.tokens else []
    windows, end = [], min(len(ids), context + 1)
    while start < len(ids):
        windows.append(Continuation(tuple(ids[max(0, end - context - 1) : start]), tuple(ids[start:end])))
        start, end = end, min(len(ids), end + context)
    return windows
