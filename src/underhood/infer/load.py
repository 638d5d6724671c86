"""A model as one object: ``underhood.load("runs/NAME")``, a Hugging Face folder, ``hf:OWNER/NAME``, a GGUF file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor

from underhood.core.checkpoint import read_checkpoint
from underhood.core.device import choose_device
from underhood.core.errors import UserError
from underhood.core.files import sha256_of
from underhood.core.protocols import ModelSpec, Tokenizer
from underhood.infer.adapter_folder import adapter_base, is_adapter, merge_adapter
from underhood.infer.arguments import check_count, check_messages, check_path, check_text, check_texts
from underhood.infer.cache import device_of
from underhood.infer.chat import ChatSession, PlainPrompt, Prepare
from underhood.infer.default_sampling import default_sampling, named_sampling
from underhood.infer.fetch import fetch
from underhood.infer.generate import Completion, generate
from underhood.infer.grammar import Grammar
from underhood.infer.published_model import TextFiles, is_published, read_published
from underhood.infer.request import OutputChunk, Request, WrittenToken
from underhood.infer.sample import SamplingSpec
from underhood.infer.sampling_keywords import SamplingKeywords, sampling_from
from underhood.infer.session import Session
from underhood.infer.stages import find_stage, stages_of, states_of
from underhood.infer.text_stream import decode_stream
from underhood.infer.token_views import NextTokenTable, TokenizedText, WrittenText
from underhood.infer.tokenizer_files import load_tokenizer_files
from underhood.models.base import BuiltModel, parameter_count
from underhood.models.decoder import Decoder
from underhood.models.gguf_reader import is_gguf
from underhood.models.hub_weights import Progress
from underhood.models.restore import restore
from underhood.text.chat import CHATML, Message, Template
from underhood.text.load import load_tokenizer
from underhood.text.settings import SpecialTokenIds
from underhood.ui import notebook

PUBLISHED = "published"
"""What a model that others published is called where runs have the names of their models."""

IMPORTED = "imported.json"
"""Says where the model of a run came from, in the run of a published one; see `infer.importing`."""


@dataclass(frozen=True, repr=False)
class LoadedModel:
    """A model with all that is needed to use it.

    Attributes:
        model: the language model, in evaluation mode.
        tokenizer: what it reads and writes; one that can't be read complains when it is used.
        spec: what it is made of.
        stage: the name of a run's model, e.g. "base"; `PUBLISHED` for a model of others.
        path: the checkpoint, folder or GGUF file it was read from.
        run: the run's folder, or that of the published model, or its GGUF file.
        step: training steps of its stage.
        template: how its conversations are written, or None for a model that has not learnt to chat.
        roles: which ids open and end its texts, as a published model's files say; None for a model made here.
        retrieval: the form in which it was trained to answer from retrieved passages (a key of `retrieve.TRAINED`),
            or None.
        note: what became of its weights when they were read, for people; empty if nothing did.
    """

    model: BuiltModel
    tokenizer: Tokenizer
    spec: ModelSpec
    stage: str
    path: Path
    run: Path
    step: int
    template: Template | None = None
    roles: SpecialTokenIds | None = None
    retrieval: str | None = None
    note: str = ""

    def __post_init__(self):
        if isinstance(self.model, Decoder) and self.tokenizer.vocab_size < self.model.vocab_size:
            self.model.token_count = self.tokenizer.vocab_size

    @property
    def decoder(self) -> Decoder:
        """The model, for what works with decoders only.

        Raises:
            UserError: it is of another family.
        """
        if not isinstance(self.model, Decoder):
            raise UserError(f"{self.run} can't be used for this", expected="a decoder", got=type(self.model).__name__)
        return self.model

    def __call__(self, tokens: Tensor | Sequence[int] | Sequence[Sequence[int]]) -> Tensor:
        """The scores (B, T, V) of the token after each of the given ids, (B, T) or one row of them (T)."""
        tokens_BT = torch.as_tensor(tokens, device=device_of(self.model))
        return self.model(tokens_BT if tokens_BT.ndim == 2 else tokens_BT[None])

    def __repr__(self) -> str:
        return (
            f"<{self.stage} model of {self.run}: {parameter_count(self.model):,} parameters, vocabulary "
            f"{self.spec.vocab_size:,}, context {self.spec.context_length or 'unlimited'}, step {self.step:,}>"
        )

    def _repr_html_(self) -> str:
        facts = {
            "Model": f"{self.stage} of {self.run}",
            "Parameters": f"{parameter_count(self.model):,}",
            "Trained": f"{self.step:,} steps" if self.step else "by others",
            "Answers questions": "yes" if self.chats else "no, it continues texts",
        }
        return notebook.framed(notebook.facts_table(type(self.model).__name__, facts | self.spec.facts()))

    def tokens(self, text: str) -> TokenizedText:
        """The text as the model reads it: ids, pieces and exact bytes, without the opening token.

        Raises:
            UserError: `text` is not a string.
        """
        return TokenizedText.of(self.tokenizer, text)

    def next(self, text: str = "", k: int = 10) -> NextTokenTable:
        """The `k` most probable next tokens after `text`, each with its probability under the model itself.

        Raises:
            UserError: `text` is not a string or longer than the context, or `k` is out of range.
        """
        check_text(text)
        return NextTokenTable.after(self.model, self.tokenizer, self.prompt_ids(text), k)

    @property
    def chats(self) -> bool:
        """Whether it has been trained on conversations."""
        return self.template is not None

    @cached_property
    def named_sampling(self) -> dict[str, Any]:
        """How text is drawn by the files that came with the model; empty where they don't say.

        Raises:
            UserError: its ``generation_config.json`` is damaged.
        """
        return named_sampling(self.run)

    def default_sampling(self, *, answers: bool) -> SamplingSpec:
        """How its text is drawn where nothing else is said: as its files name it, else by its size.

        Args:
            answers: for answers in a conversation; otherwise for text that goes on.
        """
        parameters = parameter_count(self.model)
        return default_sampling(parameters, answers=answers and self.chats, named=self.named_sampling)

    @property
    def stop_ids(self) -> list[int]:
        """The tokens that end a text: end of text, and end of turn."""
        if self.roles is not None:
            turn = self.template.stop_ids(self.tokenizer) if self.template is not None else []
            return list(dict.fromkeys([*self.roles.end_ids, *turn]))
        special = self.tokenizer.special
        return [special[name] for name in (CHATML.end_of_text, CHATML.end) if name in special]

    def prompt_ids(self, text: str) -> list[int]:
        """The ids of a text's beginning, opened as in the model's training.

        Ours opened every document with the end-of-text token; published models have their own ways.
        """
        if self.roles is not None:
            opening = list(self.roles.prefix_ids)
            if not opening and not text and self.roles.bos_id is not None:
                opening = [self.roles.bos_id]  # a new text has to begin with something
            return [*opening, *self.tokenizer.encode(text)]
        special = self.tokenizer.special
        opening = [special[CHATML.end_of_text]] if CHATML.end_of_text in special else []
        return [*opening, *self.tokenizer.encode(text)]

    def complete(
        self,
        texts: Sequence[str],
        *,
        max_tokens: int = 128,
        batch_size: int = 64,
        sampling: SamplingSpec | None = None,
    ) -> list[Completion]:
        """Continues many texts at once; see `generate`."""
        check_texts(texts)
        check_count(max_tokens, "max_tokens")
        prompts = [self.prompt_ids(text) for text in texts]
        return generate(
            self.model,
            prompts,
            max_new_tokens=max_tokens,
            sampling=sampling or self.default_sampling(answers=False),
            stop_ids=self.stop_ids,
            batch_size=batch_size,
        )

    def generate(self, text: str = "", *, max_tokens: int = 128, **sampling: Unpack[SamplingKeywords]) -> WrittenText:
        """The text that follows `text`, e.g. ``loaded.generate("The list", temperature=0.5, seed=1)``.

        It is a string that also knows its tokens and their probabilities; a notebook shows them in colour.

        Raises:
            UserError: an unknown or impossible sampling value, or a text longer than the context.
        """
        check_text(text)
        [completion] = self.complete(
            [text], max_tokens=max_tokens, sampling=sampling_from(self.default_sampling(answers=False), sampling)
        )
        written = zip(completion.ids, completion.logprobs, strict=True)
        tokens = [WrittenToken(id=token, logprob=logprob) for token, logprob in written]
        return WrittenText.of(self.tokenizer, self.tokenizer.decode(completion.ids), tokens)

    def stream(self, text: str = "", *, max_tokens: int = 128, **sampling: Unpack[SamplingKeywords]) -> Iterator[str]:
        """The same text as `generate` gives, in pieces, as it is written."""
        check_text(text)
        check_count(max_tokens, "max_tokens")
        tokens = self.stream_tokens(
            text, max_tokens=max_tokens, sampling=sampling_from(self.default_sampling(answers=False), sampling)
        )
        return decode_stream(self.tokenizer, (token.id for token in tokens))

    def stream_tokens(
        self,
        text: str,
        *,
        max_tokens: int = 128,
        sampling: SamplingSpec | None = None,
        session: Session | None = None,
    ) -> Iterator[WrittenToken]:
        """Continues a text token by token, in a session that may have read its beginning before."""
        return (session or Session(self.model)).stream(
            self.prompt_ids(text),
            max_new_tokens=max_tokens,
            sampling=sampling or self.default_sampling(answers=False),
            stop_ids=self.stop_ids,
        )

    def write(
        self,
        text: str,
        *,
        max_tokens: int = 128,
        sampling: SamplingSpec | None = None,
        stop: Sequence[str] = (),
        grammar: Grammar | None = None,
        session: Session | None = None,
        choice: int = 0,
    ) -> Iterator[OutputChunk]:
        """Continues a text piece by piece, up to a stop string or as a grammar wants it; see `Session.write`.

        Raises:
            UserError: as for `generate`, or the tokenizer can't write what the grammar wants.
        """
        request = Request(
            prompt=self.prompt_ids(text),
            max_new_tokens=max_tokens,
            sampling=sampling or self.default_sampling(answers=False),
            stop_ids=frozenset(self.stop_ids),
            stop=tuple(stop),
            grammar=grammar,
        )
        return (session or Session(self.model)).write(request, self.tokenizer, choice=choice)

    def chat(
        self,
        messages: str | Sequence[Message],
        *,
        system: str | None = None,
        prepare: Prepare = PlainPrompt,
        max_tokens: int = 256,
        **sampling: Unpack[SamplingKeywords],
    ) -> WrittenText:
        """The answer to a question, or to a conversation that ends with the user's message; see `generate`.

        Args:
            prepare: see `conversation`.

        Raises:
            UserError: the model has not learnt to chat, or as for `generate`.
        """
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        check_messages(messages)
        check_count(max_tokens, "max_tokens")
        talk = self.conversation(system, prepare=prepare)
        talk.messages += messages[:-1]
        chosen = sampling_from(self.default_sampling(answers=True), sampling)
        answer = "".join(talk.reply(messages[-1]["content"], max_new_tokens=max_tokens, sampling=chosen))
        return WrittenText.of(self.tokenizer, answer, talk.written)

    def conversation(self, system: str | None = None, *, prepare: Prepare = PlainPrompt) -> ChatSession:
        """A new conversation with this model: ``for piece in talk.reply("Hello"): …``.

        Args:
            prepare: makes what the model reads of each turn, such as ``underhood.open_retriever(loaded).prepare``.

        Raises:
            UserError: the model has not learnt to chat.
        """
        if self.template is None:
            have = [name for name, state in states_of(self.run) if state.get("chats")]
            raise UserError(
                f"the {self.stage} model has not learnt to chat",
                fix=f"Load the stage {have[-1]!r}, or continue a text with generate" if have else "Use generate",
            )
        return ChatSession(self.model, self.tokenizer, system=system, template=self.template, prepare=prepare)


def load(
    run: str | Path,
    stage: str | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = torch.float32,
    progress: Progress | None = None,
) -> LoadedModel:
    """Opens a model: of a run, or one that others published.

    Args:
        run: a run's folder, the folder of one checkpoint in it, a Hugging Face folder, ``hf:OWNER/NAME``, or a
            GGUF file (of a split one any of its files), the folder of a LoRA adapter by peft, which is merged into
            its base, or a name (see `model_table`).
        stage: which of a run's models, e.g. "base"; None takes the last one that there is.
        device: where to put the model; None means the CPU.
        dtype: of the weights in memory; None keeps a published model's own (float32 for a quantised GGUF file).
        progress: told the bytes read so far and in all, for a published model.

    Raises:
        UserError: there is no such run or stage (what there is is named), a file is damaged, or a published model is
            of a family, or holds a file, that can't be read.
    """
    check_path(run)
    if isinstance(device, str):
        choose_device(device)
    folder = fetch(run)
    if is_adapter(folder):
        check_stage(folder, stage)
        loaded = load(adapter_base(folder), device=device, dtype=dtype, progress=progress)
        merge_adapter(loaded.decoder, folder, loaded.run)
        loaded = replace(loaded, path=folder, run=folder)
        if (folder / "tokenizer.json").exists():  # trained with another chat template, perhaps
            loaded = as_published(folder, loaded.decoder, load_tokenizer_files(folder, loaded.spec.vocab_size))
        return loaded
    if is_gguf(folder) or (is_published(folder) and not stages_of(folder)):
        check_stage(folder, stage)
        return as_published(folder, *read_published(folder, device or "cpu", dtype, progress))
    if (folder / "state.json").exists():  # one checkpoint: RUN/checkpoints/STAGE/step-…
        folder, stage, path = folder.parents[2], folder.parent.name, folder
    else:
        stage, path = find_stage(folder, stage)
    saved = read_checkpoint(path)
    model = restore(saved, dtype=dtype or torch.float32, device=device or "cpu")
    spec = model.spec
    template: Template | None = None
    roles: SpecialTokenIds | None = None
    imported = (folder / IMPORTED).exists()
    if imported:
        tokenizer, template, roles = load_tokenizer_files(folder, spec.vocab_size)
    else:
        tokenizer = load_tokenizer(folder)
    expected, file = saved.state.get("tokenizer"), folder / "tokenizer.json"
    changed = expected is not None and not (file.exists() and sha256_of(file) == expected)
    if changed or (tokenizer.vocab_size > spec.vocab_size and not imported):
        raise UserError(
            f"{file} is not the tokenizer that {path} was trained with", fix="Put the run's own tokenizer.json back"
        )
    model.requires_grad_(False)
    if saved.state.get("chats") and template is None:
        template = CHATML
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        spec=spec,
        stage=stage,
        path=path,
        run=folder,
        step=saved.step,
        template=template,
        roles=roles,
        retrieval=saved.state.get("retrieval"),
    )


def check_stage(path: Path, stage: str | None) -> None:
    if stage not in (None, PUBLISHED):
        raise UserError(f"{path} is a published model and has no stages", fix="Leave out the stage")


def as_published(path: Path, model: Decoder, text: TextFiles) -> LoadedModel:
    tokenizer, template, roles = text
    own: dict[str, Any] = {"tokenizer": tokenizer, "template": template, "roles": roles}
    return LoadedModel(model=model, spec=model.spec, stage=PUBLISHED, path=path, run=path, step=0, **own)
