"""What the pipeline can do, as plain functions: no command line, no terminal, no settings file.

from tinyhd_pipe.stages import ClipMaps, load_teacher, load_student

Names are imported when they are first asked for, so that nothing waits for torch before it is needed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinyhd_pipe.stages.networks.network import Network as Network
    from tinyhd_pipe.stages.networks.network import load_student as load_student
    from tinyhd_pipe.stages.networks.network import load_teacher as load_teacher
    from tinyhd_pipe.stages.training.clip_maps import ClipMaps as ClipMaps

_HOME_OF = {
    "ClipMaps": "training.clip_maps",
    "Network": "networks.network",
    "load_student": "networks.network",
    "load_teacher": "networks.network",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
