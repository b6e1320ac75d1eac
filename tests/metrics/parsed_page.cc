// SPDX-License-Identifier: Apache-2.0
//
// Reads as much of the format as our own page uses: label values without escapes.
#include "tests/metrics/parsed_page.h"

#include <set>
#include <sstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "gtest/gtest.h"
#include "prometheus/text_serializer.h"

namespace swiglu::server {
namespace {

using Labels = std::map<std::string, std::string>;

struct Outline {
  std::string type;
  std::set<std::string> label_names;
  std::set<Labels> series;
};

Labels ParseLabels(absl::string_view text) {
  Labels labels;
  for (absl::string_view pair : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(pair, absl::MaxSplits('=', 1));
    absl::string_view value = parts.second;
    EXPECT_TRUE(absl::ConsumePrefix(&value, "\"") && absl::ConsumeSuffix(&value, "\"")) << text;
    labels[std::string(parts.first)] = std::string(value);
  }
  return labels;
}

// The metric that a sample belongs to: a histogram's samples have suffixes.
std::string MetricOf(std::string sample, const std::map<std::string, Outline>& metrics) {
  for (absl::string_view suffix : {"_bucket", "_sum", "_count"}) {
    absl::string_view stem = sample;
    if (absl::ConsumeSuffix(&stem, suffix)) {
      const auto found = metrics.find(std::string(stem));
      if (found != metrics.end() && found->second.type == "histogram") return std::string(stem);
    }
  }
  return sample;
}

}  // namespace

ParsedPage ParsePage(const std::string& page) {
  ParsedPage parsed;
  std::map<std::string, Outline> metrics;
  std::istringstream lines(page);
  for (std::string line; std::getline(lines, line);) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    if (words[0] == "#") {
      if (words[1] == "TYPE") metrics[words[2]].type = words[3];
      continue;
    }
    const size_t space = line.rfind(' ');
    const size_t brace = line.find('{');
    const std::string name = line.substr(0, std::min(space, brace));
    Labels labels;
    if (brace != std::string::npos) {
      labels = ParseLabels(line.substr(brace + 1, line.rfind('}') - brace - 1));
    }
    double value = 0;
    EXPECT_TRUE(absl::SimpleAtod(line.substr(space + 1), &value)) << line;
    std::vector<std::string> pairs;
    for (const auto& [label, text] : labels) pairs.push_back(label + "=\"" + text + "\"");
    const std::string series =
        pairs.empty() ? name : absl::StrCat(name, "{", absl::StrJoin(pairs, ","), "}");
    EXPECT_TRUE(parsed.values.emplace(series, value).second) << "twice: " << line;

    Outline& outline = metrics[MetricOf(name, metrics)];
    if (outline.type == "histogram") labels.erase("le");
    for (const auto& [label, text] : labels) outline.label_names.insert(label);
    outline.series.insert(labels);
  }
  for (const auto& [name, outline] : metrics) {
    parsed.outline.push_back(absl::StrCat(name, "{", absl::StrJoin(outline.label_names, ","), "} ",
                                          outline.type, " ", outline.series.size()));
  }
  return parsed;
}

std::string Serialize(const std::vector<prometheus::MetricFamily>& families) {
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace swiglu::server
