"""The GPU's depthwise kernels in Triton's interpreter, for want of a GPU: values and gradients of double precision."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux alone")

COMPARED = """
import contextlib, json, torch
import torch.nn.functional as F
from tinyhd_pipe.stages.networks.layers import depthwise_gpu as gpu

gpu._on = lambda x: contextlib.nullcontext()
torch.manual_seed(0)
errors = {}
for kernel in ((3, 3, 3), (1, 3, 3), (2, 3, 3)):
    for stride in ((1, 1, 1), (2, 1, 1), (2, 2, 2)):
        for channels, size in ((20, (2, 4, 5, 6)), (64, (1, 2, 3, 4)))[: 2 if kernel == (3, 3, 3) else 1]:
            padding = ((kernel[0] - 1) // 2, 1, 1)
            x = torch.randn(size[0], channels, *size[1:]).to(memory_format=torch.channels_last_3d)
            weight = torch.randn(channels, 1, *kernel)
            exact_x, exact_weight = x.double().requires_grad_(), weight.double().requires_grad_()
            y = F.conv3d(exact_x, exact_weight, None, stride, padding, 1, channels)
            upstream = torch.randn(y.shape)
            y.backward(upstream.double())
            found = gpu.depthwise(x, weight, stride, padding)
            pairs = [(found, y), *zip(gpu.depthwise_backward(x, weight, upstream, stride, padding),
                                      (exact_x.grad, exact_weight.grad))]
            errors[f"{kernel} {stride} {channels}"] = max(
                float((mine.double() - exact).norm() / exact.norm()) for mine, exact in pairs
            )
print(json.dumps(errors))
"""


def test_values_and_gradients_are_those_of_double_precision_for_every_kernel_and_stride(tmp_path: Path) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "TRITON_CACHE_DIR": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", COMPARED], capture_output=True, text=True, env=environment, check=False)
    assert ran.returncode == 0, ran.stderr
    errors = json.loads(ran.stdout.splitlines()[-1])
    assert len(errors) == 12
    assert {case: error for case, error in errors.items() if not error < 1e-6} == {}
