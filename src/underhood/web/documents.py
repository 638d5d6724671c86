"""Passage indexes of a server, by name, and which of them a served model searches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from underhood.core.errors import UserError, nearest
from underhood.infer.load import LoadedModel
from underhood.retrieve.index import RUN_INDEX, PassageIndex, index_file
from underhood.retrieve.retriever import Retriever, retriever_for
from underhood.web.errors import invalid
from underhood.web.requests import RetrieveOptions


@dataclass(frozen=True, kw_only=True)
class RetrievalSettings:
    """Which documents a server answers from.

    Attributes:
        index: an index file or a run's folder, for every model that chats; None gives each model its run's own.
        off: whether nothing is retrieved at all.
        quote: whether answers are held to the passages; None leaves it to the model's template.
    """

    index: Path | None = None
    off: bool = False
    quote: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Documents:
    """The passage indexes that a served model can answer from.

    Attributes:
        retrievers: one for every index that the server has, by name.
        default: the index that is searched where a request does not name one; None searches none.
        quote: whether answers are held to the passages; None leaves it to the template.
    """

    retrievers: Mapping[str, Retriever]
    default: str | None
    quote: bool | None = None
    _of_size: dict[tuple[str, int], Retriever] = field(default_factory=dict, repr=False)

    def retriever(self, options: RetrieveOptions) -> Retriever:
        """A retriever over the index that a request names, or over the default one.

        Raises:
            ApiError: there is no such index, or there are several and none is the default.
        """
        name = options.index or self.default
        if name is None and len(self.retrievers) > 1:
            raise invalid(f"Name one of the indexes in retrieve.index: {', '.join(self.retrievers)}.", "retrieve")
        name = name or next(iter(self.retrievers))
        if name not in self.retrievers:
            near = nearest(name, self.retrievers)
            hint = f"Did you mean {near}?" if near else f"There are {', '.join(self.retrievers)}."
            raise invalid(f"There is no index {name!r}. {hint}", "retrieve.index")
        retriever = self.retrievers[name]
        if options.k in (None, retriever.template.passages):
            return retriever
        key = name, options.k
        if key not in self._of_size:  # kept, because a retriever works out once what its vocabulary can spell
            template = replace(retriever.template, passages=options.k)
            self._of_size[key] = replace(retriever, template=template)
        return self._of_size[key]


def open_documents(models: Sequence[LoadedModel], settings: RetrievalSettings) -> list[Documents | None]:
    """Opens the indexes of a server, each once, and gives every model that chats all of them.

    The default of a model is the index of the settings, else that of its own run if it was trained to use passages.

    Raises:
        UserError: an index can't be read, or none of the models can use the one that is named.
    """
    if settings.off:
        return [None] * len(models)
    if settings.index is not None and not any(model.chats for model in models):
        raise UserError(
            "none of the models has learnt to chat, so none can answer from documents",
            fix="Name a chat model, or leave out the index",
        )
    given = None if settings.index is None else index_file(settings.index).resolve()
    own = [model.run.resolve() / RUN_INDEX for model in models]
    files = [file for file in own if file.is_file()]
    if given is not None:
        files.insert(0, given)
    names: dict[Path, str] = {}
    for file in dict.fromkeys(files):
        name = file.parent.name if file.name == RUN_INDEX else file.stem
        names[file] = str(file) if name in names.values() else name
    indexes = {name: PassageIndex.load(file) for file, name in names.items()}
    documents: list[Documents | None] = []
    for model, file in zip(models, own, strict=True):
        if not model.chats or not indexes:
            documents.append(None)
            continue
        default = names[given] if given is not None else names.get(file) if model.retrieval else None
        retrievers = {name: retriever_for(model, index) for name, index in indexes.items()}
        documents.append(Documents(retrievers=retrievers, default=default, quote=settings.quote))
    if settings.quote and not any(own_documents and own_documents.default for own_documents in documents):
        raise UserError("there is nothing to quote", fix="Name the documents: --retrieve notes.index")
    return documents
