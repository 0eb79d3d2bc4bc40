"""The harness from an installed wheel, in an empty folder: a new study with code of its own, a sweep and its report.

The environment is fresh but for the libraries, which come from this one: nothing is downloaded.
"""

import json

import pytest

from tests.support.wheel import installed_wheel, run_installed

pytest.importorskip("hatchling", reason="builds the wheel; pip install 'peft-harness[dev]' has it")

METHOD = '''

from harness.methods.fields import Sheet


@dataclass(kw_only=True)
class Scales(Sheet):
    target_modules: list[str]
    feedforward_modules: list[str]


def build_scales(settings: SheetValues, context: BuildContext) -> "PeftConfig":
    """IA3 on chosen layers."""
    from peft import IA3Config

    targets, inner = settings["target_modules"], settings["feedforward_modules"]
    return IA3Config(target_modules=targets, feedforward_modules=inner)


scales = Method(Scales, build_scales, Traits())
'''
VALUES = """# @package _global_
peft: {method: scales}
scales: {learning_rate: 0.1, target_modules: [k_proj, down_proj], feedforward_modules: [down_proj]}
"""
METRIC = '''

@metric(direction="minimize", unit="ratio", decimals=2)
def wordiness(predictions, references, topic):
    """Words of an answer, with a column of the data."""
    assert set(topic) == {"colors"}
    return [float(len(text.split())) for text in predictions]
'''
FAST = ("trainer.max_steps=2", "trainer.evaluations=1", "trainer.threads=1", "scoring.forgetting=null")


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The bin folder of a fresh environment with the wheel."""
    return installed_wheel(tmp_path_factory.mktemp("fresh"))


@pytest.mark.slow
@pytest.mark.timeout(1800)  # seven commands in processes of their own: 40 s on a quiet core
def test_a_study_from_the_wheel_runs_with_code_of_its_own(environment, tmp_path):
    command = str(environment / "peft-harness")
    run_installed(tmp_path, command, "new", "my_study")
    assert "nothing in it is overwritten" in run_installed(tmp_path, command, "new", "my_study", code=2)
    study = tmp_path / "my_study"
    package = study / "my_study"
    for file, text in (("methods.py", METHOD), ("metrics.py", METRIC)):
        with (package / file).open("a", encoding="utf-8") as stream:
            stream.write(text)
    (package / "conf" / "peft" / "scales.yaml").write_text(VALUES)
    (package / "templates.py").write_text('ASK = "{{ columns.topic }}: {{ instruction }} {{ input }} = {{ output }}"\n')
    project = (study / "pyproject.toml").read_text()
    offered = 'scales = "my_study.methods:scales"\n'
    (study / "pyproject.toml").write_text(project.replace("\n[tool.hatch", f"{offered}\n[tool.hatch"))

    own = ("data=my_study", "data.template=my_study.templates:ASK")
    metrics = "scoring.metrics=[exact_match,my_study.metrics:mentions,my_study.metrics:wordiness]"
    sweep = ("-m", "peft=my_study_lora,scales", "hydra/launcher=joblib", "hydra.launcher.engine.n_jobs=1")
    shown = run_installed(study, command, *sweep, *own, metrics, *FAST)
    assert "2 runs: 2 finished" in shown
    records = [json.loads(file.read_text(encoding="utf-8")) for file in (study / "runs").glob("*/record.json")]
    assert {record["method"] for record in records} == {"my_study_lora", "scales"}
    for record in records:
        assert {"exact_match", "mentions", "wordiness"} <= set(record["scores"]["after"])
        assert record["scores"]["definitions"]["wordiness"]["direction"] == "minimize"
        assert {each["kind"] for each in record["extensions"]} == {"method", "metric", "template"}
        assert "method_code" in record["plan"]["inputs"]
    run_installed(study, command, "stage=report", "report.where=status == finished")
    page = (study / "runs" / "report" / "report.md").read_text(encoding="utf-8")
    assert "wordiness ↓" in page
    assert "scales" in page

    again = run_installed(study, command, *sweep, *own, metrics, *FAST)
    assert "2 of them finished earlier" in again
    (package / "metrics.py").write_text((package / "metrics.py").read_text() + "\n# edited\n")
    planned = run_installed(study, command, "stage=plan", *sweep[:2], *own, metrics, *FAST)
    assert "yes" not in planned.splitlines()[-2]
