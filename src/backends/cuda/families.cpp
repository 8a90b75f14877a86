// The table of kernel families: one row per .cu file, in the order in which a step meets them.
#include "backends/cuda/attention.h"
#include "backends/cuda/ceilings.h"
#include "backends/cuda/df11.h"
#include "backends/cuda/matmul_few.h"
#include "backends/cuda/matmul_few_sm90.h"
#include "backends/cuda/matmul_lookup.h"
#include "backends/cuda/matmul_many.h"
#include "backends/cuda/matmul_row.h"
#include "backends/cuda/pages.h"
#include "backends/cuda/probe.h"
#include "backends/cuda/registry.h"
#include "backends/cuda/row_kernels.h"
#include "backends/cuda/sample.h"
#include "backends/cuda/weights.h"

namespace cairn::cuda {

std::span<const Family> kernel_families() {
  static const Family kFamilies[] = {
      {"rows.cu", "embedding, norms, rotary tables, activations, element-wise",
       "cpu::RowKernels (row_kernels_gpu_test.cpp)", row_kernel_variants},
      {"matmul_plain.cu", "any product in f32: the reference of the others, and the f32 mode",
       "double on the CPU (row_kernels_gpu_test.cpp)", matmul_plain_variants},
      {"attention_plain.cu", "attention key by key: the reference of the others, and the f32 mode",
       "double on the CPU (row_kernels_gpu_test.cpp)", attention_plain_variants},
      {"unpack.cu", "weights of any form as bf16 rows", "packed_value (matmul_few_gpu_test.cpp)",
       [](int) {
         std::vector<Variant> all;
         for (const auto& f : forms()) all.push_back(unpack_variant(f));
         return all;
       }},
      {"decode_df11.cu", "groups of weights in DFloat11 as bf16", "codecs::Df11Group (df11_gpu_test.cpp)",
       df11_variants},
      {"embed_packed.cu", "rows of a table held in blocks", "packed_value (matmul_few_gpu_test.cpp)",
       [](int) {
         std::vector<Variant> all;
         for (const auto& f : forms())
           if (f.layout == Layout::blocks) all.push_back(embed_packed_variant(f));
         return all;
       }},
      {"matmul_few.cu", "products of rows that extend answers, weights in any form",
       "double on the CPU (matmul_few_gpu_test.cpp)", matmul_few_stock},
      {"matmul_few_sm90.cu", "the same on Hopper, weights in blocks, by products of warpgroups",
       "double on the CPU (matmul_few_gpu_test.cpp)", warpgroup_stock},
      {"matmul_row.cu", "products of a row that is alone, integer codes in integers",
       "double on the CPU (matmul_row_gpu_test.cpp)", matmul_row_stock},
      {"matmul_lookup.cu", "products of rows that extend answers with planes of signs, looked up",
       "double on the CPU (matmul_lookup_gpu_test.cpp)", matmul_lookup_stock},
      {"matmul_signs.cu", "the same on the tensor cores, for engines of several sequences",
       "double on the CPU (matmul_lookup_gpu_test.cpp)", matmul_signs_stock},
      {"matmul_many_sm90.cu", "rows of prompts times 16-bit weights on Hopper",
       "matmul_many.cu and double on the CPU (matmul_many_gpu_test.cpp)", matmul_many_sm90_stock},
      {"matmul_many.cu", "rows of prompts times 16-bit weights since sm_80",
       "double on the CPU (matmul_many_gpu_test.cpp)", matmul_many_stock},
      {"ceilings.cu", "what the device can do at best", "-", ceiling_variants},
      {"probe_memory.cu", "latency and bandwidth of the memories, for cairn bench device", "-",
       probe_memory_variants},
      {"probe_matrix.cu", "rates of mma.sync and of the ordinary units, for cairn bench device",
       "sums of ones, checked in each run", probe_matrix_variants},
      {"probe_matrix_sm90.cu", "rates of wgmma, for cairn bench device", "sums of ones, checked in each run",
       probe_matrix_sm90_variants},
      {"probe_cluster.cu", "shared memory of other blocks and bulk copies, for cairn bench device", "-",
       probe_cluster_variants},
      {"probe_dpx.cu", "fused integer maxima, for cairn bench device", "-", probe_dpx_variants},
      {"rope_kv_append.cu", "rotated queries; keys and values into the paged cache",
       "double on the CPU (attention_gpu_test.cpp)", rope_kv_append_variants},
      {"pages.cu", "pages of the cache, copied and packed for the host", "memcpy (pages_gpu_test.cpp)",
       page_variants},
      {"attention_decode.cu", "attention of rows that extend an answer: one block per chunk and KV head",
       "double on the CPU (attention_gpu_test.cpp)", attention_decode_variants},
      {"attention_merge.cu", "the states of a row's chunks joined",
       "double on the CPU (attention_gpu_test.cpp)", attention_merge_variants},
      {"attention_prompt_sm90.cu", "attention of prompt rows on Hopper",
       "double on the CPU (attention_gpu_test.cpp)", attention_prompt_sm90_variants},
      {"attention_prompt.cu", "attention of prompt rows with mma.sync",
       "double on the CPU (attention_gpu_test.cpp)", attention_prompt_variants},
      {"quantize_rows.cu", "rows in e4m3 with a scale each", "double on the CPU (matmul_many_gpu_test.cpp)",
       quantize_rows_stock},
      {"expert_rows.cu", "rows that choose experts, sorted by expert",
       "double on the CPU (matmul_many_gpu_test.cpp)", expert_rows_stock},
      {"sample.cu", "tokens drawn from scores", "text::Drawer (sample_gpu_test.cpp)", sample_stock},
  };
  return kFamilies;
}

}  // namespace cairn::cuda
