"""Builds the body of one kernel: a thin, typed layer over TIR statements.

Buffers are flat. Loops are context managers that yield their variable; statements go into the innermost open block.
Vectorised loops must not hold guarded expressions that depend on their variable (`guard`), since TIR would split them
into scalars and lose the bindings around them; `guarded` tells afterwards whether any guard was used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from tvm import tirx

from graphopt.backends.codegen.inline import Inline
from graphopt.backends.codegen.program import Buffer

Family = TypeVar("Family")

Expr = Any
"""A TIR expression or a Python number."""

LOOP_KINDS = {
    "serial": tirx.ForKind.SERIAL,
    "independent": tirx.ForKind.SERIAL,
    "parallel": tirx.ForKind.PARALLEL,
    "balanced": tirx.ForKind.PARALLEL,
    "vector": tirx.ForKind.VECTORIZED,
    "unroll": tirx.ForKind.UNROLLED,
}

INDEX = "int32"

EXPECT_UNITS = "graphopt_expect_units"
"""Of the C runtime."""

UNNAMED = ("bool", "bfloat16")
"""Types of which TIR's passes do not understand named vectors."""


def storage_dtype(dtype: str) -> str:
    """The dtype elements have in memory: booleans take one byte."""
    return "int8" if dtype == "bool" else dtype


def dtype_of(expr: Expr) -> str:
    """The scalar or vector dtype of a TIR expression."""
    return str(expr.ty.dtype)


def const(value: Any, dtype: str) -> Expr:
    """A literal of `dtype`."""
    return tirx.const(value, dtype)


def broadcast(expr: Expr, lanes: int) -> Expr:
    """A vector of `lanes` times `expr`; `expr` itself for a single lane."""
    return expr if lanes == 1 else tirx.Broadcast(expr, lanes)


def cast(expr: Expr, dtype: str) -> Expr:
    """`expr` converted to `dtype`; nothing when it has that dtype already."""
    return expr if dtype_of(expr) == dtype else tirx.Cast(dtype, expr)


class Local:
    """Scratch memory of one kernel: registers when small and indexed by constants, else the task's stack."""

    def __init__(self, storage: Any, dtype: str) -> None:
        self.storage = storage
        self.dtype = dtype

    def __getitem__(self, index: Expr) -> Expr:
        return tirx.BufferLoad(self.storage, [_index(index)])


class KernelBuilder:
    """Collects the statements of a kernel and the buffers it touches."""

    def __init__(self) -> None:
        self.buffers: dict[Buffer, Any] = {}
        self.written: set[Buffer] = set()
        self.guarded = False
        self.loads: list[tuple[Buffer, Expr]] = []
        self.functions: dict[Inline, None] = {}
        self._blocks: list[list[Any]] = [[]]
        self._memo: list[dict[Any, tuple[Any, Expr]]] = [{}]
        self._guard_depth = 0
        self._counter = 0

    def twin(self, family: Family) -> Family:
        """What the machine that the kernel is for has in place of a family of kernels, or of a part of kernels."""
        return family

    def load(self, buffer: Buffer, offset: Expr) -> Expr:
        """Element `offset` of `buffer`."""
        offset = _index(offset)
        self.loads.append((buffer, offset))
        value = tirx.BufferLoad(self._declare(buffer), [offset])
        return tirx.NE(value, tirx.const(0, "int8")) if buffer.dtype == "bool" else value

    def load_vector(self, buffer: Buffer, offset: Expr, lanes: int) -> Expr:
        """`lanes` consecutive elements of `buffer` from `offset`."""
        if lanes == 1:
            return self.load(buffer, offset)
        return tirx.BufferLoad(self._declare(buffer), [tirx.Ramp(_index(offset), _index(1), lanes)])

    def store(self, buffer: Buffer, offset: Expr, value: Expr) -> None:
        """Write one element."""
        self.written.add(buffer)
        if buffer.dtype == "bool":
            value = tirx.Cast("int8", value)
        self.append(tirx.BufferStore(self._declare(buffer), value, [_index(offset)]))

    def store_vector(self, buffer: Buffer, offset: Expr, value: Expr, lanes: int) -> None:
        """Write `lanes` consecutive elements from `offset`."""
        self.written.add(buffer)
        index = _index(offset) if lanes == 1 else tirx.Ramp(_index(offset), _index(1), lanes)
        self.append(tirx.BufferStore(self._declare(buffer), value, [index]))

    def local(self, size: int, dtype: str) -> Local:
        """Scratch memory of `size` elements, living until the innermost open block ends."""
        storage = tirx.decl_buffer((size,), dtype, self._name("local"), scope="local")
        self.append(tirx.AllocBuffer(storage, {"disable_lower_builtin": tirx.const(1, "bool")}))
        return Local(storage, dtype)

    def assign(self, local: Local, index: Expr, value: Expr, lanes: int = 1) -> None:
        """Write `lanes` elements of scratch memory from `index`."""
        at = _index(index) if lanes == 1 else tirx.Ramp(_index(index), _index(1), lanes)
        self.append(tirx.BufferStore(local.storage, value, [at]))

    def read_vector(self, local: Local, index: Expr, lanes: int) -> Expr:
        """`lanes` elements of scratch memory from `index`."""
        at = _index(index) if lanes == 1 else tirx.Ramp(_index(index), _index(1), lanes)
        return tirx.BufferLoad(local.storage, [at])

    def call(self, function: Inline, dtype: str, *arguments: Expr) -> Expr:
        """The result, of `dtype`, of a function that has no effects."""
        self.functions[function] = None
        return tirx.call_extern(dtype, function.name, *arguments)

    def bind(self, expr: Expr) -> Expr:
        """Name a value so that using it twice computes it once. Inside a guard the expression stays in place."""
        if self._guard_depth or isinstance(expr, int | float | tirx.Var | tirx.IntImm | tirx.FloatImm):
            return expr
        if dtype_of(expr) in UNNAMED:
            return expr
        variable = tirx.Var(self._name("v"), dtype_of(expr))
        self.append(tirx.Bind(variable, expr))
        return variable

    def memoize(self, key: Any, keep: Any, make: Callable[[], Expr]) -> Expr:
        """`make()` computed once per key within the open blocks; `keep` is held so that ids in the key stay unique."""
        for frame in reversed(self._memo):
            if key in frame:
                return frame[key][1]
        value = self.bind(make())
        if not self._guard_depth:
            self._memo[-1][key] = (keep, value)
        return value

    def guard(self, condition: Expr, make: Callable[[], Expr], otherwise: Expr) -> Expr:
        """`make()` where `condition` holds, else `otherwise`; memory is read only where the condition holds."""
        self.guarded = True
        self._guard_depth += 1
        try:
            value = make()
        finally:
            self._guard_depth -= 1
        return self.either(condition, value, otherwise)

    def either(self, condition: Expr, value: Expr, otherwise: Expr) -> Expr:
        """A value that was made under a condition, or another one."""
        return tirx.op.if_then_else(condition, value, otherwise)

    @contextmanager
    def loop(self, extent: Expr, kind: str = "serial", name: str = "i") -> Iterator[Expr]:
        """A loop over [0, extent), or its body alone where that is 1.

        Threads run equal parts of a parallel loop, and take iterations of a balanced one as they can. Those of an independent
        one could run in any order, but are too little work for threads of a CPU.
        """
        if isinstance(extent, int) and extent == 1:
            yield _index(0)
            return
        variable = tirx.Var(self._name(name), INDEX)
        with self._block() as statements:
            yield variable
        if kind == "balanced":
            self.append(tirx.Evaluate(tirx.call_extern("int32", EXPECT_UNITS, _index(extent))))
        self.append(tirx.For(variable, _index(0), _index(extent), LOOP_KINDS[kind], _sequence(statements)))

    @contextmanager
    def when(self, condition: Expr) -> Iterator[None]:
        """Statements that run only where `condition` holds; without a branch where it is known to be True."""
        if condition is True:
            yield
            return
        with self._block() as statements:
            yield
        self.append(tirx.IfThenElse(condition, _sequence(statements), None))

    @contextmanager
    def repeat_while(self, condition: Expr) -> Iterator[None]:
        """Statements repeated as long as `condition`, evaluated anew each time, holds."""
        with self._block() as statements:
            yield
        self.append(tirx.While(condition, _sequence(statements)))

    def switch(self, cases: Sequence[tuple[Expr, Callable[[], None]]], otherwise: Callable[[], None]) -> None:
        """The first case whose condition holds, else `otherwise`."""
        with self._block() as rest:
            otherwise()
        statement = _sequence(rest)
        for condition, make in reversed(cases):
            with self._block() as statements:
                make()
            statement = tirx.IfThenElse(condition, _sequence(statements), statement)
        self.append(statement)

    @contextmanager
    def fresh_values(self) -> Iterator[None]:
        """Values memoized in the body of the `with` statement are forgotten after it."""
        self._memo.append({})
        try:
            yield
        finally:
            self._memo.pop()

    def append(self, statement: Any) -> None:
        self._blocks[-1].append(statement)

    def body(self) -> Any:
        """The finished statement."""
        return _sequence(self._blocks[0])

    @contextmanager
    def _block(self) -> Iterator[list[Any]]:
        statements: list[Any] = []
        self._blocks.append(statements)
        self._memo.append({})
        try:
            yield statements
        finally:
            self._blocks.pop()
            self._memo.pop()

    def _declare(self, buffer: Buffer) -> Any:
        if buffer not in self.buffers:
            name = f"b{len(self.buffers)}"
            self.buffers[buffer] = tirx.decl_buffer(
                (max(buffer.size, 1),), storage_dtype(buffer.dtype), name, data_alignment=1
            )
        return self.buffers[buffer]

    def _name(self, stem: str) -> str:
        self._counter += 1
        return f"{stem}{self._counter}"


def _index(value: Expr) -> Expr:
    return tirx.const(value, INDEX) if isinstance(value, int) else value


def _sequence(statements: list[Any]) -> Any:
    if not statements:
        return tirx.Evaluate(tirx.const(0, "int32"))
    return statements[0] if len(statements) == 1 else tirx.SeqStmt(statements)
