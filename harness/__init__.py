"""A research harness that compares parameter-efficient fine-tuning methods.

Run it as ``python -m harness``; ``python -m harness --help`` lists the configuration groups.
"""

from pathlib import Path

__version__ = "0.1.0"


def shipped(name: str) -> Path:
    """Folder that the project ships (``conf`` or ``data``), in a checkout or inside an installed wheel."""
    package = Path(__file__).resolve().parent
    inside = package / "_shipped" / name
    return inside if inside.exists() else package.parent / name
