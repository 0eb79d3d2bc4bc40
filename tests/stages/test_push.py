"""stage=push: a dry run by default; what is sent is whole and holds no path of this machine."""

import json
from unittest import mock

import pytest

from harness.errors import ConfigFault, ModelFault, RunFault
from harness.stages.push import push_adapter, stage_files
from tests.support.runs import plan_of

REPO = "push.repo=ann/colors"


@pytest.fixture
def options_of_push(made):
    records, runs_dir = made
    record = records["lora none"]

    def options(*words):
        return plan_of(f"runs_dir={runs_dir}", f"run='{record['fingerprint']}'", "stage=push", *words)[1]

    return options, record, runs_dir


def test_without_push_really_nothing_is_sent_and_everything_is_shown(options_of_push, capsys):
    options, record, runs_dir = options_of_push
    with mock.patch("huggingface_hub.HfApi", side_effect=AssertionError):
        push_adapter(options(REPO))
    shown = capsys.readouterr().out
    assert "nothing was sent" in shown
    for name in ("adapter_model.safetensors", "adapter_config.json", "README.md", "harness.json", "## Limits"):
        assert name in shown
    assert str(runs_dir) not in shown
    assert record["plan"]["model"]["path"] not in shown


def test_push_really_sends_the_same_files(options_of_push, capsys):
    options, record, runs_dir = options_of_push
    sent = {}

    def upload(folder_path, repo_id, commit_message):
        from pathlib import Path

        sent.update({path.name: path.read_bytes() for path in Path(folder_path).iterdir()})
        return f"https://huggingface.co/{repo_id}"

    with mock.patch("huggingface_hub.HfApi") as api, mock.patch("huggingface_hub.get_token", return_value="x"):
        api.return_value.upload_folder.side_effect = upload
        push_adapter(options(REPO, "push.really=true", "push.private=false"))
    api.return_value.create_repo.assert_called_once_with("ann/colors", private=False, exist_ok=True)
    assert set(sent) == {"adapter_model.safetensors", "adapter_config.json", "README.md", "harness.json"}
    adapter = runs_dir / record["fingerprint"] / "adapter"
    assert sent["adapter_model.safetensors"] == (adapter / "adapter_model.safetensors").read_bytes()
    assert json.loads(sent["adapter_config.json"])["base_model_name_or_path"] == "random"
    assert "https://huggingface.co/ann/colors" in capsys.readouterr().out


def test_what_cannot_be_sent_is_refused(options_of_push):
    options, *_ = options_of_push
    with pytest.raises(ConfigFault, match=r"needs run=<fingerprint> and push\.repo"):
        push_adapter(options())
    with pytest.raises(ConfigFault, match="is not a name on the hub"):
        push_adapter(options("push.repo=colors"))
    with mock.patch("huggingface_hub.get_token", return_value=None), pytest.raises(ConfigFault, match="hf auth login"):
        push_adapter(options(REPO, "push.really=true"))
    with (
        mock.patch("huggingface_hub.HfApi", side_effect=OSError("no network")),
        mock.patch("huggingface_hub.get_token", return_value="x"),
        pytest.raises(RunFault, match="the upload failed"),
    ):
        push_adapter(options(REPO, "push.really=true"))


def test_a_path_in_a_file_of_peft_stops_the_command(options_of_push, tmp_path):
    _, record, runs_dir = options_of_push
    adapter, copy, out = runs_dir / record["fingerprint"] / "adapter", tmp_path / "copy", tmp_path / "out"
    copy.mkdir()
    out.mkdir()
    for file in adapter.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    config = json.loads((copy / "adapter_config.json").read_text())
    (copy / "adapter_config.json").write_text(json.dumps(config | {"auto_mapping": "/home/ann/code/model.py"}))
    with pytest.raises(ModelFault, match="holds the path /home/ann/code"):
        stage_files(copy, record, out, "ann/colors")
