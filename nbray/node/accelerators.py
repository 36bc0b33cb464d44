"""Which GPUs this machine has. Asked once, when a node begins; NVIDIA's by its own library, if that is installed."""

from __future__ import annotations

import os

try:
    import pynvml
except ImportError:
    pynvml = None

VISIBLE = "CUDA_VISIBLE_DEVICES"
#: The driver's own device: without it the library is not even loaded.
CONTROL = "/dev/nvidiactl"


def found() -> tuple[int, str]:
    """(how many GPUs the processes of this node may see, the kind of the first: "H100"); (0, "") where there are none.

    CUDA_VISIBLE_DEVICES of the daemon counts: devices that are not named there are not ours.
    """
    if pynvml is None or not os.path.exists(CONTROL):
        return 0, ""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0, ""  # a driver that does not work gives nobody a GPU
    try:
        count = pynvml.nvmlDeviceGetCount()
        name = pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0)) if count else ""
    except pynvml.NVMLError:
        return 0, ""
    finally:
        pynvml.nvmlShutdown()
    visible = os.environ.get(VISIBLE)
    if visible is not None:
        count = min(count, len(visible_ids(visible)))
    return count, kind_of(name.decode() if isinstance(name, bytes) else name)


class Gauges:
    """How busy the GPUs are, asked again and again: the library stays open, because opening it takes longer than asking."""

    def __init__(self) -> None:
        self._handles: list[object] | None = None

    def read(self) -> list[list[float]]:
        """[share of the time busy, bytes used, bytes in all] of each GPU that is ours; none where they cannot be asked."""
        if pynvml is None or not os.path.exists(CONTROL):
            return []
        try:
            if self._handles is None:
                pynvml.nvmlInit()
                self._handles = [_handle(each) for each in _ours(pynvml.nvmlDeviceGetCount())]
            return [_gauge(handle) for handle in self._handles]
        except (pynvml.NVMLError, ValueError):
            return []


def _ours(count: int) -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [str(number) for number in range(count)] if visible is None else visible_ids(visible)


def _handle(name: str) -> object:
    found: object = (
        pynvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else pynvml.nvmlDeviceGetHandleByUUID(name.encode())
    )
    return found


def _gauge(handle: object) -> list[float]:
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return [pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100, int(memory.used), int(memory.total)]


def visible_ids(visible: str) -> list[str]:
    """The devices that a value of CUDA_VISIBLE_DEVICES lets through: up to the first that cannot be one."""
    ids: list[str] = []
    for name in visible.split(","):
        if not name.strip() or name.strip().startswith("-"):
            break
        ids.append(name.strip())
    return ids


def kind_of(name: str) -> str:
    """The part of a product's name that people ask for: "H100" of "NVIDIA H100 80GB HBM3", "V100" of "Tesla V100-SXM2-16GB"."""
    words = name.replace("-", " ").split()
    makers = {"NVIDIA", "TESLA", "GEFORCE", "QUADRO", "RTX", "GTX", "TITAN", "GRAPHICS"}
    models = [word for word in words if word.upper() not in makers]
    return models[0] if models else "".join(words[-1:])
