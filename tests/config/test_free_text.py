"""What the shell passes arrives as typed, in every setting that takes text; sweeps stay sweeps."""

import shlex
from typing import Any

import pytest
from omegaconf import OmegaConf

from harness.config.free_text import quote_free_text, text_settings
from harness.config.names import known_settings
from harness.frozen import Text
from tests.support.configs import overridden

PATHS = [
    *("数据/中药.json", "~/runs", "/a/café", "/a/run(1)", "/a#b", "it's", "a b", "a=b", 'say "x"', "a,b", "[x]", "{a}"),
    *("39e5", "007", "true", "1_000", "0x1F", "(", ")", "a;b", "a&b", "!x", "*", "a:b", "-x", "a\tb", "C:\\x", "`x`"),
    *("https://name@host/x?a=b&c=d#e", "$HOME", "a|b", "a\\", 'a\\"b', " x ", "choice(1)", "range(3)", "a\nb", "x%20y"),
]


@pytest.mark.parametrize("text", PATHS)
def test_paths_arrive_as_typed(text):
    composed = overridden(*quote_free_text([f"data.path={text}", f"runs_dir={text}"]))
    assert (composed.data.path, composed.runs_dir) == (text, text)


@pytest.mark.parametrize("key", [key for key, (_, holds_list) in text_settings().items() if not holds_list])
def test_every_setting_that_takes_text_takes_this(key):
    text = '~/中药 (1)/it\'s #1="é",39e5'
    assert OmegaConf.select(overridden(*quote_free_text([f"{key}={text}"])), key) == text


@pytest.mark.parametrize("key", [key for key, (_, holds_list) in text_settings().items() if holds_list])
def test_every_list_of_text_takes_names_that_look_like_numbers(key):
    assert list(OmegaConf.select(overridden(*quote_free_text([f"{key}=[39e5,ab,中药]"])), key)) == [
        "39e5",
        "ab",
        "中药",
    ]


def test_no_path_of_the_schema_is_unmarked():
    """A setting named like a path or a name without the mark would be read by Hydra's grammar again."""
    endings = ("path", "dir", "name", "revision", "subset", "project", "teacher", "modules", "modules_to_save", "text")
    kinds: dict[str, Any] = {
        key: kind for key, kind in known_settings().items() if kind in (str, Any) or "str" in str(kind)
    }
    named = {key for key in kinds if key.rpartition(".")[2].endswith(endings)}
    assert named - text_settings().keys() == set()


@pytest.mark.parametrize(
    "text",
    ["腹胀，嗳气。", "a, b", "[1", "{x: 1}", 'say "no"', "it's", "${seed}", "a\\", 'a\\"b', "1e5", "a=b", "  x "],
)
def test_prompts_arrive_as_typed(text):
    assert overridden(*quote_free_text([f"prompt={text}"])).prompt == text


@pytest.mark.parametrize("name", ["q_proj", r"layers\.0\..*", "(a|b)_proj", "[0-9]+", "a: b, c=d", "\\(x\\)"])
@pytest.mark.parametrize("quote", ["'", '"'])
def test_names_in_braces_may_be_in_quotes(name, quote):
    words = quote_free_text([f"+lora.rank_pattern={{{quote}{name}{quote}: 3, v_proj: 4}}"])
    assert dict(overridden(*words).lora.rank_pattern) == {name: 3, "v_proj": 4}


def test_prompts_are_verbatim_and_paths_may_refer_to_other_settings():
    assert [text_settings()[key][0] for key in ("prompt", "input", "run")] == [Text.verbatim] * 3
    assert overridden(*quote_free_text(["data.path=${runs_dir}/中药"])).data.path == "runs/中药"


@pytest.mark.parametrize(
    ("typed", "taken"),
    [
        ("stage=plan -m peft=lora,ia3", "-m stage=plan peft=lora,ia3"),
        ("--multirun peft=lora", "--multirun peft=lora"),
        ("stage=generate run=39e5 prompt=x", """stage=generate 'run="39e5"' 'prompt="x"'"""),
        ("""run=null "prompt='a b'" """, """run=null "prompt='a b'" """),
        ("data.path=null data.subset=NULL", "data.path=null data.subset=NULL"),
        ("lora.r=4 data.path=rows.json", "lora.r=4 data.path=rows.json"),
        ("-m data.path=a.json,b.json", "-m data.path=a.json,b.json"),
        ("-m 'data.path=数.json, b (1).json'", """-m 'data.path="数.json","b (1).json"'"""),
        ("-m 'data.path=a(1,2).json,x'", """-m 'data.path="a(1,2).json",x'"""),
        ("-m 'data.path=a(1.json,x'", """-m 'data.path="a(1.json",x'"""),
        ("""-m 'data.path="a,b",c'""", """-m 'data.path="a,b",c'"""),
        ('-m "data.path=it\'s,b"', """-m 'data.path="it'"'"'s",b'"""),
        ("-m trainer.teacher=39e5,ab", """-m 'trainer.teacher="39e5",ab'"""),
        ("-m 'data.path=glob(*)'", "-m 'data.path=glob(*)'"),
        ("-m 'data.path=choice(a,b)'", "-m 'data.path=choice(a,b)'"),
        ("-m lora.target_modules=[w_proj],[q_proj,0]", """-m 'lora.target_modules=[w_proj],[q_proj,"0"]'"""),
        ("'lora.target_modules=.*(q|v)_proj'", """'lora.target_modules=".*(q|v)_proj"'"""),
        ("+data.subset=1e5", """'+data.subset="1e5"'"""),
        ("~data.path", "~data.path"),
        ("hydra.mode=MULTIRUN data.path=a,b", "hydra.mode=MULTIRUN data.path=a,b"),
    ],
)
def test_only_what_hydra_would_read_otherwise_is_quoted(typed, taken):
    assert quote_free_text(shlex.split(typed)) == shlex.split(taken)
