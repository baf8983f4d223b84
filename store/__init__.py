"""Teacher maps on disk: a zarr v3 store that describes itself and that anyone can open.

    from tinyhd_pipe.store import open_store
    store = open_store("maps.zarr")
    store.read(store.videos[0], range(16, 32))

Names are imported when they are first asked for, so that the command line's `--help` does not wait for zarr.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinyhd_pipe.store.errors import StoreError as StoreError
    from tinyhd_pipe.store.errors import TinyHDError as TinyHDError
    from tinyhd_pipe.store.plan import ShardPlan as ShardPlan
    from tinyhd_pipe.store.plan import ShardTask as ShardTask
    from tinyhd_pipe.store.plan import Source as Source
    from tinyhd_pipe.store.reader import FrameStatus as FrameStatus
    from tinyhd_pipe.store.reader import Store as Store
    from tinyhd_pipe.store.reader import open_store as open_store
    from tinyhd_pipe.store.schema import Description as Description
    from tinyhd_pipe.store.schema import Level as Level
    from tinyhd_pipe.store.schema import Temporal as Temporal
    from tinyhd_pipe.store.writer import StoreWriter as StoreWriter
    from tinyhd_pipe.store.writer import create_or_open as create_or_open
    from tinyhd_pipe.store.writer import read_description as read_description

_HOMES = {
    "errors": ("StoreError", "TinyHDError"),
    "plan": ("ShardPlan", "ShardTask", "Source"),
    "reader": ("FrameStatus", "Store", "open_store"),
    "schema": ("Description", "Level", "Temporal"),
    "writer": ("StoreWriter", "create_or_open", "read_description"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
