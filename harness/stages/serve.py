"""stage=serve: talk to the base and to tuned models on a page in the browser, column beside column."""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.errors import RunFault
from harness.plan.spec import Options, Plan
from harness.runtime.signals import is_ctrl_c

if TYPE_CHECKING:
    from harness.pipeline.speakers import Speaker

log = logging.getLogger(__name__)

PATIENCE_S = 10.0  # for the answer that is being written when the command ends


def serve(plan: Plan, options: Options, words: Sequence[str]) -> None:
    """Serve the page until Ctrl-C.

    Offered are the base, the adapters of ``adapter_path``, and every finished run of ``runs_dir`` on this base that
    kept its adapter, those that finish later included.

    Args:
        plan: of this command; it matters for adapters from elsewhere.
        words: overrides of this command; those of ``scoring.generation`` replace the runs'.

    Raises:
        ConfigFault: there is no such run, or it kept no adapter.
        ModelFault: base or adapter cannot be loaded.
        RunFault: the port cannot be had.
    """
    from harness.pipeline.speakers import choose_run, external_speakers, remarks_on, runs_on_base
    from harness.pipeline.talk import Talk
    from harness.runtime import threads
    from harness.stages.talk_desk import Desk
    from harness.stages.talk_server import TalkServer

    first: Speaker
    of_base: Mapping[str, Any]
    external = external_speakers(options, plan)
    if external:
        first, of_base = external[0], plan.as_dict()
    else:
        chosen = choose_run(options)
        first, of_base = chosen.speaker, chosen.speaker.record["plan"]
        if chosen.note:
            log.info(chosen.note)
    model, inputs = of_base["model"], of_base["inputs"]
    settings = options.serve
    try:  # before anything is loaded
        server = TalkServer(settings.host, settings.port, settings.allow_remote)
    except OSError as error:
        raise RunFault(
            f"serve.host={settings.host} serve.port={settings.port} cannot be listened on ({error.strerror or error}); "
            "serve.port=0 picks a free port"
        ) from error
    with server:
        talk = Talk.begin(first, threads.for_run(options.threads, None).count)
        for speaker in external:
            for remark in remarks_on(speaker):
                log.warning(remark)
        server.desk = Desk(
            talk,
            first=first,
            external=external,
            runs=lambda: runs_on_base(options.runs_dir, model, inputs),
            instruction=options.prompt,
            history=options.chat.history,
            decoding=plan.scoring.generation,
            words=tuple(words),
        )
        if settings.allow_remote:
            log.warning(
                "serve.allow_remote=true: anyone who can reach this address can use the page without a password"
            )
        print(f"{server.url}  (Ctrl-C ends)", flush=True)
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt as stop:
            if not is_ctrl_c(stop):
                raise
            log.info("the page is closed")
        finally:
            server.desk.close(PATIENCE_S)
