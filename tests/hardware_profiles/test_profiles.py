"""The shipped numbers: each has a source, and they agree with facts they were not copied from."""

from __future__ import annotations

from importlib.resources import files

import pytest

from costmodel.catalog.hardware import list_gpus, load_gpu, load_host
from costmodel.specs.hardware import HardwareProfile

Row = tuple[str, float, float, int, float, float | None, float]

EXPECTED = [
    "a100-40gb-pcie",
    "a100-40gb-sxm",
    "a100-80gb-pcie",
    "a100-80gb-sxm",
    "a30",
    "a40",
    "a800-80gb-sxm",
    "b200",
    "h100-pcie",
    "h100-sxm",
    "h200",
    "l4",
    "l40s",
    "rtx-4090",
    "rtx-a6000",
    "v100-sxm",
]

# Dense fp16 tensor FLOP per clock and SM, accumulating in fp32: tensor cores per SM x FMA per
# core x 2.  Volta whitepaper: 8 x 64; A100 whitepaper: 4 x 256; GA102 and Ada whitepapers:
# 4 x 128, GeForce half with fp32 accumulation; H100 whitepaper: twice the A100.
FLOPS_PER_CLOCK = {
    "a100-40gb-pcie": 2048,
    "a100-40gb-sxm": 2048,
    "a100-80gb-pcie": 2048,
    "a100-80gb-sxm": 2048,
    "a800-80gb-sxm": 2048,
    "a30": 2048,
    "a40": 1024,
    "rtx-a6000": 1024,
    "v100-sxm": 1024,
    "h100-sxm": 4096,
    "h100-pcie": 4096,
    "h200": 4096,
    "l40s": 1024,
    "l4": 1024,
    "rtx-4090": 512,
}

# Bus width [bit] and transfer rate per pin [Gbit/s]: twice the memory clock of the product
# briefs and driver listings for HBM, the rated speed of the chips for GDDR.
MEMORY_BUS = {
    "a100-40gb-pcie": (5120, 2 * 1.215),
    "a100-40gb-sxm": (5120, 2 * 1.215),
    "a100-80gb-pcie": (5120, 2 * 1.512),
    "a100-80gb-sxm": (5120, 2 * 1.593),
    "a800-80gb-sxm": (5120, 2 * 1.593),
    "a30": (3072, 2 * 1.215),
    "a40": (384, 14.5),
    "rtx-a6000": (384, 16.0),
    "v100-sxm": (4096, 2 * 0.877),
    "h100-sxm": (5120, 2 * 2.619),
    "h100-pcie": (5120, 2 * 1.593),
    "h200": (6144, 6.25),
    "l40s": (384, 18.0),
    "l4": (192, 12.5),
    "rtx-4090": (384, 21.0),
}

# fp16 tensor TFLOP/s "with sparsity" of the datasheets and whitepapers: the number to avoid.
SPARSE_FP16 = {
    "a100-80gb-sxm": 624,
    "a30": 330,
    "a40": 299.4,
    "rtx-a6000": 309.7,
    "h100-sxm": 1979,
    "h100-pcie": 1513,
    "h200": 1979,
    "l40s": 733,
    "l4": 242,
    "rtx-4090": 330.4,
    "b200": 4500,
}

SOLD_AS_GB = {
    "a100-40gb-pcie": 40,
    "a100-40gb-sxm": 40,
    "a100-80gb-pcie": 80,
    "a100-80gb-sxm": 80,
    "a800-80gb-sxm": 80,
    "a30": 24,
    "a40": 48,
    "rtx-a6000": 48,
    "v100-sxm": 32,
    "h100-sxm": 80,
    "h100-pcie": 80,
    "h200": 141,
    "l40s": 48,
    "l4": 24,
    "rtx-4090": 24,
    "b200": 180,
}

# name, dense fp16 tensor [TFLOP/s], memory bandwidth [GB/s], SMs, L2 [MiB], NVLink per
# direction [GB/s], TDP [W]: the public tables quoted in the notes of the files' sources
# (Microway's Ampere comparison, hpctech's H100 table, TechPowerUp-derived listings).
REFERENCE: list[Row] = [
    ("a100-80gb-sxm", 312, 2039, 108, 40, 300, 400),
    ("a100-80gb-pcie", 312, 1935, 108, 40, 300, 300),
    ("a100-40gb-sxm", 312, 1555, 108, 40, 300, 400),
    ("a100-40gb-pcie", 312, 1555, 108, 40, 300, 250),
    ("a800-80gb-sxm", 312, 2039, 108, 40, 200, 400),
    ("rtx-a6000", 154.8, 768, 84, 6, 56.25, 300),
    ("a40", 149.7, 696, 84, 6, 56.25, 300),
    ("a30", 165, 933, 56, 24, 100, 165),
    ("v100-sxm", 125, 900, 80, 6, 150, 300),
    ("h100-sxm", 989.4, 3350, 132, 50, 450, 700),
    ("h100-pcie", 756, 2039, 114, 50, 300, 350),
    ("h200", 989.4, 4800, 132, 50, 450, 700),
    ("l40s", 362.05, 864, 142, 96, None, 350),
    ("l4", 121, 300, 58, 48, None, 72),
    ("rtx-4090", 165.2, 1008, 128, 72, None, 450),
    ("b200", 2250, 8000, 148, 126, 900, 1000),
]


def fp16_tensor_tflops(gpu: HardwareProfile) -> float:
    peak = gpu.peak_flops_per_s("fp16")
    assert peak is not None
    return peak / 1e12


def test_the_promised_devices_ship() -> None:
    assert list(list_gpus()) == EXPECTED


@pytest.mark.parametrize("name", EXPECTED)
def test_file_is_valid_and_named_after_its_device(name: str) -> None:
    assert load_gpu(name).name == name


@pytest.mark.parametrize("name", EXPECTED)
def test_every_number_has_a_source_and_every_source_a_number(name: str) -> None:
    gpu = load_gpu(name)
    used = {quantity.source for quantity in gpu.quantities()}
    assert "user" not in used
    assert used == set(gpu.sources)


@pytest.mark.parametrize("name", EXPECTED)
def test_capacity_source_explains_the_unit(name: str) -> None:
    gpu = load_gpu(name)
    note = gpu.sources[gpu.memory.capacity.source].note
    assert "GB" in note
    assert "MiB" in note


def test_aliases_are_unique_over_all_files() -> None:
    owners: dict[str, str] = {}
    for name in list_gpus():
        for alias in (name, *load_gpu(name).aliases):
            assert owners.setdefault(alias.lower(), name) == name, alias
    assert len(owners) == sum(1 + len(load_gpu(name).aliases) for name in list_gpus())


@pytest.mark.parametrize("row", REFERENCE, ids=lambda row: row[0])
def test_reference_values(row: Row) -> None:
    name, tflops, bandwidth, sms, l2, nvlink, tdp = row
    gpu = load_gpu(name)
    assert fp16_tensor_tflops(gpu) == pytest.approx(tflops)
    assert gpu.bandwidth_bytes_per_s == pytest.approx(bandwidth * 1e9)
    assert gpu.multiprocessors == sms
    assert gpu.l2_cache.si == l2 * 2**20
    link = gpu.interconnect.nvlink_per_direction
    assert (link.si if link else None) == (nvlink * 1e9 if nvlink else None)
    assert gpu.tdp.si == tdp


@pytest.mark.parametrize(("name", "per_clock"), FLOPS_PER_CLOCK.items())
def test_tensor_peak_is_units_times_clock(name: str, per_clock: int) -> None:
    gpu = load_gpu(name)
    clock = gpu.tensor_boost_clock or gpu.boost_clock
    derived = gpu.multiprocessors * per_clock * clock.si
    assert fp16_tensor_tflops(gpu) * 1e12 == pytest.approx(derived, rel=0.03)


def test_b200_tensor_peak_is_below_units_times_top_clock() -> None:
    # Twice Hopper's rate per SM; the clock of the quoted peak is not published.
    gpu = load_gpu("b200")
    top = gpu.multiprocessors * 8192 * gpu.boost_clock.si
    assert 0.9 * top < fp16_tensor_tflops(gpu) * 1e12 < top


@pytest.mark.parametrize("name", EXPECTED)
def test_fp32_vector_peak_is_cores_times_clock(name: str) -> None:
    gpu = load_gpu(name)
    cores = 64 if gpu.chip in ("GA100", "GV100") else 128
    derived = 2 * cores * gpu.multiprocessors * gpu.boost_clock.si
    assert gpu.peak_flops_per_s("fp32", "vector") == pytest.approx(derived, rel=0.02)


@pytest.mark.parametrize(("name", "bus"), MEMORY_BUS.items())
def test_bandwidth_is_bus_times_transfer_rate(name: str, bus: tuple[int, float]) -> None:
    width_bit, gbit_per_s = bus
    derived = width_bit * gbit_per_s * 1e9 / 8
    assert load_gpu(name).bandwidth_bytes_per_s == pytest.approx(derived, rel=0.01)


@pytest.mark.parametrize(("name", "sparse"), SPARSE_FP16.items())
def test_no_sparse_rate_is_used(name: str, sparse: float) -> None:
    assert fp16_tensor_tflops(load_gpu(name)) == pytest.approx(sparse / 2, rel=0.015)


@pytest.mark.parametrize(("name", "sold_as"), SOLD_AS_GB.items())
def test_capacity_is_what_the_driver_leaves_of_the_gib(name: str, sold_as: int) -> None:
    # Up to 1/16 of GDDR holds check bits when ECC is on.
    usable = load_gpu(name).capacity_bytes / (sold_as * 2**30)
    assert 15 / 16 - 0.001 < usable <= 1


@pytest.mark.parametrize("name", sorted(set(EXPECTED) - {"v100-sxm", "rtx-4090"}))
def test_int8_is_twice_fp16(name: str) -> None:
    gpu = load_gpu(name)
    int8, fp16 = gpu.peak_flops_per_s("int8"), gpu.peak_flops_per_s("fp16")
    assert int8 is not None
    assert fp16 is not None
    assert int8 == pytest.approx(2 * fp16, rel=0.015)


def test_geforce_accumulates_in_fp32_at_half_rate() -> None:
    gpu = load_gpu("rtx-4090")
    peaks = {(p.dtype, p.accumulate): p.value for p in gpu.peaks if p.engine == "tensor"}
    assert peaks["fp16", "fp16"] == pytest.approx(2 * peaks["fp16", "fp32"], rel=0.001)
    assert peaks["fp8", "fp16"] == pytest.approx(2 * peaks["fp8", "fp32"], rel=0.001)
    assert peaks["int8", "int32"] == pytest.approx(2 * peaks["fp16", "fp16"], rel=0.001)


@pytest.mark.parametrize("name", EXPECTED)
def test_formats_follow_the_architecture(name: str) -> None:
    gpu = load_gpu(name)
    has = {dtype: gpu.peak_flops_per_s(dtype) is not None for dtype in ("bf16", "fp8", "fp4")}
    capability = tuple(int(part) for part in gpu.compute_capability.split("."))
    assert has["bf16"] == (capability >= (8, 0))
    assert has["fp8"] == (capability >= (8, 9))
    assert has["fp4"] == (capability >= (10, 0))


def test_host_peak_is_cores_times_clock_times_lanes() -> None:
    # 64 cores, 2.25 GHz base, two 256-bit FMA units; eight channels of DDR4-3200.
    host = load_host("epyc-7742")
    assert host.name == "epyc-7742"
    assert host.peak_fp32.si == pytest.approx(64 * 2.25e9 * 2 * 8 * 2)
    assert host.memory_bandwidth.si == pytest.approx(8 * 8 * 3.2e9)
    assert host.cores == 64
    assert host.call is not None
    used = {host.peak_fp32.source, host.memory_bandwidth.source, host.call.source}
    assert used == set(host.sources)


def test_data_are_found_beside_the_installed_package() -> None:
    folder = files("costmodel.hardware_profiles")
    assert (folder / "a40.yaml").is_file()
    assert (folder / "hosts" / "epyc-7742.yaml").is_file()
