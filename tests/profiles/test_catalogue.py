"""The devices that ship, and how a target's name becomes a profile."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from profiles.catalogue import DEVICES, load_target, resolved_alias, target_names
from profiles.errors import ProfileError
from profiles.schema import NO_SOURCE, DeviceProfile, Setting


def refused(target: str) -> ProfileError:
    """The refusal of a target, checked for its shape: three sentences."""
    with pytest.raises(ProfileError) as caught:
        load_target(target)
    error = caught.value
    for sentence in (error.received, error.expected, error.action):
        assert sentence.endswith(".")
        assert "\n" not in sentence
    return error


def write(folder: Path, text: str, name: str = "board.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", target_names())
def test_every_shipped_profile_validates_and_gives_the_source_of_everything(name: str) -> None:
    profile = load_target(name)
    assert profile.name == name
    for where, figure in profile.figures():
        assert figure.source != NO_SOURCE, where
    for software in (profile.jetpack, profile.tensorrt, profile.cuda):
        assert software is None or software.source != NO_SOURCE
    given = {setting for setting in get_args(Setting) if getattr(profile, setting) is not None}
    assert set(profile.sources) == given


def test_the_names_and_aliases_that_users_type() -> None:
    assert target_names() == (
        *("a100", "cpu", "h100", "h200", "jetson-agx-orin", "jetson-agx-thor", "jetson-agx-xavier", "jetson-nano"),
        *("jetson-orin-nano", "jetson-orin-nano-super", "jetson-orin-nx", "jetson-tx2", "jetson-xavier-nx", "l4"),
        *("raspberry-pi-4", "raspberry-pi-5", "rtx-3090", "rtx-4090", "rtx-5090", "t4"),
    )
    assert resolved_alias("jetson") == "jetson-orin-nano-super"
    assert resolved_alias("t4") is None
    assert load_target("jetson") == load_target("jetson-orin-nano-super")
    aliases = [alias for name in target_names() for alias in load_target(name).aliases]
    assert len({*aliases, *target_names()}) == len(aliases) + len(target_names())
    for alias, name in {"orin-nano": "jetson-orin-nano", "thor": "jetson-agx-thor", "pi5": "raspberry-pi-5"}.items():
        assert load_target(alias).name == name


def test_figures_that_decisions_hang_on() -> None:
    orin, nano, t4, cpu = (load_target(name) for name in ("jetson", "jetson-nano", "t4", "cpu"))
    assert [device.opset_ceiling for device in (orin, nano, t4, cpu)] == [20, 13, 20, 20]
    assert "int8" not in nano.precisions
    assert orin.peaks.tf32_tflops is not None
    assert orin.peaks.tf32_tflops.value == 8.4
    assert t4.peaks.tf32_tflops is None
    assert cpu.this_host
    assert not [*cpu.figures()]
    assert orin.tensorrt is not None
    assert orin.tensorrt.admits("10.3.0")
    assert not orin.tensorrt.admits("11.4")
    assert [mode.name for mode in orin.power_modes] == ["15W", "25W", "MAXN_SUPER"]
    assert nano.peaks.fp16_tflops is not None
    assert nano.peaks.fp32_tflops is not None
    assert nano.peaks.fp16_tflops.value == 2 * nano.peaks.fp32_tflops.value  # no tensor cores


@pytest.mark.parametrize("name", target_names())
def test_rates_keep_the_ratios_of_the_hardware(name: str) -> None:
    """A slip of a digit would break one: fp16 is at least fp32, int8 at least fp16, TF32 between fp32 and fp16."""
    peaks = load_target(name).peaks
    rates = [peaks.fp32_tflops, peaks.tf32_tflops, peaks.fp16_tflops, peaks.int8_tops]
    values = [rate.value for rate in rates if rate is not None]
    assert values == sorted(values)
    for low, high in ((peaks.tf32_tflops, peaks.fp16_tflops), (peaks.fp16_tflops, peaks.int8_tops)):
        assert low is None or high is None or 0.99 < high.value / low.value < 4.1


@pytest.mark.parametrize("name", target_names())
def test_the_derived_fp32_peak_follows_from_the_mode_it_holds_in(name: str) -> None:
    """Two operations for each CUDA core and clock; 64 cores a multiprocessor on Volta, Turing and the A100."""
    profile = load_target(name)
    mode = next((mode for mode in profile.power_modes if mode.name == profile.peaks.power_mode), None)
    if mode is None or mode.gpu_sms is None or mode.gpu_mhz is None or profile.peaks.fp32_tflops is None:
        return  # this host, a Raspberry Pi, and the Jetson Nano of one multiprocessor
    cores = 64 if profile.compute_capability in ("7.2", "7.5", "8.0") else 128
    clock = 1980 if name in ("h100", "h200") else mode.gpu_mhz.value  # their fp32 without tensor cores runs faster
    derived = mode.gpu_sms.value * cores * 2 * clock * 1e-6
    assert profile.peaks.fp32_tflops.value == pytest.approx(derived, rel=0.01)


@pytest.mark.parametrize("name", target_names())
def test_only_devices_at_a_camera_wish_for_a_frame_rate(name: str) -> None:
    budget = load_target(name).budget
    camera = name.startswith(("jetson-", "raspberry-pi-"))
    assert (budget is not None) == camera
    if budget is not None:
        assert (budget.max_latency_ms, budget.max_size_mib, budget.max_params_m) == (33.3, None, None)


def test_what_a_shipped_profile_inherits_has_no_source_that_speaks_of_another_chip() -> None:
    pi4, tx2 = load_target("pi4"), load_target("tx2")
    assert pi4.peaks.fp16_tflops is None
    assert pi4.precisions == ("fp32", "int8")
    assert "A72" in pi4.sources["precisions"]
    assert not pi4.this_host
    assert tx2.precisions == ("fp32", "fp16")
    assert "Pascal" in tx2.sources["precisions"]
    assert {load_target(name).sources["precisions"] for name in ("l4", "a100", "h100", "rtx-5090")} == {
        "support matrix of TensorRT-LLM, row Ada Lovelace (SM89)",
        "TensorRT's support matrix, row 8.0",
        "support matrix of TensorRT-LLM, row Hopper (SM90)",
        "unverified: TensorRT's support matrix, row 12.0",
    }


def test_an_unknown_name_gets_the_list_and_the_nearest_name() -> None:
    error = refused("Jetsen")
    assert error.received == "Unknown target 'Jetsen'."
    assert error.expected.startswith("Available: a100, cpu, h100, h200, jetson-agx-orin or agx-orin, ")
    assert "jetson-orin-nano-super or jetson or orin-nano-super, " in error.expected
    assert "'jetson'" in error.action
    assert "own profile" in refused("qqq").action


def test_a_file_of_the_users_own(tmp_path: Path) -> None:
    text = (DEVICES / "t4.yaml").read_text(encoding="utf-8")
    profile = load_target(write(tmp_path, text, "our-server.yaml"))
    assert (profile.name, profile.title) == ("our-server", "NVIDIA T4 16 GB")


@pytest.mark.parametrize(
    ("file", "name", "shipped"),
    [
        ("t4.yaml", "t4", "t4"),
        ("jetson.yaml", "jetson", "jetson-orin-nano-super"),
        ("own.yaml", "rtx-4090", "rtx-4090"),
    ],
)
def test_a_users_file_cannot_take_the_name_of_a_device_that_ships(
    tmp_path: Path, file: str, name: str, shipped: str
) -> None:
    # Measurements go by the name: an H100 called t4 would be predicted from those of the T4.
    named = f"name: {name}\n" if name != Path(file).stem else ""
    path = write(tmp_path, f"extends: h100\n{named}", file)
    error = refused(path)
    assert error.received == f"The profile {path} has the name '{name}', which is that of the {shipped} that ships."
    assert error.action == f"Rename the file, or give it another `name:`, such as 'our-{name}'."
    assert load_target(str(DEVICES / "t4.yaml")) == load_target("t4")
    assert load_target(write(tmp_path, f"extends: h100\nname: our-{name}\n", file)).name == f"our-{name}"


def test_extends_merges_deeply_and_inherits_no_source(tmp_path: Path) -> None:
    base = load_target("jetson")
    profile = load_target(
        write(
            tmp_path,
            "extends: jetson\n"
            "peaks: {fp16_tflops: 15, tf32_tflops: {value: 7.5}, power_mode: 25W}\n"
            "memory_bandwidth_gb_s: null\n"
            "opset_ceiling: 17\n"
            "budget: {max_latency_ms: 5}\n",
            "slow-orin.yaml",
        )
    )
    assert (profile.name, profile.title, profile.aliases) == ("slow-orin", "slow-orin", ())
    assert profile.peaks.int8_tops == base.peaks.int8_tops
    assert profile.peaks.fp16_tflops is not None
    assert (profile.peaks.fp16_tflops.value, profile.peaks.fp16_tflops.source) == (15, NO_SOURCE)
    assert profile.peaks.tf32_tflops is not None
    assert profile.peaks.tf32_tflops.source == NO_SOURCE
    assert profile.memory_bandwidth_gb_s is None
    assert profile.power_modes == base.power_modes
    assert "opset_ceiling" not in profile.sources
    assert profile.sources["precisions"] == base.sources["precisions"]
    assert profile.budget is not None


def test_a_profile_keeps_the_shipped_device_that_it_builds_on(tmp_path: Path) -> None:
    write(tmp_path, "extends: jetson\n", "first.yaml")
    second = load_target(write(tmp_path, "extends: ./first.yaml\n", "second.yaml"))
    assert (second.name, second.extends) == ("second", "jetson-orin-nano-super")
    assert load_target("jetson-orin-nx").extends is None  # measurements of what ships are its own
    alone = (DEVICES / "t4.yaml").read_text(encoding="utf-8")
    assert load_target(write(tmp_path, alone, "alone.yaml")).extends is None
    assert DeviceProfile.model_validate_json(second.model_dump_json()) == second


def test_extends_takes_a_path_beside_the_file(tmp_path: Path) -> None:
    write(tmp_path, "extends: cpu\nmemory_gib: {value: 4, source: seen}\n", "base.yaml")
    profile = load_target(write(tmp_path, "extends: ./base.yaml\nthis_host: false\n"))
    assert profile.memory_gib is not None
    assert profile.memory_gib.source == "seen"
    assert not profile.this_host


def test_the_page_about_targets_is_current_and_its_example_works(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    text = (root / "docs" / "targets.md").read_text(encoding="utf-8")
    spec = importlib.util.spec_from_file_location("targets_table", root / "docs" / "targets_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.page(text) == text, "run: python docs/targets_table.py"
    lines = text[text.index("    # our-board.yaml") :].split("\n\n", 1)[0]
    path = write(tmp_path, "".join(f"{line[4:]}\n" for line in lines.splitlines()), "our-board.yaml")
    profile = load_target(f"{path}@25W")
    assert profile.title == "Orin NX on our carrier board in mode 25W"
    assert profile.memory_bandwidth_gb_s is not None
    assert profile.memory_bandwidth_gb_s.value == 88


def test_extends_in_a_circle_is_refused(tmp_path: Path) -> None:
    first = write(tmp_path, "extends: b.yaml\n", "a.yaml")
    write(tmp_path, "extends: ../" + tmp_path.name + "/a.yaml\n", "b.yaml")
    error = refused(first)
    assert error.received.startswith(f"The profile {first} extends itself: {first} -> ")
    assert "Remove 'extends'" in error.action
    itself = write(tmp_path, "extends: ./itself.yaml\n", "itself.yaml")
    assert refused(itself).received.count("itself.yaml") == 3


def test_extends_of_a_mode_is_refused_with_the_device(tmp_path: Path) -> None:
    error = refused(write(tmp_path, "extends: jetson@15W\n"))
    assert "Unknown target 'jetson@15W' in 'extends'" in error.received
    assert "'jetson'" in error.action


def test_extends_of_an_unknown_name_says_who_asked(tmp_path: Path) -> None:
    path = write(tmp_path, "extends: jetson-nona\n")
    error = refused(path)
    assert error.received == f"Unknown target 'jetson-nona' in 'extends' of {path}."
    assert "'jetson-nano'" in error.action


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    missing = tmp_path / "missing.yaml"
    assert refused(str(missing)).received == f"The profile {missing} cannot be read: No such file or directory."
    assert "Is a directory" in refused(f"{tmp_path}/").received
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "can't decode byte 0xff" in refused(str(binary)).received


@pytest.mark.parametrize("text", ["a: [1\nb: 2\n", "a: !!python/object/apply:os.getcwd []\n", "[" * 1000])
def test_what_is_not_plain_yaml_is_refused(tmp_path: Path, text: str) -> None:
    error = refused(write(tmp_path, text))
    assert "board.yaml is not valid YAML: " in error.received
    assert "Correct the file" in error.action


@pytest.mark.parametrize(("text", "kind"), [("", "empty"), ("- a\n", "a list"), ("jetson\n", "a str")])
def test_what_is_not_a_mapping_is_refused(tmp_path: Path, text: str, kind: str) -> None:
    error = refused(write(tmp_path, text))
    assert error.received.endswith(f"board.yaml is {kind}, not a mapping.")
    assert "extends: " in error.action


def test_all_wrong_values_and_keys_are_reported_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "extends: jetson\n"
        "memory_gb: 3\n"
        "peaks: {fp32_tflop: 3, int8_tops: -1}\n"
        "opset_ceiling: 17.5\n"
        "tensorrt: {min: 10.10, max: '11'}\n"
        "kind: fpga\n",
    )
    error = refused(path)
    for problem in (
        "unknown key 'memory_gb' (did you mean 'memory_gib'?)",
        "unknown key 'peaks.fp32_tflop' (did you mean 'fp32_tflops'?)",
        "peaks.int8_tops.value: should be greater than 0 (received -1)",
        "opset_ceiling: should be a valid integer (received 17.5)",
        "tensorrt.min: must be a version in quotes",
        "kind: should be 'jetson', 'gpu' or 'cpu' (received 'fpga')",
    ):
        assert problem in error.received
    assert path in error.action


def test_a_key_in_the_wrong_place_is_offered_its_own(tmp_path: Path) -> None:
    error = refused(write(tmp_path, "extends: jetson\nfp16_tflops: 3\nmax_latency: 5\nbudget: {title: x}\n"))
    for problem in (
        "unknown key 'fp16_tflops' (did you mean 'peaks.fp16_tflops'?)",
        "unknown key 'max_latency' (did you mean 'budget.max_latency_ms'?)",
        "unknown key 'budget.title' (did you mean 'title'?)",
    ):
        assert problem in error.received


@pytest.mark.parametrize(
    ("text", "number"),
    [("1e3", "1.0e+3"), ("1e8", "1.0e+8"), ("2.5e6", "2.5e+6"), ("'1.5e-3'", "1.5e-3"), ("'15'", "15")],
)
def test_a_number_that_yaml_reads_as_text_is_shown_as_one(tmp_path: Path, text: str, number: str) -> None:
    error = refused(write(tmp_path, f"extends: jetson\nmemory_gib: {text}\n"))
    said = f"(received '{text.strip(chr(39))}'), which YAML reads as text: write {number} without quotes."
    assert said in error.received
    corrected = load_target(write(tmp_path, f"extends: jetson\nmemory_gib: {number}\nworkspace_mib: null\n"))
    assert corrected.memory_gib is not None
    assert corrected.memory_gib.value == float(number)


def test_a_file_of_more_than_a_mebibyte_is_refused(tmp_path: Path) -> None:
    line = "extends: t4\n"
    assert load_target(write(tmp_path, line + "#" * (2**20 - len(line)))).name == "board"
    path = write(tmp_path, line + "#" * (2**20 - len(line) + 1))
    error = refused(path)
    assert error.received == f"The profile {path} is larger than 1 MiB."
    assert error.action.startswith("Check the path")


def test_a_file_name_that_cannot_be_a_public_name_is_refused(tmp_path: Path) -> None:
    assert "name: string should match" in refused(write(tmp_path, "extends: t4\n", "My Board.yaml")).received


def test_contradictions_name_their_fields(tmp_path: Path) -> None:
    error = refused(write(tmp_path, "extends: jetson-nano\nprecisions: [fp32, int8]\njetpack: null\n"))
    assert "jetpack: a jetson needs its JetPack range; precisions: compute capability 5.3" in error.received


def test_reading_a_profile_imports_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; from profiles import catalogue, sheet; "
        "sheet.target_sheet(catalogue.load_target('jetson')); "
        "sys.exit(bool({'torch', 'numpy', 'exporters', 'compressor'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
