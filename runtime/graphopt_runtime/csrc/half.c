/* half.c: conversions between float and half precision where the compiler's objects bring ones of another calling convention.

   RISC-V passes a half in the low bits of a floating-point register, as a float whose other bits are ones.
   SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
#include "graphopt_rt.h"

#if defined(__riscv)

typedef union {
    float value;
    uint32_t bits;
} word;

float __truncsfhf2(float value);
float __extendhfsf2(float half);

/* Rounds to nearest, ties to even. */
static uint32_t to_half(uint32_t bits) {
    uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return sign | 0x7e00u | (magnitude >> 13 & 0x3ffu);
    if (magnitude >= 0x47800000u) return sign | 0x7c00u;
    if (magnitude < 0x33000000u) return sign;
    uint32_t exponent = magnitude >> 23, mantissa = (magnitude & 0x7fffffu) | 0x800000u;
    uint32_t shift = exponent > 112 ? 13 : 126 - exponent;
    uint32_t base = exponent > 112 ? (exponent - 113) << 10 : 0; /* the leading one adds to the exponent */
    uint32_t kept = mantissa >> shift, rest = mantissa & ((1u << shift) - 1), tie = 1u << (shift - 1);
    kept += rest > tie || (rest == tie && (kept & 1));
    return sign | (base + kept);
}

static uint32_t from_half(uint32_t half) {
    uint32_t sign = (half & 0x8000u) << 16, exponent = half >> 10 & 31, mantissa = half & 0x3ffu;
    if (exponent == 31) return sign | 0x7f800000u | mantissa << 13;
    if (exponent > 0) return sign | (exponent + 112) << 23 | mantissa << 13;
    if (mantissa == 0) return sign;
    for (exponent = 113; !(mantissa & 0x400u); exponent--) mantissa <<= 1;
    return sign | exponent << 23 | (mantissa & 0x3ffu) << 13;
}

float __truncsfhf2(float value) { return (word){.bits = 0xffff0000u | to_half((word){value}.bits)}.value; }

float __extendhfsf2(float half) { return (word){.bits = from_half((word){half}.bits & 0xffffu)}.value; }

#endif
