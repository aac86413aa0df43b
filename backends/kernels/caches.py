"""How much of a second-level cache one core has to itself, in bytes, core by core.

Manuals of Arm give the sizes that a core can be built with; of these it is the one of the machines that the table of targets names. A cache that cores
share is divided by their number.

- Cortex-A53 MPCore Processor Technical Reference Manual (DDI 0500), 128 KB to 2 MB: the 512 KB that four cores of a Raspberry Pi 3 share.
- Cortex-A72 MPCore Processor Technical Reference Manual (100095), 512 KB to 4 MB: the 1 MB that four cores of a Raspberry Pi 4 share.
- Cortex-A76 Core Technical Reference Manual (100798), 128 to 512 KB: a Raspberry Pi 5 has the largest.
- Neoverse N1 Core Technical Reference Manual (100616), 256 KB to 1 MB: Graviton 2 and Altra have the largest.
- Neoverse V1 Core Technical Reference Manual (101427), 512 KB or 1 MB: Graviton 3 has the larger.
- Neoverse N2 Core Technical Reference Manual (102099), 512 KB or 1 MB: the larger.
- Neoverse V2 Core Technical Reference Manual (102375), 1 or 2 MB: the smaller, which is that of Grace; Graviton 4 has the other.
- A64FX Microarchitecture Manual: the 8 MB that twelve cores of a memory group share.

First-level caches are not here: no kernel cuts anything by them.
"""

from __future__ import annotations

KIB = 1 << 10

CORTEX_A53 = 128 * KIB
CORTEX_A72 = 256 * KIB
CORTEX_A76 = 512 * KIB
NEOVERSE = 1024 * KIB
"""N1, N2, V1 and V2."""
A64FX = 8192 * KIB // 12
