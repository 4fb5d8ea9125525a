"""The hardware numbers of LLM-Viewer, as data with their source."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from costmodel.catalog.yaml_files import read_yaml_mapping
from costmodel.errors import UnknownNameError
from costmodel.specs.base import Spec

__all__ = ["ViewerDevice", "list_viewer_devices", "load_viewer_device", "viewer_device_of"]


class ViewerDevice(Spec):
    """A device as LLM-Viewer has it.

    Attributes
    ----------
    bandwidth_bytes_per_s, fp16_ops_per_s, int8_ops_per_s : float
        [B/s], [OP/s].
    onchip_bytes : float
        Register files, which decide the blocks of flash attention [B].
    profiles : tuple of str
        Our devices that stand for the same card.
    """

    bandwidth_bytes_per_s: float
    fp16_ops_per_s: float
    int8_ops_per_s: float
    onchip_bytes: float
    profiles: tuple[str, ...] = ()


@cache
def _read() -> dict[str, ViewerDevice]:
    name = "llm_viewer_hardware.yaml"
    data = read_yaml_mapping(files("costmodel.conventions") / name, name)
    return {
        device: ViewerDevice.parse(values, f"{name}, {device}")
        for device, values in data["devices"].items()
    }


def list_viewer_devices() -> tuple[str, ...]:
    """Return LLM-Viewer's names of devices.

    Examples
    --------
    >>> "nvidia_A6000" in list_viewer_devices()
    True
    """
    return tuple(sorted(_read()))


def load_viewer_device(name: str) -> ViewerDevice:
    """Return a device by LLM-Viewer's name.

    Raises
    ------
    UnknownNameError
        If LLM-Viewer has no such device.

    Examples
    --------
    >>> load_viewer_device("nvidia_H100_SXM").bandwidth_bytes_per_s
    3072000000000.0
    """
    devices = _read()
    if name not in devices:
        raise UnknownNameError("LLM-Viewer device", name, devices)
    return devices[name]


def viewer_device_of(profile: str) -> tuple[str, ViewerDevice] | None:
    """Return name and numbers of the device that LLM-Viewer has for one of ours, or None.

    Examples
    --------
    >>> viewer_device_of("rtx-a6000")[0]
    'nvidia_A6000'
    >>> viewer_device_of("b200") is None
    True
    """
    for name, device in _read().items():
        if profile in device.profiles:
            return name, device
    return None
