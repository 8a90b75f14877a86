// A GPU and what lives on it: memory, streams, events, launches, graphs. All objects keep the device's
// primary context; every call makes it current on the calling thread, so any thread may use any object.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "backends/cuda/driver.h"

namespace cairn::cuda {

using driver::Address;

struct DeviceFacts {
  int ordinal = 0;
  std::string name;
  std::string pci;     // "0000:41:00.0"
  int capability = 0;  // 90 for 9.0
  int multiprocessors = 0;
  size_t memory_bytes = 0, l2_bytes = 0;
  double read_bytes_per_s = 0;  // what the memory's clock and width promise
  size_t shared_per_block = 0;  // with opt-in
  int driver_version = 0;       // 12040 for 12.4
  // "sm_90a" where the architecture has accelerated features (9.0 and later), else "sm_86".
  std::string architecture() const;
};

// What can be used here; empty with the reason in *why when there is no driver or no device.
std::vector<DeviceFacts> list_devices(std::string* why = nullptr);

class Device {
 public:
  explicit Device(int ordinal = 0);  // throws Error(unsupported)
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const DeviceFacts& facts() const { return facts_; }
  size_t free_bytes() const;
  void make_current() const;

 private:
  DeviceFacts facts_;
  driver::Context context_ = nullptr;
};

// Device memory, aligned to 256 bytes at least. Not cleared.
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Device&, size_t bytes);  // throws Error(out_of_memory) naming needed and free bytes
  ~Buffer();
  Buffer(Buffer&& o) noexcept { swap(o); }
  Buffer& operator=(Buffer&& o) noexcept {
    swap(o);
    return *this;
  }

  Address address() const { return address_; }
  size_t size() const { return size_; }
  explicit operator bool() const { return address_ != 0; }

 private:
  void swap(Buffer& o) {
    std::swap(device_, o.device_), std::swap(address_, o.address_), std::swap(size_, o.size_);
  }
  const Device* device_ = nullptr;
  Address address_ = 0;
  size_t size_ = 0;
};

// Page-locked host memory: copies from and to it run beside kernels.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  PinnedBuffer(const Device&, size_t bytes);
  ~PinnedBuffer();
  PinnedBuffer(PinnedBuffer&& o) noexcept { swap(o); }
  PinnedBuffer& operator=(PinnedBuffer&& o) noexcept {
    swap(o);
    return *this;
  }

  std::byte* data() const { return data_; }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }
  size_t size() const { return size_; }

 private:
  void swap(PinnedBuffer& o) {
    std::swap(device_, o.device_), std::swap(data_, o.data_), std::swap(size_, o.size_);
  }
  const Device* device_ = nullptr;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// A compiled kernel of a loaded module (registry.h); cheap to copy, valid while its KernelCache lives.
struct Kernel {
  driver::Function function = nullptr;
  std::string name;  // for errors and traces
  explicit operator bool() const { return function != nullptr; }
};

struct LaunchShape {
  unsigned grid[3] = {1, 1, 1};
  unsigned block = 128;
  unsigned shared_bytes = 0;  // dynamic; the cache has already raised the function's limit to the device's
  unsigned cluster = 1;       // blocks per cluster along x
  // Programmatic dependent launch: the kernel may start while the one before it on the stream still runs; it
  // must execute griddepcontrol.wait before it touches anything that one writes (device.cuh:
  // wait_for_previous()).
  bool overlap_previous = false;
  bool cooperative = false;
};

class Stream {
 public:
  explicit Stream(const Device&);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // Parameters are passed by value as the kernel declares them; sizes must match exactly (uint64_t for
  // pointers).
  template <typename... Args>
  void launch(const Kernel& kernel, const LaunchShape& shape, const Args&... args) {
    void* parameters[] = {const_cast<void*>(static_cast<const void*>(&args))..., nullptr};
    launch_with(kernel, shape, parameters);
  }
  void launch_with(const Kernel&, const LaunchShape&, void** parameters);

  void upload(Address to, const void* from, size_t bytes);  // asynchronous when `from` is pinned
  void download(void* to, Address from, size_t bytes);
  void copy(Address to, Address from, size_t bytes);
  void fill(Address, unsigned char byte, size_t bytes);

  // Waits. Errors of kernels come late: this, and launches after them, throw Error(io) "the GPU failed at or
  // before 'layers.3.attn.qkv': ..." with the mark that was set last; the device is not usable in this
  // process after such an error.
  void synchronize();
  void mark(const char* what) {
    mark_ = what;
  }  // a string that lives as long as the stream: what errors name

  const Device& device() const { return device_; }
  driver::StreamHandle handle() const { return handle_; }
  // Nothing for result 0; else throws: the late error of a kernel, or that `what` failed.
  void check(driver::Result, const char* what) const;

 private:
  const Device& device_;
  driver::StreamHandle handle_ = nullptr;
  const char* mark_ = "start";
};

class Event {
 public:
  explicit Event(const Device&, bool timing = false);
  ~Event();
  Event(Event&& o) noexcept : device_(o.device_), handle_(std::exchange(o.handle_, nullptr)) {}
  Event& operator=(Event&&) = delete;
  void record(Stream&);
  void synchronize() const;     // the calling thread waits
  void wait_on(Stream&) const;  // the stream waits
  bool done() const;
  // Milliseconds from `start`, both recorded with timing and done.
  float since(const Event& start) const;

 private:
  const Device* device_;
  driver::EventHandle handle_ = nullptr;
};

// Launches recorded once and replayed with one call.
class Graph {
 public:
  Graph() = default;
  ~Graph();
  Graph(Graph&& o) noexcept : exec_(std::exchange(o.exec_, nullptr)) {}
  Graph& operator=(Graph&& o) noexcept {
    std::swap(exec_, o.exec_);
    return *this;
  }
  // Runs f, which launches on `stream` and neither synchronizes nor allocates, and keeps what it launched.
  template <typename F>
  static Graph capture(Stream& stream, F&& f) {
    begin(stream);
    try {
      f();
    } catch (...) {
      abandon(stream);
      throw;
    }
    return end(stream);
  }
  void launch(Stream&) const;
  explicit operator bool() const { return exec_ != nullptr; }

 private:
  static void begin(Stream&);
  static void abandon(Stream&);
  static Graph end(Stream&);
  driver::GraphExec exec_ = nullptr;
};

}  // namespace cairn::cuda
