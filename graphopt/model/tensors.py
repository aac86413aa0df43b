"""Weights as they are held in memory: read when somebody asks for them, and then only once."""

import numpy as np
import onnx
import onnx_ir as ir


class RawTensor(ir.TensorProtoTensor):
    """A tensor over the raw bytes of a ``TensorProto``, decoded at the first ``numpy()`` and kept from then on.

    ``TensorProtoTensor`` decodes at every call and renames the message it was given; this does neither.
    """

    __slots__ = ("_array", "_dtype", "_own_name", "_shape")

    def __init__(self, proto: onnx.TensorProto) -> None:
        super().__init__(proto)
        self._own_name: str | None = proto.name
        self._dtype = ir.DataType(proto.data_type)
        self._shape = ir.Shape(proto.dims, frozen=True)
        self._array: np.ndarray | None = None

    @property  # type: ignore[override]
    def name(self) -> str | None:
        return self._own_name

    @name.setter
    def name(self, value: str | None) -> None:
        self._own_name = value

    @property
    def raw(self) -> onnx.TensorProto:
        """The message, under the name that the tensor has now."""
        if self._own_name == self._proto.name:
            return self._proto
        renamed = onnx.TensorProto()
        renamed.CopyFrom(self._proto)
        renamed.name = self._own_name or ""
        return renamed

    @property
    def dtype(self) -> ir.DataType:  # type: ignore[override]
        return self._dtype

    @property
    def shape(self) -> ir.Shape:  # type: ignore[override]
        return self._shape

    def numpy(self) -> np.ndarray:
        """The data, not to be written to."""
        if self._array is None:
            self._array = super().numpy()
        return self._array


def held(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """The same tensor, in a form that is cheap to read again; strings and external data as they are."""
    if not isinstance(tensor, ir.TensorProtoTensor) or isinstance(tensor, RawTensor):
        return tensor
    if tensor.dtype == ir.DataType.STRING:
        return tensor
    if tensor.raw.HasField("raw_data") and tensor.dtype.bitwidth >= 8:
        return RawTensor(tensor.raw)
    return ir.Tensor(tensor.numpy(), tensor.dtype, name=tensor.name)
