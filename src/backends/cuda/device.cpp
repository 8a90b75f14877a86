#include "backends/cuda/device.h"

#include "base/error.h"

namespace cairn::cuda {

using driver::api;
using driver::check;

namespace {

constexpr int kOldestCapability = 80;

int attribute(driver::DeviceOrdinal device, int which) {
  int value = 0;
  check(api().device_attribute(&value, which, device), "reading a device attribute");
  return value;
}

DeviceFacts facts_of(int ordinal) {
  driver::DeviceOrdinal device = 0;
  check(api().device_get(&device, ordinal), "opening the GPU");
  DeviceFacts f;
  f.ordinal = ordinal;
  char name[256] = {};
  check(api().device_name(name, sizeof name, device), "reading the GPU's name");
  f.name = name;
  f.pci = fmt::format("{:04x}:{:02x}:{:02x}.0", attribute(device, driver::kPciDomain),
                      attribute(device, driver::kPciBus), attribute(device, driver::kPciDevice));
  f.capability =
      10 * attribute(device, driver::kCapabilityMajor) + attribute(device, driver::kCapabilityMinor);
  f.multiprocessors = attribute(device, driver::kMultiprocessors);
  // Two transfers per clock.
  f.read_bytes_per_s = 2e3 * double(attribute(device, driver::kMemoryClockKHz)) *
                       double(attribute(device, driver::kMemoryBusBits)) / 8;
  f.l2_bytes = size_t(attribute(device, driver::kL2Bytes));
  f.shared_per_block = size_t(attribute(device, driver::kSharedMemoryPerBlockOptIn));
  check(api().device_memory(&f.memory_bytes, device), "reading the GPU's memory size");
  check(api().driver_version(&f.driver_version), "reading the driver's version");
  return f;
}

}  // namespace

std::string DeviceFacts::architecture() const {
  return fmt::format("sm_{}{}", capability, capability >= 90 ? "a" : "");
}

std::vector<DeviceFacts> list_devices(std::string* why) {
  std::vector<DeviceFacts> devices;
  try {
    int count = 0;
    check(api().device_count(&count), "counting GPUs");
    for (int i = 0; i < count; ++i) devices.push_back(facts_of(i));
    if (devices.empty() && why) *why = "the NVIDIA driver sees no GPU";
  } catch (const Error& e) {
    devices.clear();
    if (why) *why = e.what();
  }
  return devices;
}

Device::Device(int ordinal) {
  int count = 0;
  check(api().device_count(&count), "counting GPUs");
  if (ordinal < 0 || ordinal >= count)
    fail(ErrorKind::unsupported, "GPU {} was asked for; the driver sees {}", ordinal,
         count == 0 ? "none" : fmt::format("{}: 0 to {}", count, count - 1));
  facts_ = facts_of(ordinal);
  if (facts_.capability < kOldestCapability)
    fail(ErrorKind::unsupported,
         "GPU {} ({}) has compute capability {}.{}; cairn's kernels need {}.{} or newer", ordinal,
         facts_.name, facts_.capability / 10, facts_.capability % 10, kOldestCapability / 10,
         kOldestCapability % 10);
  check(api().primary_retain(&context_, ordinal),
        fmt::format("opening GPU {} ({})", ordinal, facts_.name).c_str());
  make_current();
}

Device::~Device() {
  if (context_) api().primary_release(facts_.ordinal);
}

void Device::make_current() const {
  // Reading the current context is a thread-local load; setting it is not.
  driver::Context current = nullptr;
  api().context_get(&current);
  if (current != context_) check(api().context_set(context_), "choosing the GPU");
}

size_t Device::free_bytes() const {
  make_current();
  size_t free = 0, total = 0;
  check(api().memory_info(&free, &total), "reading the GPU's free memory");
  return free;
}

Buffer::Buffer(const Device& device, size_t bytes) : device_(&device), size_(bytes) {
  if (bytes == 0) return;
  device.make_current();
  const auto result = api().memory_allocate(&address_, bytes);
  if (result == driver::kOutOfMemory)
    fail(ErrorKind::out_of_memory, "GPU {} ({}) has {} bytes free; {} more are needed",
         device.facts().ordinal, device.facts().name, device.free_bytes(), bytes);
  check(result, "allocating memory");
}

Buffer::~Buffer() {
  if (!address_) return;
  device_->make_current();
  api().memory_free(address_);
}

PinnedBuffer::PinnedBuffer(const Device& device, size_t bytes) : device_(&device), size_(bytes) {
  if (bytes == 0) return;
  device.make_current();
  void* data = nullptr;
  check(api().host_allocate(&data, bytes, 0), "allocating page-locked memory");
  data_ = static_cast<std::byte*>(data);
}

PinnedBuffer::~PinnedBuffer() {
  if (!data_) return;
  device_->make_current();
  api().host_free(data_);
}

Stream::Stream(const Device& device) : device_(device) {
  device.make_current();
  check(api().stream_create(&handle_, driver::kStreamNonBlocking), "creating a stream");
}

Stream::~Stream() {
  device_.make_current();
  api().stream_destroy(handle_);
}

void Stream::launch_with(const Kernel& kernel, const LaunchShape& shape, void** parameters) {
  if (shape.grid[0] == 0 || shape.grid[1] == 0 || shape.grid[2] == 0) return;
  device_.make_current();
  driver::LaunchAttribute attributes[3];
  unsigned count = 0;
  const auto add = [&](driver::LaunchAttribute::Id id) -> driver::LaunchAttribute& {
    auto& a = attributes[count++];
    a.id = id;
    a.unused = 0;
    for (char& c : a.all) c = 0;
    return a;
  };
  if (shape.cluster > 1) {
    auto& a = add(driver::LaunchAttribute::cluster_dimension);
    a.cluster[0] = shape.cluster, a.cluster[1] = 1, a.cluster[2] = 1;
  }
  if (shape.overlap_previous && device_.facts().capability >= 90)
    add(driver::LaunchAttribute::programmatic_serialization).flag = 1;
  if (shape.cooperative) add(driver::LaunchAttribute::cooperative).flag = 1;
  const driver::LaunchConfig config{{shape.grid[0], shape.grid[1], shape.grid[2]},
                                    {shape.block, 1, 1},
                                    shape.shared_bytes,
                                    handle_,
                                    attributes,
                                    count};
  if (const auto result = api().launch(&config, kernel.function, parameters, nullptr); result != 0)
    check(result, fmt::format("launching {} (grid {} x {} x {}, block {}, {} bytes of shared memory) at '{}'",
                              kernel.name, shape.grid[0], shape.grid[1], shape.grid[2], shape.block,
                              shape.shared_bytes, mark_)
                      .c_str());
}

void Stream::upload(Address to, const void* from, size_t bytes) {
  if (bytes == 0) return;
  device_.make_current();
  check(api().copy_to_device(to, from, bytes, handle_), "copying to the GPU");
}
void Stream::download(void* to, Address from, size_t bytes) {
  if (bytes == 0) return;
  device_.make_current();
  check(api().copy_to_host(to, from, bytes, handle_), "copying from the GPU");
}
void Stream::copy(Address to, Address from, size_t bytes) {
  if (bytes == 0) return;
  device_.make_current();
  check(api().copy_on_device(to, from, bytes, handle_), "copying on the GPU");
}
void Stream::fill(Address to, unsigned char byte, size_t bytes) {
  if (bytes == 0) return;
  device_.make_current();
  check(api().fill8(to, byte, bytes, handle_), "filling memory");
}

void Stream::synchronize() {
  device_.make_current();
  check(api().stream_synchronize(handle_), "waiting for the GPU");
}

void Stream::check(driver::Result result, const char* what) const {
  if (driver::leaves_device_unusable(result))
    driver::check(result,
                  fmt::format("the work of {} at or before '{}'", device_.facts().name, mark_).c_str());
  driver::check(result, what);
}

Event::Event(const Device& device, bool timing) : device_(&device) {
  device.make_current();
  check(api().event_create(&handle_, timing ? 0 : driver::kEventDisableTiming), "creating an event");
}
Event::~Event() {
  if (!handle_) return;
  device_->make_current();
  api().event_destroy(handle_);
}
void Event::record(Stream& stream) {
  device_->make_current();
  stream.check(api().event_record(handle_, stream.handle()), "recording an event");
}
void Event::synchronize() const {
  device_->make_current();
  check(api().event_synchronize(handle_), "waiting for an event");
}
void Event::wait_on(Stream& stream) const {
  device_->make_current();
  check(api().stream_wait(stream.handle(), handle_, 0), "ordering streams");
}
bool Event::done() const {
  device_->make_current();
  const auto result = api().event_query(handle_);
  if (result == driver::kNotReady) return false;
  check(result, "looking at an event");
  return true;
}
float Event::since(const Event& start) const {
  device_->make_current();
  float milliseconds = 0;
  check(api().event_elapsed(&milliseconds, start.handle_, handle_), "reading a timer");
  return milliseconds;
}

Graph::~Graph() {
  if (exec_) api().graph_exec_destroy(exec_);
}
void Graph::begin(Stream& stream) {
  stream.device().make_current();
  check(api().capture_begin(stream.handle(), driver::kCaptureThreadLocal), "starting to record a graph");
}
void Graph::abandon(Stream& stream) {
  driver::GraphHandle graph = nullptr;
  api().capture_end(stream.handle(), &graph);
  if (graph) api().graph_destroy(graph);
}
Graph Graph::end(Stream& stream) {
  driver::GraphHandle graph = nullptr;
  check(api().capture_end(stream.handle(), &graph), "recording a graph");
  Graph g;
  const auto result = api().graph_instantiate(&g.exec_, graph, 0);
  api().graph_destroy(graph);
  check(result, "preparing a graph");
  return g;
}
void Graph::launch(Stream& stream) const {
  stream.device().make_current();
  stream.mark("a recorded step");
  stream.check(api().graph_launch(exec_, stream.handle()), "launching a recorded step");
}

}  // namespace cairn::cuda
