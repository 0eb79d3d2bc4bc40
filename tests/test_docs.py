"""The documents match the tree: links, names of files, the generated tables."""

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from xml.etree import ElementTree

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser

from harness.__main__ import COMMANDS
from harness.config.compose import register_schema
from harness.config.free_text import quote_free_text
from tests.support.configs import CONF
from tests.support.paths import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("data/*/*.md")])
SOURCES = [
    *(path for folder in ("harness", "hydra_plugins", "scripts", "tests") for path in ROOT.glob(f"{folder}/**/*.py")),
    *(path for path in ROOT.glob("scripts/*") if path.is_file()),
    *ROOT.glob("conf/**/*.yaml"),
]
PLANTED = {"harness/extra/new.py"}  # test_architecture plants a wrong import there
MENTION = r"(?<![\w/.-])((?:docs|scripts|tests|conf|harness)/[\w/.-]*\w\.(?:md|py|yaml|json))(?!\w)"

# What follows `-m harness` in a command, in PowerShell, too.
HARNESS = r"^ *(?:\.venv\\Scripts\\)?(?:python|torchrun|accelerate) .*?-m harness(?![\w.])(.*)$"
POWERSHELL = re.compile(r"^```powershell\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CHINESE = ROOT / "README.zh-CN.md"


@pytest.fixture
def script(monkeypatch):
    """Imports a script of scripts/docs/ by name."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "docs"))
    yield importlib.import_module
    for name in (
        "capability_table",
        "claims_table",
        "combinations_table",
        "metrics_table",
        "learning_rates",
        "experiment_costs",
        "ablation",
        "sections",
    ):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    broken = [link for link in links if not link.startswith("http") and not (page.parent / link).exists()]
    assert broken == []


def test_files_that_pages_and_sources_mention_exist():
    missing = []
    for file in sorted({*PAGES, *SOURCES}):
        mentioned = re.findall(MENTION, file.read_text(encoding="utf-8"))
        absent = [name for name in mentioned if name not in PLANTED and not (ROOT / name).exists()]
        missing += [f"{file.relative_to(ROOT)}: {name}" for name in absent]
    assert missing == []


def documented_commands():
    """The words after ``-m harness`` of every command in the pages, with ``x`` for placeholders."""
    for page in PAGES:
        if page.stem == "extending":  # its files are not here; test_extending runs its commands beside them
            continue
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(HARNESS, text, re.MULTILINE):
            words = shlex.split(re.sub(r"<[^>]*>", "x", line), comments=True)
            if not COMMANDS.keys() & set(words[:1]):  # of no stage: test_main and the tests of each run them
                yield tuple(word for word in words if word not in ("-m", "--help"))


@pytest.mark.slow
@pytest.mark.parametrize("words", sorted(set(documented_commands())), ids=" ".join)
def test_documented_command_composes(words):
    register_schema()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        parsed = [
            each for each in parser.parse_overrides(quote_free_text(list(words))) if "interval" not in each.input_line
        ]
        [[first, *_]] = BasicSweeper.split_arguments(parsed, None)
        assert compose("config", overrides=list(first), return_hydra_config=True).stage


def commands_of(text):
    """The words of every command in the indented blocks of a text, without comments."""
    joined = POWERSHELL.sub("", text).replace("\\\n", " ")
    lines = re.findall(
        r"^ {4,}((?:python|torchrun|accelerate|peft-harness|pip|scripts/\w+)\b.*)$", joined, re.MULTILINE
    )
    return [tuple(shlex.split(line, comments=True)) for line in lines]


def test_both_readmes_give_the_same_commands():
    english, chinese = (path.read_text(encoding="utf-8") for path in (ROOT / "README.md", CHINESE))
    ours = commands_of(chinese)
    assert [words for words in ours if words not in commands_of(english)] == []
    usage = re.search(r"^## Usage\n(.*?)^## ", english, re.MULTILINE | re.DOTALL).group(1)
    wanted = [*commands_of(english.partition("## Usage")[0]), *commands_of(usage)]
    assert len(wanted) > 20
    assert [words for words in wanted if words not in ours] == []


def test_each_readme_leads_to_the_other():
    for page, other in (("README.md", "README.zh-CN.md"), ("README.zh-CN.md", "README.md")):
        assert f"]({other})" in "".join((ROOT / page).read_text(encoding="utf-8").splitlines(keepends=True)[:4])


@pytest.mark.parametrize("page", [ROOT / "README.md", CHINESE], ids=lambda page: page.stem)
def test_commands_for_powershell_are_those_of_the_readme_with_lists_in_quotes(page):
    [block] = POWERSHELL.findall(page.read_text(encoding="utf-8"))
    commands = re.findall(r"^\.venv\\Scripts\\(python -m harness .*)$", block, re.MULTILINE)
    known = commands_of((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(commands) == 4
    assert [line for line in commands if tuple(shlex.split(line)) not in known] == []
    # PowerShell makes several arguments of a list without quotes.
    assert not any("," in re.sub("'[^']*'", "", line) for line in commands)


def test_readme_lists_the_pages_of_docs():
    listed = re.search(r"^    docs/ +(.*)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE).group(1)
    assert sorted(listed.split(", ")) == sorted(page.stem for page in ROOT.glob("docs/*.md"))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("capability_table", marks=pytest.mark.slow),
        "claims_table",
        pytest.param("combinations_table", marks=pytest.mark.slow),
        "metrics_table",
        "learning_rates",
    ],
)
def test_generated_tables_are_up_to_date(script, monkeypatch, capsys, name):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--check"])
    assert script(name).main() == 0, capsys.readouterr().err


def test_pairs_that_exclude_each_other_are_answered_by_the_command_itself(script):
    answer = script("combinations_table").answer
    assert answer("fsdp", "quantized").reason.startswith("model.quantization=nf4 packs weights, which fsdp cannot")
    assert answer("ray", "ddp").reason.startswith("hydra/launcher starts its own processes, but torchrun")
    assert answer("packed", "checkpointing").mark == "alone"
    assert answer("fsdp", "resume").mark == "no"
    assert answer("slurm", "prune").mark == "yes"


def test_stale_table_is_reported_by_check_and_rewritten_without_it(script, monkeypatch, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table:one -->\n| old |\n<!-- /table:one -->\nafter\n", encoding="utf-8")

    def update(*arguments):
        monkeypatch.setattr(sys, "argv", ["script.py", *arguments])
        return script("sections").update(tmp_path, [("page.md", "one", ["| new |"])], "script.py", None)

    assert update("--check") == 1
    assert "| old |" in page.read_text(encoding="utf-8")
    assert update() == 0
    assert page.read_text(encoding="utf-8") == "before\n<!-- table:one -->\n| new |\n<!-- /table:one -->\nafter\n"
    assert update("--check") == 0


def test_page_without_markers_is_refused(script):
    with pytest.raises(SystemExit, match="must have the markers"):
        script("sections").between("no markers", "library", "")


def test_every_experiment_fits_into_four_hours_at_scale_cpu(script):
    costs = script("experiment_costs")
    assert {
        name: costs.cost_of(name).runs for name in costs.papers() if costs.cost_of(name).seconds > costs.LONGEST_S
    } == {}
    assert costs.values_of("1e-3,3e-3") == ["1e-3", "3e-3"]
    assert costs.values_of("range(0,3)") == ["0", "1", "2"]
    assert costs.values_of([]) == ["[]"]


def test_the_table_of_costs_is_what_the_experiments_make(script):
    lines = "\n".join(script("experiment_costs").table())
    assert f"<!-- table:costs -->\n{lines}\n<!-- /table:costs -->" in (ROOT / "docs" / "experiments.md").read_text(
        "utf-8"
    )


def ablation_report(rates):
    """A report of two arms as ``report.json`` keeps it; the loss is 1 at the best rate, 0.01."""
    interval = {"low": None, "high": None}
    rows = [
        {"method": "lora", "setting": f"r={r}", "learning_rate": rate, "scores": {"loss": {"mean": loss, **interval}}}
        for r in (4, 16)
        for rate, loss in rates.items()
    ]
    rows[0]["scores"]["loss"] |= {"low": 1.9, "high": 2.1}
    rule = {"rule": "best(loss, a) < best(loss, b)", "verdict": "agrees", "measured": "1 < 2", "test": "t"}
    shape = {"group": "k", "title": "g", "claim": "Rank helps", "source": "2106.09685", "figures": "a | b"}
    run = {"costs": {"train_s": 1800.0}, "state": "finished", "code": "c0de"}
    group = {"key": "k", "title": "tiny on medicine", "configurations": rows, "runs": [run, run]}
    shapes = [{**shape, "verdict": "agrees", "rules": [rule]}]
    return {
        "shapes": shapes,
        "groups": [{"key": "other"}, group],
        "commands": ["python -m harness -m x data.path=/a/b runs_dir=/c"],
    }


def test_the_page_of_an_ablation_has_question_command_picture_and_answer(script, tmp_path, monkeypatch):
    ablation, runs = script("ablation"), tmp_path / "runs"
    (runs / "sweeps" / "s").mkdir(parents=True)
    report = ablation_report({0.001: 2.0, 0.01: 1.0, 0.1: 90.0})
    report["groups"][0]["runs"] = []
    (runs / "sweeps" / "s" / "report.json").write_text(json.dumps(report))
    monkeypatch.setattr(sys, "argv", ["ablation.py", "rank", "--runs", str(runs), "--to", str(tmp_path)])
    assert ablation.main() == 0
    page = (tmp_path / "rank.md").read_text()
    assert page.startswith("# Rank helps\n")
    order = (
        "    python -m harness -m x data.path=<folder>\n",
        "(rank.svg)",
        "**The shape agrees.**",
        "2 runs, 1.0 hours",
        "## Limits",
    )
    assert sorted(order, key=page.index) == list(order)
    drawn = ElementTree.parse(tmp_path / "rank.svg").iter()
    texts = [each.text for each in drawn if each.tag.endswith("text")]
    assert {"lora r=4", "lora r=16", "learning rate", "loss"} <= set(texts)
    axes = ablation.picture(report["groups"][1], {}).axes[0]
    assert axes.get_xscale() == "log"
    assert axes.get_ylim()[1] < 90  # diverged runs do not squeeze the others
    (tmp_path / "rank.md").write_text(page.replace("Not written yet.", "By hand."))
    ablation.main()
    assert "By hand." in (tmp_path / "rank.md").read_text()


def test_settings_with_one_rate_are_rows_of_the_picture(script):
    axes = script("ablation").picture(ablation_report({0.01: 2.0})["groups"][1], {}).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["lora r=4", "lora r=16"]
    assert axes.get_xscale() == "linear"


def test_a_curve_is_named_after_its_arm(script):
    ablation = script("ablation")
    arms = {"lora": ["peft=lora"], "dora": ["peft=lora", "lora.use_dora=true"]}
    cell = "lora.r=32 peft=lora lora.use_dora=True seed=0"
    row = {"method": "lora", "setting": "r=32 use_dora=true", "cells": [cell]}
    assert ablation.label_of(row, arms) == "dora r=32"
    assert ablation.label_of(row | {"cells": ["lora.r=32 peft=lora"], "setting": "r=32"}, arms) == "lora r=32"
    assert ablation.label_of(row | {"cells": ["peft=ia3"], "method": "ia3", "setting": ""}, arms) == "ia3"
    assert ablation.arms_of("variants")["dora"] == arms["dora"]


def test_an_ablation_without_runs_or_a_verdict_is_refused(script, tmp_path, monkeypatch):
    ablation = script("ablation")
    monkeypatch.setattr(sys, "argv", ["ablation.py", "rank", "--runs", str(tmp_path), "--to", str(tmp_path)])
    with pytest.raises(SystemExit, match="has no report of a sweep"):
        ablation.main()
    (tmp_path / "sweeps" / "s").mkdir(parents=True)
    (tmp_path / "sweeps" / "s" / "report.json").write_text(json.dumps({"shapes": []}))
    with pytest.raises(SystemExit, match="holds no verdict"):
        ablation.main()


@pytest.mark.slow
def test_one_command_runs_an_experiment_and_writes_its_page(tmp_path):
    words = ("early_rank", "scale=smoke", f"runs_dir={tmp_path / 'runs'}", "seed=0", "trainer.threads=1")
    command = [sys.executable, "scripts/docs/ablation.py", *words, "--to", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert "Underpowered" in (tmp_path / "early_rank.md").read_text()
    ElementTree.parse(tmp_path / "early_rank.svg")


def test_extras_that_pages_and_messages_name_exist_under_that_very_name():
    """A wheel holds them in lower case and with hyphens, and pip before 23.3 finds them under no other spelling."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = set(project["optional-dependencies"])
    assert extras == {re.sub(r"[-_.]+", "-", name).lower() for name in extras}
    texts = [path.read_text(encoding="utf-8") for path in [*PAGES, *SOURCES, ROOT / "pyproject.toml"]]
    named = {
        name
        for text in texts
        for names in re.findall(r"peft-harness\[([\w, .-]+)\]", text)
        for name in names.split(",")
    }
    assert {"ray", "lm-eval"} <= named
    assert named <= extras
