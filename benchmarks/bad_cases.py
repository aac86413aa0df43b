"""The inputs that `bad_inputs.py` tries: what is wrong, the command, and what it must say."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto

import bad_files as make

Argument = str | Path


@dataclass(frozen=True)
class Disk:
    """A small file system at `disk` in the folder of a case; only root can make one."""

    size: str = "16k"
    read_only: bool = False


@dataclass(frozen=True)
class Case:
    """`prepare` makes the files of a case in an empty folder and gives the arguments of `graphopt`.

    `says` is a pattern that the message must contain, `makes` the files that the command is right to write.
    `environment`, `largest_file`, `disk` and `interrupt` need a process of their own.
    """

    name: str
    prepare: Callable[[Path], Sequence[Argument]]
    says: str
    code: int = 2
    makes: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    largest_file: int | None = None
    disk: Disk | None = None
    interrupt: bool = False


def _compile(*options: Argument) -> Callable[[Path], Sequence[Argument]]:
    """Compiles the model of two free dimensions with some options."""
    return lambda folder: ["compile", make.model(folder / "m.onnx", make.FREE), *options]


def _content(content: bytes) -> Callable[[Path], Sequence[Argument]]:
    def prepare(folder: Path) -> Sequence[Argument]:
        (folder / "m.onnx").write_bytes(content)
        return ["compile", "m.onnx"]

    return prepare


def _truncated(folder: Path) -> Sequence[Argument]:
    path = make.dense(folder / "m.onnx")
    path.write_bytes(path.read_bytes()[:-20])
    return ["compile", path]


def _folder(folder: Path) -> Sequence[Argument]:
    (folder / "m.onnx").mkdir()
    return ["compile", "m.onnx"]


def _pipe(folder: Path) -> Sequence[Argument]:
    os.mkfifo(folder / "m.onnx")
    return ["compile", "m.onnx"]


def _graph(text: str, *options: Argument, command: str = "compile") -> Callable[[Path], Sequence[Argument]]:
    return lambda folder: [command, make.model(folder / "m.onnx", text), *options]


def _external(location: str) -> Callable[[Path], Sequence[Argument]]:
    return lambda folder: ["compile", make.external(folder / "m.onnx", location)]


def _outside(absolute: bool) -> Callable[[Path], Sequence[Argument]]:
    def prepare(folder: Path) -> Sequence[Argument]:
        (folder / "secret").write_bytes(bytes(48))
        (folder / "inner").mkdir()
        location = str(folder / "secret") if absolute else "../secret"
        return ["compile", make.external(folder / "inner" / "m.onnx", location)]

    return prepare


def _symlink(folder: Path) -> Sequence[Argument]:
    (folder / "secret").write_bytes(bytes(48))
    (folder / "inner").mkdir()
    (folder / "inner" / "weights").symlink_to("../secret")
    return ["compile", make.external(folder / "inner" / "m.onnx", "weights")]


def _short(folder: Path) -> Sequence[Argument]:
    (folder / "weights").write_bytes(bytes(47))
    return ["compile", make.external(folder / "m.onnx", "weights")]


def _dense(*options: Argument) -> Callable[[Path], Sequence[Argument]]:
    return lambda folder: ["compile", make.dense(folder / "m.onnx"), *options]


def _optimized(folder: Path) -> Sequence[Argument]:
    return ["optimize", make.dense(folder / "m.onnx"), "-o", "o.onnx", "--no-verify"]


def _onto_folder(folder: Path) -> Sequence[Argument]:
    (folder / "out.gopt").mkdir()
    return ["compile", make.dense(folder / "m.onnx"), "-o", "out.gopt"]


def _run(*options: Argument) -> Callable[[Path], Sequence[Argument]]:
    return lambda folder: ["run", make.compiled(folder / "m.gopt"), *options]


def _feed(name: str, array: np.ndarray[Any, Any], *more: Argument) -> Callable[[Path], Sequence[Argument]]:
    def prepare(folder: Path) -> Sequence[Argument]:
        make.array(folder / "x.npy", array)
        return ["run", make.compiled(folder / "m.gopt"), "--input", f"{name}x.npy", *more]

    return prepare


def _two_feeds(folder: Path) -> Sequence[Argument]:
    np.savez(folder / "f.npz", x=np.zeros((2, 4), np.float32), z=np.zeros(3))
    return ["run", make.compiled(folder / "m.gopt"), "--input", "f.npz"]


def _verify_on(array: np.ndarray[Any, Any], name: str = "x") -> Callable[[Path], Sequence[Argument]]:
    def prepare(folder: Path) -> Sequence[Argument]:
        make.array(folder / "x.npy", array)
        return ["compile", make.dense(folder / "m.onnx"), "--input", f"{name}=x.npy"]

    return prepare


def _verify_on_two(folder: Path) -> Sequence[Argument]:
    np.savez(folder / "f.npz", x=np.zeros((2, 4), np.float32), z=np.zeros(3))
    return ["compile", make.dense(folder / "m.onnx"), "--input", "f.npz"]


def _pickled(command: str) -> Callable[[Path], Sequence[Argument]]:
    def prepare(folder: Path) -> Sequence[Argument]:
        target = make.compiled(folder / "m.gopt") if command == "run" else make.dense(folder / "m.onnx")
        return [command, target, "--input", make.pickled(folder / "f.npz")]

    return prepare


def _tampered(member: str) -> Callable[[Path], Sequence[Argument]]:
    return lambda folder: ["run", make.tampered(folder / "m.gopt", member)]


def _truncated_artifact(folder: Path) -> Sequence[Argument]:
    path = make.compiled(folder / "m.gopt")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return ["run", path]


def _foreign(**target: object) -> Callable[[Path], Sequence[Argument]]:
    return lambda folder: ["run", make.foreign(folder / "m.gopt", lambda m: m["target"].update(target))]


def _cut(command: str, size: int) -> Callable[[Path], Sequence[Argument]]:
    def prepare(folder: Path) -> Sequence[Argument]:
        path = make.compiled(folder / "m.gopt")
        path.write_bytes(path.read_bytes()[:size])
        return [command, path]

    return prepare


def _smaller(command: str, *options: Argument) -> Callable[[Path], Sequence[Argument]]:
    """Makes the model of two layers smaller, with some data beside it."""

    def prepare(folder: Path) -> Sequence[Argument]:
        np.savez(folder / "data.npz", x=np.random.default_rng(0).standard_normal((32, 4)).astype(np.float32))
        return [command, make.two_layers(folder / "m.onnx"), "-o", "o.onnx", *options]

    return prepare


def _distilled(*options: Argument) -> Callable[[Path], Sequence[Argument]]:
    """Trains the model of two layers on the answers of another one of the same."""

    def prepare(folder: Path) -> Sequence[Argument]:
        make.two_layers(folder / "t.onnx")
        return [*_smaller("distill", "--teacher", "t.onnx", "--data", "data.npz")(folder), *options]

    return prepare


def _pickled_data(folder: Path) -> Sequence[Argument]:
    make.pickled(folder / "f.npz")
    return [*_smaller("prune", "--ratio", "0.5")(folder), "--calib", "f.npz"]


UNSUPPORTED = "g (float[4] x) => (float[4] y) { [first] a = local.tools.Sharpen(x) [second] b = local.tools.Blur(a) y = Relu(b) }"
CYCLE = "g (float[4] x) => (float[4] y) { a = Add(x, b) b = Relu(a) y = Relu(b) }"
UNDEFINED = "g (float[4] x) => (float[4] y) { y = Add(x, nowhere) }"
NO_OPERATOR = "g (float[4] x) => (float[4] y) { y = Reluu(x) }"
COPY = "g (float[4] x) => (float[4] x) { }"
ZERO_SIZED = "g (float[0,3] x) => (float[0,3] y) { y = Relu(x) }"
ASTRONOMIC = "g (float[4611686018427387904,4] x) => (float[4611686018427387904,4] y) { y = Relu(x) }"
CONTRADICTION = "g (float[2,3] x, float[4,5] w) => (float[2,5] y) { y = MatMul(x, w) }"
NOISE = np.random.default_rng(0).bytes(4096)

CASES: tuple[Case, ...] = (
    # Models
    Case("truncated model", _truncated, "truncated"),
    Case("random bytes", _content(NOISE), "not an ONNX model"),
    Case("empty file", _content(b""), "not an ONNX model"),
    Case("text file", _content(b"hello, I am no model\n" * 9), "not an ONNX model"),
    Case("no such file", lambda folder: ["compile", "m.onnx"], "does not exist"),
    Case("folder instead of a model", _folder, "is a directory"),
    Case("pipe instead of a model", _pipe, "not a regular file"),
    Case(
        "artifact instead of a model",
        lambda f: ["compile", make.compiled(f / "m.gopt")],
        "compiled artifact already",
    ),
    Case("cyclic graph", _graph(CYCLE), "cycle"),
    Case("node that reads an undefined value", _graph(UNDEFINED), "nowhere"),
    Case("operator that does not exist", _graph(NO_OPERATOR), "Reluu"),
    Case("shapes that contradict each other", _graph(CONTRADICTION), "contradict each other.*MatMul"),
    Case("the same output twice", lambda f: ["compile", make.twice_the_same_output(f / "m.onnx")], "twice"),
    Case("missing external data", _external("weights"), "missing"),
    Case(
        "external data, relative path out of the folder",
        _outside(absolute=False),
        "outside the model's folder",
    ),
    Case("external data, absolute path", _outside(absolute=True), "outside the model's folder"),
    Case("external data, link out of the folder", _symlink, "outside the model's folder"),
    Case("external data that is too short", _short, "too short"),
    Case("operators without a kernel", _graph(UNSUPPORTED), "(?s)2 node.*first.*second"),
    Case(
        "string input",
        lambda f: ["compile", make.one_node(f / "m.onnx", "Identity", TensorProto.STRING, [4])],
        "'x' is a STRING",
    ),
    Case("tensor larger than any memory", _graph(ASTRONOMIC), "'x' is too large"),
    # Options
    Case("free dimensions", _compile("--dim", "batch=1"), "--dim seq="),
    Case("unknown dimension", _compile("--dim", "sequence=4"), "named dimensions: batch, seq"),
    Case("dimension of size 0", _compile("--dim", "seq=0"), "not a size"),
    Case("dimension that is no number", _compile("--dim", "seq=many"), "not a size"),
    Case("dimension beyond 64 bits", _compile("--dim", f"seq={2**70}"), "not a size"),
    Case("dimension without a size", _compile("--dim", "seq"), "NAME=VALUE"),
    Case("dimension given twice", _compile("--dim", "seq=4", "--dim", "seq=5"), "twice"),
    Case("input shape of another rank", _compile("--input-shape", "x=1,2"), "dimensions"),
    Case("input shape of an unknown input", _compile("--input-shape", "z=1,2,4"), "no input is called 'z'"),
    Case("input shape that contradicts the model", _compile("--input-shape", "x=1,2,5"), "fixed to 4"),
    Case("value for an unknown input", _compile("--bind", "z=1"), "no input is called 'z'"),
    Case("value that is no number", _compile("--bind", "x=one"), "neither numbers"),
    Case("value of another shape", _compile("--bind", "x=1,2"), "does not fit"),
    Case("unknown target", _dense("--target", "z80"), "unknown target 'z80'"),
    Case(
        "float16 for a core without it",
        _dense("--target", "aarch64", "--precision", "fp16"),
        "--precision fp16: aarch64 has no arithmetic on float16",
    ),
    Case("unknown preset", _dense("--preset", "O9"), "O9"),
    Case(
        "unknown backend",
        lambda f: ["compare", make.dense(f / "m.onnx"), "--backend", "nobody"],
        "unknown backend",
    ),
    Case(
        "missing file of a backend",
        lambda f: ["compare", make.dense(f / "m.onnx"), "--backend", "graphopt=no.gopt"],
        "no file",
    ),
    Case("missing data to verify on", _dense("--input", "no.npz"), "no file"),
    Case("data to verify on, another shape", _verify_on(np.zeros((5, 4), np.float32)), r"\[5, 4\]"),
    Case("data to verify on, another dtype", _verify_on(np.zeros((2, 4))), "float64"),
    Case("data to verify on, too much of it", _verify_on_two, "no input z"),
    Case("pickled data to verify on", _pickled("compile"), "pickle|Object arrays"),
    # Surroundings
    Case("output is a folder", _onto_folder, "is a directory|is a folder"),
    Case("output in a missing folder", _dense("-o", "none/m.gopt"), "no folder"),
    Case("output in a folder of the kernel", _dense("-o", "/proc/m.gopt"), "cannot write /proc/m.gopt"),
    Case("output in a read-only folder", _dense("-o", "disk/m.gopt"), "read-only", disk=Disk(read_only=True)),
    Case("disk full", _dense("-o", "disk/m.gopt"), "cannot write disk/m.gopt: No space left", disk=Disk()),
    Case(
        "model larger than a file may be",
        _optimized,
        "o.onnx: cannot be written: File too large",
        largest_file=100,
    ),
    Case("no C compiler", _dense(), "no C compiler", environment={"PATH": ""}),
    Case("Ctrl-C", lambda f: ["compile", make.slow(f / "m.onnx")], "interrupted", code=130, interrupt=True),
    # Artifacts
    Case(
        "model instead of an artifact", lambda f: ["run", make.dense(f / "m.onnx")], "not a graphopt artifact"
    ),
    Case("truncated artifact", _truncated_artifact, "truncated"),
    Case("artifact cut to 2 bytes", _cut("run", 2), "not a graphopt artifact"),
    Case("truncated artifact, inspected", _cut("inspect", 9000), "truncated"),
    Case("tampered manifest", _tampered("manifest.json"), "manifest.json is damaged"),
    Case("tampered library", _tampered("library.so"), "library.so is damaged"),
    Case("tampered weights", _tampered("weights.bin"), "weights.bin is damaged"),
    Case(
        "separate weights that are missing",
        lambda f: ["run", make.without_weights(f / "m.gopt")],
        "compiled with separate weights",
    ),
    Case(
        "separate weights of another artifact",
        lambda f: ["run", make.with_weights_of_another(f / "m.gopt")],
        "does not hold the weights",
    ),
    Case("artifact for a CPU with more features", _foreign(features=["avx512f", "amx-fp128"]), "amx-fp128"),
    Case("artifact for another architecture", _foreign(arch="riscv64"), "riscv64"),
    Case("artifact of a later format", lambda f: ["run", make.other_format(f / "m.gopt")], "format 99"),
    Case(
        "artifact with a member outside",
        lambda f: ["run", make.escaping_member(f / "m.gopt")],
        "leaves the archive",
    ),
    # Models that are to be smaller
    Case("all channels pruned", _smaller("prune", "--ratio", "1"), "some channels have to stay"),
    Case("no number of channels pruned", _smaller("prune", "--ratio", "nan"), "a ratio of nan"),
    Case("pruned without a target", _smaller("prune"), "say how much"),
    Case("pruned to two targets", _smaller("prune", "--ratio", "0.5", "--macs", "0.5"), "give one of"),
    Case("pruned to nothing", _smaller("prune", "--params", "0.01"), "cannot be reached"),
    Case(
        "every channel protected",
        _smaller("prune", "--ratio", "0.5", "--protect", "*", "--picture", "p.dot"),
        "every group of channels is protected",
    ),
    Case("pruned without a name to write", _graph(COPY, "--ratio", "0.5", command="prune"), "-o"),
    Case("pickled data to prune by", _pickled_data, "pickle|Object arrays"),
    Case("no clusters", _smaller("cluster", "--clusters", "0"), "0 clusters"),
    Case("clusters and a ratio", _smaller("cluster", "--clusters", "8", "--sqnr", "20"), "not both"),
    Case("nothing to cluster matches", _smaller("cluster", "--exclude", "Typo*"), "matches 'Typo"),
    Case("all weights zero", _smaller("sparsify", "--ratio", "1"), "between 0 and 1"),
    Case("zeros by no pattern", _smaller("sparsify", "--ratio", "0.5", "--pattern", "many"), "'many'"),
    Case("zeros by data that is not there", _smaller("sparsify", "--calib", "no.npz"), "does not exist"),
    Case("compressed without data", _smaller("compress", "--max-drop", "1"), "--calib DATA"),
    Case(
        "compressed within a budget that is no number",
        _smaller("compress", "--calib", "data.npz", "--max-drop", "nan"),
        "a drop of nan",
    ),
    Case(
        "compressed for an unknown target",
        _smaller("compress", "--calib", "data.npz", "--max-drop", "1", "--target", "z80"),
        "unknown target 'z80'",
    ),
    Case("distilled without a teacher", _smaller("distill", "--data", "data.npz"), "--teacher"),
    Case("distilled at no temperature", _distilled("--temperature", "0"), "temperature of 0"),
    Case("distilled by epochs and minutes", _distilled("--epochs", "1", "--minutes", "1"), "either a number"),
    Case("distilled with an unknown augmentation", _distilled("--augment", "spin"), "'spin'"),
    # Inputs at run time
    Case("input of another dtype", _feed("", np.zeros((2, 4))), "float64"),
    Case("input of another shape", _feed("", np.zeros((3, 4), np.float32)), r"\[3, 4\]"),
    Case("input of another name", _two_feeds, "no input z"),
    Case("missing input file", _run("--input", "no.npy"), "no file"),
    Case("pickled input", _pickled("run"), "pickle|Object arrays"),
    Case("results to a missing folder", _run("-o", "none/out.npz"), "no folder"),
    Case("results to a read-only folder", _run("-o", "/proc/out.npz"), "cannot write /proc/out.npz"),
    # Odd, but right
    Case(
        "custom operators, optimized",
        _graph(UNSUPPORTED, "-o", "o.onnx", command="optimize"),
        "not verified",
        0,
        ("o.onnx",),
    ),
    Case(
        "NaN weights",
        lambda f: ["compile", make.dense(f / "m.onnx", float("nan"))],
        "max_rel_err 0",
        0,
        ("m.gopt",),
    ),
    Case("tensor without elements", _graph(ZERO_SIZED), "max_rel_err 0", 0, ("m.gopt",)),
    Case("model without nodes", _graph(COPY), "max_rel_err 0", 0, ("m.gopt",)),
)
