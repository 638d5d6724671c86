"""``underhood generate``: a prompt in, text out, fit for pipes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from underhood.cli.model_options import ModelOptions
from underhood.cli.options import Positional
from underhood.cli.retrieval_options import RetrievalOptions
from underhood.cli.sampling_options import SamplingOptions
from underhood.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from underhood.infer.request import OutputChunk, Request
    from underhood.retrieve.retriever import Retrieved


@dataclass(frozen=True, kw_only=True)
class Args(ModelOptions, RetrievalOptions, SamplingOptions):
    """Continues a prompt with the model of a run and prints what it wrote, nothing else.

    Without PROMPT it reads standard input; an empty prompt begins a new text. Without RUN the newest run here writes;
    a single argument with a space in it is then the prompt. With --retrieve the prompt is a question
    for a chat model, and the answer comes from documents.
    """

    run: Positional[Path | None] = None
    """Folder of the run, e.g. runs/NAME, or of one checkpoint in it; the newest run here if left out."""

    prompt: Positional[str | None] = None
    """The text to continue, or the question to answer."""

    stage: str | None = None
    """Which of the run's models; the last one if left out."""

    n: int = 1
    """How many continuations, separated by lines of ---."""

    max_tokens: int = 128
    """How many tokens each may have."""

    regex: str | None = None
    """What the continuation has to match as a whole, a regular expression."""

    schema: str | None = None
    """A JSON schema, or a file with one: the continuation is JSON that keeps to it."""

    speculative: str | None = None
    """Speculative decoding, which gives the same text sooner: ngram drafts what followed the last tokens before; a
    smaller model with the same tokenizer, e.g. another run, drafts token by token."""

    stream: bool = False
    """Prints each chunk as soon as it is written."""

    json: bool = False
    """Prints one JSON object with texts, how they ended, and their log probabilities."""


def run(args: Args) -> int:
    if args.n < 1:
        raise UserError("--n is out of range", expected="a whole number from 1 up", got=str(args.n))
    if args.stream and (args.n > 1 or args.json):
        raise UserError("--stream prints one text as it comes", fix="Leave out --n and --json, or leave out --stream")
    from underhood.cli.answers import answer_request, retrieval_report
    from underhood.cli.generate_io import GeneratedText, read_grammar, read_stdin
    from underhood.cli.model_loading import open_for_writing
    from underhood.cli.newest_run import run_or_newest
    from underhood.infer.drafts import Drafter, DraftModel, NgramDrafter
    from underhood.infer.opening import open_draft
    from underhood.infer.sample import SamplingSpec
    from underhood.infer.session import Session

    named, prompt = args.run, args.prompt
    if named is not None and prompt is None and " " in str(named) and not named.exists():
        named, prompt = None, str(named)
    path = run_or_newest(named)
    prompt = read_stdin() if prompt is None else prompt
    args.sampling(SamplingSpec())  # a mistake should not cost the reading of a model
    grammar = read_grammar(args.regex, args.schema)
    loaded = open_for_writing(path, args.stage)
    sampling = args.sampling(loaded.default_sampling(answers=False))
    draft: Drafter | None = None
    if args.speculative == "ngram":
        draft = NgramDrafter()
    elif args.speculative is not None:
        draft = DraftModel(open_draft(args.speculative, [loaded]))
    session = Session(loaded.model, draft)
    retrieved: Retrieved | None = None
    request: Request | None = None
    if args.retrieve is not None or args.quote:
        request, retrieved = answer_request(args, loaded, prompt, sampling, grammar)
        sampling = request.sampling

    def write(choice: int) -> Iterator[OutputChunk]:
        if request is not None:
            return session.write(request, loaded.tokenizer, choice=choice)
        return loaded.write(
            prompt,
            max_tokens=args.max_tokens,
            sampling=sampling,
            stop=args.stop,
            grammar=grammar,
            session=session,
            choice=choice,
        )

    if args.stream:
        for chunk in write(0):
            print(chunk.text, end="", flush=True)
        print()
        return 0
    if request is None and grammar is None and not args.stop and draft is None:
        completions = loaded.complete([prompt] * args.n, max_tokens=args.max_tokens, sampling=sampling)
        written = [GeneratedText(loaded.tokenizer.decode(text.ids), text.finish, text.logprobs) for text in completions]
    else:
        written = [GeneratedText.of(list(write(choice))) for choice in range(args.n)]
    if not args.json:
        print("\n---\n".join(text.text for text in written))
        return 0
    report = {
        "run": str(path),
        "stage": loaded.stage,
        "prompt": prompt,
        "max_tokens": args.max_tokens,
        "sampling": asdict(sampling),
        "completions": [
            {"text": text.text, "finish": text.finish, "tokens": len(text.logprobs), "logprob": sum(text.logprobs)}
            for text in written
        ],
    }
    if draft is not None:
        report["speculation"] = {"passes": session.passes, "drafted": session.drafted, "accepted": session.accepted}
    if retrieved is not None:
        report |= retrieval_report(retrieved, [text.text for text in written])
    print(json.dumps(report, ensure_ascii=False))
    return 0
