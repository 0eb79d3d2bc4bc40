"""Every text of Hydra and OmegaConf that the harness reads, raised by the libraries themselves."""

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException

from harness.config import library_errors
from harness.config.compose import Composer, register_schema
from harness.config.library_errors import HYDRA, OMEGACONF, ROWS, first_line, hydra_message, matching_row
from harness.errors import ConfigFault
from harness.plan.read import read_config
from tests.support.configs import CONF

# What a user reads, by the override that was typed; of a long message, how it begins.
MESSAGES = {
    "+model@base=tiny": "model/hub.yaml: there is no setting base",
    "lora.r=abc": "lora.r=abc: lora.r needs a whole number",
    "lora.r=4,8": "lora.r=4,8 has several values: add -m to run each, or write a list as [4,8]",
    "lora.r=range(4,8)": "lora.r=range(4,8) has several values: add -m to run each",
    "+lora.r=4": "+lora.r: lora.r already exists; remove the +",
    "model@base=tiny": "model@base=tiny: model has no package base; remove @base",
    "sed=1": "sed=1: there is no setting sed; did you mean seed?",
    "~lora.rank": "~lora.rank: there is no setting lora.rank; did you mean lora.r?",
    "~lora.r=4": "~lora.r=4: lora.r cannot be deleted; set it to another value",
    "~peft=ia3": "~peft=ia3 is not chosen; choose an option with peft=<option>",
    "+peft=ia3": "peft is given twice; choose one option with peft=<option>, without a +",
    "++peft=ia3": "++peft=ia3: peft=ia3 chooses an option; remove the ++",
    "peft=???": "peft=??? does not exist; options: adalora,",
    "nothing@x=1": "nothing@x=1: there is no group nothing; groups: ",
    "lora.r=1.5": "lora.r=1.5: lora.r needs a whole number",
    "trainer.epochs=many": "trainer.epochs=many: trainer.epochs needs a number",
    "trainer.keep_best=perhaps": "trainer.keep_best=perhaps: trainer.keep_best needs true or false",
    "trainer.schedule=warm": "trainer.schedule=warm: trainer.schedule must be one of linear, cosine, constant",
    "trainer.schedule=[linear]": "trainer.schedule=[linear]: trainer.schedule must be one of linear, cosine, constant",
    "trainer.epochs=null": "trainer.epochs=null: trainer.epochs cannot be null; give a value",
    "trainer={epochs: null}": "trainer={epochs: null}: trainer.epochs cannot be null; give a value",
    "scoring.metrics=[null]": "scoring.metrics=[null]: scoring.metrics[0] cannot be null; give a value",
    "scoring.metrics=bleu": "scoring.metrics=bleu: scoring.metrics needs a list, such as [a,b]",
    "data.metrics.9=bleu": "data.metrics.9=bleu: data.metrics[9]: the list is shorter; give the whole list",
    "data.limits=[1]": "data.limits=[1]: data.limits is a group of settings; set one of them, e.g. data.limits.train=",
    "lora.rank_pattern=3": "lora.rank_pattern=3: lora.rank_pattern is a group of settings; add an entry with +lora.",
    "data.limits=3": "data.limits=3: data.limits is a group of settings; set one of them, e.g. data.limits.train=...",
    "lora.rank_pattern={1: 2}": "lora.rank_pattern={1: 2}: lora.rank_pattern.1: the name 1 must be text; put it in",
    "model.path=[a]": "model.path=[a]: model.path needs one text; put quotes around a value with brackets",
    "model.packages=[{member: a}]": "model.packages[0].requirement has no value; set it on the command line",
    "~lora.r": "~lora.r: lora.r cannot be deleted; set it to another value",
    "seed=${seed}": "seed refers to itself; name another setting inside ${...}",
    "data.limits.train=${data}": "data.limits.train refers to the group that contains it; name another setting inside",
    "model.path=${oops}": "model.path refers to 'oops', which is not a setting; name another inside ${...}",
    "model.path=${nope:x}": "model.path: ${nope:...} does not exist; use ${key} or ${oc.env:NAME}",
    "model.path=${oc.env:NO_SUCH_VARIABLE}": "model.path: Environment variable 'NO_SUCH_VARIABLE' not found; set the",
}


@pytest.fixture(scope="module")
def composer() -> Composer:
    """Composes with Hydra's own steps, and each choice of groups only once."""
    register_schema()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
    return Composer(loader, loader.load_configuration("config", [], RunMode.MULTIRUN))


def refusal(composer: Composer, override: str) -> BaseException:
    """What Hydra raises as it composes, or OmegaConf as the values are read."""
    try:
        read_config(composer.own([override]))
    except (HydraException, OmegaConfBaseException, ConfigFault) as error:
        return error
    raise AssertionError(f"{override} is accepted")


def texts(library: str, error: BaseException | None) -> list[str]:
    """What the library said, along the chain of causes."""
    kind = {HYDRA: HydraException, OMEGACONF: OmegaConfBaseException}[library]
    chain = []
    while error is not None:
        if isinstance(error, kind):
            chain.append(first_line(error) if library == OMEGACONF else str(error))
        error = error.__cause__ or error.__context__
    return chain


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.example)
def test_library_still_says_what_the_row_reads(row, composer, monkeypatch):
    monkeypatch.delenv("NO_SUCH_VARIABLE", raising=False)
    error = refusal(composer, row.example)
    said = texts(row.library, error)
    assert said, f"{row.library} no longer refuses {row.example}"
    assert matching_row(row.library, said[0])[0] is row, said[0]
    message = hydra_message(error) if isinstance(error, HydraException) else str(error)
    assert message.startswith(MESSAGES[row.example])
    assert "Error merging" not in message
    assert "OmegaConf" not in message


def test_every_row_has_an_example_and_a_message_of_its_own():
    examples = [row.example for row in ROWS]
    assert len(set(examples)) == len(examples)
    assert set(examples) == set(MESSAGES)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("peft=loar", "peft=loar does not exist; did you mean peft=lora? options: adalora,"),
        ("lora.r=[1", "lora.r=[1 cannot be read as key=value; a value with brackets"),
        ("~nothing", "~nothing: there is no setting nothing"),
        ("lora.rank_pattern=[1]", "lora.rank_pattern=[1]: lora.rank_pattern is a group of settings; add an entry"),
        ("scoring.metrics={a: 1}", "scoring.metrics={a: 1}: scoring.metrics needs a list"),
        ("model.packages=[1]", "model.packages=[1]: model.packages[0] is a group of settings"),
        ("model.path='${'", "model.path='${': model.path contains a ${...} that cannot be read; write ${key}"),
        ("~peft=lora", "peft has no value; set it on the command line: peft=..."),
    ],
)
def test_refusal_without_a_row_of_its_own_is_one_message_too(override, message, composer):
    error = refusal(composer, override)
    assert (hydra_message(error) if isinstance(error, HydraException) else str(error)).startswith(message)


def test_text_that_no_row_knows_is_shown_with_the_way_to_the_help():
    assert hydra_message(HydraException("Something new")) == f"Something new\n{library_errors.SEE_HELP}"
    error = OmegaConfBaseException("Something new\n    full_key: a")
    assert library_errors.omegaconf_message(error, "a=1") == "a=1: Something new"
