"""Instructions that TVM has no words for, as functions of CUDA C which kernels call."""

from __future__ import annotations

from graphopt.backends.codegen.inline import Inline
from graphopt.backends.cuda.tensor_elements import Element

_COPY = """__device__ __forceinline__ void graphopt_copy{bytes}(void *to, const void *from, int exists) {{
  unsigned place = (unsigned)__cvta_generic_to_shared(to);
  asm volatile("cp.async.{cache}.shared.global [%0], [%1], {bytes}, %2;" ::"r"(place), "l"(from), "r"(exists ? {bytes} : 0));
}}
"""

_COMMIT = """__device__ __forceinline__ void graphopt_commit() { asm volatile("cp.async.commit_group;"); }
"""

_AWAIT = """__device__ __forceinline__ void graphopt_await{pending}() {{ asm volatile("cp.async.wait_group {pending};"); }}
"""

_LOAD = """__device__ __forceinline__ void {name}(void *to, const void *from) {{
  unsigned *r = (unsigned *)to, place = (unsigned)__cvta_generic_to_shared(from);
  asm volatile("ldmatrix.sync.aligned.m8n8.x4{form}.shared.b16 {{%0, %1, %2, %3}}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(place));
}}
"""

_MULTIPLY = """__device__ __forceinline__ void graphopt_multiply_{name}({c_type} *c, const unsigned *a, const unsigned *b) {{
  asm volatile("mma.sync.aligned.m16n8k{depth}.row.col.{sum}.{operands}.{sum} {{%0, %1, %2, %3}}, {{%4, %5, %6, %7}}, "
               "{{%8, %9}}, {{%0, %1, %2, %3}};"
               : {sums}
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}}
"""

_FENCE = """__device__ __forceinline__ void graphopt_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
"""

_GROUP = """__device__ __forceinline__ unsigned long long graphopt_tile{columns}_{name}(const void *first) {{
  return (((unsigned)__cvta_generic_to_shared(first) & 0x3FFFF) >> 4) | 1ull << 16 | 64ull << 32 | 1ull << 62;
}}
__device__ __forceinline__ void graphopt_group{columns}_{name}({c_type} *c, const void *left, const void *right) {{
  unsigned long long a = graphopt_tile{columns}_{name}(left), b = graphopt_tile{columns}_{name}(right);
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
  for (int k = 0; k < 4; k++)
    asm volatile("{{ .reg .pred p; setp.ne.b32 p, 1, 0; "
                 "wgmma.mma_async.sync.aligned.m64n{columns}k{depth}.{sum}.{operands} {{{places}}}, %{a}, %{b}, p{options}; }}"
                 : {sums} : "l"(a + 2 * k), "l"(b + 2 * k));
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
  asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
}}
"""

_AWAIT_GROUP = """__device__ __forceinline__ void graphopt_await_group{columns}_{name}({c_type} *c) {{
  asm volatile("wgmma.wait_group.sync.aligned 0;" : {sums} :: "memory");
}}
"""

COPIES = {
    size: Inline(f"graphopt_copy{size}", _COPY.format(bytes=size, cache="cg" if size == 16 else "ca"))
    for size in (4, 8, 16)
}
"""`(shared, global, exists)`, by bytes: they go to shared memory while the thread goes on; zeros where they do not exist."""

COPY = COPIES[16]

COMMIT = Inline("graphopt_commit", _COMMIT)
"""`()`: the copies since the last call become one group."""

LOAD = Inline("graphopt_load", _LOAD.format(name="graphopt_load", form=""))
"""`(registers, row)`: four matrices of 8 x 8 halves; thread t gives the address of row t % 8 of matrix t / 8."""

LOAD_TRANSPOSED = Inline(
    "graphopt_load_transposed", _LOAD.format(name="graphopt_load_transposed", form=".trans")
)

OPTIONS = {1: "", 2: ", 1, 1, 0, 0", 4: ", 1, 1"}
"""By the size of elements: no operand is negated, and none of those of two bytes transposed."""


def multiply(element: Element) -> Inline:
    """`(sums, left, right)`: 16 x 8 sums plus the product of 16 rows and 8 columns of elements, 32 bytes of the depth."""
    text = _MULTIPLY.format(**_names(element, 4))
    return Inline(f"graphopt_multiply_{element.name}", text)


def await_copies(pending: int) -> Inline:
    """`()`: waits until at most so many groups of copies are under way."""
    return Inline(f"graphopt_await{pending}", _AWAIT.format(pending=pending))


_PACK = """__device__ __forceinline__ void graphopt_pack_{name}(void *to, float x, float y) {{
  asm("cvt.rn.{name}x2.f32 %0, %1, %2;" : "=r"(*(unsigned *)to) : "f"(y), "f"(x));
}}
"""

_ROUND_BFLOAT16 = """__device__ __forceinline__ unsigned short graphopt_round_bf16(float x) {
  unsigned short y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y) : "f"(x));
  return y;
}
"""

_ROUND_TF32 = """__device__ __forceinline__ float graphopt_round_tf32(float x) {
  unsigned y;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
  return __uint_as_float(y);
}
"""

_BEGIN = """__device__ __forceinline__ void graphopt_begin() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}
"""

_POWER = """__device__ __forceinline__ float graphopt_power(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
"""

_RECIPROCAL = """__device__ __forceinline__ float graphopt_reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
"""

POWER = Inline("graphopt_power", _POWER)
"""`(x)`: 2**x, off by two units in the last place."""

RECIPROCAL = Inline("graphopt_reciprocal", _RECIPROCAL)
"""`(x)`: 1 / x, off by one unit in the last place."""

_LARGER = """template <typename T> __device__ __forceinline__ T graphopt_larger_{name}(T x, T y) {{ return {function}(x, y); }}
"""

LARGER = {
    dtype: Inline(f"graphopt_larger_{name}", _LARGER.format(name=name, function=function))
    for dtype, name, function in (("float16", "f16", "__hmax"), ("float32", "f32", "fmaxf"))
}
"""`(x, y)`, by dtype: the larger of two; the other one where one is NaN."""

BEGIN = Inline("graphopt_begin", _BEGIN)
"""`()`: waits until the kernel before this one has ended, then lets the next one be brought up."""

ROUND_BFLOAT16 = Inline("graphopt_round_bf16", _ROUND_BFLOAT16)
"""`(x)`: the bits of the nearest bfloat16, of two the even one."""

ROUND_TF32 = Inline("graphopt_round_tf32", _ROUND_TF32)
"""`(x)`: the nearest float32 with 11 significant bits, of two the one farther from zero."""

FENCE = Inline("graphopt_fence", _FENCE)
"""`()`: what the thread's copies wrote to shared memory can be read by `wgmma` of others, after a barrier."""


def pack(element: Element) -> Inline:
    """`(register, x, y)`: two floats as halves of one register."""
    return Inline(f"graphopt_pack_{element.name}", _PACK.format(name=element.name))


def multiply_group(columns: int, element: Element) -> Inline:
    """`(sums, left, right)`: 64 x `columns` sums of four warps plus the product of 64 rows and `columns` columns of elements,
    128 bytes of the depth, along which both lie in shared memory. The product before this one is complete then, this one is not."""
    count = columns // 2
    text = _GROUP.format(
        columns=columns,
        options=OPTIONS[element.size],
        places=", ".join(f"%{i}" for i in range(count)),
        a=count,
        b=count + 1,
        **_names(element, count),
    )
    return Inline(f"graphopt_group{columns}_{element.name}", text)


def await_group(columns: int, element: Element) -> Inline:
    """`(sums)`: waits until they are complete."""
    text = _AWAIT_GROUP.format(columns=columns, **_names(element, columns // 2))
    return Inline(f"graphopt_await_group{columns}_{element.name}", text)


def _names(element: Element, count: int) -> dict[str, object]:
    """What the instructions on an element and `count` sums are made of."""
    sums = element.sums
    return {
        "name": element.name,
        "operands": element.operands,
        "depth": element.depth,
        "sum": sums.name,
        "c_type": sums.c_type,
        "sums": ", ".join(f'"+{sums.register}"(c[{i}])' for i in range(count)),
    }
