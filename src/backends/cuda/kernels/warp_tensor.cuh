// What attention kernels use of sm_80 and later, one warp at a time: asynchronous copies, 8x8 matrices in
// shared memory, products of 16x8x16. Lane l = 4 g + t of a warp holds, of an 8x8 matrix of 16-bit elements,
// elements 2 t and 2 t + 1 of row g. Numbers and names are those of the PTX ISA.
#pragma once

#include "mma.cuh"

// 16 bytes from global to shared memory, past L1.
DEVICE void copy16_async(u32 to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
// As load_matrices, each matrix transposed.
DEVICE void load_transposed(u32 (&m)[4], u32 address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(address)
               : "memory");
}
// An 8x8 matrix in registers, transposed.
DEVICE u32 transpose(u32 m) {
  u32 y;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(m));
  return y;
}
