"""Exported networks, ours or others', as what a dump takes its maps from.

A network that carries a state has inputs `state_…` and for each an output `next_state_…`; they are 0 at the start of
every video, whose windows are then run one after another. The decision that is not obvious: maps of all values become
logits, and log-probabilities and shares, which sum to 1 over a map, are scaled so that its maximum is .5, as imported
maps are (map_files.py), since a student learns shapes alone. Cost: one window for each map, or for each `answers` of
them.
"""

from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from threading import Condition
from typing import Any, Literal

import torch
from torch import Tensor

from tinyhd_pipe.stages.dump.map_files import BRIGHTEST, NOTHING
from tinyhd_pipe.stages.dump.map_source import Maps, Work
from tinyhd_pipe.stages.exports.graph_files import GraphFile, Port
from tinyhd_pipe.stages.networks.inference import ScaledFrame, scaled_frames
from tinyhd_pipe.stages.networks.levels import MIRRORED, STORED
from tinyhd_pipe.stages.networks.licence import NONE_STATED
from tinyhd_pipe.stages.networks.network import Scaling, Size
from tinyhd_pipe.stages.networks.overlap import cores
from tinyhd_pipe.stages.settings.exported_teacher import ExportedTeacher
from tinyhd_pipe.stages.video.decoding import Picture, decode
from tinyhd_pipe.stages.video.index import read_frames
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.stages.video.window_rules import WindowRule, blocks
from tinyhd_pipe.store.errors import WeightsError
from tinyhd_pipe.store.manifest import VideoRow
from tinyhd_pipe.store.schema import Temporal

Kind = Literal["onnx", "torch"]
STATE, NEXT = "state_", "next_state_"
SMALLEST = 1e-12
"""Probabilities are taken for logits from here on."""
AXES = {"B C T Y X": (0, 2, 1, 3, 4), "B T C Y X": (0, 1, 2, 3, 4), "B C Y X": (0, 1, 2, 3, 4)}
"""How (B, T, 3, y, x) is laid out."""

Seen = tuple[list[ScaledFrame], dict[int, int]]


@dataclass
class Carried:
    """What goes from window to window of a video, in their order, whichever threads they run in."""

    states: dict[bool, dict[str, Tensor]] = field(default_factory=dict)
    """Whether the clip is mirrored -> state by name of its input."""
    turn: int = 0
    changed: Condition = field(default_factory=Condition)

    @contextmanager
    def in_turn(self, number: int) -> Iterator[None]:
        """Wait for those before. They were begun before, so that none waits for one that waits for a thread."""
        with self.changed:
            self.changed.wait_for(lambda: self.turn >= number)
        try:
            yield
        finally:
            with self.changed:
                self.turn = number + 1
                self.changed.notify_all()


@dataclass(frozen=True, eq=False)
class ExportedMaps:
    """An exported graph as a source of maps."""

    kind: Kind
    graph: GraphFile
    told: ExportedTeacher
    """With nothing left to be found out."""
    scaling: Scaling
    outputs: Sequence[str]
    """Names of the outputs that are maps, in their order; `told.levels` says what they are."""
    size: Size
    """(y, x) of the final map."""
    batch: int
    batch_is_fixed: bool
    device: str

    @property
    def rule(self) -> WindowRule:
        told = self.told
        assert told.frames is not None
        assert told.answers is not None
        assert told.head is not None
        return WindowRule(told.frames, told.spacing, told.answers, told.head, carries=bool(self.states))

    @property
    def levels(self) -> Mapping[str, str]:
        """Level -> name of the output."""
        found = dict(zip(self.told.levels or (), self.outputs, strict=True))
        return {level: found[level] for level in STORED if level in found}

    @property
    def clip(self) -> Port:
        return next(port for port in self.graph.inputs if not port.name.startswith(STATE))

    @property
    def states(self) -> tuple[Port, ...]:
        return tuple(port for port in self.graph.inputs if port.name.startswith(STATE))

    @property
    def identity(self) -> Mapping[str, Any]:
        told = self.told
        return {
            "kind": self.kind,
            "weights_sha256": self.graph.sha256,
            "preprocessing": {**self.scaling.facts(), "colours": told.colours, "layout": told.layout},
            "window": {
                "frames": told.frames,
                "spacing": told.spacing,
                "answers": list(self.rule.answers),
                "head": told.head,
            },
            "levels": list(told.levels or ()),
            "values": told.values,
            "precision": "float32",
        }

    @property
    def provenance(self) -> Mapping[str, Any]:
        return {"batch": self.batch, **self.graph.versions, "licence": self.told.licence or NONE_STATED}

    @property
    def top(self) -> float | None:
        return 0.0 if self.told.values in ("log-probabilities", "shares") else None

    @property
    def threads(self) -> int:
        return cores() if self.device == "cpu" and not self.states else 1

    def temporal(self, every: int) -> Temporal:
        rule = self.rule
        answers, frames = rule.answers, rule.frames
        if frames == 1 and not self.states:
            return Temporal(window=1, map_of="the frame itself", head="none", short_video="none", every=every)
        head = "time-reversed window" if rule.head == "reverse" else "first frame repeated"
        short = "last frame repeated" if rule.head == "reverse" else "first frame repeated"
        if len(answers) == frames and frames > 1:
            return Temporal(frames, "every frame of the window", "the first window", short, every)
        if answers == (frames - 1,):
            return Temporal(frames, "last frame of the window", head, short, every)
        if len(answers) == 1:
            return Temporal(frames, f"frame {answers[0]} of the window, counted from 0", head, short, every)
        return Temporal(frames, f"frames {answers[0]} to {answers[-1]} of the window, from 0", head, short, every)

    def content(self, source: VideoSource) -> str:
        return ""

    def work(
        self, source: VideoSource, pictures: Iterator[Picture | None], every: int
    ) -> Generator[Work, None, str | None]:
        carried, number = Carried(), 0
        waiting: list[Seen] = []
        for windows in blocks(self.rule, self.frames_of(pictures)):
            waiting += [one for one in windows if self.states or any(frame % every == 0 for frame in one[1])]
            if len(waiting) >= (1 if self.states else self.batch):
                yield partial(self._in_turn, number, waiting, every, carried)
                waiting, number = [], number + 1
        if waiting:
            yield partial(self._in_turn, number, waiting, every, carried)
        return None

    def _in_turn(
        self, number: int, windows: Sequence[Seen], every: int, carried: Carried, levels: Collection[str] = STORED
    ) -> Maps:
        if not self.states:
            return self.answer(windows, every, carried, levels)
        with carried.in_turn(number):
            return self.answer(windows, every, carried, levels)

    def sample(
        self, source: VideoSource, frames: int, levels: Collection[str], *, every: int = 1
    ) -> Mapping[str, Tensor]:
        made = [work(levels).logits for work in self.work(source, islice(decode(source), frames), every)]
        return {level: torch.cat([one[level] for one in made if level in one]) for level in (made[0] if made else {})}

    def at(self, source: VideoSource, row: VideoRow, frame: int, levels: Collection[str]) -> Mapping[str, Tensor]:
        (place,) = row.numbering.places([frame]).tolist()
        if self.states:  # what went before decides, too
            made = [work(levels).logits for work in self.work(source, islice(decode(source), place + 1), 1)]
            return {level: torch.cat([one[level] for one in made])[-1:] for level in made[0]}
        (window,) = self.rule.windows_at([place], row.frames)
        places = sorted(set(window.seen))
        pictures = read_frames(source, row.numbering.numbers(places))
        scaled = dict(zip(places, self.frames_of(iter(pictures)), strict=True))
        seen = [replace(scaled[one], place=one) for one in window.seen]
        return self.answer([(seen, {place: window.answered[place]})], 1, Carried(), levels).logits

    def frames_of(self, pictures: Iterator[Picture | None]) -> Iterator[ScaledFrame]:
        """Each frame scaled once, colours in the network's order."""
        if self.told.colours == "BGR":
            pictures = (None if picture is None else picture[..., ::-1] for picture in pictures)
        return scaled_frames(self.scaling, pictures)

    def answer(
        self,
        windows: Sequence[Seen],
        every: int,
        carried: Carried,
        levels: Collection[str] = STORED,
    ) -> Maps:
        """The maps of the windows' frames that are wanted, by rising frame."""
        frames = {frame.place: frame for seen, _ in windows for frame in seen}
        rows = {
            frame: (number, place)
            for number, (_, answered) in enumerate(windows)
            for frame, place in answered.items()
            if frame % every == 0
        }
        wanted = sorted(rows)
        logits: dict[str, Tensor] = {}
        for mirrored in (False, True):
            names = {level: MIRRORED[level] if mirrored else level for level in STORED if level in self.levels}
            asked = {level: name for level, name in names.items() if name in levels}
            if asked:
                made = self.made(windows, list(asked), mirrored, carried)
                logits |= {
                    name: torch.stack([made[level][rows[frame]] for frame in wanted])
                    if wanted
                    else torch.empty(0, *made[level].shape[2:])
                    for level, name in asked.items()
                }
        return Maps(logits, [frame for frame in wanted if not frames[frame].decoded])

    def made(
        self, windows: Sequence[Seen], levels: Sequence[str], mirrored: bool, carried: Carried
    ) -> dict[str, Tensor]:
        """Level -> logits (window, map, y, x)."""
        pieces: dict[str, list[Tensor]] = {level: [] for level in levels}
        step = 1 if self.states else self.batch
        for start in range(0, len(windows), step):
            some = windows[start : start + step]
            clip = torch.stack([torch.stack([frame.pixels for frame in seen]) for seen, _ in some])
            given = self._given(clip.flip(-1) if mirrored else clip, carried.states.get(mirrored, {}))
            answers = self.graph.run(given)
            carried.states[mirrored] = {port.name: answers[f"next_{port.name}"] for port in self.states}
            for level in levels:
                maps = self.as_maps(level, answers[self.levels[level]], len(given[self.clip.name]))[: len(some)]
                pieces[level].append(as_logits(maps, self.told.values))
        return {level: torch.cat(maps) for level, maps in pieces.items()}

    def raw(self, seen: list[ScaledFrame]) -> dict[str, Tensor]:
        """Level -> what the network gives for one window, (map, y, x), as it gives it, from a state of 0."""
        given = self._given(torch.stack([frame.pixels for frame in seen])[None], {})
        answers = self.graph.run(given)
        return {
            level: self.as_maps(level, answers[name], len(given[self.clip.name]))[0]
            for level, name in self.levels.items()
        }

    def _given(self, clip: Tensor, states: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Inputs for frames (B, T, 3, y, x); a batch of fixed length is filled up with its last window."""
        if self.batch_is_fixed and len(clip) < self.batch:
            clip = torch.cat([clip, clip[-1:].expand(self.batch - len(clip), *clip.shape[1:])])
        laid = clip.permute(AXES[self.told.layout]).contiguous()
        if self.told.layout == "B C Y X":
            laid = laid[:, 0].contiguous()
        fresh = {port.name: torch.zeros([size or len(clip) for size in port.shape]) for port in self.states}
        return {self.clip.name: laid, **fresh, **states}

    def as_maps(self, level: str, answer: Tensor, batch: int) -> Tensor:
        """An output as (batch, map, y, x). Raises WeightsError where it has another shape."""
        count = len(self.rule.answers)
        shape = tuple(answer.shape)
        if answer.ndim >= 3 and shape[0] == batch and answer[0].numel() == count * shape[-1] * shape[-2]:
            return answer.reshape(batch, count, *shape[-2:]).float()
        if count > 1 and answer[0].numel() == shape[-1] * shape[-2]:  # one map for the whole window
            return answer.reshape(batch, 1, *shape[-2:]).float().expand(-1, count, -1, -1)
        raise WeightsError(
            f"{self.graph.path}: {level} has shape {'x'.join(map(str, shape))} for {batch} windows; expected {count} "
            "maps of each, (B, y, x) or (B, T, y, x); exported_teacher.answers and .levels say which"
        )


def as_logits(values: Tensor, kind: str) -> Tensor:
    """Maps (…, y, x) of any of these values as float32 logits."""
    if kind == "logits":
        return values
    if kind == "probabilities":
        return values.double().clamp(SMALLEST, 1 - 1e-9).logit().float()
    most = values.amax((-2, -1), keepdim=True)
    shares = (values - most).exp() if kind == "log-probabilities" else values / most.clamp(min=1e-30)
    return shares.clamp(min=NOTHING).mul(BRIGHTEST).logit()
