#pragma GCC visibility push(default)
#include "{{ name }}.h"
#pragma GCC visibility pop

#include "graphopt_rt.h"
{% if embedded %}
extern const unsigned char {{ name }}_weights[];
{% endif %}
{%- for variant in variants %}
extern int32_t {{ variant.symbol }}({{ variant.driver_parameters }});
{% for tensor in variant.inputs + variant.outputs -%}
static const int64_t dims{{ variant.suffix }}_{{ tensor.identifier }}[] = { {{- (tensor.dims or [1]) | join(", ") -}} };
{% endfor -%}
static const {{ name }}_tensor inputs{{ variant.suffix }}[] = {
{%- for tensor in variant.inputs %}
    { {{- tensor.quoted }}, {{ upper }}_{{ tensor.dtype | upper }}, {{ tensor.dims | length }}, dims{{ variant.suffix }}_{{ tensor.identifier }}, {{ tensor.nbytes -}} },
{%- else %}
    {0},
{%- endfor %}
};
static const {{ name }}_tensor outputs{{ variant.suffix }}[] = {
{%- for tensor in variant.outputs %}
    { {{- tensor.quoted }}, {{ upper }}_{{ tensor.dtype | upper }}, {{ tensor.dims | length }}, dims{{ variant.suffix }}_{{ tensor.identifier }}, {{ tensor.nbytes -}} },
{%- endfor %}
};

int {{ name }}_run{{ variant.suffix }}({{ variant.parameters }}) {
    uintptr_t bits = {{ variant.addresses }};
    if (bits % {{ upper }}_ALIGNMENT != 0) return {{ upper }}_ERROR_ALIGNMENT;
    return {{ variant.symbol }}({{ variant.arguments }}) == 0 ? {{ upper }}_OK : {{ upper }}_ERROR_KERNEL;
}
{% endfor %}
static const {{ name }}_tensor *const all_inputs[] = { {%- for variant in variants -%} inputs{{ variant.suffix }}{{ ", " if not loop.last }}{%- endfor -%} };
static const {{ name }}_tensor *const all_outputs[] = { {%- for variant in variants -%} outputs{{ variant.suffix }}{{ ", " if not loop.last }}{%- endfor -%} };

static const {{ name }}_tensor *find(const {{ name }}_tensor *const *all, int count, int variant, int index) {
    int exists = variant >= 0 && variant < {{ upper }}_VARIANTS && index >= 0 && index < count;
    return exists ? &all[variant][index] : NULL;
}

const {{ name }}_tensor *{{ name }}_input(int variant, int index) { return find(all_inputs, {{ upper }}_INPUTS, variant, index); }

const {{ name }}_tensor *{{ name }}_output(int variant, int index) { return find(all_outputs, {{ upper }}_OUTPUTS, variant, index); }

const char *{{ name }}_error_string(int error) { return graphopt_error_string(error); }
{% if handles %}
{{ name }}_model *{{ name }}_create(const {{ name }}_options *options) {
    static const {{ name }}_options defaults;
    if (options == NULL) options = &defaults;
    graphopt_allocator own;
    if (options->allocator != NULL)
        own = (graphopt_allocator){options->allocator->allocate, options->allocator->release, options->allocator->context};
    const void *weights = {{ name + "_weights" if embedded else "options->weights" }};
    return ({{ name }}_model *)graphopt_create_with(weights, options->threads, options->allocator != NULL ? &own : NULL);
}

int {{ name }}_execute({{ name }}_model *model, int variant, const void *const *inputs, void *const *outputs) {
    return graphopt_run((graphopt_model *)model, variant, inputs, outputs);
}

void {{ name }}_destroy({{ name }}_model *model) { graphopt_destroy((graphopt_model *)model); }
{% endif -%}
