"""stage=generate: one prompt, answered by the base model and by the tuned one."""

from functools import partial
from typing import Any

from harness.errors import ConfigFault
from harness.plan.from_record import find_record, plan_of_record
from harness.plan.spec import Options
from harness.record import store
from harness.record.adapter_files import require_whole
from harness.runtime.terminal import printable


def show_answers(options: Options) -> None:
    """Print the answers of the base and of the tuned model to ``prompt``, in the run's own template.

    Raises:
        ConfigFault: ``run`` or ``prompt`` is missing, or no finished run has that fingerprint.
    """
    if not options.run or not options.prompt:
        raise ConfigFault("stage=generate needs run=<fingerprint> and prompt='...'; the table shows the fingerprints")
    record = find_record(options)
    before, after = _answers(record, options)
    shown = {"prompt": options.prompt} | ({"input": options.input} if options.input else {})
    for name, text in (shown | {"before": before, "after": after}).items():
        print(f"{name + ':':<7} {printable(text)}")


def _answers(record: dict[str, Any], options: Options) -> tuple[str, str]:
    """The answers before and after tuning."""
    from harness.adapters import save_load
    from harness.data import templates
    from harness.data.tokenize import prompt_ids
    from harness.methods.registry import changes_base
    from harness.models import base as model_base
    from harness.models.ends import end_ids
    from harness.scoring.generate import generate

    plan = plan_of_record(record)
    base = model_base.load_base(plan.model)
    text = templates.render_question(options.prompt or "", options.input, plan.data.template, base.tokenizer)
    prompts_ids = prompt_ids([text], plan.data.template, base.tokenizer)
    stops = record["inferred"].get("stop_ids") or end_ids(base.model, base.tokenizer)
    # One prompt is alone in its batch.
    answer = partial(generate, generation=plan.scoring.generation, stops=stops, equal_lengths=True)
    [before] = answer(base.model, base.tokenizer, prompts_ids)
    fork = model_base.fork(base, changes_base(plan.method, plan.settings))
    folder = require_whole(store.adapter_folder(options.runs_dir, record), record)
    model = save_load.load_adapter(fork, folder, plan)
    [after] = answer(model, base.tokenizer, prompts_ids)
    return before.text, after.text
