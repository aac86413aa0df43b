"""Instructions that TVM has no words for, as functions of CUDA C which kernels call."""

from __future__ import annotations

from graphopt.backends.codegen.inline import Inline
from graphopt.backends.cuda.tensor_elements import Element, Sums

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

_MEET = """__device__ __forceinline__ void graphopt_meet() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
"""

_ADD_UP = """__device__ __forceinline__ void graphopt_add_up{teams}_{sum}({c_type} *own) {{
  unsigned place = (unsigned)__cvta_generic_to_shared(own), at;
  {c_type} total[4] = {{0, 0, 0, 0}}, x[{teams}][4];
#pragma unroll
  for (int team = 0; team < {teams}; team++) {{
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(at) : "r"(place), "r"(team));
    asm volatile("ld.shared::cluster.v4.{sum} {{%0, %1, %2, %3}}, [%4];"
                 : "={register}"(x[team][0]), "={register}"(x[team][1]), "={register}"(x[team][2]), "={register}"(x[team][3])
                 : "r"(at) : "memory");
  }}
#pragma unroll
  for (int team = 0; team < {teams}; team++)
#pragma unroll
    for (int i = 0; i < 4; i++) total[i] += x[team][i];
#pragma unroll
  for (int i = 0; i < 4; i++) own[i] = total[i];
}}
"""

_POWER = """__device__ __forceinline__ float graphopt_power(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
"""

POWER = Inline("graphopt_power", _POWER)
"""`(x)`: 2**x, off by two units in the last place."""

_TILE = """__device__ __forceinline__ unsigned long long graphopt_{kind}_tile{columns}_{name}(const void *first, unsigned long long across) {{
  return (((unsigned)__cvta_generic_to_shared(first) & 0x3FFFF) >> 4) | across << 16 | 64ull << 32 | 1ull << 62;
}}
"""

_MULTIPLY_ROWS = """__device__ __forceinline__ void graphopt_rows{columns}_{name}({c_type} *c, const void *left, const void *right,
                                                               int steps, int left_rows, int right_rows) {{
  unsigned long long a = graphopt_rows_tile{columns}_{name}(left, 1), b = graphopt_rows_tile{columns}_{name}(right, 1);
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
  for (int k = 0; k < steps; k++)
    asm volatile("{{ .reg .pred p; setp.ne.b32 p, %{p}, 0; "
                 "wgmma.mma_async.sync.aligned.m64n{columns}k{depth}.{sum}.{operands} {{{places}}}, %{a}, %{b}, p, 1, 1, 0, 0; }}"
                 : {sums} : "l"(a + k / 4 * left_rows * 8 + k % 4 * 2), "l"(b + k / 4 * right_rows * 8 + k % 4 * 2), "r"(k));
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
  asm volatile("wgmma.wait_group.sync.aligned 0;" : {sums} :: "memory");
}}
"""

_MULTIPLY_WEIGHTS = """__device__ __forceinline__ void graphopt_weights{columns}_{name}({c_type} *c, const unsigned *left, const void *right,
                                                                  int steps, int rows) {{
  unsigned long long b = graphopt_weights_tile{columns}_{name}(right, rows * 8);
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
  for (int k = 0; k < steps; k++)
    asm volatile("{{ .reg .pred p; setp.ne.b32 p, 1, 0; "
                 "wgmma.mma_async.sync.aligned.m64n{columns}k{depth}.{sum}.{operands} {{{places}}}, "
                 "{{%{a}, %{a1}, %{a2}, %{a3}}}, %{b}, p, 1, 1, 1; }}"
                 : {sums} : "r"(left[k * 4]), "r"(left[k * 4 + 1]), "r"(left[k * 4 + 2]), "r"(left[k * 4 + 3]), "l"(b + k * 128));
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
  asm volatile("wgmma.wait_group.sync.aligned 0;" : {sums} :: "memory");
}}
"""

_LARGER = """__device__ __forceinline__ float graphopt_larger(float x, float y) { return fmaxf(x, y); }
"""

LARGER = Inline("graphopt_larger", _LARGER)
"""`(x, y)`: the larger one; of a NaN and a number the number."""

_LARGER_HALF = """template <typename T> __device__ __forceinline__ T graphopt_larger_half(T x, T y) { return __hmax(x, y); }
"""

LARGER_OF = {"float16": Inline("graphopt_larger_half", _LARGER_HALF), "float32": LARGER}
"""The same by dtype."""

_INVERSE = """__device__ __forceinline__ float graphopt_inverse(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
"""

INVERSE = Inline("graphopt_inverse", _INVERSE)
"""`(x)`: 1 / x, off by one unit in the last place."""

BEGIN = Inline("graphopt_begin", _BEGIN)
"""`()`: waits until the kernel before this one has ended, then lets the next one be brought up."""

ROUND_BFLOAT16 = Inline("graphopt_round_bf16", _ROUND_BFLOAT16)
"""`(x)`: the bits of the nearest bfloat16, of two the even one."""

ROUND_TF32 = Inline("graphopt_round_tf32", _ROUND_TF32)
"""`(x)`: the nearest float32 with 11 significant bits, of two the one farther from zero."""

MEET = Inline("graphopt_meet", _MEET)
"""`()`: no thread of a cluster goes on before all have come here, and what they wrote to shared memory can be read."""

FENCE = Inline("graphopt_fence", _FENCE)
"""`()`: what the thread's copies wrote to shared memory can be read by `wgmma` of others, after a barrier."""


def add_up(teams: int, sums: Sums) -> Inline:
    """`(own)`: four neighbours in shared memory become the sums of those at the same place of all teams of a cluster, in order."""
    text = _ADD_UP.format(teams=teams, sum=sums.name, c_type=sums.c_type, register=sums.register)
    return Inline(f"graphopt_add_up{teams}_{sums.name}", text)


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
        places=_places(count),
        a=count,
        b=count + 1,
        **_names(element, count),
    )
    return Inline(f"graphopt_group{columns}_{element.name}", text)


def multiply_rows(columns: int, element: Element) -> Inline:
    """`(sums, left, right, steps, left_rows, right_rows)`: 64 x `columns` sums of four warps are the product of 64 rows and `columns`
    columns of halves, `steps` times 16 of the depth, along which both lie in shared memory in blocks of so many rows of 128 bytes."""
    count = columns // 2
    facts = {"columns": columns, "kind": "rows", "places": _places(count), **_names(element, count)}
    text = (_TILE + _MULTIPLY_ROWS).format(a=count, b=count + 1, p=count + 2, **facts)
    return Inline(f"graphopt_rows{columns}_{element.name}", text)


def multiply_weights(columns: int, element: Element) -> Inline:
    """`(sums, left, right, steps, rows)`: 64 x `columns` sums of four warps plus the product of fragments in registers and rows of
    halves in shared memory, in blocks of `rows` rows of 128 bytes, `steps` times 16 of them."""
    count = columns // 2
    registers = {"a": count, "a1": count + 1, "a2": count + 2, "a3": count + 3, "b": count + 4}
    facts = {"columns": columns, "kind": "weights", "places": _places(count), **_names(element, count)}
    text = (_TILE + _MULTIPLY_WEIGHTS).format(**registers, **facts)
    return Inline(f"graphopt_weights{columns}_{element.name}", text)


def _places(count: int) -> str:
    return ", ".join(f"%{i}" for i in range(count))


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
