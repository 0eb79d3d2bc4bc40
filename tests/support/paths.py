"""Where things are: this checkout, and the folder of shared data beside it, which is not always there."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
