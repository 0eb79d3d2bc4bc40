"""The settings of the metric ``judge``: what they must be, and which model they name. No torch here."""

from collections.abc import Iterator
from pathlib import Path

from harness.config.schema import Judge, Model
from harness.data.templates import require_template
from harness.errors import HarnessError, ModelFault
from harness.models import sources
from harness.models.hub import resolved_commit
from harness.models.named import named_model


def judge_faults(judge: Judge, wanted: bool) -> Iterator[str]:
    """Why these settings cannot work; reads no weights.

    Args:
        wanted: ``scoring.metrics`` contains ``judge``.
    """
    if not wanted:
        if judge.model is not None:
            yield f"scoring.judge.model={judge.model} has no effect; add judge to scoring.metrics, or set it to null"
        return
    if judge.model is None:
        yield (
            "scoring.metrics contains judge but scoring.judge.model is null; name a file of conf/model, a folder or a "
            "model on the hub, such as scoring.judge.model=qwen3_0_6b"
        )
    if len(set(judge.grades)) < max(2, len(judge.grades)) or not all(grade.strip() for grade in judge.grades):
        yield f"scoring.judge.grades={judge.grades} must be two or more different texts, the worst first"
    if "{answer}" not in judge.prompt:
        yield "scoring.judge.prompt lacks {answer}, so that every answer would get one grade; write it where it belongs"
    if judge.batch_size < 1:
        yield f"scoring.judge.batch_size={judge.batch_size} is too small; use at least 1"
    if judge.model is not None:
        try:
            model = judging_model(judge)
            sources.weights_hash(model)
        except HarnessError as error:
            yield f"scoring.judge.model={judge.model} cannot be found: {error}"


def judging_model(judge: Judge) -> Model:
    """The judge as a base model is described."""
    return named_model(str(judge.model))


def judge_digest(judge: Judge) -> str:
    """What a plan's fingerprint includes of the judge: its weights' content, or its commit on the hub."""
    model = judging_model(judge)
    known = sources.weights_hash(model) or (resolved_commit(model.path, model.revision) if model.path else None)
    return known or f"hub {model.path}"


def require_judge(judge: Judge) -> None:
    """Find the judge's files, and check that its tokenizer has the template, before anything is trained.

    Raises:
        ModelFault: they are not there, or the tokenizer has no chat template.
    """
    if judge.model is None:
        return
    from harness.models.tokenizer import load_tokenizer

    folder: Path = sources.locate_weights(judging_model(judge)).folder
    tokenizer, _ = load_tokenizer(folder, trust_remote_code=False)
    try:
        require_template(judge.template, tokenizer)
    except ModelFault as fault:
        raise ModelFault(
            f"scoring.judge.template=chat: scoring.judge.model={judge.model} has no chat template; set "
            "scoring.judge.template=lesson or alpaca"
        ) from fault
