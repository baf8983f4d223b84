"""The device: what was asked for, or the best that is there; a wrong name is one line."""

import pytest
import torch

from tinyhd_pipe.stages.networks import device
from tinyhd_pipe.stages.networks.device import choose_device, device_of, make_current, why_not
from tinyhd_pipe.store.errors import SettingError


def _there(monkeypatch: pytest.MonkeyPatch, *, cuda: int = 0, mps: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "some GPU")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


def test_auto_takes_cuda_where_there_is_one_and_else_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    _there(monkeypatch, cuda=2, mps=True)
    assert choose_device("auto").device == "cuda", "without a number: workers share them out"
    assert "2 x some GPU" in choose_device("auto").why
    _there(monkeypatch)
    assert choose_device("auto").device == "cpu"
    assert "no CUDA device" in choose_device("auto").why


def test_mps_is_taken_only_where_it_has_just_answered_as_the_processor_does(monkeypatch: pytest.MonkeyPatch) -> None:
    _there(monkeypatch, mps=True)
    missing = choose_device("auto")  # no build for Linux has it: the trial itself fails
    assert missing.device == "cpu"
    assert "missing on it" in missing.why
    monkeypatch.setattr(device, "why_not", lambda name: None)
    assert choose_device("auto").device == "mps"


def test_a_device_that_answers_otherwise_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_not("cpu") is None
    right = torch.nn.Module.to

    def wrong(self: torch.nn.Module, *args: object) -> torch.nn.Module:
        moved = right(self, *args)  # type: ignore[call-overload]
        for parameter in moved.parameters():
            parameter.data.mul_(1.01)
        return moved

    monkeypatch.setattr(torch.nn.Module, "to", wrong)
    assert "differ from the CPU's by" in str(why_not("cpu"))


@pytest.mark.parametrize("wanted", ["tpu", "cuda:", "cuda", "cuda:3", "mps", "meta", ""])
def test_a_device_that_is_not_known_or_not_there_is_one_line(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _there(monkeypatch)
    with pytest.raises(SettingError, match="use auto, cpu, cuda, cuda:N or mps") as raised:
        choose_device(wanted)
    assert repr(wanted) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_device_that_is_there_is_taken_as_it_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _there(monkeypatch, cuda=2)
    assert [choose_device(name).device for name in ("cpu", "cuda", "cuda:1")] == ["cpu", "cuda", "cuda:1"]
    with pytest.raises(SettingError, match="torch sees 2"):
        choose_device("cuda:2")


def test_processes_share_out_the_cuda_devices_and_take_the_one_that_is_named() -> None:
    assert [device_of("cuda", worker, 4) for worker in range(6)] == [f"cuda:{i}" for i in (0, 1, 2, 3, 0, 1)]
    assert device_of("cuda:2", 3, 4) == "cuda:2"
    assert device_of("cpu", 3, 4) == "cpu"


def test_a_thread_takes_the_cuda_device_that_is_meant_and_the_first_where_none_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    for name in ("cuda", "cuda:1", "cpu"):
        make_current(name)
    assert taken == [0, 1]
