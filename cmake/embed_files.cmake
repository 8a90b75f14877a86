# cmake -DOUT=file.cpp -DNAMESPACE=cuda -DFILES="a;b" -P embed_files.cmake: writes the files as string literals and
# defines cairn::<NAMESPACE>::embedded_files() (base/embedded_file.h).
set(text "// Made by cmake/embed_files.cmake. Do not edit.\n#include <vector>\n#include \"base/embedded_file.h\"\nnamespace cairn::${NAMESPACE} {\nconst std::vector<EmbeddedFile>& embedded_files();\nconst std::vector<EmbeddedFile>& embedded_files() {\n  static const std::vector<EmbeddedFile> files = {\n")
foreach(file IN LISTS FILES)
  get_filename_component(name ${file} NAME)
  file(READ ${file} contents)
  # Compilers limit the length of one literal; neighbours are joined.
  string(LENGTH "${contents}" length)
  string(APPEND text "    {\"${name}\",\n")
  set(at 0)
  while(at LESS length)
    string(SUBSTRING "${contents}" ${at} 12000 part)
    string(APPEND text "R\"cairn_source(${part})cairn_source\"\n")
    math(EXPR at "${at} + 12000")
  endwhile()
  string(APPEND text "    },\n")
endforeach()
string(APPEND text "  };\n  return files;\n}\n}  // namespace cairn::${NAMESPACE}\n")
file(WRITE ${OUT} "${text}")
