"""Our operators as torch knows its own, `torch.ops.tinyhd.*`: autograd, torch.compile and torch.export see them.

Each has an implementation, a fake one that tells shapes and layout, and a formula for its gradient. The decision that
is not obvious: a plain call goes to the autograd function straight away, since a registered Python operator costs .1 ms
more a layer, a fifth of a small student's step; only what traces meets `torch.ops`. Both are made of the same three
functions.
"""

import ctypes
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tinyhd_pipe.stages.networks.layers.kernels import kernels
from tinyhd_pipe.stages.networks.layers.layout import as_channels_last

ONES = (1, 1, 1)
_LIBRARY = torch.library.Library("tinyhd", "DEF")
_LIBRARY.define("norm(Tensor x, Tensor weight, Tensor bias, float epsilon, float top) -> (Tensor, Tensor)")
_LIBRARY.define("norm_backward(Tensor x, Tensor of_output, Tensor saved, float epsilon, float top) -> (Tensor, Tensor)")
_LIBRARY.define("depthwise(Tensor x, Tensor weight, int[] stride, int[] padding) -> Tensor")
_LIBRARY.define(
    "depthwise_backward(Tensor x, Tensor weight, Tensor of_output, int[] stride, int[] padding) -> (Tensor, Tensor)"
)
_LIBRARY.define(
    "convolution(Tensor x, Tensor weight, Tensor? bias, int[] padding, int[] stride, int[] dilation, int groups)"
    " -> Tensor"
)


def norm(x: Tensor, weight: Tensor, bias: Tensor, *, epsilon: float, top: float) -> tuple[Tensor, Tensor]:
    """Batch norm by the statistics of `x`, then an activation, in two passes over memory (three and one for gradients).

    Arguments:
        x: float32 (B, C, T, H, W) or (B, C, H, W).
        weight, bias: float32 (C,).
        top: the activation is a clamp to [0, top], infinity for ReLU; 0: none.

    Returns what has the shape of `x`, and (4, C): mean, variance (divided by the count), and the scale and shift that
    were applied.
    """
    answer: Any = torch.ops.tinyhd.norm if torch.compiler.is_compiling() else _Norm.apply
    answered: tuple[Tensor, Tensor] = answer(x, weight, bias, epsilon, top)
    return answered


def depthwise(x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]) -> Tensor:
    """Depthwise 3D convolution: float32 (B, C, T, H, W) and (C, 1, t, y, x) to (B, C, T / stride, ...).

    On a CUDA device also of bfloat16 features, whose type the answer has.
    """
    answer: Any = torch.ops.tinyhd.depthwise if torch.compiler.is_compiling() else _Depthwise.apply
    answered: Tensor = answer(x, weight, stride, padding)
    return answered


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any) -> Tensor:
    """oneDNN's convolution, which torch would not always ask: of 4 or 5 axes, channels-last.

    `settings` are padding, stride, dilation and groups, as `torch.mkldnn_convolution` takes them.
    """
    answer: Any = torch.ops.tinyhd.convolution if torch.compiler.is_compiling() else torch.mkldnn_convolution
    answered: Tensor = answer(x, weight, bias, *settings)
    return answered


# ---- Norm: implementation, fake, gradient --------------------------------------------------------------------------


class _NormFacts(ctypes.Structure):
    """`Norm` of norm.c."""

    _fields_ = (
        ("values", ctypes.c_long),
        ("channels", ctypes.c_long),
        ("epsilon", ctypes.c_float),
        ("top", ctypes.c_float),
        ("threads", ctypes.c_int),
    )


class _Saved(ctypes.Structure):
    """`Saved` of norm.c."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ("mean", "variance", "scale", "shift"))


def _norm_facts(x: Tensor, epsilon: float, top: float) -> _NormFacts:
    return _NormFacts(x.numel(), x.shape[1], epsilon, top, torch.get_num_threads())


def _saved(saved: Tensor) -> _Saved:
    return _Saved(*(saved.data_ptr() + 4 * saved.shape[1] * row for row in range(4)))


def _norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, top: float) -> tuple[Tensor, Tensor]:
    x = as_channels_last(x)
    y, saved = torch.empty_like(x), x.new_empty(4, x.shape[1])
    _library().norm_forward(_at(x), _at(weight), _at(bias), _at(y), _saved(saved), _norm_facts(x, epsilon, top))
    return y, saved


def _norm_backward(x: Tensor, of_output: Tensor, saved: Tensor, epsilon: float, top: float) -> tuple[Tensor, Tensor]:
    """Gradients of input, and of weight and bias in one tensor, (2, C)."""
    x, of_output = as_channels_last(x), as_channels_last(of_output)
    of_input, of_parameters = torch.empty_like(x), x.new_empty(2, x.shape[1])
    of_weight, of_bias = of_parameters
    facts = _norm_facts(x, epsilon, top)
    _library().norm_backward(_at(x), _at(of_output), _saved(saved), _at(of_input), _at(of_weight), _at(of_bias), facts)
    return of_input, of_parameters


def _fake_norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float, top: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(as_channels_last(x)), x.new_empty(4, x.shape[1])


def _fake_norm_backward(
    x: Tensor, of_output: Tensor, saved: Tensor, epsilon: float, top: float
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(as_channels_last(x)), x.new_empty(2, x.shape[1])


def _keep_for_norm(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, _, _, *ctx.settings = inputs
    ctx.save_for_backward(x, output[1])
    ctx.mark_non_differentiable(output[1])


def _gradients_of_norm(ctx: Any, *of_outputs: Tensor, backward: Any = _norm_backward) -> tuple[Tensor | None, ...]:
    x, saved = ctx.saved_tensors
    of_input, of_parameters = backward(x, of_outputs[0], saved, *ctx.settings)
    return of_input, of_parameters[0], of_parameters[1], None, None


class _Norm(torch.autograd.Function):
    forward = staticmethod(_norm)
    setup_context = staticmethod(_keep_for_norm)
    backward = staticmethod(_gradients_of_norm)


# ---- Depthwise -----------------------------------------------------------------------------------------------------


class _Steps(ctypes.Structure):
    """`Steps` of depthwise.c."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("t", "y", "x"))


class _Shape(ctypes.Structure):
    """`Shape` of depthwise.c."""

    _fields_ = (
        ("batch", ctypes.c_long),
        ("channels", ctypes.c_long),
        *((name, _Steps) for name in ("input", "output", "kernel", "stride", "padding")),
        ("threads", ctypes.c_int),
    )


def _shape(x: Tensor, output: Sequence[int], weight: Tensor, stride: Sequence[int], padding: Sequence[int]) -> _Shape:
    steps = (_Steps(*each) for each in (x.shape[2:], output[2:], weight.shape[2:], stride, padding))
    return _Shape(*x.shape[:2], *steps, torch.get_num_threads())


def _depthwise(x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]) -> Tensor:
    """oneDNN's on a CPU, which is fast there; our kernels are for its gradients."""
    if x.is_cuda:
        answered: Tensor = _on_gpu().depthwise(x, weight, stride, padding)
        return answered
    return torch.mkldnn_convolution(as_channels_last(x), weight, None, padding, stride, ONES, len(weight))


def _fake_depthwise(x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]) -> Tensor:
    return _fake_convolution(x, weight, None, padding, stride, ONES, len(weight))


def _depthwise_backward(
    x: Tensor, weight: Tensor, of_output: Tensor, stride: Sequence[int], padding: Sequence[int]
) -> tuple[Tensor, Tensor]:
    if x.is_cuda:
        gradients: tuple[Tensor, Tensor] = _on_gpu().depthwise_backward(x, weight, of_output, stride, padding)
        return gradients
    x, of_output, plain = as_channels_last(x), as_channels_last(of_output), weight.contiguous()
    of_weight = torch.empty_like(plain)
    shape = _shape(x, of_output.shape, plain, stride, padding)
    _library().depthwise_of_weight(_at(x), _at(of_output), _at(of_weight), shape)
    if set(stride) == {1}:  # a convolution, too, with the kernel turned round
        turned = [width - 1 - beside for width, beside in zip(weight.shape[2:], padding, strict=True)]
        return _depthwise(of_output, weight.flip(2, 3, 4), stride, turned), of_weight
    of_input = torch.empty_like(x)
    _library().depthwise_of_input(_at(of_output), _at(plain), _at(of_input), shape)
    return of_input, of_weight


def _fake_depthwise_backward(
    x: Tensor, weight: Tensor, of_output: Tensor, stride: Sequence[int], padding: Sequence[int]
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(as_channels_last(x)), torch.empty_like(weight.contiguous())


def _keep_for_depthwise(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, *ctx.settings = inputs
    ctx.save_for_backward(x, weight)


def _gradients_of_depthwise(
    ctx: Any, *of_outputs: Tensor, backward: Any = _depthwise_backward
) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    of_input, of_weight = backward(x, weight, of_outputs[0], *ctx.settings)
    return of_input, of_weight, None, None


class _Depthwise(torch.autograd.Function):
    forward = staticmethod(_depthwise)
    setup_context = staticmethod(_keep_for_depthwise)
    backward = staticmethod(_gradients_of_depthwise)


# ---- Convolution: torch has implementation and gradient, and lacks the fake one -------------------------------------


def _fake_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any) -> Tensor:
    padding, stride, dilation, groups = settings
    return as_channels_last(torch.ops.aten.convolution(x, weight, bias, stride, padding, dilation, False, [0], groups))


def _keep_for_convolution(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, *ctx.settings = inputs
    ctx.bias_size = None if bias is None else list(bias.shape)
    ctx.save_for_backward(x, weight)


def _gradients_of_convolution(ctx: Any, of_output: Tensor) -> tuple[Any, ...]:
    x, weight = ctx.saved_tensors
    padding, stride, dilation, groups = ctx.settings
    gradients = torch.ops.aten.convolution_backward(
        of_output,
        x,
        weight,
        ctx.bias_size,
        stride,
        padding,
        dilation,
        False,
        [0],
        groups,
        [*ctx.needs_input_grad[:2], ctx.bias_size is not None],
    )
    return *gradients, None, None, None, None


# ---- What all of them need -----------------------------------------------------------------------------------------


def _library() -> ctypes.CDLL:
    library: ctypes.CDLL | None = kernels().library
    assert library is not None  # layers ask first
    return library


def _on_gpu() -> Any:
    """The kernels for CUDA devices, which need Triton."""
    from tinyhd_pipe.stages.networks.layers import depthwise_gpu

    return depthwise_gpu


def _at(x: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(x.data_ptr())


# ---- Registration --------------------------------------------------------------------------------------------------

_OPS: Any = torch.ops.tinyhd
_LIBRARY.impl("norm", _norm, "CPU")
_LIBRARY.impl("norm_backward", _norm_backward, "CPU")
for processor in ("CPU", "CUDA"):
    _LIBRARY.impl("depthwise", _depthwise, processor)
    _LIBRARY.impl("depthwise_backward", _depthwise_backward, processor)
_LIBRARY.impl("convolution", torch.mkldnn_convolution, "CPU")
torch.library.register_fake("tinyhd::norm", _fake_norm)
torch.library.register_fake("tinyhd::norm_backward", _fake_norm_backward)
torch.library.register_fake("tinyhd::depthwise", _fake_depthwise)
torch.library.register_fake("tinyhd::depthwise_backward", _fake_depthwise_backward)
torch.library.register_fake("tinyhd::convolution", _fake_convolution)
for name, gradients, keep in (
    ("norm", partial(_gradients_of_norm, backward=_OPS.norm_backward), _keep_for_norm),
    ("depthwise", partial(_gradients_of_depthwise, backward=_OPS.depthwise_backward), _keep_for_depthwise),
    ("convolution", _gradients_of_convolution, _keep_for_convolution),
):
    torch.library.register_autograd(f"tinyhd::{name}", gradients, setup_context=keep)
