"""Who trains: for each contestant its files, its command and where it leaves what it trained.

All get the same base folder in float32, the same rows, each once, LoRA of the same rank, alpha and targets, AdamW
without weight decay, cosine after one step of warm-up, one thread, no evaluation and no gradient checkpointing.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peer_bench import environments
from peer_bench.workloads import Prepared, Workload

ROOT = Path(__file__).resolve().parents[3]
DRIVERS = Path(__file__).resolve().parent / "drivers"
SEED = 0


@dataclass(frozen=True)
class Job:
    """One training that a contestant is asked for."""

    workload: Workload
    prepared: Prepared
    folder: Path  # scratch of this training
    data_dir: Path
    python: Path  # of the contestant's environment
    rank: int
    alpha: int


@dataclass(frozen=True)
class Command:
    """What to run, and what it leaves."""

    words: list[str | Path]
    trained: Path  # an adapter's folder; found by pattern if it contains a *
    environment: Mapping[str, str] = field(default_factory=dict)
    pad_id: int = -1
    convert: bool = False  # LitGPT's: first converted


@dataclass(frozen=True)
class Contestant:
    """A library and a way to use it."""

    name: str
    title: str
    command: Callable[[Job, "Contestant"], Command]
    environment: str = environments.OWN  # of ENVIRONMENTS
    peer: bool = False  # whether targets compare with it
    tuned: bool = False  # settings that are not its defaults, for speed
    micro: int | None = None  # rows of a pass; None: those of an optimizer step
    grouped: bool = False  # batches of rows of similar length
    dtype: str = "float32"

    def rows_per_pass(self, workload: Workload) -> int:
        return self.micro or workload.batch


def our_overrides(job: Job, dtype: str) -> list[str]:
    """Of a command that trains this job and scores one row."""
    work = job.workload
    return [
        *work.overrides(job.data_dir),
        "model.source=folder",
        f"model.path={job.prepared.base}",
        f"model.dtype={dtype}",
        "model.device=cpu",
        "data.limits.validation=1",
        "data.limits.test=1",
        f"trainer.max_steps={work.steps}",
        f"trainer.batch_size={work.batch}",
        f"trainer.learning_rate={work.rate}",
        f"trainer.warmup_share={1 / work.steps}",
        "trainer.schedule=cosine",
        "trainer.evaluations=0",
        "trainer.keep_best=false",
        "trainer.checkpoint_minutes=null",
        "trainer.threads=1",
        "scoring.metrics=[]",
        "scoring.forgetting=null",
        f"lora.r={job.rank}",
        f"lora.lora_alpha={job.alpha}",
        f"lora.target_modules=[{','.join(work.targets)}]",
        f"seed={SEED}",
    ]


OURS = {"PYTHONPATH": str(ROOT)}


def ours(job: Job, who: Contestant) -> Command:
    runs = job.folder / "runs"
    words: list[str | Path] = [job.python, "-m", "harness", *our_overrides(job, who.dtype), f"runs_dir={runs}"]
    return Command(words, runs / "*" / "adapter", OURS, job.prepared.pad_id)


def bare(job: Job, who: Contestant) -> Command:
    out = job.folder / "adapter"
    words: list[str | Path] = [job.python, DRIVERS / "bare.py", out, *our_overrides(job, who.dtype)]
    return Command(words, out, OURS, job.prepared.pad_id)


def lesson(job: Job, who: Contestant) -> Command:
    work, out = job.workload, job.folder / "adapter"
    settings = {
        "batch": work.batch, "rank": job.rank, "alpha": job.alpha, "targets": list(work.targets), "rate": work.rate,
        "seed": SEED,
    }  # fmt: skip
    rows = job.prepared.rows / "train.jsonl"
    words: list[str | Path] = [job.python, DRIVERS / "lesson.py", job.prepared.base, rows, out, json.dumps(settings)]
    return Command(words, out, {}, job.prepared.pad_id)


def _trainer_settings(job: Job, who: Contestant) -> dict[str, Any]:
    """What TRL and LLaMA-Factory take alike, because both use transformers' Trainer."""
    work, micro = job.workload, who.rows_per_pass(job.workload)
    return {
        "model_name_or_path": str(job.prepared.base),
        "output_dir": str(job.folder / "out"),
        "num_train_epochs": 1,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": work.batch // micro,
        "learning_rate": work.rate,
        "weight_decay": 0.0,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 1,
        "max_grad_norm": 1.0,
        "use_cpu": True,
        "bf16": False,
        "eval_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": 10,
        "seed": SEED,
    }


def trl(job: Job, who: Contestant) -> Command:
    settings = _trainer_settings(job, who) | {
        "dtype": "float32",
        "dataset_name": str(job.prepared.rows),
        "completion_only_loss": True,
        "max_length": 1024,
        "gradient_checkpointing": False,
        "use_peft": True,
        "lora_r": job.rank,
        "lora_alpha": job.alpha,
        "lora_dropout": 0.0,
        "lora_target_modules": list(job.workload.targets),
        "train_sampling_strategy": "group_by_length" if who.grouped else "random",
    }
    config = _write_config(job, settings)
    words: list[str | Path] = [job.python.parent / "trl", "sft", "--config", config]
    return Command(words, job.folder / "out", _caches(job), job.prepared.pad_id)


def llamafactory(job: Job, who: Contestant) -> Command:
    settings = _trainer_settings(job, who) | {
        "model_name_or_path": str(_old_transformers_base(job.prepared)),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_rank": job.rank,
        "lora_alpha": job.alpha,
        "lora_dropout": 0.0,
        "lora_target": ",".join(job.workload.targets),
        "dataset": "rows",
        "dataset_dir": str(_llamafactory_rows(job.prepared)),
        "template": "empty",
        "cutoff_len": 1024,
        "disable_gradient_checkpointing": True,
        "overwrite_cache": True,
        "group_by_length": who.grouped,
    }
    config = _write_config(job, settings)
    words: list[str | Path] = [job.python.parent / "llamafactory-cli", "train", config]
    environment = {"DISABLE_VERSION_CHECK": "1", **_caches(job)}
    return Command(words, job.folder / "out", environment, job.prepared.pad_id)


def litgpt(job: Job, who: Contestant) -> Command:
    work, targets = job.workload, set(job.workload.targets)
    settings = {
        "checkpoint_dir": str(job.prepared.folder / "litgpt"),
        "out_dir": str(job.folder / "out"),
        "precision": "32-true",
        "devices": 1,
        "lora_r": job.rank,
        "lora_alpha": job.alpha,
        "lora_dropout": 0.0,
        "lora_query": "q_proj" in targets,
        "lora_key": "k_proj" in targets,
        "lora_value": "v_proj" in targets,
        "lora_projection": "o_proj" in targets,
        "lora_mlp": "up_proj" in targets,
        "lora_head": False,
        "data": {
            "class_path": "litgpt.data.JSON",
            "init_args": {
                "json_path": str(_litgpt_rows(job.prepared)), "mask_prompt": True, "num_workers": 0,
                "prompt_style": {"class_path": "litgpt.prompts.Default"},
            },
        },
        "train": {
            "epochs": 1, "max_steps": work.steps, "global_batch_size": work.batch, "lr_warmup_steps": 1,
            "micro_batch_size": who.rows_per_pass(work), "save_interval": 1_000_000, "log_interval": 10,
        },
        "eval": {"interval": 1_000_000, "max_iters": 1, "max_new_tokens": 1, "initial_validation": False,
                 "final_validation": False},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": work.rate, "weight_decay": 0.0}},
        "seed": SEED,
    }  # fmt: skip
    words: list[str | Path] = [job.python.parent / "litgpt", "finetune_lora", "--config", _write_config(job, settings)]
    return Command(words, job.folder / "out" / "final", _caches(job), 0, convert=True)


def _write_config(job: Job, settings: Mapping[str, Any]) -> Path:
    """JSON is YAML, and needs no package."""
    file = job.folder / "config.yaml"
    file.write_text(json.dumps(settings, indent=1), encoding="utf-8")
    return file


def _caches(job: Job) -> dict[str, str]:
    """Rows are tokenized anew in each training, as in ours."""
    return {"HF_DATASETS_CACHE": str(job.folder / "datasets")}


def _old_transformers_base(prepared: Prepared) -> Path:
    """The base as transformers 4.57 reads it: rotary settings by their former names, a tokenizer class that it has."""
    folder = prepared.folder / "llamafactory"
    if (folder / "config.json").exists():
        return folder
    folder.mkdir(exist_ok=True)
    for file in prepared.base.iterdir():
        if file.suffix == ".safetensors":
            (folder / file.name).symlink_to(file)
        else:
            shutil.copy(file, folder / file.name)
    tokens = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokens["tokenizer_class"] = "PreTrainedTokenizerFast"
    tokens.pop("extra_special_tokens", None)  # a list, where that version wants a table
    if not _begins_with_bos(prepared):
        tokens.pop("bos_token", None)  # which it would put before every row
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens), encoding="utf-8")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    rope = config.pop("rope_parameters")
    if "full_attention" in rope:
        config["rope_theta"] = rope["full_attention"]["rope_theta"]
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
    else:
        config["rope_theta"] = rope["rope_theta"]
    config["torch_dtype"] = config.pop("dtype", "float32")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")  # last: its presence says all is there
    return folder


def _begins_with_bos(prepared: Prepared) -> bool:
    tokens = json.loads((prepared.base / "tokenizer_config.json").read_text(encoding="utf-8"))
    first = json.loads((prepared.folder / "tokens.json").read_text(encoding="utf-8"))["train"][0]["input_ids"][0]
    known = json.loads((prepared.base / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    ids = {each["content"]: each["id"] for each in known}
    return tokens.get("bos_token") is not None and ids.get(tokens["bos_token"]) == first


def _texts(prepared: Prepared) -> list[dict[str, str]]:
    lines = (prepared.rows / "train.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def _llamafactory_rows(prepared: Prepared) -> Path:
    """Its template ``empty`` ends no answer, so the end is part of the text."""
    folder = prepared.folder / "llamafactory_rows"
    folder.mkdir(exist_ok=True)
    added = json.loads((prepared.base / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    end = next(each["content"] for each in added if each["id"] == prepared.eos_id)
    rows = [{"prompt": row["prompt"], "completion": row["completion"] + end} for row in _texts(prepared)]
    (folder / "rows.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    columns = {"file_name": "rows.json", "columns": {"prompt": "prompt", "response": "completion"}}
    (folder / "dataset_info.json").write_text(json.dumps({"rows": columns}), encoding="utf-8")
    return folder


def _litgpt_rows(prepared: Prepared) -> Path:
    folder = prepared.folder / "litgpt_rows"
    folder.mkdir(exist_ok=True)
    rows = [{"instruction": row["prompt"], "output": row["completion"]} for row in _texts(prepared)]
    for name, part in (("train", rows), ("val", rows[:2])):  # it validates two rows before it trains, come what may
        (folder / f"{name}.json").write_text(json.dumps(part, ensure_ascii=False), encoding="utf-8")
    return folder


CONTESTANTS = {
    each.name: each
    for each in (
        Contestant("ours", "this project", ours),
        Contestant("bare", "bare PyTorch loop", bare),
        Contestant("trl", "TRL 1.16.0", trl, "trl", peer=True),
        Contestant("llamafactory", "LLaMA-Factory 0.9.5", llamafactory, "llamafactory", peer=True),
        Contestant("litgpt", "LitGPT 0.5.13, one row a pass (its default)", litgpt, "litgpt", peer=True, micro=1),
        Contestant("lesson", "the lesson's recipe", lesson, micro=4),
        Contestant("trl_grouped", "TRL, grouped by length", trl, "trl", peer=True, tuned=True, grouped=True),
        Contestant("trl_single", "TRL, one row a pass", trl, "trl", peer=True, tuned=True, micro=1),
        Contestant(
            "llamafactory_grouped", "LLaMA-Factory, grouped by length", llamafactory, "llamafactory", peer=True,
            tuned=True, grouped=True,
        ),
        Contestant(
            "llamafactory_single", "LLaMA-Factory, one row a pass", llamafactory, "llamafactory", peer=True,
            tuned=True, micro=1,
        ),
        Contestant("litgpt_batched", "LitGPT, whole batches", litgpt, "litgpt", peer=True, tuned=True),
        Contestant("ours_bfloat16", "this project in bfloat16", ours, dtype="bfloat16"),
    )
}  # fmt: skip
# Who is measured on every workload; the tuned peers and bfloat16 only where asked for, or where a target needs them.
USUAL = ("ours", "bare", "trl", "llamafactory", "litgpt", "lesson")
