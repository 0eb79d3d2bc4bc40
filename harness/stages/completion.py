"""``peft-harness completion bash``: what the shell evaluates to complete groups, options and settings, by Hydra."""

from collections.abc import Sequence

from harness.errors import ConfigFault

USAGE = (
    'usage: eval "$(peft-harness completion bash)", the same with zsh, or: peft-harness completion fish | source; put '
    "the line into the start-up file of your shell"
)

# What comes before Hydra's own lines, and the shell for which it makes them. zsh takes those of bash.
SHELLS = {
    "bash": ("", "bash"),
    "zsh": ("autoload -Uz compinit bashcompinit\ncompinit\nbashcompinit\n", "bash"),
    "fish": ("", "fish"),
}


def read_shell(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """What to print first, and the command line that makes Hydra print the rest.

    Raises:
        ConfigFault: it is not one of the shells.
    """
    if len(arguments) != 1 or arguments[0] not in SHELLS:
        given = " ".join(arguments) or "nothing"
        raise ConfigFault(f"completion: {given} is not one of {', '.join(SHELLS)}; {USAGE}")
    first, shell = SHELLS[arguments[0]]
    return first, ["peft-harness", "-sc", f"install={shell}"]
