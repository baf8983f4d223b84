"""Settings of training: what teacher and student share, and what each has of its own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen

from tinyhd_pipe.stages.settings.ranges import Count, Positive, Seed, Share, Size

Optimiser = Literal["sgd", "adam", "adamw"]
Schedule = Literal["steps", "cosine"]
Decoder = Literal["d1", "d2", "d3"]
MemoryFormat = Literal["channels_last", "contiguous"]


@dataclass(frozen=True)
class Recipe:
    """How a network is fitted; the defaults are TinyHD's published recipe (Hu et al., WACV 2023)."""

    size: Size = (192, 256)
    """height and width of the network's input and maps, pixels"""
    epochs: Count = 200
    """passes over the videos"""
    batch: Count = 2
    """samples in one forward pass"""
    accumulate: Count = 1
    """forward passes before the optimiser steps"""
    clips_per_video: Count = 1
    """random clips of every labelled video in an epoch"""
    optimiser: Optimiser = "sgd"
    """sgd, adam or adamw"""
    learning_rate: Positive = 0.01
    """at the start"""
    weight_decay: Annotated[float, Ge(0)] = 5e-4
    """of all weights but biases"""
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.9
    """of sgd; the others keep their own defaults"""
    schedule: Schedule = "steps"
    """steps: multiplied by decay at each milestone; cosine: falling to 0 over all steps"""
    milestones: tuple[int, ...] = (100, 150, 180)
    """epochs at whose beginning the rate falls and the best weights so far are taken up again"""
    decay: Annotated[float, Gt(0), Lt(1)] = 0.1
    """factor at a milestone"""
    warm_up: Annotated[float, Ge(0)] = 0.0
    """epochs over which the rate rises from 0 to what the schedule says"""
    clip_norm: Positive | None = None
    """largest norm of the gradient of a step; longer ones are scaled down"""
    average: Annotated[float, Ge(0), Lt(1)] = 0.0
    """share of the old in a moving average of the weights, which is what is scored and kept; 0 keeps the weights"""
    patience: Count | None = None
    """validations without a better one after which training ends"""
    validate_every: Count = 1
    """epochs between validations; the last epoch is always validated"""
    validation_share: Share = 0.1
    """share of the labelled videos left out of training: every k-th of them"""
    validation_clips: Count = 5
    """clips of each left-out video that are scored"""
    picture_every: Count | None = 10
    """epochs between pictures of left-out clips, validation.png; the last epoch is always drawn; null: none"""
    mixed_precision: bool = False
    """bfloat16 training; a GPU only"""
    memory_format: MemoryFormat = "channels_last"
    """how clips and weights lie in memory: channels_last, or contiguous as published; our CPU kernels want the first"""
    fused: bool = True
    """one kernel for the optimiser's arithmetic; false: torch's loop over the weights"""
    compile: bool = False
    """torch.compile the network, which takes minutes on a CPU"""
    seed: Seed = 0
    """of first weights, clips and flips"""


@dataclass(frozen=True)
class TeacherRecipe(Recipe):
    """Fit HD2S where no published weights are at hand."""

    width: Annotated[float, Gt(0), Le(1)] = 1.0
    """share of the published channels"""
    batch: Count = 4
    accumulate: Count = 4
    optimiser: Optimiser = "adam"
    learning_rate: Positive = 1e-3
    weight_decay: Annotated[float, Ge(0)] = 2e-7
    encoder_weights: Path | None = None
    """S3D's Kinetics-400 weights in the public format, from which the encoder starts at width 1; or use --kinetics"""
    licence: Annotated[str, MinLen(1)] | None = None
    """terms under which the fitted weights may be handed on, which store and students inherit; or use --licence"""

    def __post_init__(self) -> None:
        if self.licence is not None and not (self.licence.strip() and self.licence.isprintable()):
            raise ValueError(f"licence {self.licence!r}: expected one line of text")


@dataclass(frozen=True)
class StudentRecipe(Recipe):
    """Train a TinyHD student from the store."""

    decoders: Annotated[tuple[Decoder, ...], MinLen(1)] = ("d1", "d2", "d3")
    """of d1, d2, d3, each as often as wanted; only d1 answers to the conspicuity maps"""
    reduction: Literal[1, 2, 4] = 1
    """channel reduction: 1, 2 or 4"""
    outputs: Literal[1, 16] = 1
    """maps for a clip: 1 (S, of its last frame) or 16 (M, of all)"""
    d1_outputs: Literal[1, 16] = 1
    """maps of decoder d1 in an M network: 1 (its target is the mean of 16) or 16"""
    learn_from: Literal["both", "maps", "labels"] = "both"
    """both: teacher's maps, and density maps where there are any; maps: no label is used; labels: no teacher's map"""
    unlabelled_per_labelled: Annotated[float, Ge(0)] = 1.0
    """clips without labels for each one with labels"""
    encoder_weights: Path | None = None
    """MobileNetV2's ImageNet weights in torchvision's format, from which the encoder starts; or use --download"""
    encoder_rate: Positive = 0.5
    """the encoder's share of the learning rate"""
    conspicuity_weight: Annotated[float, Ge(0)] = 1.0
    """of the terms that compare D1's maps with the teacher's conspicuity maps; 0: those teach nothing"""
    store_weights: tuple[Positive, ...] | None = None
    """of the stores whose maps are fused, in their order; equal by default"""
    confidence: Positive | None = None
    """nats; on labelled samples a store's weight is multiplied by exp(-KL(density || its final map) / confidence)"""
    missing_conspicuity: Literal["none", "final"] = "none"
    """of teachers with one map; none: D1's maps have no target, final: the final map stands in"""
    missing_decoders: Literal["none", "final"] = "none"
    """of teachers without maps of D2 and D3, as HD2S; none: those have no target, final: the final map stands in"""
    target_lag: Annotated[int, Ge(0)] = 0
    """frames by which targets lag behind the clip; 1 as in the published M training"""

    def __post_init__(self) -> None:
        if self.d1_outputs > self.outputs:
            raise ValueError(f"d1_outputs {self.d1_outputs} needs outputs 16")
