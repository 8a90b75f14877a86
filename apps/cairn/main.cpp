#include "command.h"
#include "interrupt.h"

int main(int argc, char** argv) {
  cairn::app::ignore_broken_pipes();
  return cairn::app::run_program(argc, argv);
}
