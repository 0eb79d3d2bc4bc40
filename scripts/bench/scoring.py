"""Measure scoring: answers one by one, in batches as before, and as the harness writes them; base against adapter.

    python scripts/bench/scoring.py                                        # the embedded model and data
    python scripts/bench/scoring.py model=smollm2_135m data=e2e data.path=<folder> --alone 20
    python scripts/bench/scoring.py model=smollm2_135m data=gsm8k data.path=<folder> --max-new-tokens 64 --alone 20

Takes overrides of the command. An adapter is first trained for ``--steps`` optimizer steps, so that it writes answers
of a task and ends them. Then the same ``--prompts`` test prompts are answered by the base and by the adapter, all ways
in turn: ``alone`` (transformers' generate, one prompt at a time; with ``--alone 20`` every tenth of 200, times ten),
``batches`` (transformers' generate, 64 at a time, the adapter unmerged), ``refilled`` (places refilled, the adapter
unmerged), ``scored`` (what scoring does: places refilled, the adapter merged, merging included). ``same work`` is
``scored`` without stops and with at most 32 tokens, so that base and adapter write equally many. The losses of the same
rows are computed ``whole`` and ``in parts``. Prints medians over ``--rounds``, ratios with their spread, and whether
the answers are equal. Times are those of the process on a CPU, where other work disturbs a clock, else of a clock.

``--variants`` also measures what the harness does not use: transformers' static cache, the same compiled (which
transformers does on a GPU alone) and continuous batching. See docs/benchmarks-notes.md.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

PLACES = 64


@dataclass(frozen=True)
class Subject:
    """What is measured, and on what."""

    base: Any
    tuned: Any
    rows: Sequence[Any]
    prompts: Sequence[Sequence[int]]
    stops: Sequence[int]
    limit: int
    alone: int  # prompts that are answered one by one


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--alone", type=int, help="prompts that are answered one by one; default: all")
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps of the adapter")
    parser.add_argument("--max-new-tokens", type=int)
    parser.add_argument("--variants", action="store_true", help="also measure what is not used")
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_intermixed_args()
    subject = prepare(given)
    ways = answers_of(subject) | (variants_of(subject) if given.variants else {})
    print(f"{len(subject.prompts)} prompts, {given.rounds} rounds; seconds, and times as fast as one by one")
    show(measured(ways, given.rounds, subject)[0], "alone, base", "alone, adapter")
    losses = losses_of(subject)
    seconds, values = measured(losses, given.rounds, subject)
    print("losses of the same rows; seconds, and times as fast as whole rows")
    show(seconds, "whole, base", "whole, adapter")
    for who in ("base", "adapter"):
        whole, parts = values[f"whole, {who}"], values[f"in parts, {who}"]
        print(f"  {who}: loss {whole:.6f} whole, {parts:.6f} in parts; {abs(parts / whole - 1):.1e} apart")
    from harness.runtime.memory import highest_since_reset

    peak = highest_since_reset("cpu")
    print(f"peak memory of the process {'unknown here' if peak is None else f'{peak / 2**30:.2f} GiB'}")


def prepare(given: argparse.Namespace) -> Subject:
    """The base, and an adapter trained for a few steps."""
    from plans import read_plan

    from harness.data.tokenize import prompt_of
    from harness.pipeline import steps, tune
    from harness.pipeline.cache import ProcessCache
    from harness.runtime import memory
    from harness.training.train import train

    memory.keep_freed_memory()  # as the command does
    few = [
        f"trainer.max_steps={given.steps}",
        "trainer.evaluations=0",
        "trainer.keep_best=false",
        "scoring.forgetting=null",
    ]
    plan, options = read_plan([*few, *given.overrides])
    cache = ProcessCache()
    base = steps.load(plan, cache, options.threads or 1).base
    rows = steps.tokenize(plan, cache, base)
    tuned = tune.attach(plan, base, rows).model
    with tempfile.TemporaryDirectory() as folder:
        train(tuned, plan, tune.training_inputs(base, rows), Path(folder))
    tuned.eval()
    chosen = rows.splits["test"][: given.prompts]
    limit = given.max_new_tokens or plan.scoring.generation.max_new_tokens
    lengths, answers = [row.prompt_length for row in chosen], [len(row.answer_ids) for row in chosen]
    print(
        f"{plan.method} on {plan.model.name}, {plan.data.name}, {base.device}, {base.dtype}: prompts of {min(lengths)} "
        f"to {max(lengths)} tokens, references of {statistics.mean(answers):.0f} on average, at most {limit} written"
    )
    alone = len(chosen) if given.alone is None else min(given.alone, len(chosen))
    return Subject(base, tuned, chosen, [prompt_of(row) for row in chosen], rows.stops, limit, alone)


def answers_of(subject: Subject) -> dict[str, Callable[[], Any]]:
    """The ways to answer, by name; each returns the answers."""
    from harness.scoring.merging import can_merge, merged

    def scored(subject: Subject) -> Any:
        if not can_merge(subject.tuned):
            return answered(subject, subject.tuned, refill=True)
        with merged(subject.tuned) as plain:
            return answered(subject, plain, refill=True)

    unstopped = replace(subject, stops=(), limit=min(subject.limit, 32))

    ways: dict[str, Callable[[], Any]] = {}
    for who, model in (("base", subject.base.model), ("adapter", subject.tuned)):
        ways[f"alone, {who}"] = lambda model=model: answered(subject, model, batch_size=1)
        ways[f"batches, {who}"] = lambda model=model: answered(subject, model)
        ways[f"refilled, {who}"] = lambda model=model: answered(subject, model, refill=True)
    ways["scored, adapter"] = lambda: scored(subject)
    ways["same work, base"] = lambda: answered(unstopped, unstopped.base.model, refill=True)
    ways["same work, adapter"] = lambda: scored(unstopped)
    return ways


def answered(subject: Subject, model: Any, batch_size: int = PLACES, refill: bool = False) -> list[str]:
    """Texts of the answers; with a batch size of 1, to some of the prompts."""
    from harness.config import schema
    from harness.scoring.generate import generate

    greedily = schema.Generation(
        batch_size=batch_size, max_new_tokens=subject.limit, do_sample=False, temperature=1.0, top_p=1.0
    )
    chosen = chosen_alone(subject) if batch_size == 1 else list(range(len(subject.prompts)))
    prompts = [subject.prompts[at] for at in chosen]
    answers = generate(
        model, subject.base.tokenizer, prompts, greedily, stops=subject.stops, equal_lengths=False, refill=refill
    )
    return [answer.text for answer in answers]


def chosen_alone(subject: Subject) -> list[int]:
    """The prompts that are answered one by one: evenly spread over their lengths."""
    by_length = sorted(range(len(subject.prompts)), key=lambda at: len(subject.prompts[at]))
    return [by_length[at * len(by_length) // subject.alone] for at in range(subject.alone)]


def losses_of(subject: Subject) -> dict[str, Callable[[], float]]:
    """The ways to compute the loss, by name."""
    from harness.scoring.losses import mean_completion_loss

    ways: dict[str, Callable[[], float]] = {}
    for who, model in (("base", subject.base.model), ("adapter", subject.tuned)):
        for what, plain in (("whole", True), ("in parts", False)):
            ways[f"{what}, {who}"] = lambda model=model, plain=plain: mean_completion_loss(
                model,
                subject.rows,
                pad_id=int(subject.base.tokenizer.pad_token_id),
                batch_size=PLACES,
                plain=plain,
            )
    return ways


def variants_of(subject: Subject) -> dict[str, Callable[[], Any]]:
    """What transformers offers besides, on the base; each returns the answers."""
    from transformers import GenerationConfig

    model, tokenizer = subject.base.model, subject.base.tokenizer

    def generated(**settings: Any) -> list[str]:
        from harness.data.collate import by_length
        from harness.scoring.generate import answer_text, continuations

        texts: dict[int, str] = {}
        decoding = decoding_of(subject, GenerationConfig, **settings)
        for batch in by_length([len(prompt) for prompt in subject.prompts], PLACES):
            output = continuations(model, [subject.prompts[at] for at in batch], decoding).sequences
            for at, ids in zip(batch, output.tolist(), strict=True):
                texts[at] = answer_text(until_stop(ids, subject.stops), tokenizer)
        return [texts[at] for at in range(len(subject.prompts))]

    def continuous() -> list[str]:
        from harness.scoring.generate import answer_text

        decoding = decoding_of(subject, GenerationConfig)
        outputs = model.generate_batch([list(prompt) for prompt in subject.prompts], generation_config=decoding)
        ids = [output.generated_tokens for output in sorted(outputs.values(), key=lambda each: request_number(each))]
        return [answer_text(until_stop(each, subject.stops), tokenizer) for each in ids]

    return {
        "static cache, base": lambda: generated(cache_implementation="static", disable_compile=True),
        "compiled, base": lambda: generated(cache_implementation="static"),
        "continuous, base": continuous,
    }


def request_number(output: Any) -> int:
    """The place of a prompt among those given, from transformers' name of its request."""
    return int(str(output.request_id).rpartition("_")[2])


def decoding_of(subject: Subject, kind: Any, **settings: Any) -> Any:
    """A greedy ``GenerationConfig``."""
    return kind(
        max_new_tokens=subject.limit,
        do_sample=False,
        return_dict_in_generate=True,
        pad_token_id=subject.base.tokenizer.pad_token_id,
        eos_token_id=list(subject.stops),
        **settings,
    )


def until_stop(ids: Sequence[int], stops: Sequence[int]) -> Sequence[int]:
    """The ids before the first stop."""
    return ids[: next((at for at, number in enumerate(ids) if number in stops), len(ids))]


def measured(
    ways: dict[str, Callable[[], Any]], rounds: int, subject: Subject
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of each way in each round, all ways in turn, and what each returned."""
    import torch

    on_cpu = subject.base.device.type == "cpu"
    clock = time.process_time if on_cpu else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    results: dict[str, Any] = {}
    for number in range(rounds):
        for name in list(ways) if number % 2 == 0 else list(ways)[::-1]:
            started = clock()
            try:
                results[name] = ways[name]()
            except Exception as error:  # a variant that this machine or model does not offer
                if name.split(",")[0] not in ("static cache", "compiled", "continuous"):
                    raise
                print(f"  {name}: {type(error).__name__}: {str(error)[:150]}")
                continue
            if not on_cpu:
                torch.cuda.synchronize()
            scale = len(subject.prompts) / subject.alone if name.startswith("alone") else 1.0
            seconds[name].append((clock() - started) * scale)
            print(f"  round {number + 1} of {rounds}: {name} {seconds[name][-1]:.2f} s", file=sys.stderr, flush=True)
    places = chosen_alone(subject)
    for name in [name for name in results if name.startswith("alone")]:
        who = name.partition(", ")[2]
        for other in [other for other in results if other.endswith(who) and not other.startswith(("alone", "same"))]:
            same = sum(results[other][at] == text for at, text in zip(places, results[name], strict=True))
            print(f"  {other}: {same} of {len(places)} answers equal those {name}")
    return {name: times for name, times in seconds.items() if times}, results


def show(seconds: dict[str, list[float]], base: str, adapter: str) -> None:
    """Medians, and ratios with their lowest and highest value of a round."""
    for name, times in seconds.items():
        reference = seconds[base if name.endswith("base") else adapter]
        ratio = "" if name.startswith("same") else _ratio(reference, times)
        print(f"  {name:<20} {statistics.median(times):>8.2f} s  {ratio}")
    if "same work, adapter" in seconds:
        print(f"  same work: {_ratio(seconds['same work, base'], seconds['same work, adapter'])} of the base's speed")


def _ratio(reference: Sequence[float], times: Sequence[float]) -> str:
    ratios = [one / other for one, other in zip(reference, times, strict=False)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


if __name__ == "__main__":
    main()
