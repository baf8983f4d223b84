"""Whether learning from stored maps is learning from the live teacher: losses and gradients of both ways, and a bound.

For a map p of the live teacher, the stored map p̃ and the student's q, all distributions over the picture, a loss term
changes by

    KL(p‖q) − KL(p̃‖q) = KL(p‖p̃) + (E_p f − E_p̃ f),    f = log(p̃/q)

What a store declares is ε, the mean of KL(p‖p̃). The first part is ε itself. For the second, Donsker and Varadhan's
inequality holds for every λ > 0 and both signs (Boucheron et al., Concentration Inequalities, section 4.9):

    ±(E_p f − E_p̃ f) ≤ (KL(p‖p̃) + log E_p̃ exp(±λ(f − E_p̃ f))) / λ

Both sides may be averaged over maps, so the mean ε is enough; p itself is not needed. With λ = √(2ε)/σ the second part
is about √(2ε)·σ, σ being the spread of f under p̃; with Pinsker's inequality it would be √(2ε) times half the range of
f, which is never less (Hoeffding's lemma) and in practice many times as much.

The bound is what could happen, were all of ε spent in the one direction that hurts. Rounding errors of neighbouring
pixels cancel instead: measured differences are tens of times smaller. So a store of other maps is told by ε, which is
measured on the very maps that are learned from, and not by the loss alone. Cost: one forward pass for both ways and a
backward pass for each, beside the teacher's windows.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinyhd_pipe.stages.networks.divergence import FAR, kl_divergence
from tinyhd_pipe.stages.training.dataset import Batch
from tinyhd_pipe.stages.training.losses import answered_frames, distillation_loss, targets_of
from tinyhd_pipe.store.errors import DataError

ROUNDING = 1e-5
"""Nats by which the same loss may differ in float32."""


@dataclass(frozen=True)
class TermAgreement:
    """One loss term, both ways."""

    online: float
    """Against the live teacher's maps, nats."""
    offline: float
    """Against the stored ones."""
    kl: float
    """Mean KL(live ‖ stored) of the maps of this term, nats; 0 for a term without maps."""
    allowed_kl: float
    """The most that it may be: `FAR` times what the store declares."""
    bound: float
    """The most by which the losses can differ where `kl` is as declared."""

    @property
    def kept(self) -> bool:
        return self.kl <= self.allowed_kl and abs(self.online - self.offline) <= self.bound


@dataclass(frozen=True)
class Agreement:
    """Losses and gradients of one student on the same samples, both ways."""

    terms: Mapping[str, TermAgreement]
    cosine: float
    """Of the gradients of both sums of terms, over all weights."""

    @property
    def kept(self) -> bool:
        """Whether the losses differ by no more than storing the maps explains."""
        return all(term.kept for term in self.terms.values())


def agreement(module: nn.Module, samples: Iterable[tuple[Batch, Batch]], *, budget: float) -> Agreement:
    """Compare both ways of learning the same samples, every term with weight 1.

    The summed gradients of the offline way stay in `module`, so that a step can follow.

    Arguments:
        module: a student in training mode, on the samples' device; its norms' statistics move as in a step.
        samples: batches of one size, each with the live teacher's maps and once more with stored ones.
        budget: mean KL(live ‖ stored) of a map that the store declares, nats.

    Raises DataError where these are not the same samples, or have maps of different levels.
    """
    weights = [parameter for parameter in module.parameters() if parameter.requires_grad]
    online, offline = ([torch.zeros_like(weight) for weight in weights] for _ in range(2))
    seen: dict[str, list[_Seen]] = {}
    for live, stored in samples:
        if not torch.equal(live.clip, stored.clip) or live.maps.keys() != stored.maps.keys():
            raise DataError("online and offline samples differ: draw both from the same videos with the same seed")
        answered = answered_frames(module(stored.clip), stored.outputs)
        there, here = (distillation_loss(answered, way.maps, way.density, way.labelled) for way in (live, stored))
        _add_gradients(online, there, weights, keep_graph=True)
        _add_gradients(offline, here, weights)
        targets = [targets_of(answered, way.maps) for way in (live, stored)]
        for name, term in here.items():
            maps = [target[name] for target in targets] + [answered[name].detach()] if name in targets[0] else None
            seen.setdefault(name, []).append(_Seen(there[name].item(), term.item(), maps))
    for weight, gradient in zip(weights, offline, strict=True):
        weight.grad = gradient
    return Agreement({name: _term(of_batches, budget) for name, of_batches in seen.items()}, _cosine(online, offline))


def _add_gradients(
    sums: Sequence[Tensor], terms: Mapping[str, Tensor], weights: Sequence[Tensor], *, keep_graph: bool = False
) -> None:
    loss = torch.stack(list(terms.values())).sum()
    for total, part in zip(
        sums, torch.autograd.grad(loss, weights, retain_graph=keep_graph, materialize_grads=True), strict=True
    ):
        total += part


@dataclass(frozen=True)
class _Seen:
    """One loss term of one batch."""

    online: float
    offline: float
    maps: Sequence[Tensor] | None
    """Live maps, stored maps, and the student's logits; None of a term that has none."""


def _term(of_batches: Sequence[_Seen], budget: float) -> TermAgreement:
    online, offline = (fmean(getattr(seen, way) for seen in of_batches) for way in ("online", "offline"))
    pieces = [seen.maps for seen in of_batches if seen.maps is not None]
    if not pieces:
        return TermAgreement(online, offline, 0.0, 0.0, ROUNDING)
    live, stored, answered = (torch.cat(maps) for maps in zip(*pieces, strict=True))
    kl = float(kl_divergence(live.double(), stored.double().logit()))
    return TermAgreement(online, offline, kl, FAR * budget, loss_bound(stored, answered, FAR * budget) + ROUNDING)


def loss_bound(stored: Tensor, logits: Tensor, kl: float) -> float:
    """The most by which the mean KL to a student changes when stored maps give way to others, `kl` away in the mean.

    Arguments:
        stored: positive maps, `(..., y, x)`.
        logits: the student's answer before its sigmoid, same shape.
        kl: mean KL(other ‖ stored), nats.

    Returns nats; the derivation stands above.
    """
    log_stored, log_student = (_log_of(maps) for maps in (stored.double().log(), F.logsigmoid(logits.double())))
    weight = log_stored.exp()
    f = log_stored - log_student
    f = f - (weight * f).sum(-1, keepdim=True)
    spread = float((weight * f**2).sum(-1).mean().sqrt())
    if kl == 0 or spread == 0:
        return kl
    best = math.sqrt(2 * kl) / spread
    # Any λ gives a true bound: the least of a few around that which would be best, were f Gaussian.
    lambdas = [best * 2 ** (power / 2) for power in range(-8, 3)]
    more, less = (
        min((kl + float((log_stored + sign * x * f).logsumexp(-1).mean())) / x for x in lambdas) for sign in (1, -1)
    )
    return max(kl + more, less)


def _log_of(maps: Tensor) -> Tensor:
    """Of logarithms of maps (..., y, x), those of their distributions, (..., pixel)."""
    return maps.flatten(-2).log_softmax(-1)


def _cosine(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """Of two gradients, given as one tensor for each weight."""
    first, second = (torch.cat([weight.double().flatten() for weight in gradient]) for gradient in (one, other))
    return float(F.cosine_similarity(first, second, dim=0))
