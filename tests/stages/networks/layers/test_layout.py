"""The memory layout can be set and taken back, down to the strides that torch goes by."""

import torch

from tinyhd_pipe.stages.networks.hd2s import HD2S
from tinyhd_pipe.stages.networks.layers.layout import channels_last, contiguous
from tinyhd_pipe.stages.networks.tinyhd import TinyHD


def _strides(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: parameter.stride() for name, parameter in module.named_parameters()}


def test_a_network_put_back_is_laid_out_as_torch_makes_it_and_computes_the_same() -> None:
    """A kernel of one pixel counts as contiguous in both layouts; its strides still choose torch's path."""
    for module in (HD2S(width=0.0625), TinyHD(reduction=4)):
        made, values = _strides(module), {name: value.clone() for name, value in module.state_dict().items()}
        moved = _strides(channels_last(module))
        assert moved != made
        assert _strides(contiguous(module)) == made
        assert all(torch.equal(values[name], value) for name, value in module.state_dict().items())
