"""Write a model of a base's shape with another number of layers and random weights: how cost grows with size.

Called by ``scripts/bench/peers.py``.
"""

import argparse
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("layers", type=int)
    given = parser.parse_args()

    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(given.base)
    config.layer_types = config.layer_types[:1] * given.layers
    config.num_hidden_layers = given.layers
    AutoModelForCausalLM.from_config(config).save_pretrained(given.out)
    AutoTokenizer.from_pretrained(given.base).save_pretrained(given.out)


if __name__ == "__main__":
    main()
