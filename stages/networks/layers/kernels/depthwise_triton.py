"""The three passes of a depthwise 3D convolution over channels-last features, for Triton.

A program makes BP neighbouring pixels times BC neighbouring channels, adds in float32, and reads the taps of its
neighbours from the cache. Every kernel has KT x 3 x 3 taps; T, H, W are sizes of the input, OT, OH, OW of the output,
S and P strides and paddings. Features lie at  (((b * T + t) * H + h) * W + w) * C + channel.
"""

import triton
import triton.language as tl


@triton.jit
def forward(
    x, weight, y, pixels,
    T, H, W, OT, OH, OW,
    ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, PT: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    C, KT: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """A tile of the output: output o of each axis reads the inputs  stride o - padding + tap."""
    pixel = tl.program_id(0) * BP + tl.arange(0, BP)
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    ow, oh = pixel % OW, pixel // OW % OH
    ot, b = pixel // (OW * OH) % OT, pixel // (OW * OH * OT)
    there, known = pixel < pixels, channel < C
    total = tl.zeros((BP, BC), tl.float32)
    for kt in tl.static_range(KT):
        t = ot * ST + kt - PT
        for kh in tl.static_range(3):
            h = oh * SH + kh - PH
            for kw in tl.static_range(3):
                w = ow * SW + kw - PW
                inside = there & (t >= 0) & (t < T) & (h >= 0) & (h < H) & (w >= 0) & (w < W)
                place = (((b * T + t) * H + h) * W + w).to(tl.int64) * C
                seen = tl.load(x + place[:, None] + channel[None, :], inside[:, None] & known[None, :], other=0.0)
                tap = tl.load(weight + channel * (KT * 9) + kt * 9 + kh * 3 + kw, known, other=0.0)
                total += seen.to(tl.float32) * tap.to(tl.float32)[None, :]
    place = pixel.to(tl.int64)[:, None] * C + channel[None, :]
    tl.store(y + place, total.to(y.dtype.element_ty), there[:, None] & known[None, :])


@triton.jit
def of_input(
    of_output, weight, of_input, pixels,
    T, H, W, OT, OH, OW,
    ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, PT: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    C, KT: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """A tile of the input's gradient: input i of each axis was read by the outputs  (i + padding - tap) / stride,
    where that is whole."""
    pixel = tl.program_id(0) * BP + tl.arange(0, BP)
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    w, h = pixel % W, pixel // W % H
    t, b = pixel // (W * H) % T, pixel // (W * H * T)
    there, known = pixel < pixels, channel < C
    total = tl.zeros((BP, BC), tl.float32)
    for kt in tl.static_range(KT):
        ot = t + PT - kt
        for kh in tl.static_range(3):
            oh = h + PH - kh
            for kw in tl.static_range(3):
                ow = w + PW - kw
                inside = there & (ot >= 0) & (ot < OT * ST) & (oh >= 0) & (oh < OH * SH) & (ow >= 0) & (ow < OW * SW)
                whole = inside & (ot % ST == 0) & (oh % SH == 0) & (ow % SW == 0)
                place = (((b * OT + ot // ST) * OH + oh // SH) * OW + ow // SW).to(tl.int64) * C
                seen = tl.load(
                    of_output + place[:, None] + channel[None, :], whole[:, None] & known[None, :], other=0.0
                )
                tap = tl.load(weight + channel * (KT * 9) + kt * 9 + kh * 3 + kw, known, other=0.0)
                total += seen.to(tl.float32) * tap.to(tl.float32)[None, :]
    place = pixel.to(tl.int64)[:, None] * C + channel[None, :]
    tl.store(of_input + place, total.to(of_input.dtype.element_ty), there[:, None] & known[None, :])


@triton.jit
def of_weight(
    x, of_output, partial, pixels, rounds,
    T, H, W, OT, OH, OW,
    ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, PT: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    C, KT: tl.constexpr, BC: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Of three taps side by side, the sum of  input * gradient  over `rounds` tiles of the output."""
    row, part = tl.program_id(0), tl.program_id(2)
    kt, kh = row // 3, row % 3
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
        t, h, w = ot * ST + kt - PT, oh * SH + kh - PH, ow * SW - PW
        inside = there & (t >= 0) & (t < T) & (h >= 0) & (h < H)
        place = (((b * T + t) * H + h) * W + w).to(tl.int64)[:, None] * C + channel[None, :]
        seen = x + place
        left += given * tl.load(seen, (inside & (w >= 0) & (w < W))[:, None] & known[None, :], other=0.0).to(tl.float32)
        seen += C
        middle += given * tl.load(seen, (inside & (w + 1 >= 0) & (w + 1 < W))[:, None] & known[None, :], other=0.0).to(
            tl.float32
        )
        seen += C
        right += given * tl.load(seen, (inside & (w + 2 >= 0) & (w + 2 < W))[:, None] & known[None, :], other=0.0).to(
            tl.float32
        )
    place = partial + ((part * KT * 3 + row) * 3).to(tl.int64) * C + channel
    tl.store(place, tl.sum(left, 0), known)
    tl.store(place + C, tl.sum(middle, 0), known)
    tl.store(place + 2 * C, tl.sum(right, 0), known)
