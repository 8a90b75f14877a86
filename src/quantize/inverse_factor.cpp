#include "quantize/inverse_factor.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "quantize/dense.h"

namespace cairn::quantize {
namespace {

constexpr int64_t kBlock = 192;  // columns at a time; the rest are products

// The upper R with D = R R^T of one block, in place, sums in double.
bool factor_block(float* d, int64_t n, int64_t stride) {
  for (int64_t j = n - 1; j >= 0; --j) {
    const auto row = [&](int64_t r) { return d + r * stride; };
    double diagonal = row(j)[j];
    for (int64_t k = j + 1; k < n; ++k) diagonal -= double(row(j)[k]) * double(row(j)[k]);
    if (!(diagonal > 0) || !std::isfinite(diagonal)) return false;
    const double root = std::sqrt(diagonal);
    row(j)[j] = float(root);
    for (int64_t i = 0; i < j; ++i) {
      double sum = row(i)[j];
      for (int64_t k = j + 1; k < n; ++k) sum -= double(row(i)[k]) * double(row(j)[k]);
      row(i)[j] = float(sum / root);
    }
  }
  return true;
}

// The inverse of an upper triangular block, in place.
void invert_block(float* r, int64_t n, int64_t stride) {
  std::vector<double> column(static_cast<size_t>(n));
  for (int64_t j = 0; j < n; ++j) {
    const double inverse = 1 / double(r[j * stride + j]);
    for (int64_t i = 0; i < j; ++i) {
      double sum = 0;
      for (int64_t k = i; k < j; ++k) sum += double(r[i * stride + k]) * double(r[k * stride + j]);
      column[size_t(i)] = -sum * inverse;
    }
    // Rows above read this column's old values until all of its sums are there.
    for (int64_t i = 0; i < j; ++i) r[i * stride + j] = float(column[size_t(i)]);
    r[j * stride + j] = float(inverse);
  }
}

// to[i, :] = from[i, :] * t^T
void multiply_rows(const MatrixView& from, const MatrixView& t, float factor, float* to, int64_t to_stride,
                   ThreadPool& pool) {
  std::vector<float> result(size_t(from.rows * t.rows));
  add_product(from, t, factor, result.data(), t.rows, pool);
  for (int64_t i = 0; i < from.rows; ++i) std::copy_n(result.data() + i * t.rows, t.rows, to + i * to_stride);
}

bool factorise(float* h, int64_t n, ThreadPool& pool) {
  std::vector<float> inverse;
  for (int64_t end = n; end > 0;) {
    const int64_t begin = std::max<int64_t>(0, (end - 1) / kBlock * kBlock), width = end - begin;
    float* diagonal = h + begin * n + begin;
    if (!factor_block(diagonal, width, n)) return false;
    // The panel above: R[0:begin, block] = H[0:begin, block] * R_block^-T
    inverse.assign(size_t(width * width), 0);
    for (int64_t i = 0; i < width; ++i)
      std::copy(diagonal + i * n + i, diagonal + i * n + width, inverse.data() + i * width + i);
    invert_block(inverse.data(), width, width);
    const MatrixView panel{h + begin, begin, width, n};
    multiply_rows(panel, {inverse.data(), width, width, width}, 1, h + begin, n, pool);
    add_product(panel, panel, -1, h, n, pool, Triangle::upper);
    end = begin;
  }
  return true;
}

// U = R^-1 in place, block column after block column: U[0:j, j] = -U[0:j, 0:j] R[0:j, j] U[j, j].
void invert(float* r, int64_t n, ThreadPool& pool) {
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t width = std::min(kBlock, n - begin);
    float* diagonal = r + begin * n + begin;
    invert_block(diagonal, width, n);
    if (begin == 0) continue;
    const auto turned = transposed({r + begin, begin, width, n}, pool);  // [width, begin]
    std::vector<float> sums(size_t(begin * width));
    constexpr int64_t kSlice = 2 * kBlock;
    for (int64_t k = 0; k < begin; k += kSlice) {  // rows below a slice of columns are zeros in U
      const int64_t depth = std::min(kSlice, begin - k);
      add_product({r + k, k + depth, depth, n}, {turned.data() + k, width, depth, begin}, 1, sums.data(),
                  width, pool);
    }
    const auto block = transposed({diagonal, width, width, n}, pool);
    multiply_rows({sums.data(), begin, width, width}, {block.data(), width, width, width}, -1, r + begin, n,
                  pool);
  }
}

}  // namespace

bool inverse_factor(std::span<float> h, int64_t n, ThreadPool& pool) {
  if (!factorise(h.data(), n, pool)) return false;
  for (int64_t i = 1; i < n; ++i) std::fill(h.begin() + i * n, h.begin() + i * n + i, 0.f);
  invert(h.data(), n, pool);
  return true;
}

}  // namespace cairn::quantize
