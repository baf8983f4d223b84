"""Teacher maps on disk: a zarr v3 store that describes itself and that anyone can open.

from tinyhd_pipe.store import open_store
store = open_store("maps.zarr")
store.read(store.videos[0], range(16, 32))
"""

from tinyhd_pipe.store.errors import StoreError
from tinyhd_pipe.store.plan import ShardPlan, ShardTask, Source
from tinyhd_pipe.store.reader import FrameStatus, Store, open_store
from tinyhd_pipe.store.schema import Description, Level, Temporal
from tinyhd_pipe.store.writer import StoreWriter, create_or_open, read_description

__all__ = [
    "Description",
    "FrameStatus",
    "Level",
    "ShardPlan",
    "ShardTask",
    "Source",
    "Store",
    "StoreError",
    "StoreWriter",
    "Temporal",
    "create_or_open",
    "open_store",
    "read_description",
]
