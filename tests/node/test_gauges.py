"""How busy GPUs are, as far as NVIDIA's library tells; it stands in here for one, because a GPU is not where tests run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from nbray.node import accelerators


class Library:
    """Two devices. `opened` counts how often it was begun."""

    NVMLError = type("NVMLError", (Exception,), {})

    def __init__(self) -> None:
        self.opened = 0
        self.broken = False

    def nvmlInit(self) -> None:  # noqa: N802 -- named as in the library
        self.opened += 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:  # noqa: N802
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any:  # noqa: N802
        if self.broken:
            raise self.NVMLError("the driver is gone")
        return SimpleNamespace(used=10 * (handle + 1), total=100)

    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any:  # noqa: N802
        return SimpleNamespace(gpu=25 * (handle + 1))


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Library:
    found = Library()
    (tmp_path / "control").touch()
    monkeypatch.setattr(accelerators, "pynvml", found)
    monkeypatch.setattr(accelerators, "CONTROL", str(tmp_path / "control"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return found


def test_each_reading_has_every_device_and_the_library_is_opened_once(library: Library) -> None:
    gauges = accelerators.Gauges()
    assert gauges.read() == [[0.25, 10, 100], [0.5, 20, 100]]
    gauges.read()
    assert library.opened == 1


def test_only_devices_that_are_ours_are_read(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert accelerators.Gauges().read() == [[0.5, 20, 100]]
    assert library.opened == 1


def test_a_driver_that_fails_leaves_the_rest_of_the_node_readable(library: Library) -> None:
    gauges = accelerators.Gauges()
    library.broken = True
    assert gauges.read() == []
    library.broken = False
    assert len(gauges.read()) == 2
