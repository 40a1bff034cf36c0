"""Where the small model that comes with Ullage lies, and what a model is called."""

from __future__ import annotations

from pathlib import Path

from ullage.errors import UsageError

BUILTIN_NAME = "ullage-builtin"
_FOLDER = Path(__file__).parent / "weights"


def builtin_path() -> Path:
    """Folder of the built-in weights. Raises UsageError when they were not installed."""
    if not (_FOLDER / "config.json").is_file():
        raise UsageError("The built-in model is not installed; give a model's folder with --model PATH.")
    return _FOLDER


def model_name(folder: Path) -> str:
    """The name under which servers and taps offer a model: its folder's, or the built-in one's."""
    folder = folder.resolve()
    return BUILTIN_NAME if folder == _FOLDER.resolve() else folder.name
