"""Writes when a training begins, and the end of each optimizer step, whatever library trains: on PYTHONPATH.

Python imports this at its start. Nothing is imported here that the measured command does not import itself: two
modules of torch get their hook when they are loaded. Each line of ``$PEER_BENCH_EVENTS`` is an event:
``forward <time> <cpu> <positions> <tokens>`` for a batch that is trained on, ``step <time> <cpu>`` for the end of an
optimizer step; times are Unix time and the CPU time of the process, in seconds.
"""

import os
import sys
import time

EVENTS = os.environ.get("PEER_BENCH_EVENTS")
PAD_ID = int(os.environ.get("PEER_BENCH_PAD_ID", "-1"))


def write(line):
    with open(EVENTS, "a", encoding="ascii") as file:
        file.write(line + "\n")


def watch_steps(module):
    module.register_optimizer_step_post_hook(lambda *ignored: write(f"step {time.time()} {time.process_time()}"))


def watch_batches(module):
    """An embedding layer sees each batch once, as token ids."""
    import torch

    original = module.Embedding.forward

    def forward(self, input):
        if self.training and torch.is_grad_enabled() and not input.is_floating_point():
            counts = f"{input.numel()} {int((input != PAD_ID).sum())}"
            write(f"forward {time.time()} {time.process_time()} {counts}")
        return original(self, input)

    module.Embedding.forward = forward


WATCHED = {"torch.optim.optimizer": watch_steps, "torch.nn.modules.sparse": watch_batches}


class Finder:
    """Lets the other finders find a watched module, and adds the hook once it is loaded."""

    def find_spec(self, name, path=None, target=None):
        if name not in WATCHED:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                load = spec.loader.exec_module

                def exec_module(module, load=load, name=name):
                    load(module)
                    WATCHED[name](module)

                spec.loader.exec_module = exec_module
                return spec
        return None


if EVENTS:
    sys.meta_path.insert(0, Finder())
