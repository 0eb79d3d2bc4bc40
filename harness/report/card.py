"""A model card for one run, in the form of the Hugging Face hub: results, data, command and limits. From its record."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from harness.errors import ModelFault
from harness.record.redact import redactor
from harness.report.fields import Record
from harness.scoring.catalog import SCORES, decimals, learn_record

KINDS = {"adapter": "a PEFT adapter", "merged": "a plain model with its adapter merged in"}

# A path of this machine: from the root, the home or a drive, with two parts or more.
_PATH = re.compile(r"(?<![\w:/.<])(?:~|[A-Za-z]:)?[/\\](?:[\w.+@-]+[/\\])+[\w.+@-]*|file://\S+")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")

# Settings of the trainer that decide a result, as the card's command gives them.
_TRAINER = (
    *("objective", "epochs", "max_steps", "batch_size", "gradient_accumulation_steps", "schedule", "warmup_share"),
    *("weight_decay", "max_grad_norm", "evaluations", "keep_best"),
)

_LIMITS = """\
- One run with one seed. Another seed gives other figures; an order of methods needs several seeds and their statistics.
- Scores hold for this data, this prompt template and this decoding. Prompts in another form may be answered worse.
- Whatever the base model says wrongly or unfairly, this model can say, too. It was not tested for safety.
- The licenses of the base model and of the data apply; read them before you pass this model on.
"""


def model_card(record: Record, kind: str = "adapter", repo: str | None = None) -> str:
    """The card's text, with its metadata; it holds no path of this machine and no secret.

    Args:
        kind: a key of ``KINDS``.
        repo: where the model will be; None: not said.
    """
    learn_record(record)
    plan = record["plan"]
    name = repo.rpartition("/")[2] if repo else f"{_model(plan)[0].rpartition('/')[2]}-{record['method']}-{_data(plan)}"
    body = "\n".join(
        [
            f"# {name}\n",
            f"{_model(plan)[0]}, tuned with {record['method']} on {_data(plan)}: {KINDS[kind]}.\n",
            *_use(plan, kind, repo),
            "## Results\n",
            *_results(record),
            "\n## Data\n",
            *_about_data(record),
            "\n## Training\n",
            *_training(record),
            "\n## Command\n",
            "```",
            *_command(plan),
            "```\n",
            "## Limits\n",
            _LIMITS,
        ]
    )
    return _card(_metadata(record, name, kind), body)


def external_card(plan: Mapping[str, Any], adapter: Mapping[str, Any], method: str) -> str:
    """The card of a plain model with an adapter merged in that was trained elsewhere; no path, no secret.

    Args:
        plan: whose base it was merged into.
        adapter: ``ExternalAdapter.as_dict``.
    """
    from huggingface_hub import ModelCardData

    base, on_hub = _model(plan)
    known = public_name(adapter["name"])
    source = known or _last_part(str(adapter["name"]))
    name = f"{source.rpartition('/')[2]}-merged"
    data = ModelCardData(
        model_name=name,
        base_model=base if on_hub else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["peft-harness", method],
    )
    words = ["python", "-m", "harness", *_base_words(plan), f"adapter_path={source}"]
    body = "\n".join(
        [
            f"# {name}\n",
            f"{base} with the {method} adapter `{source}` merged in: {KINDS['merged']}.\n",
            "## Use\n",
            *_code("merged", base, "<this folder>"),
            "## Adapter\n",
            f"- `{source}`" + (f", commit `{adapter['commit']}`" if adapter["commit"] else "")
            + ("" if known else ", not on the hub"),
            f"- {adapter['numbers']:,} numbers, SHA-256 `{adapter['sha256'][:16]}...`",
            *([f"- made for `{adapter['base']}`, as it says"] if public_name(adapter["base"]) else []),
            "\n## Command\n",
            "```",
            f"{' '.join(words)} stage=export export.dir=merged",
            "```\n",
            "Its scores beside the base's, on rows of your own:\n",
            "```",
            f"{' '.join(words)} stage=score data.path=<rows>",
            "```\n",
            "## Limits\n",
            "- It was trained elsewhere, on data and prompts that are not known here, and has not been scored.",
            *_LIMITS.splitlines(keepends=True)[-2:],
        ]
    )  # fmt: skip
    return _card(data, body)


def _card(metadata: Any, body: str) -> str:
    """Metadata and text as one file, without paths of this machine and secrets."""
    from huggingface_hub import ModelCard

    return str(ModelCard(without_paths(redactor()(f"---\n{metadata.to_yaml()}\n---\n\n{body}"))))


def without_paths(text: str) -> str:
    """The text with each path of a machine reduced to its last part."""
    return _PATH.sub(lambda found: _last_part(found[0]) or "...", text)


def _last_part(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def require_clean(text: str, what: str) -> None:
    """Raise ModelFault if a text that is to be published holds a path of this machine or a secret."""
    leak = _PATH.search(text)
    if leak:
        raise ModelFault(f"{what} holds the path {leak[0]} of this machine; it is not published")
    if redactor()(text) != text:
        raise ModelFault(f"{what} holds a secret of this machine's environment; it is not published")


def public_name(path: Any) -> str | None:
    """The path if it can be a name on the hub; None for a path of this machine."""
    return str(path) if path and _HUB_NAME.fullmatch(str(path)) and not str(path).startswith(".") else None


def _model(plan: Mapping[str, Any]) -> tuple[str, bool]:
    """Name of the base, and whether it is one on the hub."""
    model = plan["model"]
    on_hub = public_name(model.get("path")) if str(model.get("source")) in ("hub", "package") else None
    return (on_hub, True) if on_hub else (str(model.get("name")), False)


def _base_words(plan: Mapping[str, Any]) -> list[str]:
    """What chooses the base in a command."""
    base, on_hub = _model(plan)
    return ["model=hub", f"model.path={base}"] if on_hub else [f"model={base}"]


def _data(plan: Mapping[str, Any]) -> str:
    return str(plan["data"].get("name") or "rows")


def _metadata(record: Record, name: str, kind: str) -> Any:
    from huggingface_hub import EvalResult, ModelCardData

    plan = record["plan"]
    base, on_hub = _model(plan)
    split = plan["scoring"]["split"]
    dataset = public_name(plan["data"].get("path")) or _data(plan)
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=dataset,
            dataset_name=_data(plan),
            dataset_split=split,
            metric_type=key,
            metric_name=SCORES[key].description if key in SCORES else key,
            metric_value=round(value, 6),
        )
        for key, value in record["scores"]["after"].items()
        if value is not None
    ]
    return ModelCardData(
        model_name=name,
        base_model=base if on_hub else None,
        datasets=public_name(plan["data"].get("path")),
        library_name="peft" if kind == "adapter" else "transformers",
        pipeline_tag="text-generation",
        tags=["peft-harness", str(record["method"])],
        eval_results=results,
    )


def _use(plan: Mapping[str, Any], kind: str, repo: str | None) -> Iterator[str]:
    yield "## Use\n"
    yield from _code(kind, _model(plan)[0], repo or "<this folder>")
    yield f"It was trained on prompts of the template `{plan['data']['template']}`; others are another task for it.\n"


def _code(kind: str, base: str, where: str) -> Iterator[str]:
    yield "```python"
    yield "from transformers import AutoModelForCausalLM, AutoTokenizer"
    if kind == "adapter":
        yield "from peft import PeftModel\n"
        yield f'base = AutoModelForCausalLM.from_pretrained("{base}")'
        yield f'model = PeftModel.from_pretrained(base, "{where}")'
        yield f'tokenizer = AutoTokenizer.from_pretrained("{base}")'
    else:
        yield f'\nmodel = AutoModelForCausalLM.from_pretrained("{where}")'
        yield f'tokenizer = AutoTokenizer.from_pretrained("{where}")'
    yield "```\n"


def _results(record: Record) -> Iterator[str]:
    scores = record["scores"]
    errors = (scores.get("errors") or {}).get("after") or {}
    yield f"On the {record['plan']['scoring']['split']} split, before and after tuning, by the same protocol.\n"
    yield "| score | better | unit | base | tuned | how |"
    yield "| --- | --- | --- | --: | --: | --- |"
    for name, value in scores["after"].items():
        known = SCORES.get(name)
        before = scores["before"].get(name)
        direction = "" if known is None else "lower" if known.lower_is_better else "higher"
        shown = _number(name, value) + (f" ± {_number(name, errors[name])}" if errors.get(name) is not None else "")
        how = f"`{scores['signatures'][name]}`".replace("|", "; ") if name in scores["signatures"] else ""
        yield f"| {name} | {direction} | {known.unit if known else ''} | {_number(name, before)} | {shown} | {how} |"


def _number(name: str, value: float | None) -> str:
    return "–" if value is None else f"{value:.{max(decimals(name, abs(value)), 1)}f}"


def _about_data(record: Record) -> Iterator[str]:
    data, rows = record["plan"]["data"], record.get("rows", {})
    where = public_name(data.get("path"))
    yield f"- {_data(record['plan'])}" + (f", `{where}` on the hub" if where else ", rows that are not on the hub")
    counts = ", ".join(f"{count} {name}" for name, count in rows.items() if count)
    yield f"- rows: {counts}; format `{data['format']}`, template `{data['template']}`"
    yield f"- at most {data['max_tokens']} tokens per row"
    if record["plan"]["inputs"].get("data"):
        yield f"- SHA-256 of the rows: `{record['plan']['inputs']['data'][:16]}...`"


def _training(record: Record) -> Iterator[str]:
    parameters, plan = record["parameters"], record["plan"]
    trainable, total = parameters.get("trainable"), parameters.get("total")
    if trainable and total:
        yield f"- {trainable:,} of {total:,} parameters trained ({100 * trainable / total:.2g} %)"
    steps, seconds = record["training"].get("optimizer_steps"), record["times_s"].get("train")
    if steps and seconds is not None:
        yield f"- {steps} optimizer steps in {seconds:.0f} s on {record['device'].get('name')}"
    rate = plan.get("learning_rate")
    yield f"- learning rate {rate:.4g}, seed {plan['seed']}" if rate else f"- seed {plan['seed']}"
    versions = ", ".join(
        f"{name} {record['versions'][name]}" for name in ("torch", "transformers", "peft") if name in record["versions"]
    )
    yield f"- {versions}; peft-harness {record['code']['harness']}, code `{record['code']['version']}`"
    yield f"- run `{record['fingerprint']}`"


def _command(plan: Mapping[str, Any]) -> Iterator[str]:
    """The command that trains it again, with placeholders for files that only this machine has."""
    data, trainer, method = plan["data"], plan["trainer"], plan["method"]
    _, on_hub = _model(plan)
    words = ["python", "-m", "harness", f"peft={method}", *_base_words(plan), f"data={_data(plan)}"]
    if public_name(data.get("path")):
        words.append(f"data.path={data['path']}")
    words += [f"data.template={data['template']}", f"data.max_tokens={data['max_tokens']}"]
    words += [f"{method}.{key}={_value(value)}" for key, value in plan["settings"].items() if value is not None]
    words += [f"trainer.learning_rate={plan['learning_rate']}"]
    words += [f"trainer.{key}={_value(trainer[key])}" for key in _TRAINER if trainer.get(key) is not None]
    words += [f"seed={plan['seed']}", f"scoring.split={plan['scoring']['split']}"]
    yield " \\\n    ".join(shlex.join([word]) if " " in word or "[" in word or "{" in word else word for word in words)
    if not on_hub or not public_name(data.get("path")):
        yield "# with your own copy of what is not on the hub: model.path=<folder>, data.path=<rows>"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False).replace('"', "").replace(" ", "")
