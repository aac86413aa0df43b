/* {{ name }}.h: the model {{ name }}, compiled by graphopt for {{ target }}.

   {% for line in signature -%}
   {{ line }}
   {% endfor -%}
   Tensors are dense and row-major. Nothing here keeps state outside of handles and workspaces.

   The code behind this interface, which graphopt emitted, is under the Apache License v2.0 with LLVM Exceptions. */
#ifndef {{ upper }}_H
#define {{ upper }}_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define {{ upper }}_VARIANTS {{ variants | length }}
#define {{ upper }}_INPUTS {{ variants[0].inputs | length }}
#define {{ upper }}_OUTPUTS {{ variants[0].outputs | length }}
#define {{ upper }}_ALIGNMENT 64
#define {{ upper }}_WEIGHTS_BYTES {{ weights_bytes }}
{% for variant in variants -%}
#define {{ upper }}{{ variant.suffix }}_WORKSPACE_BYTES {{ variant.workspace_bytes }}
{% for tensor in variant.inputs + variant.outputs -%}
#define {{ upper }}{{ variant.suffix }}_{{ tensor.identifier | upper }}_SIZE {{ tensor.size }}
{% endfor -%}
{% endfor %}
enum {
    {{ upper }}_OK = 0,
    {{ upper }}_ERROR_VARIANT = 1,   /* no variant of that number */
    {{ upper }}_ERROR_MEMORY = 2,    /* memory is short */
    {{ upper }}_ERROR_KERNEL = 3,    /* a kernel reported a failure */
    {{ upper }}_ERROR_ALIGNMENT = 4, /* memory that does not start at a multiple of {{ upper }}_ALIGNMENT */
};

typedef enum {
{%- for type in types %}
    {{ upper }}_{{ type | upper }}{{ "," if not loop.last }}
{%- endfor %}
} {{ name }}_type;

/* An input or output of one variant; `bytes` is the size of the whole tensor. */
typedef struct {
    const char *name;
    {{ name }}_type type;
    int rank;
    const int64_t *dims;
    size_t bytes;
} {{ name }}_tensor;

/* NULL for a variant or an index that does not exist. */
const {{ name }}_tensor *{{ name }}_input(int variant, int index);
const {{ name }}_tensor *{{ name }}_output(int variant, int index);

/* One English sentence for an error. */
const char *{{ name }}_error_string(int error);
{% for variant in variants %}
/* Runs {{ variant.title }} on the calling thread, without a handle: it allocates nothing. Every pointer is a multiple of
   {{ upper }}_ALIGNMENT; `workspace` has {{ upper }}{{ variant.suffix }}_WORKSPACE_BYTES{{ "" if embedded else ", `weights` the contents of weights.bin" }}. Calls with workspaces of their
   own may run at the same time. Returns {{ upper }}_OK or an error. */
int {{ name }}_run{{ variant.suffix }}({{ variant.parameters }});
{% endfor %}
{%- if handles %}
typedef struct {{ name }}_model {{ name }}_model;

/* Where a handle takes its memory from. `allocate` gives at least `bytes` at a multiple of `alignment`, a power of 2, or NULL
   when memory is short. Both may be called by several threads at once. */
typedef struct {
    void *(*allocate)(void *context, size_t bytes, size_t alignment);
    void (*release)(void *context, void *memory);
    void *context;
} {{ name }}_allocator;

typedef struct {
    int threads; /* the caller's included; 0: one for each CPU */
    const {{ name }}_allocator *allocator; /* is copied; NULL: the system's */
{%- if not embedded %}
    const void *weights; /* the contents of weights.bin, at a multiple of {{ upper }}_ALIGNMENT; they stay the caller's */
{%- endif %}
} {{ name }}_options;

/* A handle: workspaces and threads. NULL when memory is short.{{ " NULL as `options` stands for zeros." if embedded else "" }} */
{{ name }}_model *{{ name }}_create(const {{ name }}_options *options);

/* Runs one variant. Tensors that do not start at multiples of {{ upper }}_ALIGNMENT are copied. Any number of threads may call
   one handle at the same time. Returns {{ upper }}_OK or an error. */
int {{ name }}_execute({{ name }}_model *model, int variant, const void *const *inputs, void *const *outputs);

/* The last call on a handle. NULL is ignored. */
void {{ name }}_destroy({{ name }}_model *model);
{% endif %}
#ifdef __cplusplus
}
#endif
#endif
