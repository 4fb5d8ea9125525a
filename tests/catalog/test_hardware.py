"""Finding devices by name, alias and file, and refusing bad files with one readable line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from costmodel.catalog import hardware
from costmodel.catalog.hardware import list_gpus, load_gpu, load_host
from costmodel.catalog.yaml_files import MAX_BYTES, read_yaml_mapping
from costmodel.errors import SpecError, UnknownNameError

ROOT = Path(__file__).resolve().parents[2]
MEASUREMENTS = ROOT.parent / "shared" / "measurements"

FULL = """\
name: my-gpu
title: My accelerator
vendor: Nobody
architecture: Test
chip: T1
compute_capability: "1.0"
multiprocessors: 10
boost_clock: {value: 1.0, unit: GHz}
l2_cache: {value: 8, unit: MiB}
tdp: {value: 100, unit: W}
memory:
  kind: HBM
  capacity: {value: 16, unit: GiB}
  bandwidth: {value: 500, unit: GB/s}
interconnect:
  pcie_per_direction: {value: 32, unit: GB/s}
peaks:
  - {engine: tensor, dtype: fp16, accumulate: fp32, value: 50, unit: TFLOP/s}
"""


def write(folder: Path, text: str, name: str = "mine.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


# Names


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("A100-SXM4-80GB", "a100-80gb-sxm"),
        ("a100-sxm4-80gb", "a100-80gb-sxm"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb-sxm"),
        ("A100", "a100-80gb-sxm"),
        ("A100-PCIE-40GB", "a100-40gb-pcie"),
        ("NVIDIA A100 80GB PCIe", "a100-80gb-pcie"),
        ("A800-SXM4-80GB", "a800-80gb-sxm"),
        ("RTX-A6000", "rtx-a6000"),
        ("RTX A6000", "rtx-a6000"),
        ("A6000", "rtx-a6000"),
        ("A40", "a40"),
        ("A30-24GB", "a30"),
        ("V100-SXM2-32GB", "v100-sxm"),
        ("H100", "h100-sxm"),
        ("H100-SXM5-80GB", "h100-sxm"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("H100-PCIe-80GB", "h100-pcie"),
        ("H200-SXM", "h200"),
        ("L40S", "l40s"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("rtx_4090", "rtx-4090"),
        ("NVIDIA B200", "b200"),
        ("Rtx-4090", "rtx-4090"),
    ],
)
def test_aliases_resolve_without_regard_to_case(alias: str, name: str) -> None:
    assert load_gpu(alias).name == name


def test_direct_name_reads_only_its_own_file(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def spy(source: Path, where: str) -> dict[object, object]:
        read.append(where)
        return read_yaml_mapping(source, where)

    monkeypatch.setattr(hardware, "read_yaml_mapping", spy)
    hardware._shipped.cache_clear()
    hardware._shipped_gpu.cache_clear()
    assert load_gpu("l4").name == "l4"
    assert read == ["l4.yaml"]


def test_listing_does_not_import_yaml() -> None:
    code = (
        "import sys; from costmodel.catalog.hardware import list_gpus; "
        "assert list_gpus(); sys.exit('yaml' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "guess"),
    [
        ("a100-80g-sxm", "Did you mean a100-80gb-sxm?"),
        ("H100-SXM5-80G", "h100-sxm"),
        ("GeForce", "GeForce-RTX-4090 is an alias of rtx-4090."),
        ("", "Known: a100-40gb-pcie"),
        ("RTX-6000-Ada", "A path to a YAML file is accepted too."),
    ],
)
def test_unknown_name_lists_names_and_guesses(name: str, guess: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        load_gpu(name)
    assert guess in str(caught.value)
    assert caught.value.choices == sorted(list_gpus())


def test_unknown_host() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown host 'epyc'.*epyc-7742"):
        load_host("epyc")


@pytest.mark.skipif(not MEASUREMENTS.is_dir(), reason="the timing files are not in this checkout")
def test_gpu_names_of_timing_files_resolve() -> None:
    others = {"RTX-6000-Ada", "RTX-5000-Ada", "RTX-4000-Ada"}
    found: set[str] = set()
    for path in sorted(MEASUREMENTS.glob("*.parquet")):
        found |= set(pd.read_parquet(path, columns=["gpu"])["gpu"].unique())
    found |= set(pd.read_csv(MEASUREMENTS / "e2e_llamacpp.csv", usecols=["gpu"])["gpu"])
    assert found > others
    for name in sorted(found - others):
        assert load_gpu(name).name in list_gpus()
    for name in sorted(others):
        with pytest.raises(UnknownNameError):
            load_gpu(name)


# Files of users


def test_full_file_needs_no_sources(tmp_path: Path) -> None:
    gpu = load_gpu(write(tmp_path, FULL))
    assert gpu.name == "my-gpu"
    assert {quantity.source for quantity in gpu.quantities()} == {"user"}
    assert gpu.peak_flops_per_s("fp16") == 50e12
    assert gpu.dtypes() == ("fp16",)
    assert gpu.capacity_bytes == 16 * 2**30
    assert gpu.link_bytes_per_s == 32e9


def test_path_object_without_suffix_is_a_file(tmp_path: Path) -> None:
    write(tmp_path, FULL, "device")
    assert load_gpu(tmp_path / "device").name == "my-gpu"


def test_relative_name_with_suffix_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, FULL, "device.YML")
    monkeypatch.chdir(tmp_path)
    assert load_gpu("device.YML").name == "my-gpu"


def test_byte_order_mark_is_tolerated(tmp_path: Path) -> None:
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbf" + FULL.encode())
    assert load_gpu(tmp_path / "bom.yaml").name == "my-gpu"


def test_base_doubles_the_bandwidth_and_keeps_the_rest(tmp_path: Path) -> None:
    text = "base: A100-SXM4-80GB\nmemory:\n  bandwidth: {value: 4078}\n"
    gpu, base = load_gpu(write(tmp_path, text, "Fast HBM.yaml")), load_gpu("a100-80gb-sxm")
    assert gpu.bandwidth_bytes_per_s == 2 * base.bandwidth_bytes_per_s
    assert gpu.memory.bandwidth.source == "user"
    assert gpu.memory.capacity == base.memory.capacity
    assert gpu.peaks == base.peaks
    assert gpu.sources == base.sources
    assert (gpu.name, gpu.aliases) == ("fast-hbm", ())
    assert load_gpu("a100-80gb-sxm") == base


def test_base_merges_peaks_by_format_accumulator_and_engine(tmp_path: Path) -> None:
    text = (
        "base: a40\nname: b40\n"
        "peaks:\n"
        "  - {engine: tensor, dtype: fp16, accumulate: fp32, value: 300}\n"
        "  - {engine: tensor, dtype: fp8, accumulate: fp32, value: 0.6, unit: PFLOP/s}\n"
    )
    gpu, base = load_gpu(write(tmp_path, text)), load_gpu("a40")
    assert gpu.peak_flops_per_s("fp16") == 300e12
    assert gpu.peak_flops_per_s("fp8") == 600e12
    assert gpu.peak_flops_per_s("bf16") == base.peak_flops_per_s("bf16")
    assert len(gpu.peaks) == len(base.peaks) + 1


def test_base_can_take_a_link_away_and_add_a_source(tmp_path: Path) -> None:
    text = (
        "base: a100-80gb-sxm\n"
        "interconnect: {nvlink_per_direction: null}\n"
        "tdp: {value: 500, source: lab}\n"
        "sources: {lab: {title: Lab note, url: 'https://example.org', date: 2025-01-01}}\n"
    )
    gpu = load_gpu(write(tmp_path, text))
    assert gpu.link_bytes_per_s == 32e9
    assert gpu.tdp.source == "lab"
    assert "datasheet" in gpu.sources


def test_host_from_a_file(tmp_path: Path) -> None:
    text = (
        "name: cpu\ntitle: A CPU\npeak_fp32: {value: 1, unit: TFLOP/s}\n"
        "memory_bandwidth: {value: 50, unit: GB/s}\n"
    )
    assert load_host(write(tmp_path, text)).memory_bandwidth.si == 50e9


def test_examples_of_the_guide_load(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "hardware.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    gpus = [load_gpu(write(tmp_path, block)) for block in blocks]
    assert gpus[0].bandwidth_bytes_per_s == 2 * load_gpu("a100-80gb-sxm").bandwidth_bytes_per_s
    assert gpus[1].name == "my-gpu"


def test_pure_python_loader_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = read_yaml_mapping(ROOT / "hardware_profiles" / "b200.yaml", "b200.yaml")
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    assert read_yaml_mapping(ROOT / "hardware_profiles" / "b200.yaml", "b200.yaml") == fast


BAD = [
    ("empty", "", "expected a mapping of keys, got nothing"),
    ("list", "- 1\n- 2\n", "expected a mapping of keys, got list"),
    ("text", "just words\n", "expected a mapping of keys, got str"),
    ("syntax", "name: [a, b\ntitle: c\n", "line 2, column"),
    ("tab", "name: a\n\ttitle: b\n", "line 2"),
    ("two documents", "a: 1\n---\nb: 2\n", "line 2"),
    ("python tag", "name: !!python/object/apply:os.system ['true']\n", "line 1, column 7"),
    ("own tag", "name: !thing x\n", "could not determine a constructor"),
    ("alias", "name: &a x\ntitle: *a\n", "line 2: anchors and aliases"),
    ("deep", "a: " + "[" * 5000, "nested deeper than 20"),
    ("control character", "name: a\x00b\n", "control characters"),
    ("impossible date", FULL + "sources: {a: {date: 2024-13-45}}\n", "month"),
    ("unknown key", FULL + "tpd: {value: 1, unit: W}\n", "unknown key 'tpd', did you mean 'tdp'"),
    ("number as key", FULL + "1: 2\n", "1"),
    ("missing key", FULL.replace("multiprocessors: 10\n", ""), "missing key 'multiprocessors'"),
    ("zero", FULL.replace("value: 500", "value: 0"), "memory.bandwidth.value"),
    ("negative", FULL.replace("value: 500", "value: -1"), "memory.bandwidth.value"),
    ("nan", FULL.replace("value: 500", "value: .nan"), "memory.bandwidth.value"),
    ("infinite", FULL.replace("value: 500", "value: .inf"), "memory.bandwidth.value"),
    ("overflow", FULL.replace("value: 500", "value: 1.0e+306"), "memory.bandwidth: the number"),
    ("string", FULL.replace("value: 500", 'value: "500"'), "expected a number, not text"),
    ("exponent", FULL.replace("value: 500", "value: 5e2"), "expected a number, not text"),
    ("boolean", FULL.replace("value: 500", "value: true"), "memory.bandwidth.value"),
    ("string count", FULL.replace("multiprocessors: 10", "multiprocessors: ten"), "multiproc"),
    ("quoted count", FULL.replace("multiprocessors: 10", 'multiprocessors: "10"'), "multiproc"),
    ("bare number", FULL.replace("{value: 500, unit: GB/s}", "500"), "memory.bandwidth"),
    ("unknown unit", FULL.replace("value: 500, unit: GB/s", "value: 5, unit: GBps"), "GBps"),
    ("wrong unit", FULL.replace("value: 500, unit: GB/s", "value: 5, unit: GB"), "does not fit"),
    ("bits", FULL.replace("value: 500, unit: GB/s", "value: 5, unit: TFLOP/s"), "does not fit"),
    ("no peaks", FULL.partition("peaks:")[0] + "peaks: []\n", "peaks"),
    ("twice", FULL + FULL.splitlines()[-1] + "\n", "given twice"),
    ("format", FULL.replace("dtype: fp16", "dtype: fp17"), "peaks.0.dtype"),
    ("no source", FULL.replace("500, unit: GB/s", "5, unit: GB/s, source: web"), "'web'"),
    ("name", FULL.replace("name: my-gpu", "name: My GPU"), "name:"),
    ("base number", "base: 5\n", "base: expected the name of a known GPU, got 5"),
    ("unknown base", "base: a41\n", "base: unknown gpu 'a41'. Did you mean a40?"),
    ("base path", "base: ./other.yaml\n", "base: unknown gpu './other.yaml'"),
    ("base bad peak", "base: a40\npeaks: [5]\n", "peaks.0"),
    ("base no value", "base: a40\ntdp: {unit: W}\n", "missing key 'tdp.value'"),
    ("base scalar", "base: a40\nmemory: 5\n", "memory"),
]


@pytest.mark.parametrize(("text", "message"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_file_is_one_line_that_names_file_and_place(
    tmp_path: Path, text: str, message: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SpecError) as caught:
        load_gpu(path)
    assert str(caught.value).startswith(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"), [("none.yaml", "no such file"), (".", "is a directory")]
)
def test_no_file(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_gpu(str(tmp_path / name))


def test_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("title: é\n".encode("latin-1"))
    with pytest.raises(SpecError, match=r"latin\.yaml: not UTF-8 text \(byte 7\)"):
        load_gpu(tmp_path / "latin.yaml")


def test_too_large(tmp_path: Path) -> None:
    path = write(tmp_path, "#" * (MAX_BYTES + 1))
    with pytest.raises(SpecError, match="larger than 1000000 bytes"):
        load_gpu(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the platform has no named pipes")
def test_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(SpecError, match="not a regular file"):
        load_gpu(tmp_path / "pipe.yaml")


def test_path_too_long() -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        load_gpu("a" * 5000 + ".yaml")


# Helpers of the profile


@pytest.mark.parametrize(
    ("name", "dtype", "tflops"),
    [
        ("rtx-4090", "fp16", 165.2),
        ("rtx-4090", "fp8", 330.3),
        ("a100-80gb-sxm", "int8", 624.0),
        ("a100-80gb-sxm", "fp64", 19.5),
        ("a100-80gb-sxm", "fp32", None),
        ("a100-80gb-sxm", "fp8", None),
        ("v100-sxm", "int8", None),
    ],
)
def test_tensor_peak_prefers_the_usual_accumulator(
    name: str, dtype: str, tflops: float | None
) -> None:
    peak = load_gpu(name).peak_flops_per_s(dtype)  # type: ignore[arg-type]
    assert peak == (None if tflops is None else pytest.approx(tflops * 1e12))


def test_vector_peak() -> None:
    assert load_gpu("a100-80gb-sxm").peak_flops_per_s("fp32", "vector") == 19.5e12


def test_formats_in_order() -> None:
    assert load_gpu("h100-sxm").dtypes() == ("fp64", "fp32", "tf32", "fp16", "bf16", "fp8", "int8")


def test_link_is_nvlink_where_there_is_one() -> None:
    assert load_gpu("h100-sxm").link_bytes_per_s == 450e9
    assert load_gpu("l40s").link_bytes_per_s == 32e9
