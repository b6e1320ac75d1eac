// SPDX-License-Identifier: Apache-2.0
//
// The drawing of a sweep: two panels, with a line of the grid for each size and each power of ten.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "client/bench/sweep.h"
#include "server/base/byte_size.h"

namespace swiglu::bench {
namespace {

// Of a panel, in units of the drawing.
constexpr double kPanelWidth = 480, kHeight = 400;
constexpr double kLeft = 70, kRight = 460, kTop = 70, kBottom = 350;

struct Series {
  const char* name;
  const char* color;
  absl::optional<double> SweepPoint::*figure;
};

struct Panel {
  const char* title;
  std::vector<Series> series;
};

std::string Escaped(absl::string_view text) {
  return absl::StrReplaceAll(text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}});
}

std::string TextAt(double x, double y, const char* anchor, absl::string_view text) {
  return absl::StrFormat("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", x, y, anchor,
                         Escaped(text));
}

std::string GridLine(double x1, double y1, double x2, double y2) {
  return absl::StrFormat(
      "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>\n", x1, y1, x2, y2);
}

// Where numbers lie on an axis. The smallest lies at `from`, the greatest at `to`.
class LogAxis {
 public:
  LogAxis(double least, double greatest, double from, double to)
      : least_(std::log(least)), span_(std::log(greatest) - least_), from_(from), to_(to) {}

  double At(double number) const {
    if (span_ <= 0) return (from_ + to_) / 2;
    return from_ + (std::log(number) - least_) / span_ * (to_ - from_);
  }

 private:
  const double least_, span_, from_, to_;
};

// The powers of ten around all figures of a panel.
std::pair<int, int> Powers(const Panel& panel, const std::vector<SweepPoint>& points) {
  double least = 0, greatest = 0;
  for (const Series& series : panel.series) {
    for (const SweepPoint& point : points) {
      const absl::optional<double> figure = point.*series.figure;
      if (!figure || *figure <= 0) continue;
      least = least == 0 ? *figure : std::min(least, *figure);
      greatest = std::max(greatest, *figure);
    }
  }
  if (greatest == 0) return {0, 1};
  const int low = static_cast<int>(std::floor(std::log10(least)));
  return {low, std::max(low + 1, static_cast<int>(std::ceil(std::log10(greatest))))};
}

std::string Line(const Series& series, const std::vector<SweepPoint>& points, const LogAxis& x,
                 const LogAxis& y) {
  std::string corners, dots;
  for (const SweepPoint& point : points) {
    const absl::optional<double> figure = point.*series.figure;
    if (!figure || *figure <= 0) continue;
    const double at_x = x.At(static_cast<double>(point.request_bytes)), at_y = y.At(*figure);
    absl::StrAppendFormat(&corners, "%s%.1f,%.1f", corners.empty() ? "" : " ", at_x, at_y);
    absl::StrAppendFormat(&dots, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", at_x,
                          at_y, series.color);
  }
  return absl::StrFormat("<polyline points=\"%s\" fill=\"none\" stroke=\"%s\"/>\n%s", corners,
                         series.color, dots);
}

std::string DrawPanel(const Panel& panel, const std::vector<SweepPoint>& points, double offset) {
  const auto [smallest, largest] = std::minmax_element(
      points.begin(), points.end(),
      [](const SweepPoint& a, const SweepPoint& b) { return a.request_bytes < b.request_bytes; });
  const auto [low, high] = Powers(panel, points);
  const LogAxis x(static_cast<double>(smallest->request_bytes),
                  static_cast<double>(largest->request_bytes), kLeft + 20, kRight - 20);
  const LogAxis y(std::pow(10, low), std::pow(10, high), kBottom, kTop);
  std::string text = absl::StrFormat("<g transform=\"translate(%.1f,0)\">\n", offset);
  absl::StrAppend(&text, TextAt((kLeft + kRight) / 2, kTop - 14, "middle", panel.title));
  for (int power = low; power <= high; ++power) {
    const double at = y.At(std::pow(10, power));
    absl::StrAppend(&text, GridLine(kLeft, at, kRight, at),
                    TextAt(kLeft - 6, at + 4, "end", absl::StrFormat("%g", std::pow(10, power))));
  }
  for (const SweepPoint& point : points) {
    const double at = x.At(static_cast<double>(point.request_bytes));
    absl::StrAppend(
        &text, GridLine(at, kTop, at, kBottom),
        TextAt(at, kBottom + 18, "middle", server::FormatByteSize(point.request_bytes)));
  }
  double legend = kLeft;
  for (const Series& series : panel.series) {
    absl::StrAppend(&text, Line(series, points, x, y), "<g fill=\"", series.color, "\">",
                    TextAt(legend, kBottom + 40, "start", series.name), "</g>\n");
    legend += 60;
  }
  return text + "</g>\n";
}

}  // namespace

std::string DrawSweep(const std::string& title, const std::vector<SweepPoint>& points) {
  const Panel rate = {"requests per second", {{"rate", "#06c", &SweepPoint::requests_per_s}}};
  const Panel latency = {
      "latency in ms",
      {{"p50", "#080", &SweepPoint::p50_ms}, {"p99", "#c30", &SweepPoint::p99_ms}}};
  std::string text = absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" "
      "font-family=\"sans-serif\" font-size=\"12\">\n"
      "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
      2 * kPanelWidth, kHeight);
  absl::StrAppend(&text, TextAt(kPanelWidth, 24, "middle", title));
  if (!points.empty()) {
    absl::StrAppend(&text, DrawPanel(rate, points, 0), DrawPanel(latency, points, kPanelWidth));
  }
  return text + "</svg>\n";
}

}  // namespace swiglu::bench
