import pytest

from graphopt_runtime import gpu


def test_features_of_gpus_are_told_apart() -> None:
    assert gpu.split_features(["avx2", "sm_80"]) == (["avx2"], ["sm_80"])


@pytest.mark.parametrize(
    ("here", "wanted", "reason"),
    [
        (set(), [], None),
        ({"sm_80", "sm_86"}, ["sm_80"], None),
        ({"sm_80"}, ["sm_86"], "a GPU of sm_86; the one here is sm_80"),
        (set(), ["sm_90"], "a GPU of sm_90; there is no NVIDIA GPU here"),
    ],
)
def test_misfits(
    monkeypatch: pytest.MonkeyPatch, here: set[str], wanted: list[str], reason: str | None
) -> None:
    monkeypatch.setattr(gpu, "architectures", lambda: frozenset(here))
    assert gpu.misfit(wanted) == reason
