"""Paths of this checkout and of the optional folder of shared data next to it."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
