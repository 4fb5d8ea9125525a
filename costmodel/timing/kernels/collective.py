r"""Collectives: latency that grows with devices, link bandwidth that grows with size."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from costmodel.timing.kernels.base import Chip, FloatArray, Parameter, Shapes

__all__ = ["MODELS", "CollectiveModel"]


class CollectiveModel:
    r"""Eight effective parameters for one topology, library and operation.

    A device sends :math:`V = f\,\frac{n-1}{n} M` bytes of a message of M bytes
    [1]_, with f = 2 for all-reduce and 1 for the others (send and receive:
    :math:`V = M`).  Bandwidth b rises from a share r of its final value, since
    small messages use protocols of lower latency and bandwidth [2]_, and falls by c
    where more than two devices no longer share one switch:

    .. math:: a = a_0\,(1 + a_n (n-2)),\qquad
              b = e\,c^{[n>2]}\,(n/2)^{b_n} B_{link}\left(1 - \frac{1-r}{1 + V/s}\right)

    .. math:: t = (a^p + (V/b)^p)^{1/p}

    Fitted to all device counts of one node at once, so that a count that was
    not measured is interpolated.  Across nodes the slowest link decides: fit
    each (devices, devices per node) by itself with ``an = bn = 0``, ``ec = 1``.

    Parameters
    ----------
    name : str
        Name in calibration files.
    kind : str
        Operation.
    passes : float
        f of the formula; 0 for a transfer between two devices.

    References
    ----------
    .. [1] R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of Collective
       Communication Operations in MPICH", 2005, section 4.
    .. [2] Z. Hu et al., "Demystifying NCCL", arXiv:2507.04786, 2025, section on
       protocols: LL, LL128 and Simple.
    """

    sizes: tuple[str, ...] = ("bytes", "devices")
    parameters: tuple[Parameter, ...] = (
        Parameter("a0", 0.5e-6, 200e-6, 8e-6, "s", "latency with two devices"),
        Parameter("an", 0.0, 1.5, 0.15, "1", "growth of latency per further device"),
        Parameter("e", 0.002, 1.2, 0.6, "1", "share of link bandwidth reached with two devices"),
        Parameter("ec", 0.05, 1.5, 1.0, "1", "bandwidth with more than two devices over that"),
        Parameter("bn", -2.0, 1.0, 0.1, "1", "exponent of bandwidth in devices"),
        Parameter("p", 0.4, 8.0, 1.2, "1", "how abruptly bandwidth takes over from latency"),
        Parameter("r", 0.05, 1.0, 0.5, "1", "share of bandwidth that small messages reach"),
        Parameter("s", 1e3, 1e9, 4e6, "B", "sent bytes at which half of the rest is reached"),
    )

    def __init__(self, name: str, kind: str, passes: float) -> None:
        self.name = name
        self.kind = kind
        self._passes = passes

    def sent_bytes(self, message: FloatArray, devices: FloatArray) -> FloatArray:
        """Return what one device sends over its link [B]."""
        if not self._passes:
            return message
        result: FloatArray = self._passes * (devices - 1.0) / devices * message
        return result

    def time_s(self, values: Mapping[str, float], shapes: Shapes, chip: Chip) -> FloatArray:
        """Return seconds of one collective.

        Parameters
        ----------
        values : mapping of str to float
            The parameters.
        shapes : mapping of str to ndarray
            ``bytes`` (message) and ``devices``; one device takes no time.
        chip : Chip
            Link bandwidth.

        Returns
        -------
        ndarray
            [s].

        Examples
        --------
        >>> chip = Chip(312e12, 2.0e12, 40e6, 108, 300e9)
        >>> model = MODELS[0]
        >>> values = {p.name: p.start for p in model.parameters}
        >>> shapes = {"bytes": np.array([2.0**26]), "devices": np.array([1.0, 8.0])}
        >>> (model.time_s(values, shapes, chip) * 1e6).round().tolist()
        [0.0, 584.0]
        """
        message, devices = (np.asarray(shapes[name], dtype=np.float64) for name in self.sizes)
        count = np.maximum(devices, 2.0)
        sent = self.sent_bytes(message, count)
        bandwidth = values["e"] * (count / 2.0) ** values["bn"] * chip.link_bytes_per_s
        bandwidth = bandwidth * np.where(count > 2.0, values["ec"], 1.0)
        bandwidth = bandwidth * (1.0 - (1.0 - values["r"]) / (1.0 + sent / values["s"]))
        latency = values["a0"] * (1.0 + values["an"] * (count - 2.0))
        ratio = sent / bandwidth / latency
        power = values["p"]
        # The larger factored out, so that large ratios cannot overflow.
        larger, smaller = np.maximum(ratio, 1.0), np.minimum(ratio, 1.0)
        total = latency * larger * (1.0 + (smaller / larger) ** power) ** (1.0 / power)
        result: FloatArray = np.where(devices > 1.0, total, 0.0)
        return result


MODELS = (
    CollectiveModel("ring_all_reduce", "all_reduce", 2.0),
    CollectiveModel("ring_all_gather", "all_gather", 1.0),
    CollectiveModel("ring_reduce_scatter", "reduce_scatter", 1.0),
    CollectiveModel("pairwise_alltoall", "alltoall", 1.0),
    CollectiveModel("link_send_recv", "send_recv", 0.0),
)
