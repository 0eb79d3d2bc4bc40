"""No secret reaches a file that a command leaves, whatever setting or row it came in."""

import json
import shutil
from pathlib import Path

import pytest

from harness.record.redact import RedactedStream, redactor
from harness.runtime import status_line
from tests.support.runs import command, overrides, write_rows

TOKEN = "hf_AbCdEfGhIjKlMnOpQrStUvWx"
PASSWORD = "correct-horse"
URL = f"https://alice:{PASSWORD}@host/rows?access_token=tok3n-in-a-query"
VALUE = 'ev\'il "value" ß&<7|_*`'  # every character that some format escapes
PARTS = (TOKEN, PASSWORD, "tok3n-in-a-query", 'value" ß', 'value\\" ß', "value&quot; ß", "ev'il \"", "&lt;7", "<7|_*")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("DEPLOYMENT_SECRET", VALUE)
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    monkeypatch.setattr(status_line, "EVERY_S", 0)  # every line of progress stays


def leaks(folder: Path) -> list[str]:
    """Files below the folder whose bytes, or whose name, contain a part of a secret."""
    found = []
    for file in folder.rglob("*"):
        content = str(file.relative_to(folder)).encode() + (file.read_bytes() if file.is_file() else b"")
        content += content.replace(b"\\u00df", "ß".encode())
        found += [f"{file.relative_to(folder)}: {part}" for part in PARTS if part.encode() in content]
    return found


@pytest.fixture
def planted(random_qwen2, tmp_path):
    """Overrides with secrets in every setting of a run that takes text, over rows that contain them too."""
    model, rows = tmp_path / TOKEN / "model", write_rows(tmp_path / TOKEN / "rows")
    shutil.copytree(random_qwen2, model)
    for file in rows.glob("*.jsonl"):
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        lines = [line | {"input": f"{line['input']} {VALUE}", "output": f"{line['output']} {TOKEN}"} for line in lines]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    words = overrides(model, rows, tmp_path / "runs")
    words += [f"model.name=model {VALUE}", f"data.name={URL}", f"sweep.name={URL} {VALUE}", f"tracker.project={TOKEN}"]
    words += [
        f"note={URL} {VALUE}",
        f"tags=[{TOKEN}]",
        f"tracker.entity={TOKEN}",
        f"tracker.job_type={VALUE}",
    ]
    return [*words, "scoring.generation.max_new_tokens=8", "data.max_tokens=256", f"data.subset={VALUE}"]


@pytest.mark.parametrize("tracker", ["none", "tensorboard", pytest.param("wandb", marks=pytest.mark.slow)])
def test_no_file_of_a_run_holds_a_secret(planted, tmp_path, tracker):
    done = command(*planted, f"tracker={tracker}")
    assert done.code == 0, done.err
    assert leaks(tmp_path / "runs") == []
    assert [line for line in (done.out + done.err).splitlines() if any(part in line for part in PARTS)] == []


@pytest.mark.slow
@pytest.mark.parametrize("how", ["hydra/launcher=basic", "hydra/launcher=joblib", "hydra/sweeper=optuna"])
def test_no_file_of_a_sweep_holds_a_secret(planted, tmp_path, how):
    words = [*planted, how, "-m", f"model.name=a {TOKEN},b {VALUE}", "lora.r=1"]
    words += ["hydra.sweeper.n_trials=3"] if "optuna" in how else []
    words = [word for word in words if not word.startswith("model.name=model")]
    done = command(*words)
    assert done.code == 0, done.err
    forms = {file.suffix for file in (tmp_path / "runs" / "sweeps").rglob("r*.*")}
    assert forms == {".csv", ".html", ".json", ".md", ".tex"}
    assert leaks(tmp_path / "runs") == []
    assert [line for line in (done.out + done.err).splitlines() if any(part in line for part in PARTS)] == []
    again = command(*words)
    assert again.code == 0, again.err
    assert "rerun=true runs it again" in again.err or "resuming the study" in again.err


def test_a_plan_whose_secret_is_gone_is_not_taken_from_its_record(planted, tmp_path):
    assert command(*planted).code == 0
    [folder] = [file.parent.name for file in (tmp_path / "runs").glob("*/record.json")]
    done = command("stage=export", f"run={folder}", f"export.dir={tmp_path / 'e'}", f"runs_dir={tmp_path / 'runs'}")
    assert done.code == 2
    assert "where its command had a secret" in done.err
    assert "model.path=" in done.err


def test_a_failure_keeps_no_secret(planted, tmp_path):
    done = command(*planted, f"scoring.forgetting={tmp_path / TOKEN / 'none.jsonl'}")
    assert done.code == 2
    assert TOKEN not in done.err
    assert not (tmp_path / "runs").exists() or leaks(tmp_path / "runs") == []


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("https://alice:p@ss@host/x", "https://<secret>@host/x"),
        ("s3://b/k?X-Amz-Signature=abc&a=1", "s3://b/k?X-Amz-Signature=<secret>&a=1"),
        ("learning_rate=0.0001 lora.r=4", "learning_rate=0.0001 lora.r=4"),
        ("https://host:8080/org/name@v1.2", "https://host:8080/org/name@v1.2"),
        (json.dumps({"a": VALUE}), '{"a": "<DEPLOYMENT_SECRET>"}'),
        (repr(VALUE), "'<DEPLOYMENT_SECRET>'"),
    ],
)
def test_secrets_are_known_by_their_shape_however_they_are_quoted(text, clean):
    assert redactor()(text) == clean


def test_a_log_is_redacted_as_it_is_written(tmp_path):
    with open(tmp_path / "log", "w", encoding="utf-8") as file, RedactedStream(file) as stream:
        print("loading", URL, VALUE, file=stream, flush=True)
        assert (tmp_path / "log").read_text(encoding="utf-8") == (
            "loading https://<secret>@host/rows?access_token=<secret> <DEPLOYMENT_SECRET>\n"
        )
