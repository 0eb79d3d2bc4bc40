"""Train, score and compare PEFT methods: ``python -m harness -m peft=lora,ia3 lora.r=4,8,16``.

``task`` is what Hydra calls with each composed config; ``main`` is the command. Only what the configuration needs is
imported here: ``--help`` and a misspelled key are answered without plans, models and stages.
"""

import sys
from functools import partial, update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config.schema import Stage

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from harness.pipeline.cache import ProcessCache


def task(composed: "DictConfig", cache: "ProcessCache") -> dict[str, Any] | None:
    """Do what one composed config asks for. A sweep's launcher calls this once for each unique plan."""
    from harness.pipeline.run import run
    from harness.plan.read import read_config
    from harness.stages import export, generate, status
    from harness.stages.archive import archive_runs
    from harness.stages.bundle import bundle_runs
    from harness.stages.chat import chat
    from harness.stages.claim import judge_claim
    from harness.stages.diff import show_difference
    from harness.stages.import_results import import_results
    from harness.stages.plan import show_plan
    from harness.stages.push import push_adapter
    from harness.stages.report import report_records
    from harness.stages.score import score_adapters, score_export
    from harness.stages.serve import serve
    from harness.stages.verify import verify_bundle
    from harness.sweep.cells import cell_from_hydra, grid_of_command, task_overrides
    from harness.sweep.claim import run_cell
    from harness.sweep.execute import run_single
    from harness.sweep.presets import refuse_without_multirun
    from harness.sweep.sizes import Sizes

    plan, options = read_config(composed, size=Sizes().of(task_overrides()))
    cell, in_sweep = cell_from_hydra(plan, options)
    if not in_sweep and options.stage in (Stage.run, Stage.plan):
        refuse_without_multirun(options.scale, grid_of_command(), options.paper)
    match options.stage:
        case Stage.run:
            run_here = partial(run, cache=cache)
            return run_cell(cell, run_here) if in_sweep else run_single(cell, run_here)
        case Stage.plan:
            show_plan([cell])
        case Stage.generate:
            generate.show_answers(options)
        case Stage.export:
            export.export_external(options, plan) if options.adapter_paths else export.export_model(options)
        case Stage.score:
            score_adapters(plan, options, cache) if options.adapter_paths else score_export(options)
        case Stage.push:
            push_adapter(options)
        case Stage.report:
            report_records(options)
        case Stage.diff:
            show_difference(options)
        case Stage.archive:
            archive_runs(options)
        case Stage.import_results:
            import_results(options)
        case Stage.bundle:
            bundle_runs(options)
        case Stage.verify:
            verify_bundle(options, cache)
        case Stage.status:
            status.show_status(options.runs_dir, options.sweep_name, options.watch)
        case Stage.chat:
            chat(plan, options, task_overrides())
        case Stage.serve:
            serve(plan, options, task_overrides())
        case Stage.claim:
            judge_claim(options.claim, partial(task, cache=cache))
    return None


def main() -> None:
    """The console script. Of several processes the main one is the command, and the others follow its runs."""
    from harness.extensions import imports

    imports.begin(Path.cwd())
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        sys.exit(_run_command(sys.argv[1], sys.argv[2:]))
    _compose_and_run()


def _compose_and_run() -> None:
    """The command in ``sys.argv``, which composes a configuration."""
    from harness.pipeline.cache import ProcessCache
    from harness.runtime import distributed, threads

    threads.reset()
    threads.begin()
    cache = ProcessCache()
    if not distributed.is_main_process():
        from harness.pipeline.run import run
        from harness.record.provenance import code_version

        distributed.follow_main(partial(run, cache=cache), code_version())
        return
    from harness.cli import start

    try:
        start(update_wrapper(partial(task, cache=cache), task))
    finally:
        distributed.release_followers()


def _run_command(name: str, arguments: list[str]) -> int:
    """A command that is no configuration; bad arguments are explained as bad settings are."""
    from harness.config.messages import explain
    from harness.errors import ConfigFault

    try:
        return COMMANDS[name](arguments)
    except ConfigFault as fault:
        sys.stderr.write(f"{explain(fault)}\n")
        return 2


def _new(arguments: list[str]) -> int:
    """``peft-harness new my_study``."""
    from harness.stages.new import new_study

    written = new_study(arguments, Path.cwd())
    name = written[0].parent.name
    shown = "".join(f"  {path.relative_to(Path.cwd())}\n" for path in written)
    sys.stdout.write(f"{shown}next: cd {name} && python -m harness -m experiment={name}\n")
    return 0


def _doctor(arguments: list[str]) -> int:
    """``peft-harness doctor``."""
    from harness.runtime.terminal import sturdy_streams
    from harness.stages.doctor import examine, read_arguments, show

    runs_dir = read_arguments(arguments)
    with sturdy_streams():
        return show(examine(runs_dir))


def _demo(arguments: list[str]) -> int:
    """``peft-harness demo``."""
    from harness.runtime.terminal import sturdy_streams
    from harness.stages.demo import follow_up, read_arguments

    request = read_arguments(arguments)
    sys.argv[1:] = request.words
    _compose_and_run()
    with sturdy_streams():
        follow_up(request)
    return 0


def _completion(arguments: list[str]) -> int:
    """``peft-harness completion bash``."""
    from harness.stages.completion import read_shell

    first, sys.argv[:] = read_shell(arguments)
    sys.stdout.write(first)
    _compose_and_run()
    return 0


# Commands that are a first word instead of a configuration, and what gets the words after it.
COMMANDS = {"new": _new, "doctor": _doctor, "demo": _demo, "completion": _completion}


if __name__ == "__main__":
    main()
