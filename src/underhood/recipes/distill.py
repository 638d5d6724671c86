"""Distilling a teacher into a student on a file of conversations: by soft labels, by its answers, or on-policy.

The folder is that of a fine-tuning (see `recipes.finetune`) with ``distill.toml`` in place of ``finetune.toml``,
``checkpoints/distill``, and for the teacher's own answers ``teacher_answers.jsonl``. What is interrupted goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from underhood.align.distillation import DistillationLoss, DistillationSpec
from underhood.align.divergence import Divergence, ForwardKL, GeneralisedJSD, ReverseKL
from underhood.align.on_policy import OnPolicyBatches
from underhood.align.sft import SFTLoss
from underhood.core.device import Device, choose_device
from underhood.core.errors import UserError
from underhood.core.protocols import Tokenizer
from underhood.core.runlog import RunLog
from underhood.data.conversations import Conversation
from underhood.infer.engine import Engine
from underhood.infer.load import LoadedModel, load
from underhood.models.base import parameter_count
from underhood.recipes.finetune import Finetuned, Score, Student, score, template_of, tune_on_conversations
from underhood.recipes.finetune_spec import DISTILL_FILE, DistillSpec
from underhood.recipes.teacher_answers import answer_again, question_of, read_answers, write_answers
from underhood.recipes.tuned_run import training_in_folder
from underhood.text.chat import Rendered
from underhood.train.loop import Objective

STAGE = "distill"

ANSWERS_FILE = "teacher_answers.jsonl"


@dataclass(frozen=True)
class Distilled(Finetuned):
    """What came out.

    Attributes:
        teacher: the teacher's scores on the held-out conversations; empty where its tokens are not the student's.
        teacher_parameters: how many the teacher has.
    """

    teacher: dict[str, Score]
    teacher_parameters: int


def distill_model(spec: DistillSpec, out: Path) -> tuple[RunLog, Callable[[], Distilled]]:
    """Makes the folder and returns the log and the work to call (see `recipes.tuned_run.training_in_folder`)."""
    return training_in_folder(spec, out, DISTILL_FILE, _distill)


def _distill(spec: DistillSpec, out: Path, log: RunLog) -> Distilled:
    device = Device(name=choose_device(spec.device))
    reading = log.counter(STAGE, "reading the teacher")
    teacher = load(spec.teacher, spec.teacher_stage, device=device.torch, progress=reading)
    method = DistillationMethod(spec, teacher, out, log)
    done = tune_on_conversations(spec, out, log, method)
    return Distilled(
        **{field: getattr(done, field) for field in Finetuned.__dataclass_fields__},
        teacher=method.teacher_scores,
        teacher_parameters=parameter_count(teacher.model),
    )


class DistillationMethod:
    """The `TuningMethod` of distillation.

    Attributes:
        teacher_scores: the teacher's on the held-out conversations, once `measure` was called.
    """

    stage = STAGE

    def __init__(self, spec: DistillSpec, teacher: LoadedModel, out: Path, log: RunLog):
        self.spec, self.teacher, self.out, self.log = spec, teacher, out, log
        self.teacher_scores: dict[str, Score] = {}
        self._same_tokens = False
        teacher.decoder.requires_grad_(False)

    def training_data(self, conversations: Sequence[Conversation], loaded: LoadedModel) -> Sequence[Conversation]:
        """The file's conversations, or for the method ``sequence`` the same with the teacher's answers.

        Raises:
            UserError: the method needs one tokenizer for both models, and they have two.
        """
        spec = self.spec
        self._same_tokens = same_tokens(self.teacher.tokenizer, loaded.tokenizer)
        if spec.method != "sequence":
            if not self._same_tokens:
                raise _other_tokenizer(spec, self.teacher.tokenizer, loaded.tokenizer)
            return conversations
        path = self.out / ANSWERS_FILE
        if path.exists():
            return read_answers(path).conversations
        answers = answer_again(
            self.teacher,
            template_of(self.teacher),
            conversations,
            max_new_tokens=spec.answer_tokens,
            temperature=spec.answer_temperature or 0.0,
            samples=spec.samples,
            seed=spec.seed,
            progress=self.log.counter(STAGE, "the teacher answers", "questions"),
        )
        if answers.left_out:
            self.log.event(STAGE, "note", text=f"left out: {answers.left_out}")
        write_answers(answers, path)
        return answers.conversations

    def measure(self, held_out: Mapping[str, Sequence[Rendered]], device: Device) -> dict[str, Any]:
        """The teacher's scores on the held-out conversations, where it reads the same tokens."""
        teacher = self.teacher.decoder
        if self._same_tokens:
            self.teacher_scores = {
                name: score(teacher, examples, device, teacher.context_length) for name, examples in held_out.items()
            }
        scores = {name: asdict(each) for name, each in self.teacher_scores.items()}
        return {"teacher": scores, "teacher_parameters": parameter_count(teacher), "method": self.spec.method}

    def objective(self, student: Student) -> Objective:
        if self.spec.method == "sequence":
            return Objective(student.batches, SFTLoss())
        loss = DistillationLoss(
            self.teacher.decoder, distillation_spec(self.spec), tokens=student.loaded.tokenizer.vocab_size
        )
        batches = student.batches if self.spec.method == "soft" else self._own_answers(student)
        return Objective(batches, loss)

    def _own_answers(self, student: Student) -> OnPolicyBatches:
        spec, loaded = self.spec, student.loaded
        limit = min(loaded.decoder.context_length, self.teacher.decoder.context_length)
        questions = [
            student.template.render(loaded.tokenizer, question_of(each), add_generation_prompt=True).ids
            for each in student.conversations
        ]
        prompts = [ids for ids in questions if len(ids) + spec.answer_tokens <= limit]
        if len(prompts) < len(questions):
            text = (
                f"{len(questions) - len(prompts):,} questions leave less than --answer-tokens ({spec.answer_tokens:,}) "
                f"of the {limit:,} tokens of context: left out"
            )
            self.log.event(STAGE, "note", text=text)
        return OnPolicyBatches(
            loaded.decoder,
            Engine(loaded.decoder, loaded.tokenizer),
            prompts,
            batch_size=spec.batch_size,
            max_new_tokens=spec.answer_tokens,
            stop_ids=student.template.stop_ids(loaded.tokenizer),
            seed=spec.seed,
            temperature=1.0 if spec.answer_temperature is None else spec.answer_temperature,
            on_batch=CutAnswers(self.log),
        )


class CutAnswers:
    """Warns in the log, once, when all answers of a batch reached the limit of tokens."""

    def __init__(self, log: RunLog):
        self.log, self.warned = log, False

    def __call__(self, answers: int, cut: int) -> None:
        if cut == answers and not self.warned:
            self.warned = True
            text = f"all {answers:,} answers of a batch reached --answer-tokens: none of them shows how to end"
            self.log.event(STAGE, "note", text=text)


def distillation_spec(spec: DistillSpec) -> DistillationSpec:
    """The loss that the settings ask for."""
    kind = spec.divergence or ("reverse-kl" if spec.method == "on-policy" else "forward-kl")
    divergences: dict[str, Divergence] = {
        "forward-kl": ForwardKL(),
        "reverse-kl": ReverseKL(),
        "jsd": GeneralisedJSD(beta=spec.jsd_beta),
    }
    return DistillationSpec(divergence=divergences[kind], temperature=spec.temperature, label_weight=spec.label_weight)


def same_tokens(teacher: Tokenizer, student: Tokenizer) -> bool:
    """Whether every id means the same bytes, or the same special token, to both tokenizers."""
    if teacher.vocab_size != student.vocab_size or dict(teacher.special) != dict(student.special):
        return False
    ids = sorted(set(range(student.vocab_size)) - set(student.special.values()))
    return all(teacher.decode_bytes([id]) == student.decode_bytes([id]) for id in ids)


def _other_tokenizer(spec: DistillSpec, teacher: Tokenizer, student: Tokenizer) -> UserError:
    return UserError(
        f"teacher and student have different tokenizers, so --method {spec.method} can't compare their probabilities",
        expected="the same token for every id",
        got=f"{teacher.vocab_size:,} and {student.vocab_size:,} tokens"
        if teacher.vocab_size != student.vocab_size
        else f"{student.vocab_size:,} other tokens",
        fix="Use --method sequence: the student then learns from the texts that the teacher writes",
    )
