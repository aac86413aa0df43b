// {{ name }}.hpp: the model {{ name }} for C++17; {{ name }}.h says more.
#ifndef {{ upper }}_HPP
#define {{ upper }}_HPP

#include <cstddef>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "{{ name }}.h"

namespace {{ name }} {

/// A run of elements that belongs to somebody else, as std::span is in C++20.
template <class T>
class span {
public:
    constexpr span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}

    /// Anything with data() and size(): std::vector, std::array, std::span.
    template <class Container, class = std::enable_if_t<std::is_convertible_v<decltype(std::declval<Container &>().data()), T *>>>
    constexpr span(Container &&container) : data_(container.data()), size_(container.size()) {}

    template <std::size_t N>
    constexpr span(T (&array)[N]) noexcept : data_(array), size_(N) {}

    constexpr T *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }

private:
    T *data_;
    std::size_t size_;
};

/// A handle on the model. Any number of threads may run it at the same time.
class model {
public:
    /// Throws std::bad_alloc when memory is short.
    explicit model({{ "" if embedded else "const void *weights, " }}int threads = 0, const {{ name }}_allocator *allocator = nullptr) {
        {{ name }}_options options{};
        options.threads = threads;
        options.allocator = allocator;
{%- if not embedded %}
        options.weights = weights;
{%- endif %}
        handle_ = {{ name }}_create(&options);
        if (handle_ == nullptr) throw std::bad_alloc();
    }
    model(const model &) = delete;
    model &operator=(const model &) = delete;
    model(model &&other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    model &operator=(model &&other) noexcept {
        std::swap(handle_, other.handle_);
        return *this;
    }
    ~model() { {{ name }}_destroy(handle_); }
{% for variant in variants %}
    /// Runs {{ variant.title }}. Throws std::invalid_argument for a size that does not fit, std::runtime_error for a failure.
    void run{{ variant.suffix }}({{ variant.spans }}) const {
{%- for tensor in variant.inputs + variant.outputs %}
        require("{{ tensor.identifier }}", {{ tensor.identifier }}.size(), {{ tensor.size }});
{%- endfor %}
        const void *inputs[] = { {{- variant.input_data -}} };
        void *outputs[] = { {{- variant.output_data -}} };
        int error = {{ name }}_execute(handle_, {{ loop.index0 }}, inputs, outputs);
        if (error != {{ upper }}_OK) throw std::runtime_error({{ name }}_error_string(error));
    }
{% endfor %}
private:
    static void require(const char *name, std::size_t given, std::size_t wanted) {
        if (given != wanted)
            throw std::invalid_argument(std::string(name) + " has " + std::to_string(given) + " elements, the model takes " +
                                        std::to_string(wanted));
    }

    {{ name }}_model *handle_;
};

}  // namespace {{ name }}
#endif
