"""Compiled models for C and C++ builds: libraries, headers, and what CMake and pkg-config need to find them."""
