"""Gates are read from YAML and from flags, alike, and every problem is named at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressor.errors import UsageFault
from compressor.gates.gate import Gate, read_gates
from compressor.gates.metrics import METRICS

FILE = """
schema_version: 1
gates:
  - metric: agreement
    min: 97 %
    min_samples: 200
  - metric: accuracy
    name: accuracy
    max_drop: 1 point
    max_regression: 0.005
    images: eval
  - metric: latency_p50_ms
    max: 5 ms
    severity: warn
  - {metric: size_mib, artefact: student int8, max_regression_relative: 5 %, judge: interval}
"""


def of_text(tmp_path: Path, text: str) -> tuple[Gate, ...]:
    (tmp_path / "gates.yaml").write_text(text)
    return read_gates(tmp_path / "gates.yaml")


def test_a_file(tmp_path: Path) -> None:
    assert of_text(tmp_path, FILE) == (
        Gate("agreement", "min", 0.97, "agreement, min 97 %", min_samples=200),
        Gate("accuracy", "max_drop", 0.01, "accuracy max_drop", images="eval"),
        Gate("accuracy", "max_regression", 0.005, "accuracy max_regression", images="eval"),
        Gate("latency_p50_ms", "max", 5.0, "latency_p50_ms, max 5 ms", severity="warn"),
        Gate(
            "size_mib",
            "max_regression_relative",
            0.05,
            "size_mib of student int8, max_regression_relative 5 %",
            artefact="student int8",
            judge="interval",
        ),
    )


def test_flags_follow_a_file_and_are_read_alike(tmp_path: Path) -> None:
    (tmp_path / "gates.yaml").write_text(FILE)
    found = read_gates(tmp_path / "gates.yaml", ("agreement:min=97%,min_samples=200", "params_m:max=1.5 M"))
    assert [gate.name for gate in found[-2:]] == ["agreement, min 97%", "params_m, max 1.5 M"]
    first, flag = found[0], found[-2]
    assert Gate(**{**vars(flag), "name": first.name}) == first
    assert found[-1].limit == 1.5


@pytest.mark.parametrize(
    ("written", "limit"), [("min=97%", 0.97), ("min=0.97", 0.97), ("min=1", 1.0), ("min=0", 0.0), ("min=100 %", 1.0)]
)
def test_a_share_is_a_fraction_or_in_per_cent(written: str, limit: float) -> None:
    assert read_gates(None, (f"agreement:{written}",))[0].limit == limit


@pytest.mark.parametrize(
    ("flag", "problem"),
    [
        ("agreement:min=97", "min of --gate agreement:min=97 is '97': write 97 %"),
        ("agreement:max_drop=1", "is '1': write 1 point"),
        ("agreement:max_drop=1%", "is '1%': write 1 points, or use max_drop_relative"),
        ("agreement:min=101%", "and above all of them"),
        ("agreement:min=-1%", "and below 0"),
        ("agreement:min=nan", "no limit such as 97 %"),
        ("agreement:min=1e999", "no limit such as 97 %"),
        ("agreement:min=", "no limit such as 97 %"),
        ("latency_p50_ms:max=5s", "its unit is ms"),
        ("size_mib:max=5%", "its unit is MiB"),
        ("agreement", "takes METRIC:RULE=LIMIT"),
        ("agreement:", "takes METRIC:RULE=LIMIT"),
        ("agreement:min", "takes METRIC:RULE=LIMIT"),
        ("agreement:min=1,min=0.5", "gives min twice"),
        (":min=1", "has no metric"),
        ("agrement:min=97%", "the unknown metric 'agrement'. Did you mean 'agreement'?"),
        ("agreement:mim=97%", "unknown key 'mim' in --gate agreement:mim=97% (Did you mean 'min'?)"),
        ("agreement:severity=warn", "has no limit"),
        ("agreement:min=1,severity=maybe", "is 'maybe' and not fail or warn"),
        ("agreement:min=1,min_samples=many", "is 'many' and no number of images"),
        ("size_mib:max=1,images=eval", "names images, and size_mib is not found on any"),
        ("mean_kl_nats:max_drop=1", "the teacher has no mean_kl_nats to compare with"),
    ],
)  # fmt: skip
def test_a_flag_that_is_no_gate(flag: str, problem: str) -> None:
    with pytest.raises(UsageFault) as refusal:
        read_gates(None, (flag,))
    assert problem in refusal.value.received
    assert refusal.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "has no list `gates`"),
        ("gates: []", "has no list `gates`"),
        ("gates: {metric: agreement}", "has no list `gates`"),
        ("gates: [agreement]", "gate 1 in gates.yaml is 'agreement' and not a mapping"),
        ("gate: [{metric: agreement, min: 1}]", "unknown key 'gate' in gates.yaml"),
        ("schema_version: 2\ngates: [{metric: agreement, min: 1}]", "is 2 and not 1"),
        ("gates: [{metric: agreement, min: [1]}]", "is [1] and no limit"),
        ("gates: [{metric: agreement, min: true}]", "is True and no limit"),
        ("gates: [{metric: [agreement], min: 1}]", "the unknown metric"),
        ("gates: [{metric: agreement, min: 1, name: 3}]", "name of gate 1 in gates.yaml is 3 and not a text"),
        ("gates: [{metric: agreement, min: 1}, {metric: agreement, min: 1}]", "two gates are called"),
        ("gates: [{metric: agreement, min: 1, min: 2}]", "'min' is given twice"),
        ("gates: !!python/object:os.system {}", "not readable as YAML"),
        ("[", "not readable as YAML in line 1"),
        ("- 1", "holds a list at its top level"),
    ],
)
def test_a_file_that_holds_no_gates(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(UsageFault) as refusal:
        of_text(tmp_path, text)
    assert problem in refusal.value.received


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(UsageFault) as refusal:
        read_gates(None, ("agreement:min=97", "speed:max=1"))
    assert refusal.value.received.startswith("The gates have 2 problems: ")
    assert all(name in refusal.value.expected for name in METRICS)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageFault, match="cannot be read: No such file"):
        read_gates(tmp_path / "nothing.yaml")


def test_aliases_by_the_billion_cost_nothing(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 25))]
    for key in ("metric", "min", "name", "min_samples", "severity"):
        entry = {"metric": "agreement", "min": "1", key: "*a24"}
        gate = ", ".join(f"{name}: {value}" for name, value in entry.items())
        with pytest.raises(UsageFault, match="stands for more than 50,000 values") as refusal:
            of_text(tmp_path, "\n".join([*lines, f"gates: [{{{gate}}}]"]))
        assert len(refusal.value.received) < 5_000


@pytest.mark.parametrize("flag", ["size_mib:max=5_", "size_mib:max=5__0", "size_mib:max=" + "9" * 6_000])
def test_numbers_that_python_reads_or_refuses_in_its_own_way(flag: str) -> None:
    with pytest.raises(UsageFault, match="its unit is MiB"):
        read_gates(None, (flag,))


@pytest.mark.parametrize("key", ["max", "min_samples", "name"])
def test_a_number_of_thousands_of_digits(tmp_path: Path, key: str) -> None:
    entry = {"metric": "latency_p50_ms", "max": "1", key: "0x" + "f" * 6_000}
    with pytest.raises(UsageFault, match="a number has 6,002 digits"):
        of_text(tmp_path, f"gates: [{{{', '.join(f'{name}: {value}' for name, value in entry.items())}}}]")


def test_an_entry_with_nothing_in_it(tmp_path: Path) -> None:
    with pytest.raises(UsageFault, match=r"gate 1 in gates\.yaml has no metric; gate 1 in gates\.yaml has no limit"):
        of_text(tmp_path, "gates: [{}, {metric: size_mib, max: 5}]")


@pytest.mark.parametrize(
    ("flag", "problem"),
    [
        ("agreement:max_drop=0.5", "write 0.5 points"),
        ("accuracy:max_regression=0.1", "write 0.1 points"),
        ("size_mib:max=5,min_samples=3", "size_mib is not found on any"),
    ],
)
def test_what_could_be_meant_otherwise(flag: str, problem: str) -> None:
    with pytest.raises(UsageFault) as refusal:
        read_gates(None, (flag,))
    assert problem in refusal.value.received


def test_a_size_may_grow_by_more_than_itself() -> None:
    assert read_gates(None, ("size_mib:max_regression_relative=150%",))[0].limit == 1.5


def test_a_file_that_never_ends(tmp_path: Path) -> None:
    (tmp_path / "large.yaml").write_text("#" * (2**20 + 1))
    for file in (Path("/dev/zero"), tmp_path, tmp_path / "large.yaml"):
        with pytest.raises(UsageFault, match="no text file of at most 1 MiB"):
            read_gates(file)
