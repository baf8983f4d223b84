"""The one family of errors that a user can cause: the command line makes each of them one line."""


class TinyHDError(Exception):
    """Something the user can mend. The message is one line: the value, what was expected, what to do next."""


class StoreError(TinyHDError):
    """A store that is missing, foreign, damaged, locked, or that belongs to another teacher."""


class VideoError(TinyHDError):
    """A path without video, or a video that cannot be decoded."""


class FetchError(VideoError):
    """A video elsewhere that cannot be fetched now, which says nothing of the video: a rerun may have it."""


class WeightsError(TinyHDError):
    """A weights file that is missing, truncated, unsafe to read, or of another network."""


class DataError(TinyHDError):
    """A data set folder whose layout or annotation is not what its name promises."""


class SettingError(TinyHDError):
    """A setting that is out of range, misspelt, or that contradicts another one."""


class TrainingError(TinyHDError):
    """A training run that went astray: a loss or a gradient that is not finite."""


class ClusterError(TinyHDError):
    """A Dask scheduler that cannot be reached, or workers that are missing, died, or see other files than we do."""
