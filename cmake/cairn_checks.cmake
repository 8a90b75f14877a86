# Checks of the sources themselves, as tests: they run with ./test and with plain ctest.
function(cairn_checks)
  if(NOT CAIRN_TESTS)
    return()
  endif()
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
  set(tools ${CMAKE_SOURCE_DIR}/tools)
  add_test(NAME check_layers COMMAND ${Python3_EXECUTABLE} ${tools}/check_layers.py)
  add_test(NAME check_layers_test COMMAND ${Python3_EXECUTABLE} ${tools}/check_layers_test.py)
  add_test(NAME check_paths COMMAND ${tools}/check_paths.sh)
  set_tests_properties(check_layers check_layers_test check_paths
                       PROPERTIES LABELS fast SKIP_RETURN_CODE 77 TIMEOUT 300)
endfunction()
