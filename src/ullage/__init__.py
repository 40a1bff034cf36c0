"""Ullage: verify that an AI server does only the inference it declares."""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """`ullage.audit` and `ullage.bound`, imported when they are asked for."""
    import importlib

    if name == "audit":
        return importlib.import_module("ullage.audit")
    if name == "bound":
        return importlib.import_module("ullage.api").bound
    raise AttributeError(f"module 'ullage' has no attribute {name!r}")
