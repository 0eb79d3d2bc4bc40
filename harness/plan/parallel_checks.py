"""What several processes on one run cannot do."""

from collections.abc import Iterator

from harness.config.schema import Config, Quantization, Stage, Strategy, shards, zero_stage
from harness.methods.registry import traits_of
from harness.runtime.distributed import processes

COMMAND = "torchrun --nproc-per-node {} -m harness ..."


def parallel_faults(config: Config) -> Iterator[str]:
    """Faults of ``trainer.parallel`` with this command, model and method."""
    parallel, here = config.trainer.parallel, processes()
    strategy = parallel.strategy.value
    if parallel.processes < 1:
        yield f"trainer.parallel.processes={parallel.processes} is too small; use at least 1"
    elif here > 1 and config.stage is not Stage.run:
        yield f"stage={config.stage.value} runs in one process, but WORLD_SIZE={here}; start it without torchrun"
    elif here > 1 and parallel.strategy is Strategy.none:
        yield (
            f"WORLD_SIZE={here}, but trainer.parallel.strategy=none: {here} processes would each do the same run; add "
            "trainer/parallel=ddp, fsdp, deepspeed_zero2 or deepspeed_zero3, or start one process"
        )
    elif parallel.strategy is not Strategy.none:
        if config.stage is Stage.run and here == 1:
            yield (
                f"trainer.parallel.strategy={strategy} needs one process per device; start them with "
                + COMMAND.format(max(parallel.processes, 2)).replace("...", f"trainer/parallel={strategy} ...")
            )
        elif here > 1 and parallel.processes != here:
            yield f"trainer.parallel.processes={parallel.processes} but WORLD_SIZE={here}; remove the setting"
        yield from _unfit(config)


def _unfit(config: Config) -> Iterator[str]:
    """What the model or the method cannot do in several processes, or with this strategy."""
    strategy, method = config.trainer.parallel.strategy, config.peft.method
    traits = traits_of(method, vars(getattr(config, method)))
    sharded = shards(strategy, config.trainer.parallel.deepspeed)
    if config.model.device_map is not None:
        yield (
            f"model.device_map={config.model.device_map} uses several devices in one process, but "
            f"trainer.parallel.strategy={strategy.value} gives each process one; set "
            "model.device_map=null or trainer/parallel=none"
        )
    if config.model.device not in ("auto", "cpu", "cuda"):
        yield f"model.device={config.model.device} would put all processes on one device; set model.device=auto"
    if why := traits.why_one_process:
        yield f"peft={method} {why}, so several processes cannot share its run; use one, with trainer/parallel=none"
    if strategy is not Strategy.ddp and (why := traits.why_unsharded):
        yield f"peft={method} {why}; {strategy.value} has only shards: use trainer/parallel=ddp"
    if sharded and config.model.quantization is not Quantization.none:
        yield (
            f"model.quantization={config.model.quantization.value} packs weights, which {strategy.value} cannot shard; "
            "use trainer/parallel=ddp, or model.quantization=none"
        )
    if strategy is Strategy.deepspeed:
        yield from _deepspeed(config)


def _deepspeed(config: Config) -> Iterator[str]:
    from importlib.util import find_spec

    whole, stage = (
        config.trainer.parallel.deepspeed.get("zero_optimization"),
        zero_stage(config.trainer.parallel.deepspeed),
    )
    if whole is not None and not isinstance(whole, dict):
        yield (
            f"trainer.parallel.deepspeed.zero_optimization={whole} must hold settings, such as its stage; set "
            f"trainer.parallel.deepspeed.zero_optimization.stage={whole if whole in (1, 2, 3) else 2}"
        )
    elif stage not in (1, 2, 3):
        yield (
            f"trainer.parallel.deepspeed.zero_optimization.stage={stage} must be 1, 2 or 3; start from "
            "trainer/parallel=deepspeed_zero2 or deepspeed_zero3"
        )
    if config.stage is Stage.run and find_spec("deepspeed") is None:
        yield (
            "trainer.parallel.strategy=deepspeed needs the package deepspeed; pip install deepspeed, or use "
            "trainer/parallel=fsdp"
        )
