// First in every file of tile kernels: loops over constant counts unroll completely, so that arrays of
// vectors live in registers (GCC's -O2 keeps them in memory, at a third of the speed). Its -O3 then calls the
// undefined operands inside the intrinsics uninitialized.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3")
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
