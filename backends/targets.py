"""The table of targets, and what the rest of the compiler needs to know of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from graphopt.backends.codegen import ndk
from graphopt.backends.kernels import caches
from graphopt.backends.kernels.core import (
    ARM32,
    AVX2,
    AVX512,
    AVX512_BF16,
    AVX512_VNNI,
    AVX_VNNI,
    GPU,
    GPU_HOPPER,
    NEON,
    NEON_BF16,
    NEON_DOT,
    SCALAR,
    SSE,
    SVE512,
    Core,
    HalfDot,
)
from graphopt.backends.kernels.speed import (
    CORTEX_A53,
    NEOVERSE_N1,
    NEOVERSE_N2,
)
from graphopt.errors import TargetError
from graphopt_runtime import cpu, gpu

LLVM_OPTIMISATION = 2
"""LLVM's -O level: kernels are scheduled before LLVM sees them, and 3 takes twice the time for the same speed."""


@dataclass(frozen=True)
class Platform:
    """What targets of one architecture share: LLVM's triple, with all four parts (it reads the second one as a vendor), the C
    cross compiler, and the program that emulates it."""

    arch: str
    triple: str
    compiler: str
    emulator: str
    """Empty where none knows the vector instructions."""
    sysroot: str = ""
    """Where the emulator finds the C library."""
    float_abi: str = ""
    abi: str = ""
    """LLVM's names of calling conventions, where there are several."""
    hosted: bool = True
    """Whether there is an operating system, and so shared libraries, memory and threads."""
    system: str = "linux"

    @property
    def is_here(self) -> bool:
        """Whether this machine is of this architecture and system."""
        return self.arch == cpu.architecture() and self.system == cpu.system()


X86_64 = Platform("x86_64", "x86_64-unknown-linux-gnu", "x86_64-linux-gnu-gcc", "")
AARCH64 = Platform(
    "aarch64",
    "aarch64-unknown-linux-gnu",
    "aarch64-linux-gnu-gcc",
    "qemu-aarch64-static",
    "/usr/aarch64-linux-gnu",
)
ARMV7 = Platform(
    "armv7",
    "armv7a-unknown-linux-gnueabihf",
    "arm-linux-gnueabihf-gcc",
    "qemu-arm-static",
    "/usr/arm-linux-gnueabihf",
    "hard",
)
ANDROID = Platform("aarch64", "aarch64-unknown-linux-android", ndk.COMPILER, "", system="android")

SIMULATED = {"generic": "cortex-a53", "x86-64-v3": "znver3", "x86-64-v4": "znver4", "x86-64-v2": "nehalem"}
"""A core that stands for an instruction set."""

SIMULATED_HALVES = {"x86-64-v4": "cooperlake"}
"""The same with products of halves, which are as fast as multiply-adds there, and on Zen 5, but not in LLVM's model of that."""
RISCV64 = Platform(
    "riscv64",
    "riscv64-unknown-linux-gnu",
    "riscv64-linux-gnu-gcc",
    "qemu-riscv64-static",
    "/usr/riscv64-linux-gnu",
    abi="lp64d",
)
CORTEX_M = Platform(
    "thumbv7em", "thumbv7em-unknown-none-eabihf", "arm-none-eabi-gcc", "", "", "hard", hosted=False
)


@dataclass(frozen=True)
class Target:
    """One row: what LLVM is told, which CPU features the artifact demands, and what kernels need to know of the core."""

    name: str
    platform: Platform
    cpu: str
    features: tuple[str, ...]
    core: Core
    description: str
    emulated_cpu: str = "max"
    """The emulator's model of it."""
    sve_bits: int = 0
    """Least length of its scalable vectors, which kernels then use; without, their vectors are NEON's."""
    extensions: tuple[str, ...] = ()
    """Further instructions that kernels use: LLVM's names of them, where `cpu` does not imply them."""
    device: str = ""
    """The architecture of the GPU that kernels run on, as nvcc spells it; empty for those of the CPU itself."""

    @property
    def arch(self) -> str:
        return self.platform.arch

    @property
    def demands(self) -> tuple[str, ...]:
        """What a machine must have, under the names of `graphopt_runtime.cpu`: CPU features, vectors long enough, its system."""
        lengths = [f"sve{self.sve_bits}"] if self.sve_bits else []
        systems = [self.platform.system] if self.platform.system != "linux" else []
        devices = [self.device] if self.device else []
        return (*self.features, *lengths, *systems, *devices)

    @property
    def lanes(self) -> int:
        """float32 lanes of a vector register."""
        return self.core.lanes

    @property
    def simulated_cpu(self) -> str:
        """The core whose model LLVM has for this target; plain names of instruction sets have none."""
        names = SIMULATED if not isinstance(self.core.half, HalfDot) else {**SIMULATED, **SIMULATED_HALVES}
        return names.get(self.cpu, self.cpu)

    @property
    def compiler(self) -> str:
        """The C compiler that links for it here."""
        if self.platform.is_here:
            return "cc"
        return ndk.find_compiler() if self.platform is ANDROID else self.platform.compiler

    def llvm(self) -> Any:
        """The TVM target."""
        import tvm

        facts: dict[str, Any] = {
            "kind": "llvm",
            "mcpu": self.cpu,
            "num-cores": 1,
            "opt-level": LLVM_OPTIMISATION,
        }
        if not self.platform.is_here:
            facts["mtriple"] = self.platform.triple
            attributes = self.extensions if self.platform is X86_64 else self.features
        else:
            attributes = self.extensions
        if attributes:
            facts["mattr"] = [f"+{name}" for name in attributes]
        if self.sve_bits:
            facts["cl-opt"] = [f"-aarch64-sve-vector-bits-min:int={self.sve_bits}"]
        if self.platform.float_abi:
            facts["mfloat-abi"] = self.platform.float_abi
        if self.platform.abi:
            facts["mabi"] = self.platform.abi
        return tvm.target.Target(facts)


_AVX2 = ("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe")
_AVX512 = (*_AVX2, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
_ARMV8_2 = ("neon", "fullfp16", "dotprod")
_SVE = (*_ARMV8_2, "fp16fml", "sve", "i8mm", "bf16")

# LLVM takes multiply-adds apart for Cortex-A7, which the emulator is and whose instructions Cortex-A15 has too.
_ARMV7_CPU = "cortex-a15"

TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (
        Target(
            "x86-64-v2",
            X86_64,
            "x86-64-v2",
            ("sse4_1", "sse4_2", "ssse3", "popcnt"),
            SSE,
            "x86 with SSE4.2",
        ),
        Target("x86-64-v3", X86_64, "x86-64-v3", _AVX2, AVX2, "x86 with AVX2 and FMA (2013 on)"),
        Target(
            "x86-64-v3-vnni",
            X86_64,
            "x86-64-v3",
            (*_AVX2, "avxvnni"),
            AVX_VNNI,
            "x86 with AVX2 and VNNI (2021 on)",
            extensions=("avxvnni",),
        ),
        Target("x86-64-v4", X86_64, "x86-64-v4", _AVX512, AVX512, "x86 with AVX-512"),
        Target(
            "x86-64-v4-vnni",
            X86_64,
            "x86-64-v4",
            (*_AVX512, "avx512vnni"),
            AVX512_VNNI,
            "x86 with AVX-512 and VNNI (2019 on)",
            extensions=("avx512vnni",),
        ),
        Target(
            "x86-64-v4-bf16",
            X86_64,
            "x86-64-v4",
            (*_AVX512, "avx512vnni", "avx512bf16"),
            AVX512_BF16,
            "x86 with AVX-512, VNNI and bfloat16 (Cooper Lake, Zen 4 on)",
            extensions=("avx512vnni", "avx512bf16"),
        ),
        Target("armv7", ARMV7, _ARMV7_CPU, ("neon", "vfp4"), ARM32, "32-bit ARM with NEON", "cortex-a7"),
        Target("aarch64", AARCH64, "generic", ("neon",), NEON, "any 64-bit ARM", "cortex-a53"),
        Target(
            "aarch64:cortex-a53",
            AARCH64,
            "cortex-a53",
            ("neon",),
            replace(NEON, speed=CORTEX_A53, cache=caches.CORTEX_A53),
            "Raspberry Pi 3",
            "cortex-a53",
        ),
        Target(
            "aarch64:cortex-a72",
            AARCH64,
            "cortex-a72",
            ("neon",),
            replace(NEON, cache=caches.CORTEX_A72),
            "Raspberry Pi 4",
            "cortex-a72",
        ),
        Target(
            "aarch64:cortex-a76",
            AARCH64,
            "cortex-a76",
            _ARMV8_2,
            replace(NEON_DOT, speed=NEOVERSE_N1, cache=caches.CORTEX_A76),
            "Raspberry Pi 5",
            "cortex-a76",
        ),
        Target(
            "aarch64:neoverse-n1",
            AARCH64,
            "neoverse-n1",
            _ARMV8_2,
            replace(NEON_DOT, speed=NEOVERSE_N1, cache=caches.NEOVERSE),
            "Graviton 2, Altra",
            "neoverse-n1",
        ),
        Target(
            "aarch64:neoverse-v1",
            AARCH64,
            "neoverse-v1",
            _SVE,
            replace(NEON_BF16, speed=NEOVERSE_N2, cache=caches.NEOVERSE),
            "Graviton 3, with SVE",
        ),
        Target(
            "aarch64:a64fx",
            AARCH64,
            "a64fx",
            ("neon", "fullfp16", "sve"),
            replace(SVE512, cache=caches.A64FX),
            "Fugaku, with SVE of 512 bits",
            "a64fx",
            512,
        ),
        Target(
            "aarch64:neoverse-n2",
            AARCH64,
            "neoverse-n2",
            (*_SVE, "sve2"),
            replace(NEON_BF16, speed=NEOVERSE_N2, cache=caches.NEOVERSE),
            "with SVE2",
        ),
        Target(
            "aarch64:neoverse-v2",
            AARCH64,
            "neoverse-v2",
            (*_SVE, "sve2"),
            replace(NEON_BF16, speed=NEOVERSE_N2, cache=caches.NEOVERSE),
            "Graviton 4, Grace",
        ),
        Target("aarch64-android", ANDROID, "generic", ("neon",), NEON, "any 64-bit Android, from 10 on"),
        Target(
            "aarch64-android:cortex-a76",
            ANDROID,
            "cortex-a76",
            _ARMV8_2,
            replace(NEON_DOT, speed=NEOVERSE_N1, cache=caches.CORTEX_A76),
            "Android phones from 2019 on",
        ),
        Target(
            "riscv64", RISCV64, "generic-rv64", ("m", "a", "f", "d", "c"), SCALAR, "64-bit RISC-V", "rv64"
        ),
        *(
            Target(f"cuda:{arch}", X86_64, "x86-64-v2", (), gpu, description, device=arch)
            for arch, gpu, description in (
                ("sm_80", GPU, "NVIDIA A100"),
                ("sm_86", GPU, "NVIDIA RTX 30, A10, A40"),
                ("sm_89", GPU, "NVIDIA RTX 40, L4, L40"),
                ("sm_90", GPU_HOPPER, "NVIDIA H100, H200"),
            )
        ),
        Target("cortex-m7", CORTEX_M, "cortex-m7", (), SCALAR, "microcontrollers, as an object"),
    )
}
"""Fixed targets by name, those of one platform in ascending order. `native` picks the best one that the CPU of this machine runs, `cuda` the one of its GPU."""


def find_target(name: str) -> Target:
    """The target of a name; `native` stands for this machine. Raises TargetError for an unknown one."""
    if name == "native":
        return native()
    if name == "cuda":
        return native_gpu()
    if name not in TARGETS:
        raise TargetError(f"unknown target {name!r}; choose one of native, cuda, {', '.join(TARGETS)}")
    return TARGETS[name]


def find_targets(names: str) -> list[Target]:
    """Targets by names that are separated by commas, in the order of the table: best last. Raises TargetError."""
    found = {find_target(name) for name in names.split(",")}
    return [target for target in TARGETS.values() if target in found]


def native() -> Target:
    """The best target of the table that this machine runs."""
    for target in reversed(list(TARGETS.values())):
        if not target.device and runs_here(target) is None:
            return target
    raise TargetError(
        f"no target of the table runs on this machine ({cpu.architecture()}); see `graphopt targets`"
    )


def native_gpu() -> Target:
    """The target of the GPU of this machine."""
    targets = [target for target in TARGETS.values() if target.device]
    for target in reversed(targets):
        if runs_here(target) is None:
            return target
    names = ", ".join(target.name for target in targets)
    raise TargetError(f"there is no GPU here that graphopt knows; name the one to compile for: {names}")


def runs_here(target: Target) -> str | None:
    """Why this machine cannot run code for `target`, or None if it can."""
    here = cpu.architecture()
    if target.arch != here:
        return f"this machine is {here}, the target {target.arch}"
    if target.platform.system != cpu.system():
        return f"this machine runs {cpu.system()}, the target is for {target.platform.system}"
    of_cpu, of_gpu = gpu.split_features(list(target.demands))
    missing = cpu.missing_features(of_cpu, cpu.cpu_flags(), here)
    if missing:
        return f"this machine lacks {', '.join(missing)}"
    reason = gpu.misfit(of_gpu)
    return None if reason is None else f"it needs {reason}"
