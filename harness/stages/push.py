"""stage=push: a run's adapter with its model card on the Hugging Face hub; without push.really, what would be sent."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import ConfigFault, RunFault, first_line
from harness.plan.from_record import find_record
from harness.plan.spec import Options
from harness.record import store
from harness.record.adapter_files import require_whole
from harness.report.card import model_card, public_name, require_clean

CARD = "README.md"
NAMES_OF_BASE = ("base_model_name_or_path", "tokenizer_name_or_path")


def push_adapter(options: Options) -> None:
    """Send adapter and card to ``push.repo``, or print what would be sent.

    What is sent is checked file by file: a path of this machine or a secret in any text ends the command.

    Raises:
        ConfigFault: a setting is missing, no finished run has that fingerprint, or nobody is logged in.
        ModelFault: a file holds what must not be published.
        RunFault: the hub refuses.
    """
    repo = options.push.repo
    if not options.run or not repo:
        raise ConfigFault("stage=push needs run=<fingerprint> and push.repo=<user or organization>/<name>")
    if public_name(repo) is None:
        raise ConfigFault(f"push.repo={repo} is not a name on the hub; write push.repo=user/name")
    record = find_record(options)
    adapter = require_whole(store.adapter_folder(options.runs_dir, record), record)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        stage_files(adapter, record, folder, repo)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if options.push.really:
            print(f"{_upload(folder, repo, options.push.private)}: {len(files)} files of run {record['fingerprint']}")
            return
        print(f"nothing was sent; with push.really=true, {repo} ({_kind(options.push.private)}) would get:")
        for file in files:
            print(f"  {file.relative_to(folder).as_posix()}  {file.stat().st_size:,} bytes")
        print(f"\n{(folder / CARD).read_text(encoding='utf-8')}")


def stage_files(adapter: Path, record: Mapping[str, Any], folder: Path, repo: str | None) -> None:
    """Copy what is to be published into an empty folder: weights, PEFT's configuration, a short note, and the card.

    Raises:
        ModelFault: a text holds a path of this machine or a secret.
    """
    for file in sorted(adapter.iterdir()):
        if file.suffix == ".safetensors":
            shutil.copyfile(file, folder / file.name)
    for file in sorted(adapter.glob("adapter_*.json")):
        content = json.loads(file.read_text(encoding="utf-8"))
        named = public_name(record["plan"]["model"].get("path")) or record["plan"]["model"].get("name")
        content |= {key: named for key in NAMES_OF_BASE if content.get(key) and not public_name(content[key])}
        (folder / file.name).write_text(json.dumps(content, indent=2, sort_keys=True), encoding="utf-8")
    data = {"template": record["plan"]["data"]["template"]}
    note = {"fingerprint": record["fingerprint"], "method": record["method"], "plan": {"data": data}}
    (folder / "harness.json").write_text(json.dumps(note, indent=1), encoding="utf-8")
    (folder / CARD).write_text(model_card(record, "adapter", repo), encoding="utf-8")
    for file in sorted(folder.iterdir()):
        if file.suffix != ".safetensors":
            require_clean(file.read_text(encoding="utf-8"), file.name)


def _upload(folder: Path, repo: str, private: bool) -> str:
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise ConfigFault(f"push.repo={repo}: not logged in to the hub; run `hf auth login` first")
    try:
        api = HfApi()
        api.create_repo(repo, private=private, exist_ok=True)
        return str(api.upload_folder(folder_path=str(folder), repo_id=repo, commit_message="Adapter and model card"))
    except Exception as error:  # of the hub or of the network
        raise RunFault(
            f"push.repo={repo}: the upload failed ({first_line(error)}); check the name, your permissions and the "
            "network, then run the same command again"
        ) from error


def _kind(private: bool) -> str:
    return "private" if private else "public"
