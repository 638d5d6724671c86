"""A finished run as one object: ``underhood.load("runs/NAME")``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict, Unpack

import torch

from underhood.core.checkpoint import load_module, newest, read_checkpoint
from underhood.core.config import from_json
from underhood.core.errors import UserError, nearest
from underhood.core.files import sha256_of
from underhood.core.protocols import Tokenizer
from underhood.infer.chat import Conversation
from underhood.infer.generate import Completion, generate
from underhood.infer.sample import SamplingSpec
from underhood.infer.session import Session, Token
from underhood.infer.text import decode_stream
from underhood.models.decoder import Decoder, DecoderSpec, parameter_count
from underhood.text.chat import CHATML, Message
from underhood.text.load import load_tokenizer

STAGES = ("base", "sft", "dpo")
"""What a build leaves behind, in order; the last one that exists is the best."""

TALK = SamplingSpec(temperature=0.7, min_p=0.05)
"""How text is drawn where nothing else is said: lively, but without the long tail that derails a small model."""


class Sampling(TypedDict, total=False):
    """The fields of `SamplingSpec` as keyword arguments; what is left out comes from `TALK`."""

    temperature: float
    top_k: int | None
    top_p: float | None
    min_p: float | None
    seed: int | None


@dataclass(frozen=True, repr=False)
class Loaded:
    """A model with all that is needed to use it.

    Attributes:
        model: the decoder, in evaluation mode.
        tokenizer: what it reads and writes.
        spec: what it is made of.
        stage: "base", "sft" or "dpo".
        path: the checkpoint it was read from.
        run: the run's folder.
        step: training steps of its stage.
    """

    model: Decoder
    tokenizer: Tokenizer
    spec: DecoderSpec
    stage: str
    path: Path
    run: Path
    step: int

    def __repr__(self) -> str:
        return (
            f"<{self.stage} model of {self.run}: {parameter_count(self.model):,} parameters, vocabulary "
            f"{self.spec.vocab_size:,}, context {self.spec.context:,}, step {self.step:,}>"
        )

    @property
    def chats(self) -> bool:
        """Whether it has been trained on conversations."""
        return self.stage != "base"

    @property
    def stop_ids(self) -> list[int]:
        """The tokens that end a text: end of text, and end of turn."""
        special = self.tokenizer.special
        return [special[name] for name in (CHATML.end_of_text, CHATML.end) if name in special]

    def prompt_ids(self, text: str) -> list[int]:
        """The ids of a text's beginning: in training, every document opened with the end-of-text token."""
        special = self.tokenizer.special
        opening = [special[CHATML.end_of_text]] if CHATML.end_of_text in special else []
        return [*opening, *self.tokenizer.encode(text)]

    def complete(
        self, texts: Sequence[str], *, max_tokens: int = 128, batch_size: int = 64, sampling: SamplingSpec = TALK
    ) -> list[Completion]:
        """Continues many texts at once; see `generate`."""
        prompts = [self.prompt_ids(text) for text in texts]
        return generate(
            self.model,
            prompts,
            max_new_tokens=max_tokens,
            sampling=sampling,
            stop_ids=self.stop_ids,
            batch_size=batch_size,
        )

    def generate(self, text: str = "", *, max_tokens: int = 128, **sampling: Unpack[Sampling]) -> str:
        """The text that follows `text`, e.g. ``loaded.generate("The list", temperature=0.5, seed=1)``.

        Raises:
            UserError: an unknown or impossible sampling value, or a text longer than the context.
        """
        [completion] = self.complete([text], max_tokens=max_tokens, sampling=_sampling(sampling))
        return self.tokenizer.decode(completion.ids)

    def stream(self, text: str = "", *, max_tokens: int = 128, **sampling: Unpack[Sampling]) -> Iterator[str]:
        """The same text as `generate` gives, in pieces, as it is written."""
        tokens = self.stream_tokens(text, max_tokens=max_tokens, sampling=_sampling(sampling))
        return decode_stream(self.tokenizer, (token.id for token in tokens))

    def stream_tokens(
        self, text: str, *, max_tokens: int = 128, sampling: SamplingSpec = TALK, session: Session | None = None
    ) -> Iterator[Token]:
        """Continues a text token by token, in a session that may have read its beginning before."""
        return (session or Session(self.model)).stream(
            self.prompt_ids(text), max_new_tokens=max_tokens, sampling=sampling, stop_ids=self.stop_ids
        )

    def chat(
        self,
        messages: str | Sequence[Message],
        *,
        system: str | None = None,
        max_tokens: int = 256,
        **sampling: Unpack[Sampling],
    ) -> str:
        """The answer to a question, or to a conversation that ends with the user's message.

        Raises:
            UserError: the model has not learnt to chat, or as for `generate`.
        """
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        if not messages or messages[-1].get("role") != "user":
            raise UserError("there is nothing to answer", expected="a conversation that ends with the user's message")
        talk = self.conversation(system)
        talk.messages += messages[:-1]
        pieces = talk.reply(messages[-1]["content"], max_new_tokens=max_tokens, sampling=_sampling(sampling))
        return "".join(pieces)

    def conversation(self, system: str | None = None) -> Conversation:
        """A new conversation with this model: ``for piece in talk.reply("Hello"): …``.

        Raises:
            UserError: the model has not learnt to chat.
        """
        if not self.chats:
            have = [stage for stage in stages_of(self.run) if stage != "base"]
            raise UserError(
                "the base model has not learnt to chat",
                fix=f"Load the stage {have[-1]!r}, or continue a text with generate" if have else "Use generate",
            )
        return Conversation(self.model, self.tokenizer, system=system)


def load(run: str | Path, stage: str | None = None, *, device: str | torch.device | None = None) -> Loaded:
    """Opens the model of a run.

    Args:
        run: the run's folder, or the folder of one checkpoint in it.
        stage: "base", "sft" or "dpo"; None takes the last one that there is.
        device: where to put the model; None means the CPU.

    Raises:
        UserError: there is no such run or stage (what there is is named), or a file is damaged.
    """
    folder = Path(run).expanduser()
    if (folder / "state.json").exists():  # one checkpoint: RUN/checkpoints/STAGE/step-…
        folder, stage, path = folder.parents[2], folder.parent.name, folder
    else:
        stage, path = _find(folder, stage)
    saved = read_checkpoint(path)
    spec = from_json(DecoderSpec, saved.state["spec"], where=f"spec in {path / 'state.json'}")
    model = spec.build()
    load_module(model, saved.tensors("model"), path)
    file = folder / "tokenizer.json"
    tokenizer = load_tokenizer(file)
    if saved.state.get("tokenizer") not in (None, sha256_of(file)) or tokenizer.vocab_size > spec.vocab_size:
        raise UserError(
            f"{file} is not the tokenizer that {path} was trained with", fix="Put the run's own tokenizer.json back"
        )
    model.to(device or "cpu").eval().requires_grad_(False)
    return Loaded(model=model, tokenizer=tokenizer, spec=spec, stage=stage, path=path, run=folder, step=saved.step)


def stages_of(run: Path) -> list[str]:
    """The stages of a run that have a model, in order of training."""
    folder = run / "checkpoints"
    found = [path.name for path in sorted(folder.iterdir()) if newest(path)] if folder.is_dir() else []
    return sorted(found, key=lambda name: STAGES.index(name) if name in STAGES else -1)


def _find(folder: Path, stage: str | None) -> tuple[str, Path]:
    """The stage and its newest checkpoint."""
    have = stages_of(folder)
    if not have:
        if folder.is_dir() and ((folder / "run.toml").exists() or (folder / "checkpoints").is_dir()):
            raise UserError(f"the run {folder} has no model yet", fix=f"Go on with underhood build --resume {folder}")
        raise UserError(f"there is no run at {folder}", fix=_others(folder))
    if stage is None:
        stage = have[-1]
    elif stage not in have:
        near = nearest(stage, have)
        hint = f"Did you mean {near}?" if near else None
        raise UserError(f"{folder} has no {stage} model", expected=" or ".join(have), fix=hint)
    path = newest(folder / "checkpoints" / stage)
    assert path is not None
    return stage, path


def _others(folder: Path) -> str:
    """What might have been meant instead of a folder that is no run."""
    for place in (folder.parent, Path("runs")):
        runs = [path for path in sorted(place.iterdir()) if stages_of(path)] if place.is_dir() else []
        if runs:
            by_name = {path.name: path for path in runs}
            near = nearest(folder.name, by_name)
            if near:
                return f"Did you mean {by_name[near]}?"
            return f"There are {', '.join(str(path) for path in runs[:8])}"
    return "Make one with underhood build"


def _sampling(given: Sampling) -> SamplingSpec:
    for name in given:
        if name not in Sampling.__annotations__:
            near = nearest(name, Sampling.__annotations__)
            raise UserError(
                f"unknown sampling option {name!r}",
                fix=f"Did you mean {near}?" if near else f"There are {', '.join(Sampling.__annotations__)}",
            )
    return replace(TALK, **given)
