"""The one face of both networks: uint8 frames in, a dict of named maps out.

Teacher and student differ in their layers, in how pixels are scaled and in how many maps they give; here they answer
alike, so every verb works with either. The decision that is not obvious: a network answers in *logits* on the
smallest grid on which it makes them (`frame_logits`), because that is what the store keeps; maps in [0, 1] at the
network's size (`__call__`) are for people.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tinyhd_pipe.stages.networks.hd2s import HD2S, round_weights
from tinyhd_pipe.stages.networks.layers.kernels import kernels
from tinyhd_pipe.stages.networks.layers.layout import channels_last, contiguous
from tinyhd_pipe.stages.networks.layers.scale import scale_into
from tinyhd_pipe.stages.networks.licence import licence_of
from tinyhd_pipe.stages.networks.precision import Choice, by_rule, keep_float32, units_of
from tinyhd_pipe.stages.networks.precision import Precision as Precision
from tinyhd_pipe.stages.networks.tinyhd import TinyHD
from tinyhd_pipe.stages.networks.weights import Weights, read_weights
from tinyhd_pipe.stages.video.clips import WINDOW
from tinyhd_pipe.stages.video.sources import find_videos
from tinyhd_pipe.store.errors import SettingError, WeightsError

Kind = Literal["hd2s", "tinyhd"]
KINDS = get_args(Kind)
Size = tuple[int, int]

PROVENANCE = ("precision_chosen", "batch", "torch", "licence")
"""Facts that are worth keeping, and that two dumps into one store may differ in."""


@dataclass(frozen=True)
class Scaling:
    """How pixels become a network's input: bilinear resize, and (x - mean) / std for each channel of x in 0..255.

    Published code scales first. Both steps are linear, so the order shows in the last bit only (5e-7), and on large
    frames resizing first is four times as fast.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size: Size
    """(y, x) of the network's input and of its maps."""
    fast: bool = False
    """Frame by frame in one pass, by our kernel (layers/scale.py); the last bits are others."""

    def prepare(self, frames: NDArray[np.uint8]) -> Tensor:
        """RGB frames, uint8 (frame, y, x, 3) of any size, to the network's input, float32 (3, frame, y, x)."""
        if self.fast:
            places = torch.empty(len(frames), *self.size, 3)
            for place, frame in zip(places, frames, strict=True):
                self.prepare_into(place, frame)
            return places.permute(3, 0, 1, 2)
        pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()  # (T, 3, H, W)
        if pixels.shape[-2:] != self.size:
            pixels = F.interpolate(pixels, size=self.size, mode="bilinear", align_corners=False)
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return ((pixels - mean) / std).transpose(0, 1)

    def prepare_into(self, place: Tensor, frame: NDArray[np.uint8]) -> None:
        """Write one RGB frame, uint8 (Y, X, 3), to `place`, contiguous float32 (y, x, 3)."""
        if self.fast:
            scale_into(place, frame, self.mean, self.std)
        else:
            place.copy_(self.prepare(frame[None])[:, 0].permute(1, 2, 0))

    def picture(self, prepared: Tensor) -> NDArray[np.uint8]:
        """One prepared frame (3, y, x) as people see it, uint8 (y, x, 3)."""
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        pixels = (prepared.cpu() * std + mean).round().clamp(0, 255).byte()
        return pixels.permute(1, 2, 0).numpy()

    def facts(self) -> dict[str, Any]:
        return {"mean": list(self.mean), "std": list(self.std), "size": list(self.size), "resize": "bilinear"}


def scaling_for(kind: Kind, size: Size, device: str | torch.device = "cpu") -> Scaling:
    """The published input of each network: HD2S (2x - 255) / 255, TinyHD ImageNet's mean and deviation.

    For a GPU, which waits for frames rather than for anything else, by our kernel where there is a compiler.
    """
    fast = torch.device(device).type == "cuda" and kernels().library is not None
    if kind == "hd2s":
        return Scaling(mean=(127.5,) * 3, std=(127.5,) * 3, size=size, fast=fast)
    return Scaling(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), size=size, fast=fast)


@dataclass(frozen=True)
class Unshown:
    """What the keys and shapes of a published TinyHD file do not show. Our own files carry both as facts."""

    d1_outputs: int | None = None
    """Maps that D1 gives of an M network: 1 (published by default) or 16."""
    fusion_order: tuple[str, ...] | None = None
    """The order in which the decoders' maps enter the fusion; that of the file by default."""


@dataclass(frozen=True)
class Network:
    """A saliency network that is ready to answer.

    Calls take a clip, float32 (batch, 3, 16, y, x) as `preprocess` gives it, and need no gradient.
    """

    kind: Kind
    module: HD2S | TinyHD
    scaling: Scaling
    precision: Precision
    device: torch.device
    batch: int = 1
    """Windows in one forward pass of a dump. Maps of another batch may differ in their last bits."""
    fast_layout: bool = True
    """Channels last in memory: several times faster for depthwise layers."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Identity: kind, weights digest, preprocessing, precision, library versions, licence."""

    @property
    def outputs(self) -> int:
        """Frames of a clip that get a final map: 1 (the last one) or 16."""
        return 1 if isinstance(self.module, HD2S) else self.module.outputs

    @property
    def takes_runs(self) -> bool:
        """Whether windows one frame apart are given as one run of frames: HD2S shares work between them on a CPU; a GPU
        gets each frame once instead of 16 times, and cuts the windows itself, since sharing takes many small steps."""
        return self.outputs == 1 and (self.kind == "hd2s" or self.device.type != "cpu")

    @property
    def identity(self) -> dict[str, Any]:
        """The facts that must be equal for two maps to be of one teacher."""
        return {name: fact for name, fact in self.facts.items() if name not in PROVENANCE}

    def preprocess(self, frames: NDArray[np.uint8]) -> Tensor:
        """RGB frames, uint8 (frame, y, x, 3) of any size, to a clip, float32 (1, 3, frame, y, x)."""
        return self.scaling.prepare(frames)[None]

    def __call__(self, clip: Tensor) -> dict[str, Tensor]:
        """Maps in [0, 1] at the network's size.

        Returns level -> float32 (batch, y, x), or (batch, frame, y, x) where the network has many outputs.

        Raises SettingError for a clip that is not (batch, 3, 16, y, x).
        """
        return {level: logits.sigmoid() for level, logits in self._run(clip, self.module.__call__).items()}

    def predict(self, video: str | Path) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """(absolute frame counted from 0, final map (y, x) in [0, 1]) of every frame of a video, one after another.

        `video` is a file or a folder of pictures. No more than a fixed number of frames is held, however long it is.
        Raises VideoError where nothing of it decodes, SettingError for a folder of several videos.
        """
        sources = find_videos([video])
        if len(sources) > 1:
            raise SettingError(f"{video}: holds {len(sources)} videos; give one of them, such as {sources[0].path}")
        # By name: what runs networks lies above them, and a dump does not depend on it.
        prediction = import_module("tinyhd_pipe.stages.networks.prediction")
        coming: Iterator[tuple[int, NDArray[np.float32]]] = prediction.predict(prediction.fastest(self), sources[0])
        return coming

    def frame_logits(
        self, clip: Tensor, answered: Sequence[int], levels: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Logits of the last frames of each window, each level on the smallest grid that holds it.

        Arguments:
            clip: (batch, 3, 16, y, x); where the network `takes_runs` also (1, 3, 15 + batch, y, x), a run of windows
                one frame apart.
            answered: for each window of the batch, how many of its last frames are wanted (1 for one output).
            levels: those that are wanted; all by default.

        Returns level -> float32 (frame, y, x), windows one after another. Where a network gives one map for a whole
        window of many frames (M with single D1), every frame of the window gets it.
        """
        logits = self._run(clip, self.module.native_logits)
        return {
            level: torch.cat(
                [
                    one.expand(count, -1, -1) if one.ndim == 2 else one[-count:]
                    for one, count in zip(maps, answered, strict=True)
                ]
            )
            for level, maps in logits.items()
            if levels is None or level in levels
        }

    def _run(self, clip: Tensor, answer: Any) -> dict[str, Tensor]:
        if clip.ndim != 5:
            raise SettingError(f"a clip of shape {tuple(clip.shape)}: expected (batch, 3, {WINDOW}, y, x)")
        layout = torch.channels_last_3d if self.fast_layout else torch.contiguous_format
        if clip.shape[2] > WINDOW and self.device.type != "cpu":
            clip = windows_of_run(clip.to(self.device)).contiguous(memory_format=layout)
        else:
            clip = clip.to(self.device, memory_format=layout)
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"),
        ):
            return {level: logits.float() for level, logits in answer(clip).items()}


def windows_of_run(run: Tensor) -> Tensor:
    """Every 16 consecutive frames of (1, 3, 15 + B, y, x), in their order: a view (B, 3, 16, y, x)."""
    return run.unfold(2, WINDOW, 1)[0].permute(1, 0, 4, 2, 3)  # from (3, B, y, x, 16)


def load_teacher(
    kind: str,
    *,
    weights: str | Path,
    size: Size | None = None,
    precision: Precision = "float32",
    device: str | torch.device = "cpu",
    batch: int | None = None,
    unshown: Unshown | None = None,
) -> Network:
    """Load a network whose maps are to be learned from: kind `hd2s` or `tinyhd`, published checkpoints and our own.

    Arguments:
        weights: `.pth` (read without running code) or `.safetensors`.
        size: (y, x) of the input; by default what the file says, else 192x256, at which HD2S teaches TinyHD.
        precision: `bfloat16` keeps trained networks (KL about 1e-4) and is several times faster on processors with
            matrix units for it; `auto` goes by the rule of precision.py, the same every time.
        batch: windows in one forward pass of a dump; by default what is fastest.
        unshown: what a published TinyHD file does not show, where it is not as published by default.

    Raises WeightsError for a file that is missing, unsafe or of another network.
    """
    if kind not in KINDS:
        raise SettingError(
            f"teacher {kind!r} is not known here: use hd2s or tinyhd; teacher-dump alone takes onnx and torch, too"
        )
    kind = cast(Kind, kind)
    read = read_weights(weights)
    stored_kind = read.facts.get("kind", kind)
    if stored_kind != kind:
        raise WeightsError(f"{weights}: holds a {stored_kind} network, not {kind}: use --teacher {stored_kind}")
    module: HD2S | TinyHD
    if kind == "hd2s":
        module = HD2S.from_state_dict(read.state)
    else:
        unshown = unshown or Unshown()
        module = TinyHD.from_state_dict(
            read.state,
            d1_outputs=unshown.d1_outputs or read.facts.get("d1_outputs", 1),
            fusion_order=unshown.fusion_order or read.facts.get("fusion_order"),
        )
    stored_size = read.facts.get("size")
    size = size or (tuple(stored_size) if stored_size else (192, 256))
    return ready(kind, module, size=size, precision=precision, device=device, batch=batch, weights=read)


def load_student(
    weights: str | Path,
    *,
    size: Size | None = None,
    precision: Precision = "float32",
    device: str | torch.device = "cpu",
    unshown: Unshown | None = None,
) -> Network:
    """Load a TinyHD student; its decoders, channel reduction and outputs are read from the file's keys and shapes.

    Arguments and errors as in `load_teacher`.
    """
    return load_teacher("tinyhd", weights=weights, size=size, precision=precision, device=device, unshown=unshown)


def ready(
    kind: Kind,
    module: HD2S | TinyHD,
    *,
    size: Size,
    precision: Precision = "float32",
    device: str | torch.device = "cpu",
    batch: int | None = None,
    weights: Weights | None = None,
) -> Network:
    """Put a network into evaluation mode and its memory layout, and write down its identity."""
    keep_float32(device)
    module = channels_last(module.eval().requires_grad_(False).to(device))
    scaling = scaling_for(kind, size, device)
    batch = batch or _fastest_batch(module, size, torch.device(device))
    choice = precision_by_rule(module, device) if precision == "auto" else Choice(precision, "as asked for")
    if choice.precision == "bfloat16" and isinstance(module, HD2S):
        round_weights(module)
    return Network(
        kind=kind,
        module=module,
        scaling=scaling,
        precision=choice.precision,
        device=torch.device(device),
        batch=batch,
        facts={
            "kind": kind,
            "weights_sha256": weights.sha256 if weights else None,
            "preprocessing": scaling.facts(),
            "precision": choice.precision,
            "precision_chosen": choice.reason,
            "batch": batch,
            "torch": torch.__version__,
            "licence": licence_of(kind, weights, width=module.width if isinstance(module, HD2S) else 1.0),
        },
    )


def _fastest_batch(module: HD2S | TinyHD, size: Size, device: torch.device) -> int:
    """Windows in one forward pass of a dump: 8 of HD2S share work on a CPU, where TinyHD is fastest one by one; a GPU
    is filled by some 32 maps of 192x256."""
    if device.type == "cpu":
        return 8 if isinstance(module, HD2S) else 1
    outputs = 1 if isinstance(module, HD2S) else module.outputs
    return max(1, round(32 * 192 * 256 / (size[0] * size[1] * outputs)))


def as_published(network: Network) -> Network:
    """The same network with everything contiguous in memory and scaled by torch, as in the published code; for
    comparisons."""
    scaling = replace(network.scaling, fast=False)
    return replace(network, module=contiguous(copy.deepcopy(network.module)), scaling=scaling, fast_layout=False)


def precision_by_rule(module: HD2S | TinyHD, device: str | torch.device) -> Choice:
    """What `auto` means for this network on this device."""
    return by_rule(module.width if isinstance(module, HD2S) else None, units_of(torch.device(device)))
