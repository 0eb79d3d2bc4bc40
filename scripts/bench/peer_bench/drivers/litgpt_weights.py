"""Convert what LitGPT trained back to transformers' names, so that one evaluator reads all: in LitGPT's environment."""

import argparse
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trained", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()

    from litgpt.scripts.convert_lit_checkpoint import convert_lit_checkpoint

    convert_lit_checkpoint(given.trained.resolve(), given.out.resolve())


if __name__ == "__main__":
    main()
