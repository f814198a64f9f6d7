"""Packages that only some tools need."""

import importlib
from types import ModuleType

from runtime.cli import UserError


def require(module: str, requirements: str) -> ModuleType:
    """Import a module; if it is not installed, the `UserError` names the file of requirements."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"{error.name or module} is missing: pip install -r {requirements}") from None
