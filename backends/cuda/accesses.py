"""Accesses of 4 to 16 bytes, as functions of CUDA C which kernels call: what neighbouring elements take together.

Those under conditions are single instructions, so that no branch keeps a thread from having many under way.
"""

from __future__ import annotations

from graphopt.backends.codegen.inline import Inline

LARGEST = 16
"""Bytes that a thread reads or writes with one instruction."""

_WORDS = {4: "unsigned", 8: "uint2", 16: "uint4"}
"""By the bytes of an access, the type of CUDA C for it."""

_READ = """__device__ __forceinline__ void graphopt_read{bytes}(void *to, const void *from) {{
  {word} value = *(const {word} *)from;
  memcpy(to, &value, {bytes});
}}
"""

_READ_WHERE = """__device__ __forceinline__ void graphopt_read{bytes}_where(void *to, const void *from, bool exists) {{
  unsigned value[{words}];
  asm volatile("{{ .reg .pred p; setp.ne.b32 p, %{exists}, 0; {zeros} @p ld.global.{form} {places}, [%{words}]; }}"
               : {outputs} : "l"(from), "r"((int)exists));
  memcpy(to, value, {bytes});
}}
"""

_WRITE = """__device__ __forceinline__ void graphopt_write{bytes}(void *to, const void *from) {{
  {word} value;
  memcpy(&value, from, {bytes});
  *({word} *)to = value;
}}
"""


def _functions(name: str, text: str) -> dict[int, Inline]:
    return {
        size: Inline(name.format(bytes=size), text.format(bytes=size, word=word, **_words(size // 4)))
        for size, word in _WORDS.items()
    }


def _words(count: int) -> dict[str, int | str]:
    """What PTX says of an access of so many words, which are its first operands."""
    places = [f"%{i}" for i in range(count)]
    return {
        "words": count,
        "exists": count + 1,
        "zeros": " ".join(f"mov.b32 {place}, 0;" for place in places),
        "form": {1: "u32", 2: "v2.u32", 4: "v4.u32"}[count],
        "places": places[0] if count == 1 else f"{{{', '.join(places)}}}",
        "outputs": ", ".join(f'"=r"(value[{i}])' for i in range(count)),
    }


READ = _functions("graphopt_read{bytes}", _READ)
"""`(registers, address)`, by bytes, of which the address is a multiple."""

READ_WHERE = _functions("graphopt_read{bytes}_where", _READ_WHERE)
"""`(registers, address, exists)`: zeros where it does not."""

WRITE = _functions("graphopt_write{bytes}", _WRITE)
"""`(address, registers)`."""


def access_bytes(count: int, size: int) -> int:
    """Of each access to `count` neighbours of `size` bytes; 0 where none is that small."""
    found = min(count * size, LARGEST)
    return found if found in _WORDS and count * size % found == 0 else 0
