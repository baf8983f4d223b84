"""S3D's Kinetics-400 weights as a start for HD2S's encoder, as published.

The public file numbers the layers of one sequence, poolings included (`base.0 … base.15`, then `fc`, the classifier);
HD2S calls the same layers by its five blocks. The decision that is not obvious: the file is checked as strictly as
HD2S's own, key by key and shape by shape, because a layer that keeps its random weights unnoticed is a slower teacher
and no error. Only the counters of batch norm, which older files lack and nothing reads, may be missing. An encoder of
another width than the published one cannot start from it.

Format: the state dict of github.com/kylemin/S3D (MIT), whose keys and shapes were read and whose code is not used.
Cost: the file is read once, 32 MB.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from tinyhd_pipe.stages.networks.licence import Start, licence_of_start
from tinyhd_pipe.stages.networks.s3d import S3DEncoder
from tinyhd_pipe.stages.networks.weights import read_weights
from tinyhd_pipe.store.errors import WeightsError

LAYERS: Mapping[str, str] = {
    "base.0": "block1.0",
    **{f"base.{2 + place}": f"block2.{place}" for place in range(2)},
    **{f"base.{5 + place}": f"block3.{place}" for place in range(2)},
    **{f"base.{8 + place}": f"block4.{place}" for place in range(5)},
    **{f"base.{14 + place}": f"block5.{place}" for place in range(2)},
}
"""The public name of each layer that has weights, and ours."""
CLASSIFIER = "fc."
COUNTER = ".num_batches_tracked"
TERMS = "MIT (public S3D weights; Kinetics-400 has terms of its own)"


def start_from_kinetics(encoder: S3DEncoder, path: Path | None) -> Start | None:
    """Let an encoder start from a file of S3D's weights, read without running code; None leaves it as it is.

    Arguments:
        path: the public format, with or without DataParallel's `module.` in front; its classifier is not used.

    Returns the SHA-256 of the file and its terms, which belong to the facts of what is fitted from it.

    Raises WeightsError for a file that is missing, unsafe, or of another network; `encoder` is then unchanged.
    """
    if path is None:
        return None
    weights = read_weights(path)
    encoder.load_state_dict(_by_our_names(path, weights.state, encoder.state_dict()))
    return Start(weights.sha256, licence_of_start(weights, otherwise=TERMS))


def _by_our_names(path: Path, state: Mapping[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's whole state dict, made of the public file's. Raises WeightsError where they do not fit."""
    public = {ours: f"{layer}.{ours.removeprefix(f'{block}.')}" for ours, layer, block in map(_layer_of, own)}
    known = set(public.values())
    problems = [f"{name} is missing" for name in public.values() if name not in state and not name.endswith(COUNTER)]
    problems += [
        f"{name} is none of its tensors" for name in state if name not in known and not name.startswith(CLASSIFIER)
    ]
    problems += [
        f"{name} is {tuple(state[name].shape)}, expected {tuple(own[ours].shape)}"
        for ours, name in public.items()
        if name in state and state[name].shape != own[ours].shape
    ]
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise WeightsError(
            f"{path}: does not fit as S3D in the public format ({problems[0]}{more}); give S3D_kinetics400.pt, to a "
            "teacher of width 1"
        )
    return {ours: state[name] if name in state else own[ours] for ours, name in public.items()}


def _layer_of(ours: str) -> tuple[str, str, str]:
    """One of our keys, the public name of its layer, and ours."""
    return next((ours, layer, block) for layer, block in LAYERS.items() if ours.startswith(f"{block}."))
