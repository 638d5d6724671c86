"""Preparation of a run before training: its data, tokenizer and plan, made once and then read back."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import psutil
import torch

from underhood.core.config import from_json, to_json
from underhood.core.device import choose_device
from underhood.core.errors import UserError
from underhood.core.protocols import Tokenizer
from underhood.data.pack import EvaluationWindows
from underhood.data.shards import TokenShards
from underhood.models.base import parameter_count
from underhood.recipes.context_fit import fitting_data
from underhood.recipes.corpus import prepare_data
from underhood.recipes.evaluation import EvalSize
from underhood.recipes.run import Run
from underhood.recipes.spec import BuildSpec
from underhood.recipes.stage_requests import check_used_stages, stage_request
from underhood.recipes.stages.registry import all_stages
from underhood.recipes.start_model import keep_start_model
from underhood.recipes.training import optimizer_spec
from underhood.recipes.training_data import StageData, read_stage_data
from underhood.recipes.tuning_plan import plan_tuning
from underhood.retrieve.index import RUN_INDEX, PassageIndex
from underhood.retrieve.retriever import Retriever, marker_tokens
from underhood.retrieve.template import TAUGHT, TUNED
from underhood.text.chat import CHATML, Template
from underhood.train.hardware import Hardware, measure_hardware
from underhood.train.plan import Plan, check_overrides, make_plan
from underhood.train.text_amount import MOST_TOKENS, fitting_dropout, most_passes

BASELINE_SECONDS_PER_BYTE = 3.5e-6
REPORT_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Everything that training and evaluation need to know of a run."""

    data: StageData
    documents: TokenShards
    held_out: TokenShards
    index: PassageIndex | None
    tokenizer: Tokenizer
    template: Template
    plan: Plan
    hardware: Hardware


def run_retriever(spec: BuildSpec, prepared: Prepared) -> Retriever | None:
    """The search behind the questions that are answered from passages, if the data has such questions.

    As in a chat, passages are cut to what the model's context has room for.
    """
    if prepared.index is None:
        return None
    return Retriever(
        prepared.index,
        TAUGHT if spec.from_ is None else TUNED,
        tokenizer=prepared.tokenizer,
        context_length=prepared.plan.model.context_length,
        markers=marker_tokens(prepared.template, prepared.tokenizer),
    )


class Clock:
    """How long a run has taken: this process from its start, and what it had taken when it was stopped before."""

    def __init__(self, run: Run):
        self.run = run
        self.earlier = float((run.note("time") or {}).get("seconds", 0.0))
        self.here = -_since_process_start() + time.perf_counter()

    @property
    def seconds(self) -> float:
        return self.earlier + time.perf_counter() - self.here

    def note(self) -> None:
        self.run.write_note("time", {"seconds": self.seconds})


def prepare(run: Run, clock: Clock) -> Prepared:
    """Makes data, tokenizer and plan, or reads back what is there.

    Raises:
        UserError: a mistake in data or settings; a run that was only just created leaves nothing behind.
    """
    spec = run.spec
    if spec.threads:
        torch.set_num_threads(spec.threads)
    try:
        choose_device(spec.device)
        check_overrides(spec.overrides, spec.vocab_size or MOST_TOKENS)
        prepare_data(run)
        data = read_stage_data(run.path / "data")
        documents, held_out = run.open_shards("train"), run.open_shards("held_out")
        saved = run.note("plan")
        if saved is not None:
            plan, hardware = read_plan(saved)
        else:
            run.log.event("plan", "start")
            started = time.perf_counter()
            left = spec.minutes * 60 - clock.seconds
            if spec.from_ is None:
                plan, hardware = plan_training(spec, data, documents, held_out, run.tokenizer, seconds=left)
            else:
                plan, hardware = plan_from_model(run, data, seconds=left)
            run.write_note("plan", {"plan": to_json(plan), "hardware": to_json(hardware)})
            with torch.device("meta"):
                parameters = parameter_count(plan.model.build())
            facts = {"reason": plan.reason, "parameters": parameters, "model": to_json(plan.model, tagged=True)}
            chats = [stage for stage in all_stages() if stage.chats and plan.find(stage.name) is not None]
            if data.examples and not chats and spec.from_ is None:
                short = f"no conversation fits into a context of {plan.model.context_length} tokens"
                run.log.event("plan", "note", text=f"{short}, so the model only learns to go on with text")
            run.log.event("plan", "end", seconds=time.perf_counter() - started, **facts)
    except UserError:
        if run.made is not None:
            run.discard()
        raise
    except KeyboardInterrupt:
        clock.note()
        raise
    return Prepared(
        data=data,
        documents=documents,
        held_out=held_out,
        index=PassageIndex.load(run.path / RUN_INDEX) if data.grounded else None,
        tokenizer=run.tokenizer,
        template=run.template or CHATML,
        plan=plan,
        hardware=hardware,
    )


def read_plan(saved: dict) -> tuple[Plan, Hardware]:
    """The plan that ``plan.json`` holds, and the hardware that it was made for.

    Raises:
        UserError: the machine has no such device.
    """
    hardware = from_json(Hardware, saved["hardware"], where="plan.json")
    if choose_device(hardware.device.name) != hardware.device.name:
        raise UserError(f"the run was planned for {hardware.device.name}, which is not here")
    return from_json(Plan, saved["plan"], where="plan.json"), hardware


def plan_from_model(run: Run, data: StageData, *, seconds: float) -> tuple[Plan, Hardware]:
    """Measures the machine and plans the training of the model that the run starts from."""
    started = time.perf_counter()
    hardware = measure_hardware(choose_device(run.spec.device), dtype=run.spec.dtype)
    model, template = keep_start_model(run).model, run.template or CHATML
    left = seconds - (time.perf_counter() - started)
    return plan_tuning(run.spec, model, data, run.tokenizer, template, hardware, seconds=left), hardware


def plan_training(
    spec: BuildSpec,
    data: StageData,
    documents: TokenShards,
    held_out: TokenShards,
    tokenizer: Tokenizer,
    *,
    seconds: float,
) -> tuple[Plan, Hardware]:
    """Measures the machine and plans every stage that there is data for.

    Args:
        seconds: time left for the job.
    """
    started = time.perf_counter()
    hardware = measure_hardware(choose_device(spec.device), dtype=spec.dtype)
    if spec.overrides.context_length is not None:  # chosen by the user, perhaps too short for conversations
        data = fitting_data(data, tokenizer, spec.overrides.context_length)
    requests = []
    for stage in filter(spec.wants, all_stages()):
        size = stage.data_size(data, tokenizer)
        if size.tokens:
            first = stage.starts_from is None
            request = replace(
                stage_request(spec, stage, size),
                unique_tokens=documents.tokens if first else math.inf,
                passes=most_passes(documents.bytes) if first else math.inf,
                dropout=fitting_dropout(documents.bytes) if first else 0.0,
            )
            requests.append(request)
    check_used_stages(spec, requests)
    plan = make_plan(
        seconds=seconds - (time.perf_counter() - started),
        probe_seconds=min(3.0, seconds / 40),
        hardware=hardware,
        optimizer=optimizer_spec(spec, hardware.device),
        vocab_size=tokenizer.vocab_size,
        overrides=spec.overrides,
        stages=requests,
        reserve=lambda speed: evaluation_seconds(spec, data, documents, held_out, speed, models=len(requests)),
    )
    return plan, hardware


def evaluation_seconds(
    spec: BuildSpec, data: StageData, documents: TokenShards, held_out: TokenShards, speed: float, *, models: int
) -> float:
    """About how long everything after training will take, if training runs at `speed` tokens per second."""
    size = EvalSize.for_minutes(spec.minutes)
    scored = 1.35 * EvaluationWindows.of_shards(held_out, context_length=256, stride=192).tokens
    scored += sum(4 * 45 * min(len(group), size.questions) for group in data.questions.values())
    scored += 2 * 60 * min(len(data.held_out_pairs), size.pairs)
    written = 3 * 30 * size.answers + 2 * 130 * min(len(data.grounded), 3 * size.grounded)
    forward = models * (scored / (3.5 * speed) + written / (1.3 * speed))
    return forward + BASELINE_SECONDS_PER_BYTE * documents.bytes + REPORT_SECONDS


def _since_process_start() -> float:
    """Seconds since this program was started: imports count towards the user's minutes too."""
    return time.time() - psutil.Process().create_time()
