"""What the project ships besides code: its version, and the folders `conf` and `data`."""

from pathlib import Path

VERSION = "0.1.0"


def shipped_folder(name: str) -> Path:
    """Folder that the project ships (``conf`` or ``data``), in a checkout or inside an installed wheel."""
    package = Path(__file__).resolve().parent
    inside = package / "_shipped" / name
    return inside if inside.exists() else package.parent / name
