"""The grid that an experiment file brings along: its sweeper's parameters, the level of its scale, its arms."""

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from harness.config.schema import Paper
from harness.errors import ConfigFault, raise_together
from harness.report.shape.arms import overrides_of, paper_faults, settings_of

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override

NAMED = 3  # of swept experiments with grids, in the message that refuses them


def arm_overrides(config: DictConfig) -> list[list[str]]:
    """The overrides of each arm of the command's experiment; one empty list if it has no arms."""
    arms = OmegaConf.to_container(config.paper.arms, resolve=True)
    assert isinstance(arms, dict)
    return [overrides_of(str(text)) for text in arms.values()] or [[]]


def level_overrides(config: DictConfig) -> list[str]:
    """What the scale of this command adds to the grid; nothing without a scale."""
    if config.scale is None:
        return []
    level = OmegaConf.to_container(config.levels[_name(config.scale)], resolve=True)
    assert isinstance(level, dict)
    return [f"{key!s}={_text(value)}" for key, value in level.items()]


def check_presets(loader: "ConfigLoader", config: DictConfig, typed: "Sequence[Override]") -> None:
    """Refuse what would run something else than the grid that the experiment describes.

    Args:
        config: of the command, without the values of its sweeps.
        typed: the overrides of the command line.

    Raises:
        ConfigFault: several experiments with grids of their own or several scales are swept, an experiment of a paper
            has no scale, a scale has no level, arms or rules are wrong, or an override would make arms alike.
    """
    swept = {str(each.key_or_group): each for each in typed if each.is_sweep_override()}
    faults = []
    if "experiment" in swept:
        faults += _swept_experiments(loader, config, swept["experiment"])
    if "scale" in swept:
        faults.append(
            f"{swept['scale'].input_line} sweeps the scale, which decides the grid itself; give one at a time"
        )
    faults += _level_faults(config, "scale" in swept)
    paper = OmegaConf.to_object(config.paper)
    assert isinstance(paper, Paper)
    arm_faults = paper_faults(paper)
    faults += arm_faults or _alike(paper.arms, typed)
    raise_together(faults)


def refuse_without_multirun(scale: Any, params: Mapping[str, Any] | None, paper: Paper) -> None:
    """Refuse a single run of what is a grid.

    Raises:
        ConfigFault: a scale or an experiment file asks for a grid, and the command has no ``-m``.
    """
    if scale is not None:
        raise ConfigFault(f"scale={_name(scale)} sets the grid of a sweep; add -m")
    if params or paper.arms:
        raise ConfigFault("experiment= names a file with a grid, of which this command would run one cell; add -m")


def _swept_experiments(loader: "ConfigLoader", config: DictConfig, override: "Override") -> list[str]:
    names = [text.strip("'\"") for text in map(str, override.sweep_string_iterator())]
    with_grid = (name for name in names if has_grid(loader.load_sweep_config(config, [f"experiment={name}"])))
    grids = list(itertools.islice(with_grid, NAMED))  # to compose one takes 0.3 s
    if not grids:
        return []
    commands = "; ".join(f"-m experiment={name}" for name in grids)
    return [
        f"{override.input_line} would run none of the grids in {', '.join(grids)}: a file's own grid is read once, "
        f"when the command starts; run each with a command of its own: {commands}"
    ]


def has_grid(config: DictConfig) -> bool:
    """Whether a composed experiment brings a grid or arms."""
    return bool(config.hydra.sweeper.params) or bool(config.paper.arms)


def _level_faults(config: DictConfig, scale_is_swept: bool) -> list[str]:
    if config.scale is None:
        wanted = bool(config.paper.expect) and not scale_is_swept
        return (
            ["this experiment checks a paper at one of three scales; add scale=smoke, cpu or paper"] if wanted else []
        )
    name = _name(config.scale)
    if not config.levels[name]:
        return [f"scale={name} sets nothing here: no experiment is chosen, or its file has no levels.{name}"]
    return []


def _alike(arms: Mapping[str, str], typed: "Sequence[Override]") -> list[str]:
    own = {key for text in arms.values() for key in settings_of(text)}
    return [
        f"{each.input_line} would replace what tells the arms of this experiment apart ({', '.join(arms)}); "
        "leave it out"
        for each in typed
        if str(each.key_or_group) in own
    ]


def _name(scale: Any) -> str:
    return str(getattr(scale, "value", scale))


def _text(value: Any) -> str:
    """A value as the command line has it."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case list():
            return f"[{','.join(map(_text, value))}]"
        case dict():
            return "{" + ",".join(f"{key}:{_text(item)}" for key, item in value.items()) + "}"
    return str(value)
