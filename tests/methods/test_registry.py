"""The table of methods: what follows from it, and that one more method takes two files."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import pytest

from harness.config import names, schema
from harness.methods.context import BuildContext
from harness.methods.hooks import Hooks
from harness.methods.registry import METHODS, hooks_of, hooks_of_type
from tests.support.paths import ROOT

SHRINK = '''

@dataclass(kw_only=True)
class Shrink(Targeted):
    """A made-up method: LoRA of rank one whose weights shrink after each step."""

    rate: float = share()


def check_shrink(sheet: Shrink) -> Iterator[str]:
    if sheet.target_modules == "nothing":
        yield "shrink.target_modules=nothing; name something"


def build_shrink(settings: SheetValues, context: BuildContext) -> "PeftConfig":
    """Shrink (no paper)."""
    from peft import LoraConfig

    return LoraConfig(r=1, target_modules=settings["target_modules"])


class ShrinkHooks(Hooks):
    def after_step(self, model: Any, optimizer: Any, step: int) -> None:
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.mul_(0.5)

    def finish(self, model: Any) -> dict[str, Any]:
        return {"shrunk": True}

    def state(self, model: Any) -> dict[str, Any]:
        return {"shrunk": 1}


METHODS["shrink"] = Method(Shrink, build_shrink, DROPS, check_shrink, hooks=ShrinkHooks())
'''
YAML = """# @package _global_
peft:
  method: shrink
shrink:
  learning_rate: 1e-3
  target_modules: all-linear
  modules_to_save: null
  rate: 0.5
"""


@pytest.fixture(scope="module")
def with_one_more(tmp_path_factory):
    """A copy of the project with one more method: an addition to its family's module, and one YAML file."""
    root = tmp_path_factory.mktemp("copy")
    for name in ("harness", "hydra_plugins", "conf", "data"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    family = root / "harness" / "methods" / "low_rank.py"
    text = family.read_text(encoding="utf-8")
    text = text.replace("from harness.methods.method import", "from harness.methods.hooks import Hooks\nfrom harness.methods.method import")  # fmt: skip # noqa: E501
    family.write_text(text + SHRINK, encoding="utf-8")
    (root / "conf" / "peft" / "shrink.yaml").write_text(YAML, encoding="utf-8")
    return root


def command(root, *words):
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.run(
        [sys.executable, "-m", "harness", *words],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_method_added_in_two_files_is_composed_checked_and_trained(with_one_more):
    root = with_one_more
    assert "shrink" in command(root, "--help").stdout
    wrong = command(root, "peft=shrink", "shrink.rate=2")
    assert (wrong.returncode, "shrink.rate=2" in wrong.stderr) == (2, True)
    wrong = command(root, "peft=shrink", "shrink.target_modules=nothing")
    assert (wrong.returncode, "name something" in wrong.stderr) == (2, True)
    done = command(root, "-m", "peft=shrink,ia3", "shrink.rate=0.1,0.2", "trainer.max_steps=3", "data.limits.test=2",
                   "data.limits.validation=2", "scoring.forgetting=null", "runs_dir=runs")  # fmt: skip
    assert done.returncode == 0, done.stderr
    records = [json.loads(file.read_text(encoding="utf-8")) for file in root.glob("runs/*/record.json")]
    # A setting of one method leaves the fingerprint of another alone: 2 of shrink and 1 of ia3.
    assert sorted(record["method"] for record in records) == ["ia3", "shrink", "shrink"]
    assert all(record["status"] == "finished" for record in records)
    assert [record["training"].get("shrunk") for record in records if record["method"] == "shrink"] == [True, True]
    assert all(record["parameters"]["trainable"] > 0 for record in records)


def test_schema_and_groups_follow_from_the_table():
    assert list(METHODS) == list(schema.SHEETS)
    assert sorted(METHODS) == sorted(names.config_groups()["peft"])
    fields = {each.name: each.type for each in dataclasses.fields(schema.Config)}
    assert {name: fields[name] for name in METHODS} == {name: method.sheet for name, method in METHODS.items()}


def test_hooks_are_those_of_the_method_however_it_is_named():
    assert hooks_of("adalora", {}) is METHODS["adalora"].hooks
    assert hooks_of("library", {"type": "ADALORA", "settings": {}}) is METHODS["adalora"].hooks
    assert hooks_of_type("CPT").own_loss
    assert not hooks_of_type("LORA").own_loss
    assert type(hooks_of("library", {"type": "delora", "settings": {}})) is Hooks


@pytest.mark.parametrize("method", METHODS)
def test_every_method_names_its_paper_or_says_that_there_is_none(method):
    text = METHODS[method].build.__doc__ or ""
    exempt = ("full", "partial", "lokr", "library", "trainable_tokens")
    assert "arXiv:" in text or method in exempt, text


def test_hooks_without_work_change_nothing():
    hooks = Hooks()
    context = BuildContext(10, "", 0, 32, 2)
    assert (hooks.finish(context), hooks.state(context), hooks.remaining_parameters(context)) == ({}, {}, None)
    assert (hooks.penalties, hooks.own_loss, hooks.first_keepable_step(context)) == ((), False, 0)
