#include "plan/landscape.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/svg.h"

namespace cairn::plan {
namespace {

constexpr double kMapX = 90, kMapY = 110, kMapSize = 440, kStripX = 640, kStripWidth = 380;

double best_value(const Search& search) { return search.best() ? *search.best()->value : 0; }

// How much the best value varies along a dimension: what makes it worth an axis.
double spread(const Search& search, size_t d) {
  std::vector<double> best(search.dimensions()[d].values.size(), -1);
  for (const auto& t : search.trials())
    if (t.value) best[size_t(t.point[d])] = std::max(best[size_t(t.point[d])], *t.value);
  std::erase_if(best, [](double v) { return v < 0; });
  if (best.size() < 2) return 0;
  const auto [low, high] = std::minmax_element(best.begin(), best.end());
  return *high - *low;
}

void draw_map(Svg& svg, const Search& search, size_t x, size_t y, const std::string& unit) {
  const auto& across = search.dimensions()[x];
  const auto& down = search.dimensions()[y];
  const bool flat = x == y;
  const size_t columns = across.values.size(), rows = flat ? 1 : down.values.size();
  const double width = kMapSize / double(columns), height = std::min(kMapSize / double(rows), 120.0);
  for (size_t r = 0; r < rows; ++r) {
    if (!flat)
      svg.text(kMapX - 8, kMapY + (double(rows - 1 - r) + 0.5) * height + 4, down.values[r], 12, "end");
    for (size_t c = 0; c < columns; ++c) {
      double best = -1;
      bool tried = false;
      for (const auto& t : search.trials()) {
        if (size_t(t.point[x]) != c || (!flat && size_t(t.point[y]) != r)) continue;
        tried = true;
        if (t.value) best = std::max(best, *t.value);
      }
      const double left = kMapX + double(c) * width, top = kMapY + double(rows - 1 - r) * height;
      const double share = best_value(search) > 0 ? best / best_value(search) : 0;
      svg.rectangle(left, top, width - 2, height - 2, best >= 0 ? scale_colour(share * share) : "#ffffff",
                    tried && best >= 0 ? "none" : "#cccccc");
      if (best >= 0)
        svg.text(left + width / 2 - 1, top + height / 2 + 4, fmt::format("{:.4g}", best), 12, "middle",
                 share * share > 0.5 ? "#ffffff" : "#333333");
      else if (tried)
        svg.text(left + width / 2 - 1, top + height / 2 + 5, "\u00d7", 16, "middle", "#b91c1c");
      if (r == 0)
        svg.text(left + width / 2 - 1, kMapY + double(rows) * height + 18, across.values[c], 12, "middle");
    }
  }
  svg.text(kMapX + kMapSize / 2, kMapY + double(rows) * height + 40, across.name, 13, "middle");
  if (!flat) svg.text(kMapX - 60, kMapY - 12, down.name, 13);
  svg.text(kMapX + kMapSize, kMapY - 12, unit + ", best over all other settings", 12, "end", "#666666");
}

void draw_strips(Svg& svg, const Search& search, double height) {
  const double top_value = best_value(search);
  for (size_t d = 0; d < search.dimensions().size(); ++d) {
    const auto& dimension = search.dimensions()[d];
    const double top = kMapY + double(d) * (height + 46),
                 step = kStripWidth / double(dimension.values.size());
    svg.text(kStripX, top - 6, dimension.name, 13);
    svg.line(kStripX, top + height, kStripX + kStripWidth, top + height, "#999999");
    svg.text(kStripX - 6, top + 10, fmt::format("{:.4g}", top_value), 11, "end", "#666666");
    svg.text(kStripX - 6, top + height, "0", 11, "end", "#666666");
    for (size_t v = 0; v < dimension.values.size(); ++v)
      svg.text(kStripX + (double(v) + 0.5) * step, top + height + 15, dimension.values[v], 11, "middle");
    for (size_t i = 0; i < search.trials().size(); ++i) {
      const auto& t = search.trials()[i];
      // Side by side, so that equal values do not hide each other.
      const double x = kStripX + (double(t.point[d]) + 0.5 + 0.3 * std::sin(double(i) * 2.4)) * step;
      if (!t.value) {
        svg.text(x, top + height - 2, "\u00d7", 11, "middle", "#b91c1c");
        continue;
      }
      const double y = top + height - (top_value > 0 ? *t.value / top_value : 0) * height;
      if (&t == search.best()) svg.circle(x, y, 6, "none", "#c2410c");
      svg.circle(x, y, 3, &t == search.best() ? "#c2410c" : "#2563ab");
    }
  }
}

}  // namespace

std::string landscape(const Search& search, const std::string& title, const std::string& subtitle,
                      const std::string& unit) {
  std::vector<size_t> order(search.dimensions().size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return spread(search, a) > spread(search, b); });
  const double strip = 70;
  const double height = std::max(640.0, kMapY + double(order.size()) * (strip + 46) + 30);
  Svg svg(1080, height);
  svg.text(30, 40, title, 20);
  svg.text(30, 64, subtitle, 13, "start", "#666666");
  if (order.empty()) return svg.finish();
  draw_map(svg, search, order[0], order.size() > 1 ? order[1] : order[0], unit);
  draw_strips(svg, search, strip);
  return svg.finish();
}

}  // namespace cairn::plan
