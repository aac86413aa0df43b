"""How large a program becomes by a model: stripped executables with the runtime, weights left in a file. Prints a table.

python benchmarks/size.py [--target aarch64] [MODEL.onnx ...]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from graphopt import api
from graphopt.backends.codegen.toolchain import companion
from graphopt.backends.targets import find_target
from graphopt.cli.report import markdown
from light import light_models
from measured_models import binding

PROGRAM = """
#include "net.h"
int main(void) {
    net_model *model = net_create(&(net_options){0});
    int error = net_execute(model, 0, 0, 0);
    net_destroy(model);
    return error;
}
"""


def executable(model: Path, target: str, folder: Path) -> tuple[int, int]:
    """Bytes of a stripped executable, and of the weights beside it."""
    done = api.export(
        model, folder / "net", target, name="net", embed_weights=False, check=False, **binding(model)
    )
    cc, source, program = find_target(target).compiler, folder / "main.c", folder / "program"
    source.write_text(PROGRAM)
    flags = ["-O2", f"-I{done.path}/include", "-Wl,--gc-sections", "-Wl,-z,max-page-size=4096"]
    libraries = [f"{done.path}/lib/libnet.a", "-pthread", "-lm"]
    subprocess.run([cc, *flags, str(source), *libraries, "-o", str(program)], check=True)
    subprocess.run([companion(cc, "strip"), str(program)], check=True)
    return program.stat().st_size, (done.path / "share" / "net" / "weights.bin").stat().st_size


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--target", action="append", help="repeatable")
    chosen = parser.parse_args()
    light = light_models(Path("build/light"))
    models = chosen.models or [
        Path("models/digits_cnn.onnx"),
        light["light_squeezenet"],
        light["light_resnet50"],
    ]
    rows = []
    for model in models:
        for target in chosen.target or ["x86-64-v3", "aarch64:cortex-a72"]:
            with tempfile.TemporaryDirectory() as folder:
                program, weights = executable(model, target, Path(folder))
            rows.append([model.stem, target, f"{program / 1000:.0f}", f"{weights / 1e6:.2f}"])
    print(markdown(("model", "target", "program KB", "weights MB"), rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
