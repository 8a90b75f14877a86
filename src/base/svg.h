// A small SVG document: shapes and text, nothing that a browser would have to fetch or run.
#pragma once

#include <string>
#include <string_view>

namespace cairn {

class Svg {
 public:
  Svg(double width, double height);
  void rectangle(double x, double y, double width, double height, std::string_view fill,
                 std::string_view stroke = "none");
  void line(double x1, double y1, double x2, double y2, std::string_view colour, double width = 1);
  void circle(double x, double y, double radius, std::string_view fill, std::string_view stroke = "none");
  // anchor: start, middle or end. The text is escaped; control characters are left out.
  void text(double x, double y, std::string_view text, int size = 13, std::string_view anchor = "start",
            std::string_view colour = "#333333");
  std::string finish() const { return body_ + "</svg>\n"; }

 private:
  std::string body_;
};

// A colour of a scale from pale to dark blue that also reads in grey; share is clamped to [0, 1].
std::string scale_colour(double share);

}  // namespace cairn
