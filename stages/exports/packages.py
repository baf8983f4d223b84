"""Packages that only exports need: imported where they are used; where one is missing, a line says what to do."""

from importlib import import_module
from typing import Any

from tinyhd_pipe.store.errors import SettingError


def needed(package: str, what: str) -> Any:
    """The package, for `what` (an option, as people type it). Raises SettingError where it is not installed."""
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise SettingError(f"{what}: the package {error.name} is missing; pip install 'tinyhd-pipe[export]'") from error
