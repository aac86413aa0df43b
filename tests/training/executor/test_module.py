"""The module around a program: names, weights, values that are asked for or given, what is refused, the way back."""

import copy

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from graphopt.errors import GraphoptError, InputError, ModelError, UnsupportedError
from graphopt.training.executor import TorchModel, write_back
from graphopt.training.executor.weights import decode, encode, weights
from tests.conftest import make_model, reference
from tests.training.executor.harness import assert_same, floats, run

CHAIN = """agraph (float[N,3] x) => (float[N,2] y) {
    h = MatMul(x, w1) a = Add(h, b1) r = Relu(a) y = MatMul(r, w2) }"""


def chain() -> ir.Model:
    return make_model(CHAIN, w1=floats(3, 4), b1=floats(4), w2=floats(4, 2))


def test_weights_are_parameters_and_the_rest_are_buffers() -> None:
    model = make_model(
        """agraph (float[N,3] x, int64[K] i) => (float[K,3] y) {
            e = Gather(table, i) t = Transpose(w) p = MatMul(e, t) s = Mul(p, gain) m = Add(s, mask)
            n = Add(m, bias) h = Mul(n, factor) y = Add(h, one) }""",
        table=floats(5, 3),
        w=floats(3, 3),
        gain=floats(1, 3),
        mask=floats(2, 3),
        bias=floats(3),
        factor=np.float32(0.5),
        one=np.ones(1, np.float32),
    )
    assert weights(model) == ["table", "w", "gain", "bias"]
    module = TorchModel(model)
    assert {name for name, _ in module.named_parameters()} == {"table", "w", "gain", "bias"}
    assert {name for name, _ in module.named_buffers()} == {"mask", "factor", "one"}


@pytest.mark.parametrize("name", ["a.weight", "100%.b", "training", "forward", "_program", "plain"])
def test_any_name_can_be_that_of_a_weight(name: str) -> None:
    model = chain()
    model.graph.initializers["w1"].name = name
    module = TorchModel(model)
    assert name in module.learned()
    inner = next(each for each, _ in module.named_parameters() if decode(each) == name)
    assert (inner == name) == (name == "plain")
    assert decode(encode(name, torch.nn.Module())) == name
    assert_same("y", run(module, {"x": FEED})["y"], reference(model, {"x": FEED})[0])


FEED = floats(2, 3)


def test_intermediate_values_can_be_asked_for_and_given() -> None:
    model = chain()
    module, x = TorchModel(model), torch.from_numpy(FEED)
    found = module({"x": x}, ["a", "y", "x"])
    assert list(found) == ["a", "y", "x"]
    torch.testing.assert_close(found["a"], x @ module.w1 + module.b1)
    half = module({"a": found["a"] * 2})
    torch.testing.assert_close(half["y"], torch.relu(found["a"] * 2) @ module.w2)


def test_a_given_value_stays_where_its_node_runs_for_another() -> None:
    module = TorchModel(
        make_model(
            "agraph (float[N] x) => (float[M] y) { a, b = Split<num_outputs = 2>(x) y = Concat<axis = 0>(a, b) }"
        )
    )
    found = module({"x": torch.arange(4.0), "a": torch.tensor([9.0])})["y"]
    torch.testing.assert_close(found, torch.tensor([9.0, 2, 3]))


def test_what_is_not_wanted_is_not_computed() -> None:
    model = make_model(
        "agraph (float[N] x) => (float[M] y) { r = Relu(x) y = Reshape(r, nonsense) }", nonsense=np.array([7])
    )
    module = TorchModel(model)
    assert module({"x": torch.ones(3)}, ["r"])["r"].shape == (3,)
    with pytest.raises(GraphoptError, match=r"Reshape \(node .*\) fails on \[3\], \[1\]"):
        module({"x": torch.ones(3)})


def test_names_that_do_not_exist_and_inputs_that_are_missing() -> None:
    module = TorchModel(chain())
    with pytest.raises(InputError, match="no value called 'nothing'"):
        module({"x": torch.ones(1, 3)}, ["nothing"])
    with pytest.raises(InputError, match="no value called 'z'"):
        module({"z": torch.ones(1, 3)})
    with pytest.raises(InputError, match="no value is given for 'x'"):
        module({})


def test_defaults_of_inputs_can_be_overridden() -> None:
    model = chain()
    model.graph.inputs.append(model.graph.initializers["b1"])
    module, x = TorchModel(model), torch.from_numpy(FEED)
    assert "b1" not in module.learned()
    torch.testing.assert_close(module({"x": x}, ["a"])["a"], x @ module.w1 + module.b1)
    torch.testing.assert_close(module({"x": x, "b1": torch.ones(4)}, ["a"])["a"], x @ module.w1 + 1)


def test_everything_that_is_missing_is_listed() -> None:
    model = make_model(
        """agraph (float[1,2,4,4] x, bool c) => (float[A] y, float[B] z, float[C] v) {
            p, i = MaxPool<kernel_shape = [2, 2]>(x) k = Cast<to = 1>(i) q = Celebrate(p)
            r = com.microsoft.FastGelu(q) y = Add(r, k) s = Resize<antialias = 1, mode = "linear">(x, , f) v = Relu(s)
            z = If (c) < then_branch = yes () => (float[D] a) { a = Det(x) },
                         else_branch = no () => (float[D] b) { b = Identity(x) } >
        }""",
        f=np.ones(4, np.float32),
    )
    with pytest.raises(UnsupportedError) as refused:
        TorchModel(model)
    assert sorted(node.op for node in refused.value.nodes) == [
        "Celebrate",
        "Det",
        "FastGelu",
        "MaxPool",
        "Resize",
    ]
    assert "com.microsoft::FastGelu" in str(refused.value)
    assert "antialias" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("y = Pad<mode = \"nowhere\">(x, i)", "nowhere"),
        ("y = BatchNormalization<training_mode = 1>(x, f, f, f, f)", "training_mode"),
        ("y, m = BatchNormalization(x, f, f, f, f) z = Relu(m)", "first output"),
        ("y = ScatterND<reduction = \"max\">(x, i, f)", "reduction"),
        ("y = RNN<activation_alpha = [1.0]>(x, f, f)", "parameters"),
        ("y = RNN<layout = 1>(x, f, f)", "layout"),
        ("y = RNN<activations = [\"Step\"]>(x, f, f)", "step"),
        ("y = Resize<keep_aspect_ratio_policy = \"not_larger\">(x, , f)", "policy"),
        ("y = Resize<coordinate_transformation_mode = \"mine\">(x, , f)", "mine"),
        ("y = QuantizeLinear<output_dtype = 17>(x, f)", "FLOAT8E4M3FN"),
        ("y = Cast<to = 8>(x)", "STRING"),
        ("y = Equal(x, text)", "STRING"),
    ],
)  # fmt: skip
def test_what_is_not_covered_is_refused(text: str, reason: str) -> None:
    model = make_model(
        f"agraph (float[N] x) => (float[M] y) {{ {text} }}", i=np.array([1]), f=np.ones(3, np.float32)
    )
    strings = ir.StringTensor(np.array([b"a"]), name="text")
    model.graph.register_initializer(ir.Value(name="text", const_value=strings))
    for node in model.graph:
        for index, value in enumerate(node.inputs):
            if value is not None and value.name == "text":
                node.replace_input_with(index, model.graph.initializers["text"])
    if "z = " in text:
        model.graph.outputs.append(next(v for n in model.graph for v in n.outputs if v.name == "z"))
    with pytest.raises(UnsupportedError, match=reason):
        TorchModel(model)


def test_trainable_names_that_are_no_weights() -> None:
    with pytest.raises(ModelError, match="'x' cannot be trained"):
        TorchModel(chain(), trainable=["x"])


def test_copies_learn_by_themselves() -> None:
    module = TorchModel(chain())
    other = copy.deepcopy(module)
    with torch.no_grad():
        other.w1.zero_()
    assert module.w1.abs().max() > 0


def test_weights_go_back_with_name_and_type() -> None:
    model = make_model(
        "agraph (float16[N,3] x) => (float16[N,2] y) { h = MatMul(x, w) y = Add(h, b) }",
        w=floats(3, 2).astype(np.float16),
        b=floats(2).astype(np.float16),
    )
    module = TorchModel(model)
    with torch.no_grad():
        module.b.fill_(2.5)
    write_back(module, model)
    assert model.graph.initializers["b"].const_value.numpy().dtype == np.float16
    np.testing.assert_array_equal(model.graph.initializers["b"].const_value.numpy(), [2.5, 2.5])
    x = floats(2, 3).astype(np.float16)
    assert_same("y", run(module, {"x": x})["y"], reference(model, {"x": x})[0], 2e-3)


def test_statistics_go_back_where_they_move() -> None:
    model = make_model(
        "agraph (float[N,2] x) => (float[N,2] y) { y = BatchNormalization(x, s, b, m, v) }",
        **{name: np.ones(2, np.float32) for name in "sbmv"},
    )
    module = TorchModel(model, batch_statistics=True).train()
    module({"x": torch.randn(9, 2)})
    write_back(module, model)
    np.testing.assert_array_equal(model.graph.initializers["m"].const_value.numpy(), module.m.numpy())
    assert np.abs(model.graph.initializers["v"].const_value.numpy() - 1).max() > 0


def test_weights_that_are_constant_nodes_become_initializers() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> agraph (float[N,2] x) => (float[N,2] y) {'
        "w = Constant<value = float[2,2] {1, 2, 3, 4}>() y = MatMul(x, w) }"
    )
    model = ir.from_proto(proto)
    module = TorchModel(model)
    with torch.no_grad():
        module.w.mul_(2)
    write_back(module, model)
    np.testing.assert_array_equal(model.graph.initializers["w"].const_value.numpy(), [[2, 4], [6, 8]])


def test_another_model_is_refused() -> None:
    other = make_model(CHAIN, w1=floats(3, 4), b1=floats(4), w2=floats(4, 3))
    with pytest.raises(ModelError, match=r"no initializer 'w2' of shape \[4, 2\]"):
        write_back(TorchModel(chain()), other)
