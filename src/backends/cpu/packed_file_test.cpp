#include "backends/cpu/packed_file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <fstream>
#include <random>

#include "base/aligned_buffer.h"
#include "base/error.h"

namespace cairn::cpu {
namespace {

namespace fs = std::filesystem;

// A model file of three weights, one of them of two experts, and what packing makes of them.
class PackedFileTest : public ::testing::Test {
 protected:
  PackedFileTest() : folder_(fs::path(::testing::TempDir()) / fmt::format("packed_file_{}", getpid())) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    std::mt19937 random(1);
    std::string content(model_bytes(), '\0');
    for (char& c : content) c = char(random());
    write(model_, content);
    load();
  }
  ~PackedFileTest() override { fs::remove_all(folder_); }

  struct Shape {
    codecs::CodecId codec;
    int64_t rows, cols;
    size_t pieces;
  };
  static constexpr Shape kShapes[] = {{codecs::CodecId::q8_0, 100, 512, 1},
                                      {codecs::CodecId::q4_k, 33, 512, 2},
                                      {codecs::CodecId::f32, 5, 7, 1}};
  static uint64_t piece_bytes(const Shape& s) {
    return *codecs::row_bytes(codecs::codec(s.codec), uint64_t(s.cols)) * uint64_t(s.rows);
  }
  static size_t model_bytes() {
    uint64_t total = 0;
    for (const auto& s : kShapes) total += piece_bytes(s) * s.pieces;
    return size_t(total);
  }

  // Maps the model file as it is now and packs it.
  void load() {
    files_ = {MappedFile(model_)};
    stored_.clear(), plans_.clear(), packed_.clear(), matrices_.clear();
    const std::byte* at = files_[0].bytes().data();
    for (const auto& s : kShapes) {
      codecs::StoredWeight weight{s.codec, s.rows, s.cols, false, 0, 0, {}};
      for (size_t p = 0; p < s.pieces; ++p, at += piece_bytes(s))
        weight.pieces.push_back({at, piece_bytes(s), 0});
      const auto* kernel = matmul_kernel(s.codec, active_isa(), s.cols);
      const size_t bytes = (kernel->packed_bytes(s.rows, s.cols) + 63) / 64 * 64;
      plans_.push_back({stored_.size(), kernel, bytes, s.pieces});
      packed_.emplace_back(bytes * s.pieces);
      for (size_t p = 0; p < s.pieces; ++p)
        kernel->pack(weight.pieces[p].data, s.rows, s.cols, {0, panels_of(s.rows)},
                     packed_.back().data() + p * bytes);
      matrices_.push_back(packed_.back().data());
      stored_.push_back(std::move(weight));
    }
    key_ = packed_key(plans_, stored_);
  }

  PackedSource source() const { return {key_, plans_, stored_, files_}; }
  std::optional<std::string> save() {
    const std::atomic<bool> stop{false};
    return write_packed_file(path_, source(), matrices_, stop);
  }
  std::optional<PackedFile> open(std::string* why = nullptr) {
    std::string reason;
    auto file = PackedFile::open(path_, source(), pool_, reason);
    if (why) *why = reason;
    return file;
  }
  bool holds_the_weights(const PackedFile& file) const {
    for (size_t i = 0; i < plans_.size(); ++i)
      if (std::memcmp(file.matrix(i), matrices_[i], plans_[i].bytes()) != 0) return false;
    return true;
  }
  size_t files_in_folder() const { return size_t(std::distance(fs::directory_iterator(folder_), {})); }

  static std::string read(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  static void write(const fs::path& path, const std::string& content) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << content;
  }
  static void patch(const fs::path& path, size_t at, const std::string& bytes) {
    std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(std::streamoff(at));
    file << bytes;
  }
  // As after a restart of the machine: nothing is known of the file.
  void forget_state() { patch(path_, 64, std::string(32, '\0')); }
  bool knows_state() { return read(path_).substr(64, 32) != std::string(32, '\0'); }

  fs::path folder_, model_ = folder_ / "model.bin", path_ = folder_ / "x.packed";
  std::vector<MappedFile> files_;
  std::vector<codecs::StoredWeight> stored_;
  std::vector<MatrixPlan> plans_;
  std::vector<AlignedBuffer> packed_;
  std::vector<const std::byte*> matrices_;
  PackedKey key_;
  ThreadPool pool_{2};
};

TEST_F(PackedFileTest, GivesBackWhatWasWritten) {
  EXPECT_FALSE(open());
  ASSERT_EQ(save(), std::nullopt);
  EXPECT_EQ(fs::file_size(path_), packed_file_bytes(plans_));
  EXPECT_EQ(files_in_folder(), 2u);  // nothing temporary
  const auto file = open();
  ASSERT_TRUE(file);
  EXPECT_TRUE(holds_the_weights(*file));
  for (size_t i = 0; i < plans_.size(); ++i) EXPECT_EQ(reinterpret_cast<uintptr_t>(file->matrix(i)) % 64, 0u);
}

TEST_F(PackedFileTest, AfterARestartContentIsVerifiedOnce) {
  ASSERT_EQ(save(), std::nullopt);
  forget_state();
  ASSERT_TRUE(open());
  EXPECT_TRUE(knows_state());
  ASSERT_TRUE(open());
}

TEST_F(PackedFileTest, DamageIsFoundAndTheFileRemoved) {
  ASSERT_EQ(save(), std::nullopt);
  const std::string good = read(path_);
  const size_t data = size_t{2} << 20;
  std::vector<size_t> places;
  for (size_t at = 0; at < 128 + 24 * plans_.size(); ++at) places.push_back(at);
  for (size_t i = 0, begin = data; i < plans_.size(); begin += (plans_[i].bytes() + 4095) / 4096 * 4096, ++i)
    places.insert(places.end(), {begin, begin + plans_[i].bytes() / 2, begin + plans_[i].bytes() - 1});
  for (const size_t at : places) {
    std::string bad = good;
    bad[at] = char(bad[at] ^ 0x10);
    write(path_, bad);
    if (at >= data) forget_state();
    std::string why;
    const auto file = open(&why);
    if (at >= 56 && at < 128) {  // unused, or the state, which is verified anew
      ASSERT_TRUE(file) << at << why;
      EXPECT_TRUE(holds_the_weights(*file));
    } else {
      EXPECT_FALSE(file) << at;
      EXPECT_NE(why, "") << at;
      EXPECT_FALSE(fs::exists(path_)) << at;
    }
  }
}

TEST_F(PackedFileTest, TruncatedAndLongerFilesAreRefused) {
  ASSERT_EQ(save(), std::nullopt);
  const auto size = fs::file_size(path_);
  for (const auto length : {uintmax_t{0}, uintmax_t{1}, uintmax_t{127}, uintmax_t{128}, uintmax_t{2} << 20,
                            size / 2, size - 1, size + 1}) {
    ASSERT_EQ(save(), std::nullopt);
    fs::resize_file(path_, length);
    std::string why;
    EXPECT_FALSE(open(&why)) << length;
    EXPECT_NE(why.find("size"), std::string::npos) << why;
    EXPECT_FALSE(fs::exists(path_));
  }
}

// The change lies where no sample is taken, so that the key stays.
TEST_F(PackedFileTest, AModelReplacedInPlaceIsNotServedStale) {
  ASSERT_EQ(save(), std::nullopt);
  const PackedKey before = key_;
  files_.clear();
  patch(model_, 20000, "changed");
  load();
  ASSERT_EQ(key_, before);
  std::string why;
  EXPECT_FALSE(open(&why));
  EXPECT_NE(why.find("other weights"), std::string::npos) << why;
}

TEST_F(PackedFileTest, ACopyOfTheModelSharesTheFile) {
  ASSERT_EQ(save(), std::nullopt);
  const auto copy = folder_ / "copy.bin";
  fs::copy_file(model_, copy);
  fs::remove(model_);
  fs::rename(copy, model_);
  load();
  const auto file = open();
  ASSERT_TRUE(file);
  EXPECT_TRUE(holds_the_weights(*file));
}

TEST_F(PackedFileTest, AModelThatChangedWhilePackedIsNotKept) {
  patch(model_, 20000, "changed");
  const auto why = save();
  ASSERT_TRUE(why);
  EXPECT_NE(why->find("changed while"), std::string::npos) << *why;
  EXPECT_EQ(files_in_folder(), 1u);
}

TEST_F(PackedFileTest, WritingStopsWhenAsked) {
  const std::atomic<bool> stop{true};
  EXPECT_EQ(write_packed_file(path_, source(), matrices_, stop), "stopped");
  EXPECT_EQ(files_in_folder(), 1u);
}

TEST_F(PackedFileTest, AFullDiskLeavesNothing) {
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{(2 << 20) + 4096, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const auto why = save();
  setrlimit(RLIMIT_FSIZE, &before);
  ASSERT_TRUE(why);
  EXPECT_NE(why->find("cannot"), std::string::npos) << *why;
  EXPECT_EQ(files_in_folder(), 1u);
  std::signal(SIGXFSZ, handler);
  EXPECT_TRUE(write_packed_file(folder_ / "missing/x.packed", source(), matrices_, std::atomic<bool>(false)));
}

TEST_F(PackedFileTest, TheKeyFollowsContentShapeAndLayout) {
  const PackedKey before = key_;
  EXPECT_EQ(packed_key(plans_, stored_), before);
  EXPECT_EQ(before.file_name().size(), 32 + std::strlen(".packed"));

  auto other_kernel = *plans_[0].kernel;
  other_kernel.pack = [](const std::byte*, int64_t, int64_t, Range, std::byte* packed) {
    packed[0] = std::byte{1};
  };
  auto plans = plans_;
  plans[0].kernel = &other_kernel;
  EXPECT_NE(packed_key(plans, stored_), before) << "another layout";

  auto stored = stored_;
  std::swap(stored[0].rows, stored[0].cols);
  EXPECT_NE(packed_key(plans_, stored), before) << "another shape";

  const size_t size = model_bytes();
  for (const size_t at : {size_t{0}, size - 1, size_t(piece_bytes(kShapes[0])) / 2 + 7}) {
    const std::string original = read(model_);
    patch(model_, at, std::string(1, char(original[at] ^ 1)));
    load();
    EXPECT_NE(key_, before) << at;
    patch(model_, at, original.substr(at, 1));
    load();
    EXPECT_EQ(key_, before);
  }
}

}  // namespace
}  // namespace cairn::cpu
