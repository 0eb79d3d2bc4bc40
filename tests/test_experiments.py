"""Every published experiment makes the grid that it describes; its rules are about arms and scores that exist."""

import re
from pathlib import Path
from unittest import mock

import pytest
from omegaconf import OmegaConf

from harness.config.schema import Paper
from harness.report.fields import flat, plan_fields
from harness.report.shape.arms import arms_with, paper_faults, settings_of
from tests.support.paths import ROOT
from tests.support.runs import command

FOLDER = ROOT / "conf" / "experiment"
# Cells at scale=smoke: arms x rates x other settings x seeds.
CELLS = {
    "adapters_and_prompts": 8,
    "attention_or_mlp": 6,
    "batch_size": 16,
    "best_rates": 12,
    "bias_and_norms": 12,
    "ceiling": 6,
    "demo": 6,
    "early_rank": 8,
    "every_method": 30,
    "ia3_few_rows": 16,
    "learning_rates": 8,
    "learns_less_forgets_less": 8,
    "lesson": 4,
    "lesson_labels": 8,
    "loss_on_prompts": 4,
    "matrices": 7,
    "noise_floor": 3,
    "prompt_start": 6,
    "qlora": 4,
    "rank": 4,
    "ranks": 6,
    "scaling": 12,
    "template_mismatch": 4,
    "variants": 10,
}
PAPERS = sorted(file.stem for file in FOLDER.glob("*.yaml") if "\npaper:" in file.read_text(encoding="utf-8"))


def paper_of(name: str) -> Paper:
    own = OmegaConf.load(FOLDER / f"{name}.yaml").paper
    return Paper(**{"arms": {}, **OmegaConf.to_container(own, resolve=True)})


def test_every_file_has_its_number_of_cells_here():
    assert sorted(CELLS) == sorted(file.stem for file in FOLDER.glob("*.yaml"))
    assert len(PAPERS) >= 14


@pytest.mark.parametrize("name", CELLS)
def test_experiment_has_its_cells(name, tmp_path):
    with mock.patch("harness.stages.plan.show_plan") as shown:
        done = command("-m", f"experiment={name}", "scale=smoke", "stage=plan", f"runs_dir={tmp_path}")
    assert done.code == 0, done.err
    [cells] = shown.call_args.args
    assert len(cells) == CELLS[name]
    assert {cell.plan.model.name for cell in cells} == {"tiny"}
    # Each run is of the arm that it was made for, and of no other.
    arms = paper_of(name).arms if name in PAPERS else {}
    found = {}
    for cell in cells if arms else []:
        fields = dict(flat(cell.plan.as_dict())) | plan_fields(cell.plan.as_dict())
        found[cell.plan.fingerprint] = arms_with(fields, arms)
    for own in found.values():
        # alpha = r is alpha = 32 where r is 32.
        assert len(own) == 1 or (name in ("early_rank", "scaling") and len(own) == 2), own
    assert {arm for own in found.values() for arm in own} == set(arms)


@pytest.mark.parametrize("name", PAPERS)
def test_head_says_claim_source_figures_and_rules(name):
    paper = paper_of(name)
    assert all((paper.claim, paper.source, paper.figures, paper.expect))
    assert paper_faults(paper) == []
    lines = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[1:4]
    assert lines[0] == f"# python -m harness -m experiment={name} scale=smoke"
    assert re.search(r"\((.*\d{4}.*|PEFT's.*|.*issue \d+)\)|reader|fault", lines[1]), "line 2 gives the source"
    assert lines[2].startswith("# Cost: ")


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPERS)
def test_experiment_is_planned_at_the_scale_of_its_paper(name, tmp_path):
    done = command("-m", f"experiment={name}", "scale=paper", "stage=plan", f"runs_dir={tmp_path}")
    assert done.code == 0, done.err
    assert re.search(r"\d+ cells, \d+ runs?", done.out)


def test_arm_takes_the_methods_own_value_where_only_others_set_one():
    arms = {"lora": "peft=lora", "dora": "peft=lora lora.use_dora=true", "full": "peft=full"}
    assert settings_of(arms["dora"]) == {"peft": "lora", "lora.use_dora": True}
    assert arms_with({"peft": "lora", "lora.use_dora": False}, arms) == ("lora",)
    assert arms_with({"peft": "lora", "lora.use_dora": True}, arms) == ("dora",)
    assert arms_with({"peft": "full"}, arms) == ("full",)
    assert arms_with({"peft": "ia3", "method": "ia3"}, arms) == ()
    assert arms_with({"method": "ia3"}, {}) == ("ia3",)


@pytest.mark.parametrize(
    ("arms", "expect", "said"),
    [
        ({"a": "peft=lora trainer.objective=lesson", "b": "peft=lora"}, [], "b does not set trainer.objective"),
        ({"a": "peft=lora", "b": "lora.r=4"}, [], "b does not set peft"),
        ({"a": "peft=lora model=tiny"}, [], "a chooses model=tiny"),
        ({"a": "peft=lora lora.r=="}, [], "a=peft=lora lora.r== is not a list of overrides"),
        ({"a": "peft=lora"}, ["best(loss, b) < 1"], "names b, which is not an arm of this experiment; choose of a"),
        ({}, ["best(loss, lorra) < 1"], "names lorra, which is not a method"),
        ({"a": "peft=lora"}, ["best(lss, a) < 1"], "names lss, which is not a score"),
        ({"a": "peft=lora"}, ["best(loss, a"], "is not a rule"),
    ],
)
def test_wrong_arms_and_rules_are_named(arms, expect, said):
    paper = Paper(claim=None, source=None, figures=None, expect=expect, arms=arms)
    assert any(said in fault for fault in paper_faults(paper)), paper_faults(paper)


FILES = {
    "grid": "hydra: {sweeper: {params: {lora.r: '2,4'}}}",
    "other": "paper: {arms: {a: peft=lora, b: peft=ia3}}",
    "plain": "trainer: {max_steps: 2}",
    "late": "trainer: {max_steps: 3}",
    "wrong": "paper: {expect: ['best(loss, lorra) < 1']}\nlevels: {smoke: {seed: 0}}",
}


@pytest.fixture
def files(tmp_path: Path) -> str:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    for name, content in FILES.items():
        (tmp_path / "conf" / "experiment" / f"{name}.yaml").write_text(f"# @package _global_\n{content}\n")
    return f"--config-dir={tmp_path / 'conf'}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-m", "experiment=grid,other"), "would run none of the grids in grid, other"),
        (("-m", "experiment=plain,grid"), "would run none of the grids in grid"),
        (("-m", "experiment=glob(*)"), "would run none of the grids in"),
        (("-m", "experiment=plain", "scale=smoke,cpu"), "sweeps the scale"),
        (("-m", "experiment=plain", "scale=paper"), "scale=paper sets nothing here"),
        (("-m", "experiment=rank"), "add scale=smoke, cpu or paper"),
        (
            ("-m", "experiment=other", "peft=lora"),
            "peft=lora would replace what tells the arms",
        ),
        (("-m", "experiment=wrong", "scale=smoke"), "names lorra, which is not a method"),
        (("experiment=grid",), "add -m"),
        (("experiment=other",), "add -m"),
        (("experiment=rank", "scale=smoke"), "scale=smoke sets the grid of a sweep; add -m"),
        (("-m", "experiment=rank", "scale=huge"), "scale=huge"),
        (("-m", "experiment=other", "hydra/sweeper=optuna"), "Optuna proposes cells one by one"),
    ],
)
def test_what_would_run_another_grid_is_refused(files, words, said, tmp_path):
    done = command(files, *words, "stage=plan", f"runs_dir={tmp_path / 'runs'}")
    assert done.code == 2, done.err
    assert said in done.err


def test_files_without_grids_can_be_swept(files, tmp_path):
    with mock.patch("harness.stages.plan.show_plan") as shown:
        done = command(files, "-m", "experiment=plain,late", "stage=plan", f"runs_dir={tmp_path}")
    assert done.code == 0, done.err
    assert [cell.plan.trainer.max_steps for cell in shown.call_args.args[0]] == [2, 3]


def test_command_line_replaces_the_level_and_the_level_the_grid(tmp_path):
    with mock.patch("harness.stages.plan.show_plan") as shown:
        words = ("experiment=rank", "scale=smoke", "seed=5", "trainer.max_steps=7")
        done = command("-m", *words, "stage=plan", f"runs_dir={tmp_path}")
    assert done.code == 0, done.err
    cells = shown.call_args.args[0]
    assert [(cell.plan.seed, cell.plan.settings["r"]) for cell in cells] == [(5, 1), (5, 8)]
    assert {cell.plan.trainer.max_steps for cell in cells} == {7}
