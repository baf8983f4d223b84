"""Windows hold the frames that they name, whether they are a view of them or a copy."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyhd_pipe.stages.networks.inference import ScaledFrame, clips_of, scaled_frames
from tinyhd_pipe.stages.networks.network import Scaling

SCALING = Scaling(mean=(0.0,) * 3, std=(1.0,) * 3, size=(2, 3))


def _frames(count: int) -> list[ScaledFrame]:
    return list(scaled_frames(SCALING, (np.full((2, 3, 3), place, np.uint8) for place in range(count))))


def _seen(places: list[int], frames: list[ScaledFrame]) -> torch.Tensor:
    return clips_of([[frames[place] for place in places]])


@settings(deadline=None)
@given(first=st.integers(0, 134), order=st.sampled_from([1, -1, 0]))
def test_a_window_has_its_frames_in_their_order(first: int, order: int) -> None:
    frames = _frames(150)
    places = list(range(first, first + 16))[:: order or 1] if order else [first] * 16
    clip = _seen(places, frames)
    assert clip.shape == (1, 3, 16, 2, 3)
    assert clip.is_contiguous(memory_format=torch.channels_last_3d)
    assert clip[0, 0, :, 0, 0].tolist() == places
    assert (clip == clip[:, :1, :, :1, :1]).all()


def test_neighbours_are_not_copied_and_what_comes_later_changes_no_window() -> None:
    coming = scaled_frames(SCALING, (np.full((2, 3, 3), place % 256, np.uint8) for place in range(300)))
    frames = [next(coming) for _ in range(20)]
    clip = _seen(list(range(4, 20)), frames)
    assert clip.data_ptr() == frames[4].pixels.data_ptr()
    before = clip.clone()
    list(coming)
    assert torch.equal(clip, before)


def test_several_windows_and_frames_of_another_layout_are_copied() -> None:
    frames = _frames(20)
    several = clips_of([frames[:16], frames[2:18]])
    assert several[:, 0, :, 0, 0].tolist() == [list(range(16)), list(range(2, 18))]
    planes = torch.arange(16.0).view(16, 1, 1, 1).expand(16, 3, 2, 3).contiguous()
    clip = clips_of([[ScaledFrame(place, place, one, decoded=True) for place, one in enumerate(planes)]])
    assert clip[0, 0, :, 0, 0].tolist() == list(range(16))
    assert clip.is_contiguous(memory_format=torch.channels_last_3d)
