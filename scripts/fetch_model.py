"""Download base models before they are needed, for example on a login node that has network access.

    python scripts/fetch_model.py smollm2_135m gemma3_270m

Names are the files of conf/model/. Prints the folder of each model and where its weights came from.
"""

import argparse
import logging
import sys

from omegaconf import OmegaConf

from harness.config.schema import Model
from harness.errors import HarnessError
from harness.models import sources as model_sources
from harness.shipped import shipped_folder


def composed(name: str) -> Model:
    """The model settings as Hydra composes them: the values of hub.yaml, then those of the file."""
    own = OmegaConf.load(shipped_folder("conf") / "model" / f"{name}.yaml")
    own.pop("defaults")
    common = OmegaConf.load(shipped_folder("conf") / "model" / "hub.yaml")
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Model), common, own))


def main() -> int:
    """Download each model; returns 2 if one cannot be downloaded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="NAME")
    names = parser.parse_args().names
    known = sorted(file.stem for file in (shipped_folder("conf") / "model").glob("*.yaml") if file.stem != "hub")
    for name in set(names) - set(known):
        parser.error(f"conf/model/{name}.yaml does not exist; known models: {', '.join(known)}")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("harness").setLevel(logging.INFO)
    try:
        for name in names:
            located = model_sources.locate_weights(composed(name))
            print(f"{name}: {located.folder} ({located.origin})")
    except HarnessError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
