"""How good the innermost loops of kernels are, without running them: LLVM's model of the core says what they could reach.

Libraries keep the names of their kernels, so a disassembler finds them. Of each kernel the loop that consists of
multiply-adds most is simulated by llvm-mca; one whose sums are widened in a loop around it together with that, after as many products as
the core adds up at most. Simulated cycles rank code for one core; they are not times: caches and
memory are perfect there.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from graphopt.backends.targets import Target
from graphopt.errors import TargetError

VERSIONS = ("-22", "-21", "-20", "-19", "")
"""Endings of LLVM's programs, the one that TVM contains first."""

PACKAGE = "llvm-22"

ITERATIONS = 200

LEAST_MACS = 16
"""Multiply-accumulates of an iteration below which a loop is not one that multiplies."""


@dataclass(frozen=True)
class Multiply:
    """Instructions that multiply and add: how they are written (pattern -> how many at once), the widest first."""

    patterns: Sequence[tuple[re.Pattern[str], int]]
    independent: str
    """The widest, with operands that no other one writes; {} is its accumulator."""
    accumulators: int
    """So many of them follow each other without waiting."""
    widening: re.Pattern[str] | None = None
    """Where sums become wider now and then: what does so for a vector of them."""

    def of(self, line: str) -> int:
        """Multiply-accumulates of an instruction."""
        return next((count for pattern, count in self.patterns if pattern.match(line)), 0)


@dataclass(frozen=True)
class Machine:
    """How an architecture writes branches, multiply-adds of each kind, and the stack."""

    branch: re.Pattern[str]
    multiplies: Sequence[Multiply]
    stack: str


_NEON = [(re.compile(rf"fml[as]\s+v\d+\.{lanes}s"), lanes) for lanes in (4, 2)]
_NEON_QUADS = Multiply([(re.compile(r"[su]dot\s+v\d+\.4s"), 16)], "sdot v{}.4s, v30.16b, v31.4b[0]", 24)
_NEON_OCTETS = Multiply([(re.compile(r"(?:s|us)mmla\s+v\d+\.4s"), 32)], "smmla v{}.4s, v30.16b, v31.16b", 24)


_NEON_PAIRS = Multiply([(re.compile(r"bfdot\s+v\d+\.4s"), 8)], "bfdot v{}.4s, v30.8h, v31.2h[0]", 24)
_NEON_NARROW = Multiply(
    [(re.compile(r"fml[as]\s+v\d+\.8h"), 8)], "fmla v{}.8h, v30.8h, v1.h[0]", 24, re.compile(r"fcvtl2|fmlal2")
)
_X86_PAIRS = Multiply([(re.compile(r"vdpbf16ps\s.*%zmm"), 32)], "vdpbf16ps %zmm30, %zmm31, %zmm{}", 24)


def _arm(floats: Sequence[tuple[re.Pattern[str], int]], independent: str) -> Machine:
    branch = re.compile(r"(?:b\.?\w*|cbn?z|tbn?z)\s.*\b0x([0-9a-f]+)")
    return Machine(
        branch,
        [Multiply(floats, independent, 24), _NEON_QUADS, _NEON_OCTETS, _NEON_PAIRS, _NEON_NARROW],
        "[sp",
    )


def _sve(lanes: int) -> Machine:
    floats = [(re.compile(r"(?:fml[as]|fmad|fmsb)\s+z\d+\.s"), lanes), *_NEON]
    return _arm(floats, "fmla z{}.s, p0/m, z30.s, z31.s")


def _x86(lanes: int, independent: str, accumulators: int) -> Machine:
    widths = (("zmm", 16), ("ymm", 8), ("xmm", 4))
    floats = [(re.compile(rf"vfn?madd\w+ps\s.*%{name}"), count) for name, count in widths if count <= lanes]
    multiplies = [Multiply(floats, independent, accumulators), _X86_PAIRS]
    return Machine(re.compile(r"j\w+\s+0x([0-9a-f]+)"), multiplies, "(%rsp")


MACHINES: Mapping[tuple[str, int], Machine] = {
    ("aarch64", 4): _arm(_NEON, "fmla v{}.4s, v30.4s, v31.s[0]"),
    ("aarch64", 8): _sve(8),
    ("aarch64", 16): _sve(16),
    ("x86_64", 8): _x86(8, "vfmadd231ps %ymm14, %ymm15, %ymm{}", 12),
    ("x86_64", 16): _x86(16, "vfmadd231ps %zmm30, %zmm31, %zmm{}", 24),
}
"""By architecture and lanes of a vector. Targets that are not here have no multiply-adds that we know to count."""


@dataclass(frozen=True)
class Loop:
    """An innermost loop: its instructions, how many of them touch the stack, and what a model of the core makes of it."""

    kernel: str
    instructions: int
    macs: int
    spills: int
    cycles: float
    of_peak: float
    """Multiply-accumulates a cycle, as a share of what the core does at most."""
    mix: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """Plain types, for scripts."""
        return {**vars(self), "mix": dict(self.mix)}


def cannot_judge(target: Target) -> str | None:
    """Why nothing can be said of code for a target here; None if something can."""
    if (target.arch, target.lanes) not in MACHINES:
        return f"the multiply-adds of {target.name} are not counted"
    missing = [name for name in ("llvm-objdump", "llvm-mca") if _program(name) is None]
    return f"{', '.join(missing)} not installed; on Debian: apt-get install {PACKAGE}" if missing else None


def judge(library: bytes, target: Target) -> list[Loop]:
    """The best multiplying loop of every kernel that has one. Raises TargetError where `cannot_judge` says why."""
    if (reason := cannot_judge(target)) is not None:
        raise TargetError(reason)
    machine = MACHINES[target.arch, target.lanes]
    found = []
    for kernel, instructions in _disassemble(library, target).items():
        nests = [nest for nest in _nests(instructions, machine) if _macs(nest.loop, machine) >= LEAST_MACS]
        if nests:
            best = max(nests, key=lambda nest: _macs(nest.loop, machine) / len(nest.loop))
            found.append(_simulate(kernel, best, machine, target))
    return found


def _simulate(kernel: str, nest: Nest, machine: Machine, target: Target) -> Loop:
    loop = nest.loop
    body = [line for line in loop if not machine.branch.match(line)]
    cycles, macs = _cycles(tuple(body), target), _macs(loop, machine)
    most = max(machine.multiplies, key=lambda multiply: sum(map(multiply.of, loop)))
    repeats, rest = _widening(nest, most, machine, target)
    all_cycles = _cycles((*body * repeats, *rest), target) if rest else cycles
    peak = _peak(most.independent, most.accumulators, most.patterns[0][1], target)
    return Loop(
        kernel,
        len(loop),
        macs,
        sum(machine.stack in line for line in loop),
        round(cycles, 2),
        round(repeats * macs / all_cycles / peak, 3),
        Counter(_name(line, most) for line in loop),
    )


def _name(line: str, most: Multiply) -> str:
    """The name of an instruction, with its lanes where these tell it from the same one of float32."""
    name = line.split()[0]
    return f"{name}.8h" if most.widening is not None and most.of(line) else name


def _widening(nest: Nest, most: Multiply, machine: Machine, target: Target) -> tuple[int, list[str]]:
    """How often a loop runs before its sums are widened, at most, and the instructions that do so; none where they are not."""
    half = target.core.float16
    if most.widening is None or half is None:
        return 1, []
    for around in nest.around:
        vectors = sum(most.widening.match(line) is not None for line in around)
        if vectors:
            steps = sum(most.of(line) > 0 for line in nest.loop) // vectors
            return max(half.terms // max(steps, 1), 1), [x for x in around if not machine.branch.match(x)]
    return 1, []


@lru_cache
def _peak(independent: str, accumulators: int, macs: int, target: Target) -> float:
    """Multiply-accumulates a cycle of the core, as its model has it."""
    body = tuple(independent.format(i) for i in range(accumulators))
    return accumulators * macs / _cycles(body, target)


def _cycles(body: Sequence[str], target: Target) -> float:
    """Cycles of an iteration, with perfect caches."""
    program = _program("llvm-mca")
    assert program is not None
    features = ",".join(f"+{feature.replace('_', '.')}" for feature in target.features)
    command = [
        program,
        f"-mtriple={target.platform.triple}",
        f"-mcpu={target.simulated_cpu}",
        f"-mattr={features}",
        f"-iterations={ITERATIONS}",
        "-json",
    ]
    done = subprocess.run(command, input="\n".join(body), capture_output=True, text=True, check=False)
    if done.returncode:
        raise TargetError(f"llvm-mca does not understand code for {target.name}: {done.stderr.strip()[:500]}")
    total: int = json.loads(done.stdout)["CodeRegions"][0]["SummaryView"]["TotalCycles"]
    return total / ITERATIONS


def _disassemble(library: bytes, target: Target) -> dict[str, list[tuple[int, str]]]:
    """Address and text of the instructions of every kernel."""
    program = _program("llvm-objdump")
    assert program is not None
    features = ",".join(f"+{feature.replace('_', '.')}" for feature in target.features)
    with tempfile.NamedTemporaryFile(suffix=".so") as file:
        file.write(library)
        file.flush()
        command = [program, "-d", "--no-show-raw-insn", f"--mattr={features}", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(_functions(text))


def _functions(text: str) -> Iterator[tuple[str, list[tuple[int, str]]]]:
    for part in re.split(r"\n(?=[0-9a-f]+ <)", text):
        name = re.match(r"[0-9a-f]+ <(graphopt_\w+)\.body(?:\.\d+)?>:", part)
        if name is not None:
            lines = re.findall(r"^\s*([0-9a-f]+):\s+(.*)$", part, re.MULTILINE)
            yield name.group(1), [(int(address, 16), _plain(line)) for address, line in lines]


def _plain(line: str) -> str:
    """An instruction without what the disassembler adds: where an address points, and comments."""
    return re.sub(r"\s*(<[^>]*>|//.*|# .*)$", "", line.replace("\t", " ")).strip()


@dataclass(frozen=True)
class Nest:
    """An innermost loop, and what else the loops around it hold, from the smallest on."""

    loop: list[str]
    around: list[list[str]]


def _nests(instructions: Sequence[tuple[int, str]], machine: Machine) -> list[Nest]:
    """Loops from the target of a backward branch to the branch, where there is no other such loop within."""
    places = {address: i for i, (address, _) in enumerate(instructions)}
    spans = []
    for i, (_, line) in enumerate(instructions):
        branch = machine.branch.match(line)
        start = places.get(int(branch.group(1), 16)) if branch else None
        if start is not None and start <= i:
            spans.append((start, i))
    lines = [line for _, line in instructions]
    inner = [s for s in spans if not any(t != s and s[0] <= t[0] and t[1] <= s[1] for t in spans)]
    return [Nest(lines[start : end + 1], _around(lines, (start, end), spans)) for start, end in inner]


def _around(lines: list[str], inner: tuple[int, int], spans: Sequence[tuple[int, int]]) -> list[list[str]]:
    start, end = inner
    outer = sorted(
        (s for s in spans if s != inner and s[0] <= start and end <= s[1]), key=lambda s: s[1] - s[0]
    )
    return [lines[first:start] + lines[end + 1 : last + 1] for first, last in outer]


def _macs(loop: Sequence[str], machine: Machine) -> int:
    return sum(multiply.of(line) for line in loop for multiply in machine.multiplies)


def _program(name: str) -> str | None:
    """The path of one of LLVM's programs."""
    found = (shutil.which(name + version) for version in VERSIONS)
    return next((path for path in found if path is not None), None)
