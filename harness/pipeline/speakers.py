"""Whose answers can be asked for: the finished runs of a folder, and adapters from elsewhere.

What is needed to list them comes from their records; plan, rows and weights are read when one is chosen.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harness.config import schema
from harness.data.dataset import read_splits
from harness.data.rows import question
from harness.data.sources import locate_data, split_files
from harness.errors import ConfigFault, HarnessError
from harness.plan.extensions import MODEL
from harness.plan.from_record import LISTED, find_record, plan_of_record
from harness.plan.spec import Options, Plan, digest
from harness.record import store
from harness.record.adapter_files import require_whole
from harness.runtime.terminal import counted, first_of

if TYPE_CHECKING:
    from peft import PeftModel

    from harness.models.base import Base
    from harness.models.peft_adapters import ExternalAdapter

READ_AT_MOST = 32 << 20  # bytes of rows that are read for examples
EXAMPLES = 4


@dataclass(frozen=True)
class Manner:
    """How a conversation is put to a model: as its run was trained and scored."""

    template: str
    as_system: bool  # the instruction is a system message: rows are conversations
    generation: schema.Generation
    stops: tuple[int, ...] | None  # ids that end an answer; None: all ends of the model
    turns: bool  # rows or template are made for conversations: earlier turns are kept, unless told otherwise
    instruction: str  # that all rows of the data have; "": none
    examples: tuple[str, ...]  # messages from the data


class Speaker(Protocol):
    """An adapter that can be put on the base."""

    @property
    def key(self) -> str:
        """Short and unique: a fingerprint."""

    @property
    def stamp(self) -> str:
        """Of its content: another one under the same key is another adapter."""

    @property
    def label(self) -> str:
        """For people."""

    @property
    def model(self) -> schema.Model:
        """Its base."""

    @property
    def manner(self) -> Manner:
        """How it is asked."""

    def load(self, base: "Base") -> "PeftModel":
        """The adapter on a fork of the base."""


@dataclass(frozen=True)
class RunSpeaker:
    """The adapter of a finished run."""

    record: Mapping[str, Any]
    runs_dir: Path
    label: str

    @property
    def key(self) -> str:
        """The fingerprint."""
        return str(self.record["fingerprint"])

    @property
    def stamp(self) -> str:
        """The attempt, and when it ended."""
        return f"{self.record['attempt']} {self.record.get('finished')}"

    @cached_property
    def plan(self) -> Plan:
        """Of the run; reading it checks that the base is still the one it was trained on."""
        return plan_of_record(dict(self.record))

    @property
    def model(self) -> schema.Model:
        """The base of the run."""
        return self.plan.model

    @cached_property
    def manner(self) -> Manner:
        """By the plan and its rows."""
        stops = self.record["inferred"].get("stop_ids")
        return _manner(self.plan, self.plan.data.template, tuple(stops) if stops else None, with_rows=True)

    def load(self, base: "Base") -> "PeftModel":
        """The run's adapter, whose files are those of the record."""
        from harness.adapters.save_load import load_adapter
        from harness.methods.registry import changes_base
        from harness.models.base import fork

        folder = require_whole(store.adapter_folder(self.runs_dir, self.record), self.record)
        return load_adapter(fork(base, changes_base(self.plan.method, self.plan.settings)), folder, self.plan)


@dataclass(frozen=True)
class ExternalSpeaker:
    """An adapter from elsewhere, asked by the protocol of this command."""

    adapter: "ExternalAdapter"
    plan: Plan

    @property
    def key(self) -> str:
        """From its content, as in ``stage=score``."""
        from harness.pipeline.adapter_scores import fingerprint_of

        return fingerprint_of(self.plan, self.adapter)

    @property
    def stamp(self) -> str:
        """The hash of its content."""
        return self.adapter.sha256

    @property
    def label(self) -> str:
        """Its method and name."""
        return f"{self.adapter.method} · {self.adapter.name}"

    @property
    def model(self) -> schema.Model:
        """The base of this command."""
        return self.plan.model

    @cached_property
    def manner(self) -> Manner:
        """By the command; its rows are not those of the adapter, so none is an example."""
        template = self.plan.scoring.template or self.plan.data.template
        return _manner(self.plan, template, None, with_rows=False)

    def load(self, base: "Base") -> "PeftModel":
        """The adapter on a copy of the base."""
        from harness.adapters.external import load_external

        return load_external(base, self.adapter)


@dataclass(frozen=True)
class Chosen:
    """The run that is asked."""

    speaker: RunSpeaker
    note: str | None  # how it was chosen, if nobody named it


def choose_run(options: Options) -> Chosen:
    """The run that ``run`` names; without it the newest finished one that kept its adapter.

    Raises:
        ConfigFault: there is none; the text says which runs exist.
    """
    able = with_adapter(options.runs_dir)
    if options.run:
        record = find_record(options)
        store.adapter_folder(options.runs_dir, record)  # says so if it kept none
        return Chosen(_speaker(record, able, options.runs_dir), None)
    if not able:
        raise ConfigFault(
            f"runs_dir={options.runs_dir} has no finished run with an adapter; {_instead(options.runs_dir)}"
        )
    newest = able[0]
    others = f"; run=<fingerprint> chooses another: {_listed(able[1:])}" if able[1:] else ""
    note = f"run={newest['fingerprint']}: the newest of {counted(len(able), 'finished run')}{others}"
    return Chosen(_speaker(newest, able, options.runs_dir), note)


def external_speakers(options: Options, plan: Plan) -> list[ExternalSpeaker]:
    """The adapters of ``adapter_path``. Raises ModelFault if one of them cannot be read."""
    from harness.models.peft_adapters import find_adapter

    return [ExternalSpeaker(find_adapter(path), plan) for path in options.adapter_paths]


def remarks_on(speaker: Speaker) -> list[str]:
    """What a reader must know about an adapter from elsewhere: another base or another template."""
    if not isinstance(speaker, ExternalSpeaker):
        return []
    from harness.adapters.external import other_base, other_template

    adapter = speaker.adapter
    found = (other_base(adapter, speaker.model), other_template(adapter, speaker.manner.template, "asked"))
    return [note for note in found if note]


def runs_on_base(runs_dir: Path, model: Mapping[str, Any], inputs: Mapping[str, str]) -> list[RunSpeaker]:
    """The finished runs on this base that kept their adapters, the newest first.

    Args:
        model: of a plan, as a record keeps it.
        inputs: content hashes of that plan.
    """
    wanted = base_of(model, inputs)
    found = [
        record
        for record in with_adapter(runs_dir)
        if base_of(record["plan"]["model"], record["plan"].get("inputs", {})) == wanted
    ]
    return [_speaker(record, found, runs_dir) for record in found]


def with_adapter(runs_dir: Path) -> list[dict[str, Any]]:
    """Records of finished runs that kept their adapters, the newest first."""
    records = [
        record
        for record in store.all_records(runs_dir, curves=False)
        if record["status"] == "finished"
        and record.get("adapter")
        and record.get("kept") != "record"
        and not record.get("external")
    ]
    return sorted(records, key=lambda record: record.get("finished") or record["started"], reverse=True)


def base_of(model: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """What decides a base's weights, hashed: runs that share it can share the loaded base, on any device."""
    used = {key: value for key, value in model.items() if key not in ("config_only", "device", "device_map", "name")}
    return digest([used, inputs.get("model"), inputs.get(MODEL)])


def chosen_generation(own: schema.Generation, asked: schema.Generation, words: Iterable[str]) -> schema.Generation:
    """The run's decoding, with what this command sets of ``scoring.generation``.

    Args:
        asked: of this command, its defaults included.
        words: overrides of the command.
    """
    prefix = "scoring.generation."
    names = {
        word.lstrip("+").partition("=")[0].removeprefix(prefix) for word in words if word.lstrip("+").startswith(prefix)
    }
    changed = {name: getattr(asked, name) for name in names if hasattr(asked, name)}
    return replace(own, **changed)


def _speaker(record: Mapping[str, Any], among: Sequence[Mapping[str, Any]], runs_dir: Path) -> RunSpeaker:
    return RunSpeaker(record, runs_dir, label_of(record, among))


def label_of(record: Mapping[str, Any], among: Sequence[Mapping[str, Any]]) -> str:
    """``lora r=8 · medicine · names_target 80.1 · 3f2a77b0``: method, what sets it apart, data and first score."""
    peers = [_telling(other) for other in among if other["method"] == record["method"]]
    own = _telling(record)
    apart = [f"{key}={value}" for key, value in own.items() if any(peer.get(key, value) != value for peer in peers)]
    after = record["scores"].get("after") or {}
    metrics = [name for name in record["plan"]["scoring"]["metrics"] if name in after][:1]
    return " · ".join(
        [
            " ".join([record["method"], *apart]),
            str(record["plan"]["data"]["name"]),
            *(f"{name} {after[name]:.1f}" for name in metrics),
            record["fingerprint"][:8],
        ]
    )


def _telling(record: Mapping[str, Any]) -> dict[str, Any]:
    plan = record["plan"]
    trainer = {key: plan["trainer"].get(key) for key in ("epochs", "max_steps", "objective", "batch_size")}
    found = {**plan["settings"], "learning_rate": plan["learning_rate"], **trainer, "seed": plan["seed"]}
    return {key: value for key, value in found.items() if isinstance(value, str | int | float | bool)}


def _instead(runs_dir: Path) -> str:
    """Which runs there are, or how to make one."""
    records = store.all_records(runs_dir, curves=False)
    if not records:
        return "train one first, with python -m harness"
    return "it has " + first_of([f"{record['fingerprint']} {_state(record)}" for record in records], LISTED)


def _state(record: Mapping[str, Any]) -> str:
    if record.get("external"):
        return "(scores of an adapter from elsewhere: use adapter_path)"
    return "(finished with keep=record)" if record["status"] == "finished" else f"({record['status']})"


def _listed(records: Sequence[Mapping[str, Any]]) -> str:
    return first_of([f"{record['fingerprint'][:8]} {record['method']}" for record in records], LISTED)


def _manner(plan: Plan, template: str, stops: tuple[int, ...] | None, with_rows: bool) -> Manner:
    messages = plan.data.format == schema.RowFormat.messages
    instruction, examples = _from_rows(plan.data) if with_rows else ("", ())
    turns = messages or template == schema.Template.chat
    return Manner(template, messages, plan.scoring.generation, stops, turns, instruction, examples)


def _from_rows(data: schema.Data) -> tuple[str, tuple[str, ...]]:
    """The instruction that all test rows share, and some of their messages; nothing of rows that are not at hand.

    They only make it easier to begin: what keeps them from being read keeps nobody from talking.
    """
    try:
        place = locate_data(data.path)
        files = {file for each in split_files(place, data).values() for file in each} if place else set()
        if not files or sum(file.stat().st_size for file in files) > READ_AT_MOST:
            return data.instruction or "", ()
        splits = read_splits(data).splits
    except (HarnessError, OSError):
        return data.instruction or "", ()
    rows = splits["test"] or splits["validation"] or splits["train"]
    if data.format == schema.RowFormat.messages:
        spoken = [turn.content for row in rows for turn in row.messages[:-1] if turn.role == "user"]
        return "", tuple(dict.fromkeys(spoken))[:EXAMPLES]
    instructions = {row.instruction for row in rows}
    if len(instructions) == 1 and all(row.input for row in rows):
        return instructions.pop(), tuple(dict.fromkeys(row.input for row in rows))[:EXAMPLES]
    return "", tuple(dict.fromkeys(question(row.instruction, row.input) for row in rows))[:EXAMPLES]
