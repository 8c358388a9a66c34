"""GPUs as CUDA's driver describes them."""

import ctypes
from typing import Any

import pytest

from runtime.errors import ProviderUnavailable
from runtime.gpu import Gpu, describe_gpu, find_gpu

ADA = Gpu(name="NVIDIA RTX 4090", capability="8.9", cuda="13.0")


class FakeDriver:
    """Answers as libcuda of an RTX 4090 with CUDA 13.0 would, or with an error code."""

    def __init__(self, *, init: int = 0, attribute: int = 0) -> None:
        self.init, self.attribute = init, attribute

    def cuInit(self, flags: int) -> int:
        return self.init

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:
        device._obj.value = 7
        return 0 if ordinal < 2 else 101

    def cuDeviceGetName(self, name: Any, size: int, device: ctypes.c_int) -> int:
        assert device.value == 7
        name.value = ADA.name.encode()
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: ctypes.c_int) -> int:
        value._obj.value = {75: 8, 76: 9}[attribute]
        return self.attribute

    def cuDriverGetVersion(self, value: Any) -> int:
        value._obj.value = 13_000
        return 0


def test_the_gpu_is_described_by_its_driver() -> None:
    assert describe_gpu(FakeDriver()) == describe_gpu(FakeDriver(), 1) == ADA


def test_a_number_of_no_gpu_has_none() -> None:
    assert describe_gpu(FakeDriver(), 2) is None


def test_a_driver_without_a_gpu_has_none() -> None:
    assert describe_gpu(FakeDriver(init=100)) is None


def test_a_driver_that_does_not_describe_its_gpu_fails() -> None:
    with pytest.raises(ProviderUnavailable, match=r"codes \[0, 1, 1, 0\]"):
        describe_gpu(FakeDriver(attribute=1))


def test_no_driver_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", missing)
    assert find_gpu() is None
