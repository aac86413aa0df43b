/* errors.c: what goes wrong, in words.

   SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
#include "graphopt_rt.h"

const char *graphopt_error_string(int error) {
    static const char *const sentences[] = {
        [GRAPHOPT_OK] = "no error",
        [GRAPHOPT_ERROR_VARIANT] = "the model has no variant of that number",
        [GRAPHOPT_ERROR_MEMORY] = "the workspace could not be allocated",
        [GRAPHOPT_ERROR_KERNEL] = "a kernel reported a failure",
        [GRAPHOPT_ERROR_ALIGNMENT] = "a tensor is not 64-byte aligned and its size is unknown",
    };
    int known = error >= 0 && error < (int)(sizeof sentences / sizeof *sentences);
    return known ? sentences[error] : "unknown error";
}
