"""Translator: a trained encoder–decoder with its tokenizer, from texts to texts by beam search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from underhood.core.checkpoint import newest, read_checkpoint
from underhood.core.config import from_json
from underhood.core.errors import UserError
from underhood.core.protocols import Tokenizer
from underhood.data.translation_batches import pad_sources
from underhood.infer.beam import BeamSpec, beam_search_batch
from underhood.models.encoder_decoder import EncoderDecoder, EncoderDecoderSpec
from underhood.text.load import load_tokenizer

TRANSLATOR = "translate"
"""Name of the model in a run's folder of checkpoints."""

SEARCH = BeamSpec(beams=4, length_penalty=0.6)
"""The paper's search (Vaswani et al. 2017, section 6.1)."""

END = "<|endoftext|>"
"""Closes sources and targets, and opens what the decoder writes."""


@dataclass(frozen=True)
class WrittenTranslation:
    """A translation.

    Attributes:
        score: its log-probability in nats, divided by the length penalty.
        finished: whether it has an end; else the room was over.
    """

    text: str
    score: float
    finished: bool


@dataclass(frozen=True)
class Translator:
    """An encoder–decoder and the tokenizer of both its sides."""

    model: EncoderDecoder
    tokenizer: Tokenizer

    @property
    def end_id(self) -> int:
        return self.tokenizer.special[END]

    def encode_source(self, text: str) -> list[int]:
        """The ids that the encoder reads.

        Raises:
            UserError: the text is empty or too long, or has a character that the tokenizer does not know.
        """
        if not text.strip():
            raise UserError("there is nothing to translate: the text is empty")
        ids = [*self.tokenizer.encode(text.strip()), self.end_id]
        if len(ids) > self.model.spec.context_length:
            raise UserError(
                "the text is too long for this model",
                expected=f"at most {self.model.spec.context_length} tokens",
                got=str(len(ids)),
                fix="Translate it sentence by sentence",
            )
        return ids

    def translate(
        self,
        texts: Sequence[str],
        search: BeamSpec = SEARCH,
        *,
        n: int = 1,
        batch_size: int = 64,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[list[WrittenTranslation]]:
        """For each text its `n` best translations, best first.

        Texts of like length go together; what a text gets does not depend on the batch that it is in.

        Args:
            progress: told the texts that are done, and all.

        Raises:
            UserError: as `encode_source`.
        """
        sources = [self.encode_source(text) for text in texts]
        order = sorted(range(len(sources)), key=lambda number: len(sources[number]))
        results: list[list[WrittenTranslation]] = [[] for _ in texts]
        for start in range(0, len(order), batch_size):
            if progress is not None:
                progress(start, len(order))
            batch = order[start : start + batch_size]
            for number, written in zip(batch, self._translate([sources[at] for at in batch], search, n), strict=True):
                results[number] = written
        return results

    def _translate(self, sources: Sequence[list[int]], search: BeamSpec, n: int) -> list[list[WrittenTranslation]]:
        device, end = self.model.embed.weight.device, self.end_id
        source_BS, positions_BS = pad_sources(sources)
        with torch.inference_mode():
            positions_BS = None if positions_BS is None else positions_BS.to(device)
            given = self.model.given(self.model.encode(source_BS.to(device), positions=positions_BS))
        hypotheses = beam_search_batch(
            given,
            [[end]] * len(sources),
            search,
            n=n,
            max_new_tokens=min(self.model.spec.context_length, 2 * source_BS.shape[1] + 20),
            stop_ids=[end],
        )
        return [
            [WrittenTranslation(self.tokenizer.decode(each.ids), each.score, each.finish == "stop") for each in best]
            for best in hypotheses
        ]


def load_translator(folder: Path, *, device: torch.device | str = "cpu") -> Translator:
    """Opens what `recipes.translation` left in a run's folder.

    Raises:
        UserError: there is none, or a file is damaged.
    """
    path = newest(folder / "checkpoints" / TRANSLATOR)
    if path is None:
        unfinished = newest(folder / "training") is not None
        raise UserError(
            f"{folder} holds no translator",
            got="a training that has not ended" if unfinished else None,
            fix="Go on with its command" if unfinished else "Make one with underhood translate RUN --data FILE",
        )
    checkpoint = read_checkpoint(path)
    spec = from_json(EncoderDecoderSpec, checkpoint.state["spec"], where=str(path / "state.json"))
    model = spec.build()
    checkpoint.fill(model, "model")
    return Translator(model.to(device).eval(), load_tokenizer(folder))
