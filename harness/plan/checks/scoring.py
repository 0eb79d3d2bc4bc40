"""Faults of the settings of scoring."""

from collections.abc import Iterator

from harness.config.schema import Config, RowFormat, Stage
from harness.data.checks import template_faults
from harness.errors import above, at_least, brief, one_of
from harness.extensions.imports import is_import_path
from harness.scoring import custom, judging, lm_harness
from harness.scoring.catalog import AUTO, JUDGE, SCORES, TOKENIZE, metric_names, reads_answers


def scoring_faults(config: Config) -> Iterator[str]:
    """Of metrics, answers, the judge and lm-evaluation-harness."""
    scoring = config.scoring
    yield from one_of("scoring.split", scoring.split, ("test", "validation"))
    yield from one_of("scoring.tokenize", scoring.tokenize, (AUTO, *TOKENIZE))
    own = [each for each in scoring.metrics if is_import_path(each)]
    yield from custom.metric_faults(own, config.data.columns.keep)
    if scoring.template is not None:
        yield from template_faults("scoring.template", scoring.template, config.data.columns.keep)
    for metric in scoring.metrics:
        if metric not in own:
            yield from _metric_name(metric)
        if metric in SCORES and SCORES[metric].needs == "targets" and config.data.columns.target is None:
            yield (
                f"scoring.metrics contains {metric} but data.columns.target is null; name the column with the short "
                f"answer, or set scoring.metrics without {metric}"
            )
    choices = [metric for metric in scoring.metrics if metric in SCORES and not reads_answers(metric)]
    pairs = config.data.format is RowFormat.preference  # whose two answers are the options
    if choices and config.data.options is None and config.data.columns.options is None and not pairs:
        yield (
            f"scoring.metrics contains {choices[0]} but no row has options; set data.options=[no,yes], or name their "
            "column with data.columns.options"
        )
    yield from _lm_eval(config)
    yield from judging.judge_faults(scoring.judge, JUDGE in scoring.metrics)
    yield from at_least("scoring.choices.bins", scoring.choices.bins, 1)
    generation = scoring.generation
    yield from at_least("scoring.generation.batch_size", generation.batch_size, 1)
    yield from at_least("scoring.generation.max_new_tokens", generation.max_new_tokens, 1)
    yield from at_least("scoring.loss_batch_size", scoring.loss_batch_size, 1)
    yield from at_least("scoring.forgetting_limit", scoring.forgetting_limit, 1)
    if generation.do_sample:
        yield from above("scoring.generation.temperature", generation.temperature, 0)
        if not 0 < generation.top_p <= 1:
            yield f"scoring.generation.top_p={generation.top_p} must be above 0 and at most 1"


def _lm_eval(config: Config) -> Iterator[str]:
    tasks = config.scoring.lm_eval
    yield from at_least("scoring.lm_eval.num_fewshot", tasks.num_fewshot, 0)
    yield from at_least("scoring.lm_eval.limit", tasks.limit, 1)
    yield from at_least("scoring.lm_eval.batch_size", tasks.batch_size, 1)
    yield from at_least("scoring.lm_eval.bootstrap_iters", tasks.bootstrap_iters, 0)
    if tasks.include_path and not tasks.tasks:
        yield (
            f"scoring.lm_eval.include_path={brief(tasks.include_path)} has no effect without scoring.lm_eval.tasks; "
            "name the tasks"
        )
    if config.stage in (Stage.run, Stage.plan, Stage.score):
        yield from lm_harness.task_faults(tasks)


def _metric_name(metric: str) -> Iterator[str]:
    for fault in one_of("scoring.metrics", metric, metric_names()):
        yield f"{fault}, or an import path such as my_pkg.metrics:{metric if metric.isidentifier() else 'mine'}"
