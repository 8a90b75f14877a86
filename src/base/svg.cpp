#include "base/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace cairn {
namespace {

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default:
        if (static_cast<unsigned char>(c) >= 0x20) out += c;
    }
  return out;
}

}  // namespace

Svg::Svg(double width, double height)
    : body_(
          fmt::format("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:g} {1:g}\" width=\"{0:g}\" "
                      "height=\"{1:g}\" font-family=\"system-ui, sans-serif\">\n"
                      "<rect width=\"{0:g}\" height=\"{1:g}\" fill=\"#ffffff\"/>\n",
                      width, height)) {}

void Svg::rectangle(double x, double y, double width, double height, std::string_view fill,
                    std::string_view stroke) {
  body_ += fmt::format(
      "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"{}\" stroke=\"{}\"/>\n", x,
      y, width, height, fill, stroke);
}

void Svg::line(double x1, double y1, double x2, double y2, std::string_view colour, double width) {
  body_ += fmt::format(
      "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\" stroke-width=\"{:g}\"/>\n",
      x1, y1, x2, y2, colour, width);
}

void Svg::circle(double x, double y, double radius, std::string_view fill, std::string_view stroke) {
  body_ += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{:.1f}\" fill=\"{}\" stroke=\"{}\"/>\n", x, y,
                       radius, fill, stroke);
}

void Svg::text(double x, double y, std::string_view text, int size, std::string_view anchor,
               std::string_view colour) {
  body_ += fmt::format(
      "<text x=\"{:.1f}\" y=\"{:.1f}\" font-size=\"{}\" text-anchor=\"{}\" fill=\"{}\">{}</text>\n", x, y,
      size, anchor, colour, escaped(text));
}

std::string scale_colour(double share) {
  const double s = std::isnan(share) ? 0 : std::clamp(share, 0.0, 1.0);
  const auto mix = [&](int pale, int dark) { return int(std::lround(pale + (dark - pale) * s)); };
  return fmt::format("#{:02x}{:02x}{:02x}", mix(0xf2, 0x0b), mix(0xf5, 0x3c), mix(0xfa, 0x7d));
}

}  // namespace cairn
