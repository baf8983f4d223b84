"""Packages that only exports need: imported where they are used; where one is missing, a line says what to do."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Literal

from tinyhd_pipe.store.errors import SettingError

Format = Literal["onnx", "openvino", "torch"]
"""Of a file, and the runtime that takes it."""
NEEDED: Mapping[Format, tuple[str, ...]] = {
    "torch": (),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
}
"""Packages to make and run each, beside torch."""


def needed(package: str, what: str) -> Any:
    """The package, for `what` (an option, as people type it). Raises SettingError where it is not installed."""
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise SettingError(f"{what}: the package {error.name} is missing; pip install 'tinyhd-pipe[export]'") from error
