"""Quantisation: which values become integers, with which ranges, written as standard QuantizeLinear and DequantizeLinear."""
