# Models in CMake builds:
#
#   find_package(graphopt CONFIG REQUIRED)      # with -Dgraphopt_DIR=$(graphopt cmake-dir)
#   graphopt_add_model(digits digits.onnx)
#   target_link_libraries(program PRIVATE digits)
#
# graphopt_add_model(NAME MODEL.onnx [TARGET T] [KIND static|library] [OPTIONS --dim batch=1 ...] [DEPENDS FILE ...])
#
# compiles a model when it, the options, or a file in DEPENDS changes, and makes a target NAME to link, whose headers are
# NAME.h and NAME.hpp. TARGET is the machine that CMake builds for unless it is given; `graphopt targets` lists them.
find_program(GRAPHOPT_COMMAND graphopt HINTS "${CMAKE_CURRENT_LIST_DIR}/../../../../bin" DOC "graphopt's command")
if(NOT GRAPHOPT_COMMAND)
  set(graphopt_FOUND FALSE)
  set(graphopt_NOT_FOUND_MESSAGE "the command graphopt is not on the PATH; set GRAPHOPT_COMMAND")
  return()
endif()

function(_graphopt_default_target result)
  set(${result} native PARENT_SCOPE)
  if(CMAKE_CROSSCOMPILING)
    if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)")
      set(${result} aarch64 PARENT_SCOPE)
    elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^arm")
      set(${result} armv7 PARENT_SCOPE)
    else()
      message(FATAL_ERROR "graphopt_add_model: give TARGET; there is no default for ${CMAKE_SYSTEM_PROCESSOR}")
    endif()
  endif()
endfunction()

function(graphopt_add_model name model)
  cmake_parse_arguments(PARSE_ARGV 2 arg "" "TARGET;KIND" "OPTIONS;DEPENDS")
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "graphopt_add_model: unknown arguments ${arg_UNPARSED_ARGUMENTS}")
  endif()
  get_filename_component(model "${model}" ABSOLUTE)
  if(NOT arg_TARGET)
    _graphopt_default_target(arg_TARGET)
  endif()
  if(NOT arg_KIND)
    set(arg_KIND static)
  endif()
  set(prefix "${CMAKE_CURRENT_BINARY_DIR}/${name}")
  if(arg_KIND STREQUAL "static")
    set(kind STATIC)
    set(file "${prefix}/lib/lib${name}.a")
    find_package(Threads REQUIRED)
  elseif(arg_KIND STREQUAL "library")
    set(kind SHARED)
    set(file "${prefix}/lib/lib${name}.so")
  else()
    message(FATAL_ERROR "graphopt_add_model: KIND is static or library, not ${arg_KIND}")
  endif()

  set(command compile "${model}" --target "${arg_TARGET}" --emit "${arg_KIND}" --name "${name}" -o "${prefix}" ${arg_OPTIONS})
  file(GENERATE OUTPUT "${prefix}.options" CONTENT "${command}\n")
  add_custom_command(
    OUTPUT "${file}" "${prefix}/include/${name}.h" "${prefix}/include/${name}.hpp"
    COMMAND "${GRAPHOPT_COMMAND}" ${command}
    DEPENDS "${model}" "${prefix}.options" ${arg_DEPENDS}
    COMMENT "Compiling the model ${name} for ${arg_TARGET}"
    VERBATIM)
  add_custom_target(${name}_files DEPENDS "${file}")

  file(MAKE_DIRECTORY "${prefix}/include")
  add_library(${name} ${kind} IMPORTED GLOBAL)
  add_dependencies(${name} ${name}_files)
  set_target_properties(${name} PROPERTIES
    IMPORTED_LOCATION "${file}"
    INTERFACE_INCLUDE_DIRECTORIES "${prefix}/include"
    IMPORTED_LINK_INTERFACE_LANGUAGES C)
  if(kind STREQUAL "STATIC")
    set_target_properties(${name} PROPERTIES INTERFACE_LINK_LIBRARIES "Threads::Threads;m")
  endif()
endfunction()
