"""``python -m harness.testing my_pkg``: hold the methods and metrics of a package to the contract of ours.

The methods are those that the package offers by entry points, the metrics those of its functions that
``harness.scoring.custom.metric`` declares; further ones can be named: a method, or an import path of a metric.
"""

import argparse
import importlib
import pkgutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from harness.errors import ConfigFault, HarnessError, first_line, raise_together
from harness.extensions import imports
from harness.runtime.notices import quiet_libraries


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks; 0 if all hold, 1 if one is broken, 2 on wrong input."""
    parser = argparse.ArgumentParser(prog="python -m harness.testing", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="+", help="a package, a method, or an import path of a metric")
    imports.begin(Path.cwd())
    quiet_libraries()
    try:
        methods, metrics = _subjects(parser.parse_args(arguments).names)
    except HarnessError as fault:
        sys.stderr.write(f"error: {fault}\n")
        return 2
    broken = [not held for held in (*_check_methods(methods), *_check_metrics(metrics))]
    sys.stdout.write(f"{len(broken) - sum(broken)} of {len(broken)} checks hold\n")
    return 1 if any(broken) else 0


def _subjects(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Methods and metrics to check.

    Raises:
        ConfigFault: a name is nothing that can be checked.
    """
    from harness.methods.registry import METHODS, OFFER_FAULTS, OFFERED

    raise_together(OFFER_FAULTS)
    methods: list[str] = []
    metrics: list[str] = []
    for name in names:
        if imports.is_import_path(name):
            metrics.append(name)
        elif name in METHODS:
            methods.append(name)
        else:
            offered = [each for each, found in OFFERED.items() if _belongs(found.path.partition(":")[0], name)]
            declared = list(_declared(name))
            if not offered and not declared:
                raise ConfigFault(
                    f"{name} offers no method (entry points of peft_harness.methods) and declares no metric "
                    "(harness.scoring.custom.metric); name a package that does, a method, or an import path"
                )
            methods += offered
            metrics += declared
    return list(dict.fromkeys(methods)), list(dict.fromkeys(metrics))


def _belongs(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _declared(package: str) -> Iterator[str]:
    """Import paths of the metrics that the modules of a package declare.

    Raises:
        ConfigFault: a module cannot be imported.
    """
    try:
        top = importlib.import_module(package)
        found = pkgutil.walk_packages(getattr(top, "__path__", []), f"{package}.")
        modules = [top, *(importlib.import_module(each.name) for each in found if not each.name.endswith("__main__"))]
    except Exception as error:  # whatever a module of others raises
        raise ConfigFault(f"{package} cannot be imported ({first_line(error)}); fix it, or correct the name") from error
    for module in modules:
        for name, value in vars(module).items():
            if hasattr(value, "harness_metric") and getattr(value, "__module__", "") == module.__name__:
                yield f"{module.__name__}:{name}"


def _check_methods(methods: Sequence[str]) -> Iterator[bool]:
    if not methods:
        return
    from harness.testing.methods import CHECKS, subject_of

    base = None
    for method in methods:
        try:
            subject = subject_of(method, base)
        except HarnessError as fault:
            yield _say(method, "plan", partial(_raise, fault))
            continue
        base = subject.base
        for name, check in CHECKS.items():
            yield _say(method, name, partial(check, subject))
        subject.folder.cleanup()


def _check_metrics(metrics: Sequence[str]) -> Iterator[bool]:
    from harness.scoring import custom
    from harness.testing.metrics import CHECKS

    for path in metrics:
        faults = list(custom.metric_faults([path], []))
        if faults:
            yield _say(path, "definition", partial(_raise, ConfigFault("; ".join(faults))))
            continue
        for name, check in CHECKS.items():
            yield _say(path, name, partial(check, path))


def _raise(error: Exception) -> str:
    raise error


def _say(subject: str, name: str, check: Callable[[], Any]) -> bool:
    """Run one check and print its line; whether it holds."""
    from harness.testing.methods import Broken, NotClaimed

    state, remark = "ok", ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            remark = check()
    except NotClaimed:
        state, remark = "-", "not claimed"
    except (Broken, HarnessError) as error:
        state, remark = "BROKEN", str(error)
    except Exception as error:  # whatever code of others raises
        state, remark = "BROKEN", first_line(error)
    sys.stdout.write(f"{state:<6} {subject}  {name}{f': {remark}' if remark else ''}\n")
    sys.stdout.flush()
    return state != "BROKEN"


if __name__ == "__main__":
    sys.exit(main())
