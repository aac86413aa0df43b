"""Clustering whole models: what it costs, how small they get, and bad requests."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import graphopt
from graphopt.accuracy.verify import reference
from graphopt.cli import compressing as cli_compressing
from graphopt.compiling.building import read
from graphopt.compression.clusterer import TECHNIQUES
from graphopt.compression.clustering import SIZES, cluster, search
from graphopt.compression.quantizing import quantize
from graphopt.errors import DataError, GraphoptError, ModelError
from graphopt.feeds.data import Dataset
from tests.compression.test_quantizing import MODELS, NAMES, data_for, normal
from tests.conftest import make_model, ops


@pytest.mark.parametrize("name", NAMES)
def test_shipped_models_lose_next_to_nothing(name: str) -> None:
    data = data_for(name)
    done = cluster(MODELS / f"{name}.onnx", data, samples=200, evaluate_on=data)
    assert done.tensors
    assert done.bits <= 5
    assert done.after.bytes < 0.6 * done.before.bytes
    assert done.after.deflated < 0.45 * done.before.deflated
    assert done.evaluation is not None
    assert done.evaluation.top1 is not None
    assert done.evaluation.interval is not None
    before, after = done.evaluation.top1
    assert before - after <= 0.005 + done.evaluation.interval
    assert done.evaluation.sqnr_db > 20
    onnx.checker.check_model(graphopt.model.proto(done.model), full_check=True)


@pytest.mark.parametrize("clusters", [8, 32])
@pytest.mark.parametrize("name", NAMES)
def test_compiled_they_are_what_onnx_runtime_computes(name: str, clusters: int) -> None:
    data = data_for(name)
    done = cluster(MODELS / f"{name}.onnx", clusters=clusters)
    feeds = next(data.batches(1))
    expected = reference(done.model)(feeds)
    with graphopt.compile(done.model) as compiled:
        actual = compiled.run(None, dict(feeds))
    for name_, value in zip(expected, actual, strict=True):
        assert np.abs(value - expected[name_]).max() <= 1e-4 * np.abs(expected[name_]).max()


@pytest.mark.parametrize("channels", [16, 64])
def test_artifacts_are_small_and_compute_the_same(channels: int, tmp_path: Path) -> None:
    """Filters of the larger convolution are stored as they are, not as those of Winograd's algorithm."""
    text = f"agraph (float[1,{channels},24,24] x) => (float[1,{channels},24,24] y) {{ y = Conv<pads = [1, 1, 1, 1]>(x, w) }}"
    model = make_model(text, 18, w=normal(channels, channels, 3, 3))
    done, feeds = cluster(model, clusters=16), {"x": normal(1, channels, 24, 24)}
    with graphopt.compile(done.model, output=tmp_path / "small.gopt") as compiled:
        [actual] = compiled.run(None, feeds)
        manifest = compiled.manifest
    [expected] = reference(done.model)(feeds).values()
    assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()
    assert manifest["weights_bytes"] < 0.2 * 4 * done.weights
    kinds = {kernel["kernel"] for kernel in manifest["kernels"]}
    assert ("winograd" in kinds) == any(len(part) == 6 for part in manifest["coding"]["parts"])


def test_recurrent_weights() -> None:
    model = read(MODELS / "digits_recurrent.onnx")
    done, feeds = cluster(model), {"rows": normal(1, 8, 8)}
    assert "LSTM" in ops(done.model)
    assert len(done.tensors) > 1
    [expected], [before] = (list(reference(each)(feeds).values()) for each in (done.model, model))
    assert np.abs(expected - before).max() < 0.05 * np.abs(before).max()
    with graphopt.compile(done.model) as compiled:
        [actual] = compiled.run(None, feeds)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_data_keeps_the_outputs_near() -> None:
    """Techniques are tried in turn, on top of those that were kept; on the samples that they learned from they gain."""
    data = data_for("digits_mlp").select(range(300))
    options = {"clusters": 6, "evaluate_on": data}
    plain = cluster(MODELS / "digits_mlp.onnx", **options)  # type: ignore[arg-type]
    near = cluster(MODELS / "digits_mlp.onnx", data, **options)  # type: ignore[arg-type]
    assert not plain.gains
    assert [gain.technique for gain in near.gains] == list(TECHNIQUES)
    for before, after in zip(near.gains, near.gains[1:], strict=False):
        assert after.before == (before.after if before.kept else before.before)
    assert plain.evaluation is not None
    assert near.evaluation is not None
    assert near.evaluation.sqnr_db > plain.evaluation.sqnr_db


def test_every_technique_changes_the_model() -> None:
    data = data_for("digits_cnn")
    outputs = [
        reference(cluster(MODELS / "digits_cnn.onnx", data, clusters=4, techniques=each, samples=64).model)(
            next(data.batches(1))
        )
        for each in [(), *[(technique,) for technique in TECHNIQUES]]
    ]
    found = [next(iter(each.values())).tobytes() for each in outputs]
    assert len(set(found)) >= len(found) - 1


def test_as_few_clusters_as_the_budget_allows() -> None:
    data = data_for("digits_mlp")
    done = cluster(MODELS / "digits_mlp.onnx", data, evaluate_on=data, max_drop=0.5, metric="top1")
    assert done.evaluation is not None
    assert done.evaluation.drop <= 0.5
    drops = {trial.clusters: trial.drop for trial in done.trials}
    chosen = min(size for size, drop in drops.items() if drop <= 0.5)
    assert chosen == SIZES[0] or drops[chosen // 2] > 0.5
    assert all(tensor.values <= chosen for tensor in done.tensors)


@pytest.mark.parametrize("least", SIZES)
def test_the_search_finds_the_least(least: int) -> None:
    trials = search(lambda clusters: 0.0 if clusters >= least else 1.0, 0.5)
    assert min(trial.clusters for trial in trials if trial.drop <= 0.5) == least
    assert len(trials) <= 4


def test_a_budget_that_cannot_be_kept() -> None:
    with pytest.raises(GraphoptError, match="with 256 clusters 2 is lost still, 1 may be"):
        search(lambda clusters: 2.0, 1.0)


def test_layers_of_a_quality_have_sizes_of_their_own() -> None:
    done = cluster(MODELS / "digits_transformer.onnx", sqnr_db=15.0)
    assert len({tensor.values for tensor in done.tensors}) > 1


def test_codebooks_by_group() -> None:
    one, many = (cluster(MODELS / "digits_mlp.onnx", clusters=4, group=group) for group in (None, 8))
    assert sum(tensor.values for tensor in many.tensors) > sum(tensor.values for tensor in one.tensors)
    assert "GatherElements" in ops(many.model)


def test_entropy_makes_smaller_files() -> None:
    plain, packed = (cluster(MODELS / "digits_mlp.onnx", entropy=slope) for slope in (0.0, 2.0))
    assert packed.bits < plain.bits
    assert packed.after.deflated < plain.after.deflated


def layer(opset: int = 18) -> ir.Model:
    text = "agraph (float[N,40] x) => (float[N,50] y) { [only] m = MatMul(x, w) y = Add(m, b) }"
    return make_model(text, opset, w=normal(40, 50), b=normal(50))


def test_old_models_get_a_newer_opset_where_codes_need_it() -> None:
    for clusters, opset in ((16, 21), (32, 11)):
        done = cluster(layer(7), clusters=clusters)
        assert done.model.opset_imports[""] == opset
        feeds = {"x": normal(3, 40)}
        change = reference(done.model)(feeds)["y"] - reference(layer(7))(feeds)["y"]
        assert np.abs(change).max() < 5


def test_what_was_clustered_may_be_clustered_again() -> None:
    once = cluster(layer(), clusters=64)
    again = cluster(once.model, clusters=8)
    assert [tensor.values for tensor in again.tensors] == [8]
    assert again.after.bytes < once.after.bytes


@pytest.mark.parametrize("scheme", ["int8", "int8-weights", "int4-weights"])
def test_what_was_clustered_may_be_quantised(scheme: str) -> None:
    """The integers are those of the values of the codebooks."""
    data = data_for("digits_mlp")
    few = cluster(MODELS / "digits_mlp.onnx", data, clusters=32)
    done = quantize(few.model, data, scheme=scheme, samples=100)
    assert len(done.quantized) > 1
    assert "Gather" not in ops(done.model)
    assert done.evaluation is not None
    assert done.evaluation.sqnr_db > 20 if scheme != "int4-weights" else done.evaluation.sqnr_db > 10


def test_integers_keep_their_scales_and_get_fewer_levels() -> None:
    data = data_for("digits_mlp")
    integers = quantize(MODELS / "digits_mlp.onnx", data, samples=100)
    done = cluster(integers.model, data, clusters=16)
    assert done.tensors
    assert ops(done.model) == ops(integers.model)
    assert [gain.technique for gain in done.gains if gain.kept][:1] == ["reconstruct"]
    for tensor in done.tensors:
        levels = done.model.graph.initializers[tensor.name].const_value
        assert levels is not None
        assert levels.dtype == ir.DataType.INT8
        assert len(np.unique(levels.numpy())) <= 16
    assert done.after.deflated < 0.8 * done.before.deflated
    assert done.evaluation is not None
    assert done.evaluation.sqnr_db > 15
    feeds = next(data.batches(1))
    [expected] = reference(done.model)(feeds).values()
    with graphopt.compile(done.model) as compiled:
        [actual] = compiled.run(None, dict(feeds))
        assert "coding" in compiled.manifest
    assert np.abs(actual - expected).max() <= 0.1 * np.abs(expected).max()


def test_other_integers_are_left_alone() -> None:
    integers = quantize(MODELS / "digits_mlp.onnx", scheme="int4-weights")
    done = cluster(integers.model)
    assert "its weights are UINT4" in done.left_out.values()
    assert len(done.tensors) < len(integers.quantized)


def test_nothing_to_cluster_is_remarked_upon() -> None:
    model = make_model("agraph (float[N,4] x) => (float[N,4] y) { y = Relu(x) }")
    assert cluster(model).warnings == ["nothing in this model can be clustered"]


def test_excluded_nodes_keep_their_weights() -> None:
    done = cluster(layer(), exclude=("only",))
    assert not done.tensors
    assert done.left_out == {"only": "excluded"}
    assert not cluster(layer(), exclude=("MatMul",)).tensors


def test_the_same_input_gives_the_same_model(tmp_path: Path) -> None:
    for number in range(2):
        cluster(MODELS / "digits_cnn.onnx", data_for("digits_cnn"), tmp_path / f"{number}.onnx", samples=32)
    assert (tmp_path / "0.onnx").read_bytes() == (tmp_path / "1.onnx").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": 0}, "0 clusters: give a number from 2 to 256"),
        ({"clusters": -3}, "-3 clusters"),
        ({"clusters": 257}, "257 clusters"),
        ({"clusters": 8, "sqnr_db": 20.0}, "not both"),
        ({"group": 0}, "a group of 0 channels"),
        ({"entropy": -1.0}, "the weight of the entropy"),
        ({"entropy": float("nan")}, "the weight of the entropy"),
        ({"techniques": ("magic",)}, "unknown technique 'magic'"),
        ({"exclude": ("Typo*",)}, "matches 'Typo*'"),
        ({"metric": "guess"}, "unknown metric"),
        ({"max_drop": 1.0}, "needs --eval or --calib"),
        ({"max_drop": 1.0, "clusters": 8}, "--max-drop finds the number"),
    ],
)
def test_requests_that_make_no_sense(options: dict[str, object], message: str) -> None:
    with pytest.raises(GraphoptError) as failure:
        cluster(layer(), **options)  # type: ignore[arg-type]
    assert message in str(failure.value)


def test_a_metric_without_data_is_remarked_upon() -> None:
    assert "was not measured" in cluster(layer(), metric="cosine").warnings[0]


def test_weights_and_data_that_are_no_numbers() -> None:
    model = layer()
    weights = normal(40, 50)
    weights[1, 2] = np.nan
    model.graph.initializers["w"].const_value = ir.Tensor(weights, name="w")
    with pytest.raises(ModelError, match="NaN"):
        cluster(model)
    with pytest.raises(DataError, match="NaN or infinite"):
        cluster(layer(), Dataset({"x": np.full((20, 40), np.nan, np.float32)}))


def test_defaults_of_the_command() -> None:
    assert tuple(cli_compressing.DEFAULT_TECHNIQUES.split(",")) == TECHNIQUES
