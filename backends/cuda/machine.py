"""What is different on a GPU: operators that it lacks, families of kernels that it has others of."""

from __future__ import annotations

from functools import partial
from typing import Any

from graphopt.backends.codegen.mathematics import coarse_exp
from graphopt.backends.cuda import activations, softmax
from graphopt.backends.cuda.builder import DeviceBuilder
from graphopt.backends.cuda.byte_convolution import lower_byte_convolution
from graphopt.backends.cuda.convolution import DeviceConvolutions
from graphopt.backends.cuda.functions import device_functions
from graphopt.backends.cuda.halves import OPERATORS as HALVES
from graphopt.backends.cuda.halves import OWN_OPERATORS
from graphopt.backends.cuda.matmul import decoded_product, device_byte_product, device_product
from graphopt.backends.cuda.pointwise import store_elements
from graphopt.backends.cuda.pool import DevicePool
from graphopt.backends.cuda.reduce import DeviceReduce
from graphopt.backends.cuda.rows import TeamRow
from graphopt.backends.cuda.tensor_convolution import lower_convolution
from graphopt.backends.kernels.pointwise import store_pointwise
from graphopt.backends.kernels.pool_general import GeneralPool
from graphopt.backends.kernels.reduce import ReduceKernel
from graphopt.backends.kernels.rows import Row
from graphopt.backends.layout import Blocked, ChannelsLast
from graphopt.backends.lower.convolution import lower_rows
from graphopt.backends.lower.encoded import encoded_product
from graphopt.backends.lower.integer import byte_product
from graphopt.backends.lower.integer_convolution import plain_convolution
from graphopt.backends.lower.machine import Machine
from graphopt.backends.lower.matmul import kernel_of
from graphopt.backends.lower.operator import Lowered, Operator, Refused, Varying
from graphopt.backends.lower.row_convolutions import RowConvolutions
from graphopt.backends.lower.softmax import for_columns, store_columns
from graphopt.backends.lower.table import OPERATORS

TWINS: dict[Any, Any] = {
    Blocked: ChannelsLast.whole,
    coarse_exp: activations.coarse_exp,
    for_columns: softmax.for_columns,
    store_columns: softmax.store_columns,
    GeneralPool: DevicePool,
    ReduceKernel: DeviceReduce,
    Row: TeamRow,
    RowConvolutions: DeviceConvolutions,
    byte_product: device_byte_product,
    encoded_product: decoded_product,
    kernel_of: device_product,
    plain_convolution: lower_byte_convolution,
    lower_rows: lower_convolution,
    store_pointwise: store_elements,
}


def _steered_by_the_host(ctx: Any, node: Any) -> list[Any]:
    raise Refused("loops and branches are not supported on GPUs yet")


OWN = "graphopt"
"""The domain of operators that are no standard ones, or newer than the model."""

STEERING = ("If", "Loop", "Scan")


def _own(operators: dict[str, Operator | Varying]) -> dict[str, Operator | Varying]:
    """The operators of a domain, those in place of which a GPU has others replaced."""
    steering = {name: Lowered(_steered_by_the_host) for name in STEERING if name in operators}
    own = HALVES | activations.OPERATORS
    return operators | steering | {name: own[name] for name in own if name in operators}


GPU = Machine(
    {domain: _own(operators) for domain, operators in OPERATORS.items()}
    | {OWN: _own(OPERATORS[OWN]) | OWN_OPERATORS},
    partial(DeviceBuilder, TWINS),
    device_functions,
    TWINS,
)
