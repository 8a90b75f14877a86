#include "quantize/inverse_factor.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "quantize/dense.h"

namespace cairn::quantize {
namespace {

constexpr int64_t kStrip = SymmetricMatrix::kStrip;  // columns at a time; the rest are products

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

// Multiplies the factors of the strips from `first` on again.
void restore(SymmetricMatrix& h, int64_t first, ThreadPool& pool) {
  std::vector<float> block;
  for (int64_t strip = first; strip < h.strips(); ++strip) {
    const int64_t begin = strip * kStrip, width = h.width(strip);
    float *above = h.strip(strip), *diagonal = above + begin * kStrip;
    const MatrixView panel{above, begin, width, kStrip};
    add_product(panel, panel, 1, h, pool);
    block.assign(size_t(width * width), 0);
    for (int64_t i = 0; i < width; ++i)
      std::copy(diagonal + i * kStrip + i, diagonal + i * kStrip + width, block.data() + i * width + i);
    const MatrixView factor{block.data(), width, width, width};
    multiply_rows(panel, factor, 1, above, kStrip, pool);
    multiply_rows(factor, factor, 1, diagonal, kStrip, pool);
  }
}

bool factorise(SymmetricMatrix& h, ThreadPool& pool) {
  std::vector<float> inverse, before;
  for (int64_t strip = h.strips() - 1; strip >= 0; --strip) {
    const int64_t begin = strip * kStrip, width = h.width(strip);
    float *above = h.strip(strip), *diagonal = above + begin * kStrip;
    before.assign(diagonal, diagonal + width * kStrip);
    if (!factor_block(diagonal, width, kStrip)) {
      std::copy(before.begin(), before.end(), diagonal);
      restore(h, strip + 1, pool);
      return false;
    }
    // The panel above: R[0:begin, block] = H[0:begin, block] * R_block^-T
    inverse.assign(size_t(width * width), 0);
    for (int64_t i = 0; i < width; ++i)
      std::copy(diagonal + i * kStrip + i, diagonal + i * kStrip + width, inverse.data() + i * width + i);
    invert_block(inverse.data(), width, width);
    const MatrixView panel{above, begin, width, kStrip};
    multiply_rows(panel, {inverse.data(), width, width, width}, 1, above, kStrip, pool);
    add_product(panel, panel, -1, h, pool);
  }
  return true;
}

// U = R^-1 in place, strip after strip: U[0:j, j] = -U[0:j, 0:j] R[0:j, j] U[j, j].
void invert(SymmetricMatrix& r, ThreadPool& pool) {
  for (int64_t strip = 0; strip < r.strips(); ++strip) {
    const int64_t begin = strip * kStrip, width = r.width(strip);
    float *above = r.strip(strip), *diagonal = above + begin * kStrip;
    invert_block(diagonal, width, kStrip);
    if (begin == 0) continue;
    const auto turned = transposed({above, begin, width, kStrip}, pool);  // [width, begin]
    std::vector<float> sums(size_t(begin * width));
    for (int64_t k = 0; k < begin; k += kStrip)  // rows below a strip are zeros in U
      add_product({r.strip(k / kStrip), k + kStrip, kStrip, kStrip},
                  {turned.data() + k, width, kStrip, begin}, 1, sums.data(), width, pool);
    const auto block = transposed({diagonal, width, width, kStrip}, pool);
    multiply_rows({sums.data(), begin, width, width}, {block.data(), width, width, width}, -1, above, kStrip,
                  pool);
  }
}

}  // namespace

bool inverse_factor(SymmetricMatrix& h, ThreadPool& pool) {
  if (!factorise(h, pool)) return false;
  for (int64_t strip = 0; strip < h.strips(); ++strip) {
    float* diagonal = h.strip(strip) + strip * kStrip * kStrip;
    for (int64_t i = 1; i < h.width(strip); ++i) std::fill_n(diagonal + i * kStrip, i, 0.f);
  }
  invert(h, pool);
  return true;
}

}  // namespace cairn::quantize
