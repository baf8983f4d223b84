"""What each part of the recipe is worth: students trained without it, or with another in its place, over some seeds.

A variant is the recipe with a few settings changed, and every figure is one of held-out clips. The decision that is not
obvious: variants are compared seed by seed, since a seed decides first weights and clips and moves figures by more than
most parts of a recipe do; what a part is worth is the mean of those differences, beside their spread. Where a variant
draws fewer clips an epoch it has more epochs, so that all take as many steps.

Cost: a training run for each variant and seed. Killed, the same call trains and scores what is missing.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyhd_pipe.stages.bench.ablation_maps import Clips, Making, Taught, Watch, dumped, ground, teacher_of, unwatched
from tinyhd_pipe.stages.bench.machine import machine
from tinyhd_pipe.stages.evaluate import Watch as EvaluationWatch
from tinyhd_pipe.stages.evaluate import evaluate
from tinyhd_pipe.stages.gaze.datasets import find_annotated_videos
from tinyhd_pipe.stages.gaze.scoring import METRICS, Scores
from tinyhd_pipe.stages.networks.network import Kind, load_teacher
from tinyhd_pipe.stages.networks.weights import read_weights
from tinyhd_pipe.stages.predictions.contender import of_network
from tinyhd_pipe.stages.settings.evaluate import EvaluateOptions
from tinyhd_pipe.stages.settings.training import StudentRecipe
from tinyhd_pipe.stages.student_train import student_train
from tinyhd_pipe.stages.training.targets import Targets
from tinyhd_pipe.store import open_store
from tinyhd_pipe.store.errors import SettingError
from tinyhd_pipe.store.whole_file import write_whole

WHOLE = "recipe"
"""The variant that changes nothing; it always comes first."""


@dataclass(frozen=True)
class Variant:
    """The recipe with something left out, or another thing in its place."""

    name: str
    changes: Mapping[str, Any]
    """Settings of the student that differ from the recipe's."""
    taught_by: tuple[str, ...] = ("teacher",)
    """Whose maps are fused: of teacher, second (another teacher) and assistant (a student at reduction 1)."""


@dataclass(frozen=True)
class AblationOptions:
    """What is compared."""

    recipe: StudentRecipe
    scoring: EvaluateOptions = EvaluateOptions()
    seeds: int = 3
    """Students of each variant: with the recipe's seed and those that follow it."""
    only: tuple[str, ...] = ()
    """Names of variants, beside the whole recipe; all of them without any."""


@dataclass(frozen=True)
class Row:
    """One variant: its figures on the held-out clips, and what sets it apart from the recipe."""

    variant: Variant
    figures: Mapping[str, tuple[float, ...]]
    """Metric -> one figure for each seed."""
    mean: Scores
    spread: Scores
    """Standard deviation over the seeds (n - 1); NaN for a single one."""
    difference: Scores
    """Mean over the seeds of what the variant has more than the recipe."""
    difference_spread: Scores


@dataclass(frozen=True)
class Ablations:
    """All variants side by side, the whole recipe first."""

    rows: tuple[Row, ...]
    teacher: Scores
    """Of the teacher that all but two variants learn from alone."""
    seeds: tuple[int, ...]
    machine: Mapping[str, str]


def variants(recipe: StudentRecipe) -> tuple[Variant, ...]:
    """All that can be compared with a recipe, itself first."""
    drawn = 1 + recipe.unlabelled_per_labelled  # clips an epoch, of which without the unlabelled ones 1 are left
    return (
        Variant(WHOLE, {}),
        Variant("no-conspicuity", {"conspicuity_weight": 0.0}),
        Variant("no-unlabelled", {"unlabelled_per_labelled": 0.0, "epochs": round(recipe.epochs * drawn)}),
        Variant("three-d1", {"decoders": ("d1", "d1", "d1")}),
        Variant("two-teachers", {}, taught_by=("teacher", "second")),
        Variant("assistant", {}, taught_by=("assistant",)),
    )


def bench_ablations(
    clips: Clips,
    taught: Taught,
    making: Making,
    options: AblationOptions,
    out: Path,
    *,
    watch: Watch = unwatched,
) -> Ablations:
    """Train and score every variant with every seed.

    Arguments:
        clips, taught: what there is to learn from, where it is there and belongs together; else it is made (ground).
        out: folder of all that is made; a second call does what is missing there.

    Raises SettingError for a variant that is not known, and for runs in `out` with other settings.
    """
    chosen = _chosen(options)
    clips, taught = ground(clips, taught, making, out, watch)
    bench = _Bench(clips, {"teacher": taught.store}, making, options, out, watch)
    seeds = tuple(options.recipe.seed + place for place in range(options.seeds))
    scored = {variant.name: [bench.student(variant, seed) for seed in seeds] for variant in chosen}
    return Ablations(
        rows=tuple(_row(variant, scored[variant.name], scored[WHOLE]) for variant in chosen),
        teacher=bench.scores("hd2s", taught.weights, out / "teacher.json", "teacher"),
        seeds=seeds,
        machine=machine(making.device),
    )


def _chosen(options: AblationOptions) -> list[Variant]:
    known = variants(options.recipe)
    names = [variant.name for variant in known]
    for name in options.only:
        if name not in names:
            raise SettingError(f"variant {name!r} is not known: expected some of {', '.join(names)}")
    return [variant for variant in known if not options.only or variant.name in (WHOLE, *options.only)]


@dataclass(frozen=True)
class _Bench:
    """Everything that students are trained and scored with."""

    clips: Clips
    stores: dict[str, Path]
    """Of teacher, second and assistant, as far as somebody has asked for them."""
    making: Making
    options: AblationOptions
    out: Path
    watch: Watch

    def student(self, variant: Variant, seed: int) -> Scores:
        """Train a student, or find it trained, and score it, or find it scored."""
        recipe = replace(self.options.recipe, **variant.changes, seed=seed)
        folder, title = self.out / variant.name / f"seed-{seed}", f"{variant.name}, seed {seed}"
        best = self._trained(recipe, variant.taught_by, folder, title)
        return self.scores("tinyhd", best, folder / "figures.json", title)

    def scores(self, kind: Kind, weights: Path, kept: Path, title: str) -> Scores:
        """Figures on the held-out clips, kept in a file that says of which weights they are."""
        asked = {"weights_sha256": read_weights(weights).sha256, "scoring": asdict(self.options.scoring)}
        if kept.exists() and (found := json.loads(kept.read_text()))["asked"] == asked:
            return {metric: float("nan") if value is None else value for metric, value in found["figures"].items()}
        network = load_teacher(kind, weights=weights, device=self.making.device)
        with self.watch(f"{title}: held-out clips") as progress:
            evaluation = evaluate(
                find_annotated_videos(self.clips.heldout).videos,
                [of_network("network", network)],
                self.options.scoring,
                EvaluationWatch(lambda name, done, total: progress(done, total)),
            )
        figures = evaluation.mean["network"]
        scored = {"asked": asked, "figures": {m: None if v != v else v for m, v in figures.items()}}
        write_whole(kept, (json.dumps(scored, indent=2) + "\n").encode())
        return figures

    def store(self, name: str) -> Path:
        """The store of one of those who teach, made when it is first asked for."""
        if name not in self.stores:
            self.stores[name] = self._second() if name == "second" else self._assistant()
        return self.stores[name]

    def _second(self) -> Path:
        """Of another HD2S, fitted from another seed."""
        another = replace(self.making, teacher=replace(self.making.teacher, seed=self.making.teacher.seed + 1))
        return teacher_of(self.clips, another, self.out / "second", self.watch).store

    def _assistant(self) -> Path:
        """Of a student at reduction 1, whose maps are targets for every decoder of a smaller one."""
        recipe = replace(self.options.recipe, reduction=1)
        best = self._trained(recipe, ("teacher",), self.out / "rc1", "assistant at reduction 1")
        return dumped(self.clips, "tinyhd", best, self.making, self.watch)

    def _trained(self, recipe: StudentRecipe, taught_by: Sequence[str], folder: Path, title: str) -> Path:
        targets = Targets.of([open_store(str(self.store(name))) for name in taught_by])
        with self.watch(title) as step_done:
            run = self.making.run(folder, step_done)
            return student_train(targets, self.clips.videos(), self.clips.annotated(), recipe, run).best


def _row(variant: Variant, scored: Sequence[Scores], whole: Sequence[Scores]) -> Row:
    """A variant beside the recipe, seed by seed."""
    figures = np.array([[scores[metric] for metric in METRICS] for scores in scored])  # (seed, metric)
    differences = figures - np.array([[scores[metric] for metric in METRICS] for scores in whole])
    return Row(
        variant=variant,
        figures={metric: tuple(column) for metric, column in zip(METRICS, figures.T.tolist(), strict=True)},
        mean=_named(figures.mean(axis=0)),
        spread=_named(_spread(figures)),
        difference=_named(differences.mean(axis=0)),
        difference_spread=_named(_spread(differences)),
    )


def _spread(figures: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard deviation over the first axis; NaN where there is one row."""
    return figures.std(axis=0, ddof=1) if len(figures) > 1 else np.full(figures.shape[1], np.nan)


def _named(figures: NDArray[np.float64]) -> Scores:
    return dict(zip(METRICS, figures.tolist(), strict=True))
