#include "backends/cuda/registry.h"

#include <openssl/evp.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "backends/cuda/nvrtc.h"
#include "base/cache_folder.h"
#include "base/error.h"
#include "base/steady_seconds.h"

namespace cairn::cuda {
namespace {

// Bumped when the meaning of a cached file changes.
constexpr std::string_view kCacheFormat = "cairn kernels 1";

std::vector<std::string> options_for(const Variant& variant, std::string_view architecture) {
  std::vector<std::string> options = {"--gpu-architecture=" + std::string(architecture), "--std=c++17",
                                      "--device-as-default-execution-space", "--ptxas-options=-v"};
  for (const auto& define : variant.defines) options.push_back("-D" + define);
  return options;
}

std::vector<std::pair<std::string, std::string>> headers() {
  std::vector<std::pair<std::string, std::string>> found;
  for (const auto name : embedded_names())
    if (name.ends_with(".cuh")) found.emplace_back(std::string(name), std::string(embedded_source(name)));
  return found;
}

// The name of a compiled variant: what it was made of, but not which compiler made it.
std::string file_name(const Variant& variant, std::string_view architecture) {
  std::string text = std::string(kCacheFormat) + '\n';
  for (const auto& option : options_for(variant, architecture)) text += option + '\n';
  text += embedded_source(variant.source);
  for (const auto& [name, contents] : headers()) text += name + '\n' + contents;
  unsigned char digest[32];
  unsigned length = 0;
  EVP_Digest(text.data(), text.size(), digest, &length, EVP_sha256(), nullptr);
  std::string hex;
  for (int i = 0; i < 16; ++i) hex += fmt::format("{:02x}", digest[i]);
  return hex + ".cubin";
}

std::string first_lines(const std::string& log, int lines) {
  size_t end = 0;
  for (int i = 0; i < lines && end != std::string::npos; ++i) end = log.find('\n', end == 0 ? 0 : end + 1);
  return log.substr(0, end);
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return file ? std::string(std::istreambuf_iterator<char>(file), {}) : std::string();
}

// Kernels compiled ahead (write_pack): $CAIRN_KERNELS, or `kernels` beside the program.
std::filesystem::path pack_folder() {
  if (const char* named = std::getenv("CAIRN_KERNELS")) return named;
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
  return error ? std::filesystem::path() : program.parent_path() / "kernels";
}

// Calls work(0) to work(total - 1), on as many threads as there are cores; the first error ends it.
void on_all_cores(int total, const std::function<void(int)>& work,
                  const std::function<void(int, int)>& progress) {
  const unsigned threads =
      std::min<unsigned>(std::max(1u, std::thread::hardware_concurrency()), unsigned(total));
  std::atomic<int> next{0};
  int done = 0;
  std::mutex mutex;
  std::exception_ptr problem;
  const auto take = [&] {
    for (int i = next++; i < total; i = next++) {
      try {
        work(i);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!problem) problem = std::current_exception();
        next = total;
      }
      const std::lock_guard lock(mutex);
      if (++done; progress) progress(done, total);
    }
  };
  std::vector<std::thread> pool;
  for (unsigned t = 1; t < threads; ++t) pool.emplace_back(take);
  take();
  for (auto& thread : pool) thread.join();
  if (problem) std::rethrow_exception(problem);
}

// An ELF file of CUDA's machine code: what a cut or foreign cache file is not.
bool looks_like_cubin(const std::string& cubin) {
  return cubin.size() > 64 && cubin.starts_with(
                                  "\x7f"
                                  "ELF");
}

}  // namespace

std::string Variant::id() const {
  std::string text = source;
  for (const auto& define : defines) text += ' ' + define;
  return text;
}

Compiled compile(const Variant& variant, std::string_view architecture) {
  const auto& nvrtc = Nvrtc::instance();
  if (!nvrtc.supports(architecture))
    fail(ErrorKind::unsupported, "{} (version {}.{}) does not compile for {}; a newer CUDA toolkit does",
         nvrtc.path(), nvrtc.version() / 1000, nvrtc.version() % 1000 / 10, architecture);
  auto result = nvrtc.compile(std::string(embedded_source(variant.source)), variant.source, headers(),
                              options_for(variant, architecture));
  if (!result.ok) {
    std::string where;
    if (const auto folder = cache_folder(); !folder.empty()) {
      const auto path = folder / "kernels" / "failed.log";
      if (write_cache_file(path, variant.id() + '\n' + result.log))
        where = fmt::format("\nthe whole log: {}", path.string());
    }
    fail(ErrorKind::invalid_file, "the kernel {} does not compile for {}:\n{}{}", variant.id(), architecture,
         first_lines(result.log, 12), where);
  }
  return {std::move(result.cubin), std::move(result.log)};
}

void require_kernel_source(const DeviceFacts& facts) {
  std::error_code error;
  if (const auto pack = pack_folder(); !pack.empty() && std::filesystem::is_directory(pack, error)) return;
  const auto& nvrtc = Nvrtc::instance();
  if (!nvrtc.supports(facts.architecture()))
    fail(ErrorKind::unsupported, "{} (version {}.{}) does not compile for {} ({}); a newer CUDA toolkit does",
         nvrtc.path(), nvrtc.version() / 1000, nvrtc.version() % 1000 / 10, facts.architecture(), facts.name);
}

size_t write_pack(std::span<const Variant> variants, std::string_view architecture,
                  const std::filesystem::path& folder, const std::function<void(int, int)>& progress) {
  std::atomic<size_t> bytes{0};
  const auto write = [&](int i) {
    const auto cubin = compile(variants[size_t(i)], architecture).cubin;
    const auto path = folder / file_name(variants[size_t(i)], architecture);
    if (!write_cache_file(path, cubin)) fail(ErrorKind::io, "{} cannot be written", path.string());
    bytes += cubin.size();
  };
  on_all_cores(int(variants.size()), write, progress);
  return bytes;
}

struct KernelCache::Module {
  std::mutex mutex;
  driver::Module handle = nullptr;
  std::map<std::string, Kernel> kernels;
};

KernelCache::KernelCache(const Device& device) : device_(device) {}

KernelCache::~KernelCache() {
  device_.make_current();
  for (auto& [id, module] : modules_)
    if (module->handle) driver::api().module_unload(module->handle);
}

KernelCache::Module& KernelCache::module(const Variant& variant) {
  Module* m = nullptr;
  {
    const std::lock_guard lock(mutex_);
    auto& slot = modules_[variant.id()];
    if (!slot) slot = std::make_unique<Module>();
    m = slot.get();
  }
  const std::lock_guard lock(m->mutex);
  if (m->handle) return *m;
  const auto architecture = device_.facts().architecture();
  const auto name = file_name(variant, architecture);
  device_.make_current();
  const auto load = [&](const std::string& cubin) {
    return looks_like_cubin(cubin) && driver::api().module_load(&m->handle, cubin.data()) == 0;
  };
  if (const auto pack = pack_folder(); !pack.empty() && load(read_file(pack / name))) return *m;
  // The compiler's version names a folder, so that an update is not answered with yesterday's code.
  const auto folder = cache_folder();
  const auto path = folder / "kernels" / std::to_string(Nvrtc::instance().version()) / name;
  if (!folder.empty() && load(read_file(path))) return *m;
  const auto cubin = compile(variant, architecture).cubin;
  {
    const std::lock_guard count_lock(mutex_);
    ++compiled_;
  }
  if (!folder.empty()) write_cache_file(path, cubin);
  driver::check(driver::api().module_load(&m->handle, cubin.data()), ("loading " + variant.id()).c_str());
  return *m;
}

void KernelCache::prepare(std::span<const Variant> variants, const std::function<void(int, int)>& progress) {
  const double start = steady_seconds();
  on_all_cores(
      int(variants.size()), [&](int i) { module(variants[size_t(i)]); }, progress);
  prepare_seconds_ += steady_seconds() - start;
}

Kernel KernelCache::get(const Variant& variant, const std::string& entry) {
  Module& m = module(variant);
  const std::lock_guard lock(m.mutex);
  if (const auto found = m.kernels.find(entry); found != m.kernels.end()) return found->second;
  device_.make_current();
  Kernel kernel;
  kernel.name = entry + " of " + variant.id();
  driver::check(driver::api().module_function(&kernel.function, m.handle, entry.c_str()),
                ("finding " + kernel.name).c_str());
  // Blocks may use all the shared memory that they can be given; the launch says how much.
  int fixed = 0;
  driver::check(driver::api().function_attribute(&fixed, 1 /* its static shared memory */, kernel.function),
                "reading a kernel's shared memory");
  driver::check(driver::api().function_set_attribute(kernel.function, driver::kFunctionDynamicSharedBytes,
                                                     int(device_.facts().shared_per_block) - fixed),
                ("raising the shared memory of " + kernel.name).c_str());
  m.kernels.emplace(entry, kernel);
  return kernel;
}

}  // namespace cairn::cuda
