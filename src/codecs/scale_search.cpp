#include "codecs/scale_search.h"

#include <algorithm>
#include <cmath>

#include "codecs/block_codec.h"

namespace cairn::codecs {
namespace {

constexpr int kMostElements = 32;

}  // namespace

AffineFit fit_affine(const float* x, const float* weights, int count, const AffineSearch& search) {
  const int top = search.top;
  float low = std::min(0.0f, *std::min_element(x, x + count));
  const float high = *std::max_element(x, x + count);
  if (high <= low) return {0, -low};  // constant and not positive: the minimum alone says it
  double sum_w = 0, sum_x = 0;
  for (int i = 0; i < count; ++i) sum_w += weights[i], sum_x += double(weights[i]) * x[i];

  const auto error_of = [&](float scale, float min, const int* codes) {
    float error = 0;
    for (int i = 0; i < count; ++i) {
      const float diff = scale * float(codes[i]) + min - x[i];
      error += weights[i] * (search.absolute_error ? std::abs(diff) : diff * diff);
    }
    return error;
  };
  const auto quantize = [&](float inverse_scale, float min, int* codes) {
    for (int i = 0; i < count; ++i) codes[i] = nearest(inverse_scale * (x[i] - min), 0, top);
  };

  int codes[kMostElements];
  float best_scale = (high - low) / float(top), best_min = low;
  quantize(inverse(best_scale), low, codes);
  float best_error = error_of(best_scale, best_min, codes);
  for (int t = 0; t <= search.steps; ++t) {
    quantize((search.first + 0.1f * float(t) + float(top)) / (high - low), low, codes);
    double sum_l = 0, sum_ll = 0, sum_xl = 0;
    for (int i = 0; i < count; ++i) {
      const double l = codes[i], wl = double(weights[i]) * l;
      sum_l += wl, sum_ll += wl * l, sum_xl += wl * x[i];
    }
    const double determinant = sum_w * sum_ll - sum_l * sum_l;
    if (!(determinant > 0)) continue;
    float scale = float((sum_w * sum_xl - sum_x * sum_l) / determinant);
    float min = float((sum_ll * sum_x - sum_l * sum_xl) / determinant);
    if (min > 0)
      min = 0, scale = float(sum_xl / sum_ll);  // minima are subtracted: only min <= 0 can be stored
    const float error = error_of(scale, min, codes);
    if (error < best_error) best_error = error, best_scale = scale, best_min = low = min;
  }
  return {best_scale, -best_min};
}

float fit_symmetric(const float* x, const float* weights, int count, int half) {
  const float extreme = signed_max(x, count);
  if (inverse(extreme) == 0) return 0;
  double best_scale = 0, best_gain = 0;
  const auto attempt = [&](float steps) {
    const float inverse_scale = -steps / extreme;
    double xl = 0, ll = 0;
    for (int i = 0; i < count; ++i) {
      const double l = nearest(inverse_scale * x[i], -half, half - 1), wl = double(weights[i]) * l;
      xl += wl * x[i], ll += wl * l;
    }
    // The squared error of the best scale for these codes is sum(w x^2) - xl^2 / ll.
    if (ll > 0 && xl * xl > best_gain * ll) best_scale = xl / ll, best_gain = best_scale * xl;
  };
  attempt(float(half));
  for (int t = -9; t <= 9; ++t)
    if (t != 0) attempt(float(half) + 0.1f * float(t));
  return float(best_scale);
}

float fit_symmetric_by_descent(const float* x, const float* weights, int count, int half) {
  const float extreme = signed_max(x, count);
  if (inverse(extreme) == 0) return 0;
  int codes[kMostElements];
  double xl = 0, ll = 0;
  for (int i = 0; i < count; ++i) {
    codes[i] = nearest(-float(half) / extreme * x[i], -half, half - 1);
    const double wl = double(weights[i]) * codes[i];
    xl += wl * x[i], ll += wl * codes[i];
  }
  for (int sweep = 0; sweep < 5; ++sweep) {
    bool moved = false;
    for (int i = 0; i < count; ++i) {
      const double l = codes[i], w = weights[i];
      const double rest_xl = xl - w * x[i] * l, rest_ll = ll - w * l * l;
      if (!(rest_xl > 0)) continue;
      const int better = nearest(float(x[i] * rest_ll / rest_xl), -half, half - 1);
      if (better == codes[i]) continue;
      const double b = better, next_xl = rest_xl + w * x[i] * b, next_ll = rest_ll + w * b * b;
      if (next_ll > 0 && next_xl * next_xl * ll > xl * xl * next_ll) {
        codes[i] = better, xl = next_xl, ll = next_ll;
        moved = true;
      }
    }
    if (!moved) break;
  }
  return ll > 0 ? float(xl / ll) : 0;
}

}  // namespace cairn::codecs
