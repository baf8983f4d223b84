"""The three passes of a depthwise 3D convolution over channels-last features, for Triton.

A program makes BP neighbouring pixels times BC neighbouring channels, adds in float32, and reads the taps of its
neighbours from the cache. A kernel has KT x 3 x 3 taps; T, H, W are sizes of the input, OT, OH, OW of the output, S and
P strides and paddings. Features lie at  (((b * T + t) * H + h) * W + w) * C + channel, weights at  tap * C + channel.

The decision that is not obvious: sizes, strides and taps are plain numbers to the compiler, which would else make every
kernel anew for each of a network's fifty layers, a minute for TinyHD; three taps at a time are written out.
"""

import triton
import triton.language as tl

SHAPE = ["T", "H", "W", "OT", "OH", "OW", "ST", "SH", "SW", "PT", "PH", "PW", "KT"]


@triton.jit(do_not_specialize=["pixels", *SHAPE])
def forward(
    x, weight, y, pixels, T, H, W, OT, OH, OW, ST, SH, SW, PT, PH, PW, KT, C, BC: tl.constexpr, BP: tl.constexpr
):  # fmt: skip
    """A tile of the output: output o of each axis reads the inputs  stride o - padding + tap."""
    pixel = tl.program_id(0) * BP + tl.arange(0, BP)
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    ow, oh = pixel % OW, pixel // OW % OH
    ot, b = pixel // (OW * OH) % OT, pixel // (OW * OH * OT)
    there, known = pixel < pixels, channel < C
    total = tl.zeros((BP, BC), tl.float32)
    for row in range(KT * 3):
        t, h, w = ot * ST + row // 3 - PT, oh * SH + row % 3 - PH, ow * SW - PW
        inside = there & (t >= 0) & (t < T) & (h >= 0) & (h < H)
        place = (((b * T + t) * H + h) * W + w).to(tl.int64)[:, None] * C + channel[None, :]
        for tap in tl.static_range(3):
            read = (inside & (w + tap >= 0) & (w + tap < W))[:, None] & known[None, :]
            seen = tl.load(x + place + tap * C, read, other=0.0).to(tl.float32)
            total += seen * tl.load(weight + (row * 3 + tap) * C + channel, known, other=0.0)[None, :]
    place = pixel.to(tl.int64)[:, None] * C + channel[None, :]
    tl.store(y + place, total.to(y.dtype.element_ty), there[:, None] & known[None, :])


@triton.jit(do_not_specialize=["pixels", *SHAPE])
def of_input(
    of_output, weight, of_input, pixels, T, H, W, OT, OH, OW, ST, SH, SW, PT, PH, PW, KT, C,
    BC: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """A tile of the input's gradient: input i of each axis was read by the outputs  (i + padding - tap) / stride,
    where that is whole."""
    pixel = tl.program_id(0) * BP + tl.arange(0, BP)
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    w, h = pixel % W, pixel // W % H
    t, b = pixel // (W * H) % T, pixel // (W * H * T)
    there, known = pixel < pixels, channel < C
    total = tl.zeros((BP, BC), tl.float32)
    for row in range(KT * 3):
        ot, oh = t + PT - row // 3, h + PH - row % 3
        inside = there & (ot >= 0) & (ot < OT * ST) & (ot % ST == 0) & (oh >= 0) & (oh < OH * SH) & (oh % SH == 0)
        line = ((b * OT + ot // ST) * OH + oh // SH) * OW
        for tap in tl.static_range(3):
            ow = w + PW - tap
            read = inside & (ow >= 0) & (ow < OW * SW) & (ow % SW == 0)
            place = (line + ow // SW).to(tl.int64)[:, None] * C + channel[None, :]
            seen = tl.load(of_output + place, read[:, None] & known[None, :], other=0.0).to(tl.float32)
            total += seen * tl.load(weight + (row * 3 + tap) * C + channel, known, other=0.0)[None, :]
    place = pixel.to(tl.int64)[:, None] * C + channel[None, :]
    tl.store(of_input + place, total.to(of_input.dtype.element_ty), there[:, None] & known[None, :])


@triton.jit(do_not_specialize=["pixels", "rounds", *SHAPE])
def of_weight(
    x, of_output, partial, pixels, rounds, T, H, W, OT, OH, OW, ST, SH, SW, PT, PH, PW, KT, C,
    BC: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Of three taps side by side, the sum of  input * gradient  over `rounds` tiles of the output."""
    row, part = tl.program_id(0), tl.program_id(2)
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    known = channel < C
    left, middle, right = tl.zeros((BP, BC), tl.float32), tl.zeros((BP, BC), tl.float32), tl.zeros((BP, BC), tl.float32)
    for step in range(rounds):
        pixel = (part * rounds + step) * BP + tl.arange(0, BP)
        there = pixel < pixels
        ow, oh = pixel % OW, pixel // OW % OH
        ot, b = pixel // (OW * OH) % OT, pixel // (OW * OH * OT)
        place = pixel.to(tl.int64)[:, None] * C + channel[None, :]
        given = tl.load(of_output + place, there[:, None] & known[None, :], other=0.0).to(tl.float32)
        t, h, w = ot * ST + row // 3 - PT, oh * SH + row % 3 - PH, ow * SW - PW
        inside = there & (t >= 0) & (t < T) & (h >= 0) & (h < H)
        seen = x + (((b * T + t) * H + h) * W + w).to(tl.int64)[:, None] * C + channel[None, :]
        read = (inside & (w >= 0) & (w < W))[:, None] & known[None, :]
        left += given * tl.load(seen, read, other=0.0).to(tl.float32)
        read = (inside & (w + 1 >= 0) & (w + 1 < W))[:, None] & known[None, :]
        middle += given * tl.load(seen + C, read, other=0.0).to(tl.float32)
        read = (inside & (w + 2 >= 0) & (w + 2 < W))[:, None] & known[None, :]
        right += given * tl.load(seen + 2 * C, read, other=0.0).to(tl.float32)
    place = partial + ((part * KT * 3 + row) * 3).to(tl.int64) * C + channel
    tl.store(place, tl.sum(left, 0), known)
    tl.store(place + C, tl.sum(middle, 0), known)
    tl.store(place + 2 * C, tl.sum(right, 0), known)
