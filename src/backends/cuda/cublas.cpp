#include "backends/cuda/cublas.h"

#include <dlfcn.h>

#include <array>
#include <cstdlib>
#include <type_traits>
#include <vector>

#include "base/error.h"

namespace cairn::cuda {
namespace {

// Numbers of cublasLt.h and library_types.h.
constexpr int kF32 = 0, kBf16 = 14, kComputeF32 = 68, kTransposeA = 3, kTranspose = 1, kMostWorkspace = 1;
constexpr size_t kWorkspaceBytes = size_t{32} << 20;

struct Algorithm {
  uint64_t data[8];
};
struct Heuristic {
  Algorithm algorithm;
  size_t workspace;
  int status;
  float waves;
  int reserved[4];
};

}  // namespace

struct CublasLt::Functions {
  int (*create)(void**);
  int (*destroy)(void*);
  size_t (*version)();
  int (*desc_create)(void**, int compute, int scale_type);
  int (*desc_destroy)(void*);
  int (*desc_set)(void*, int attribute, const void*, size_t);
  int (*layout_create)(void**, int type, uint64_t rows, uint64_t columns, int64_t leading);
  int (*layout_destroy)(void*);
  int (*preference_create)(void**);
  int (*preference_destroy)(void*);
  int (*preference_set)(void*, int attribute, const void*, size_t);
  int (*heuristic)(void*, void* desc, void* a, void* b, void* c, void* d, void* preference, int wanted,
                   Heuristic*, int* found);
  int (*matmul)(void*, void* desc, const void* alpha, const void* a, void* a_layout, const void* b,
                void* b_layout, const void* beta, const void* c, void* c_layout, void* d, void* d_layout,
                const Algorithm*, void* workspace, size_t workspace_bytes, driver::StreamHandle);
};

// Column-major: y^T[n, m] = (w^T)^T x^T.
struct CublasLt::Plan {
  Plan(const Functions& functions, void* handle, bool f32, int64_t m_, int64_t n_, int64_t k_)
      : f(functions), y_f32(f32), m(m_), n(n_), k(k_) {
    f.desc_create(&desc, kComputeF32, kF32);
    f.desc_set(desc, kTransposeA, &kTranspose, sizeof kTranspose);
    f.layout_create(&w, kBf16, uint64_t(k), uint64_t(n), k);
    f.layout_create(&x, kBf16, uint64_t(k), uint64_t(m), k);
    f.layout_create(&y, f32 ? kF32 : kBf16, uint64_t(n), uint64_t(m), n);
    void* preference = nullptr;
    f.preference_create(&preference);
    f.preference_set(preference, kMostWorkspace, &kWorkspaceBytes, sizeof kWorkspaceBytes);
    int count = 0;
    found = f.heuristic(handle, desc, w, x, y, y, preference, 1, &best, &count) == 0 && count == 1;
    f.preference_destroy(preference);
  }
  ~Plan() {
    for (void* layout : {w, x, y}) f.layout_destroy(layout);
    f.desc_destroy(desc);
  }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  const Functions& f;
  bool y_f32;
  int64_t m, n, k;
  void *desc = nullptr, *w = nullptr, *x = nullptr, *y = nullptr;
  Heuristic best{};
  bool found = false;
};

std::unique_ptr<CublasLt> CublasLt::open(const Device& device, std::string* why) {
  std::vector<std::string> names = {"libcublasLt.so.13", "libcublasLt.so.12",
                                    "/usr/local/cuda/lib64/libcublasLt.so"};
  if (const char* file = std::getenv("CAIRN_CUBLASLT"); file && *file) names = {file};
  for (const auto& name : names) {
    void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) continue;
    auto f = std::make_unique<Functions>();
    const auto find = [&](auto& function, const char* symbol) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, symbol));
      return function != nullptr;
    };
    if (find(f->create, "cublasLtCreate") && find(f->destroy, "cublasLtDestroy") &&
        find(f->version, "cublasLtGetVersion") && find(f->desc_create, "cublasLtMatmulDescCreate") &&
        find(f->desc_destroy, "cublasLtMatmulDescDestroy") &&
        find(f->desc_set, "cublasLtMatmulDescSetAttribute") &&
        find(f->layout_create, "cublasLtMatrixLayoutCreate") &&
        find(f->layout_destroy, "cublasLtMatrixLayoutDestroy") &&
        find(f->preference_create, "cublasLtMatmulPreferenceCreate") &&
        find(f->preference_destroy, "cublasLtMatmulPreferenceDestroy") &&
        find(f->preference_set, "cublasLtMatmulPreferenceSetAttribute") &&
        find(f->heuristic, "cublasLtMatmulAlgoGetHeuristic") && find(f->matmul, "cublasLtMatmul") &&
        f->version() >= 120000)
      return std::unique_ptr<CublasLt>(new CublasLt(device, std::move(f), name));
  }
  if (why) *why = "no libcublasLt.so of CUDA 12 or newer can be opened";
  return nullptr;
}

CublasLt::CublasLt(const Device& device, std::unique_ptr<Functions> functions, std::string path)
    : functions_(std::move(functions)), path_(std::move(path)), workspace_(device, kWorkspaceBytes) {
  device.make_current();
  if (functions_->create(&handle_) != 0) fail(ErrorKind::unsupported, "{} cannot be initialised", path_);
}

CublasLt::~CublasLt() {
  plan_.reset();
  functions_->destroy(handle_);
}

bool CublasLt::multiply(Stream& stream, Address x, Address w, Address y, bool y_f32, bool add, int64_t m,
                        int64_t n, int64_t k) {
  if (!plan_ || plan_->y_f32 != y_f32 || plan_->m != m || plan_->n != n || plan_->k != k)
    plan_ = std::make_unique<Plan>(*functions_, handle_, y_f32, m, n, k);
  if (!plan_->found) return false;
  const float one = 1, beta = add ? 1 : 0;
  const auto at = [](Address a) { return reinterpret_cast<void*>(a); };
  return functions_->matmul(handle_, plan_->desc, &one, at(w), plan_->w, at(x), plan_->x, &beta, at(y),
                            plan_->y, at(y), plan_->y, &plan_->best.algorithm, at(workspace_.address()),
                            workspace_.size(), stream.handle()) == 0;
}

}  // namespace cairn::cuda
