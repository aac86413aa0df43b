import pytest

from graphopt.cli import doctor
from graphopt.errors import TargetError


def check(name: str) -> doctor.Check:
    return next(each for each in doctor.examine() if each.name == name)


def test_all_is_well_here() -> None:
    assert [each.name for each in doctor.examine() if not each.ok] == []


def test_a_missing_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "REQUIRED", ("no-such-distribution",))
    assert check("no-such-distribution").row() == [
        "no-such-distribution",
        "MISSING",
        "pip install no-such-distribution",
    ]


@pytest.mark.parametrize(
    ("name", "detail"), [("numpy", "but 0.0.1 is needed"), ("no-such-one", "pip install no-such-one==0.0.1")]
)
def test_another_version_than_the_pinned_one(name: str, detail: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PINNED", {name: "0.0.1"})
    found = check(name)
    assert not found.ok
    assert detail in found.detail


def test_a_machine_for_which_there_is_no_target(monkeypatch: pytest.MonkeyPatch) -> None:
    def native() -> None:
        raise TargetError("no target runs here")

    monkeypatch.setattr("graphopt.backends.targets.native", native)
    assert not check("native target").ok


def test_peers_are_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert check("peer openvino").ok
    assert "not installed" in check("peer openvino").detail


def test_what_gpus_need_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphopt.backends.cuda.nvcc.find_nvcc", lambda: None)
    monkeypatch.setattr("graphopt_runtime.gpu.architectures", frozenset)
    assert check("CUDA compiler").ok
    assert "pip install 'graphopt[cuda]'" in check("CUDA compiler").detail
    assert check("NVIDIA GPU") == doctor.Check("NVIDIA GPU", True, "none")
