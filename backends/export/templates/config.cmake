# Finds the model {{ name }}: find_package({{ name }} CONFIG REQUIRED), then link {{ name }}::{{ name }}.
get_filename_component(_{{ name }}_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
{%- if threads %}
include(CMakeFindDependencyMacro)
find_dependency(Threads)
{%- endif %}
if(NOT TARGET {{ name }}::{{ name }})
  add_library({{ name }}::{{ name }} {{ kind }} IMPORTED)
  set_target_properties({{ name }}::{{ name }} PROPERTIES
    {{ "IMPORTED_OBJECTS" if kind == "OBJECT" else "IMPORTED_LOCATION" }} "${_{{ name }}_prefix}/lib/{{ file }}"
    INTERFACE_INCLUDE_DIRECTORIES "${_{{ name }}_prefix}/include"
{%- if kind != "SHARED" %}
    INTERFACE_LINK_LIBRARIES "{{ "Threads::Threads;" if threads else "" }}m"
{%- endif %}
    IMPORTED_LINK_INTERFACE_LANGUAGES C)
endif()
unset(_{{ name }}_prefix)
