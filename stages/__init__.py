"""What the pipeline can do, as plain functions: no command line, no terminal, no settings file.

from tinyhd_pipe.stages import load_teacher, load_student

Names are imported when they are first asked for, so that nothing waits for torch before it is needed.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinyhd_pipe.stages.networks.network import Network as Network
    from tinyhd_pipe.stages.networks.network import load_student as load_student
    from tinyhd_pipe.stages.networks.network import load_teacher as load_teacher


def __getattr__(name: str) -> Any:
    if name not in ("Network", "load_student", "load_teacher"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tinyhd_pipe.stages.networks import network

    return getattr(network, name)
