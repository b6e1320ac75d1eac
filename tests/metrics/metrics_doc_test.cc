// SPDX-License-Identifier: Apache-2.0
//
// docs/operations/metrics.md against the page and names.h: each metric with its labels and its
// type, each label with its values, and no name that does not exist.
#include <fstream>
#include <iterator>
#include <map>
#include <regex>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "gtest/gtest.h"
#include "tests/metrics/example_mlp.h"
#include "tests/metrics/parsed_page.h"

namespace swiglu::server {
namespace {

using Names = std::set<std::string>;

std::string ReadFile(const char* path) {
  std::ifstream file(path);
  EXPECT_TRUE(file.good()) << path;
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// Calls `use` with every match of `pattern` in `text`.
template <typename Use>
void ForEachMatch(const std::string& text, const std::string& pattern, Use use) {
  const std::regex regex(pattern);
  for (auto it = std::sregex_iterator(text.begin(), text.end(), regex);
       it != std::sregex_iterator(); ++it) {
    use(*it);
  }
}

// Group 1 of every match.
Names AllMatches(const std::string& text, const std::string& pattern) {
  Names found;
  ForEachMatch(text, pattern, [&found](const std::smatch& match) { found.insert(match[1]); });
  return found;
}

std::string SortedLabels(const std::string& labels) {
  const Names sorted = absl::StrSplit(labels, ',', absl::SkipEmpty());
  return absl::StrJoin(sorted, ",");
}

class MetricsDocTest : public testing::Test {
 protected:
  MetricsDocTest() {
    PrometheusObserver observer{ModelRegistry(ExampleMlpModels())};
    page_ = ParsePage(
        MetricsPage(&observer, GaugesOfOneGpuAndMlp(), {"1.2.3", "abc", "13.0"}).Render());
    for (const std::string& line : page_.outline) {
      ForEachMatch(line, R"(^(\w+)\{(.*)\} (\w+) )", [this](const std::smatch& match) {
        metrics_.insert(match[1]);
        described_.insert(absl::StrCat(match[1].str(), "{", match[2].str(), "} ", match[3].str()));
        if (match[3] == "histogram") histograms_.insert(match[1]);
      });
    }
  }

  // The metric that a series on the page belongs to.
  std::string MetricOf(const std::string& series) const {
    const std::string name = series.substr(0, series.find('{'));
    for (const std::string suffix : {"_bucket", "_sum", "_count"}) {
      const size_t length = name.size() - suffix.size();
      if (name.size() > suffix.size() && name.substr(length) == suffix &&
          histograms_.count(name.substr(0, length)) > 0) {
        return name.substr(0, length);
      }
    }
    return name;
  }

  const std::string doc_ = ReadFile(METRICS_DOC);
  ParsedPage page_;
  Names metrics_;     // on the page
  Names histograms_;  // those of them
  Names described_;   // `name{labels} type`
};

TEST_F(MetricsDocTest, DescribesEveryMetricWithItsLabelsAndType) {
  Names in_doc;
  ForEachMatch(doc_,
               R"(\n\| `(\w+)(?:\{([\w,]*)\})?` \| (counter|gauge|histogram) \| [^|]+ \| [^|]+\|)",
               [&in_doc](const std::smatch& match) {
                 EXPECT_TRUE(in_doc
                                 .insert(absl::StrCat(match[1].str(), "{", SortedLabels(match[2]),
                                                      "} ", match[3].str()))
                                 .second)
                     << match[1] << " is described twice";
               });
  EXPECT_EQ(in_doc, described_);
}

TEST_F(MetricsDocTest, EveryMetricOfNamesIsOnThePage) {
  EXPECT_EQ(AllMatches(ReadFile(METRIC_NAMES), R"x("((?:swiglu|process|nv)_\w+)")x"), metrics_);
}

TEST_F(MetricsDocTest, NamesNothingThatDoesNotExist) {
  Names known = metrics_;
  for (const std::string& histogram : histograms_) {
    for (const char* suffix : {"_bucket", "_sum", "_count"}) known.insert(histogram + suffix);
  }
  for (const Model& model : Models()) known.insert(std::string(model.name));
  for (const std::string& name : AllMatches(doc_, R"(\b((?:swiglu|process|nv)_\w+))")) {
    EXPECT_EQ(known.count(name), 1u) << name;
  }
}

TEST_F(MetricsDocTest, DescribesEveryLabelWithItsValues) {
  // A row is for a label, or for the label of one metric: "kind" or "kind of swiglu_...".
  std::map<std::string, Names> in_doc;
  ForEachMatch(doc_, R"(\n\| `(\w+)`(?: of `(\w+)`)? \| ([^|\n]+) \|(?=\n))",
               [&in_doc](const std::smatch& match) {
                 const std::string row = match[2].matched
                                             ? absl::StrCat(match[1].str(), " of ", match[2].str())
                                             : match[1].str();
                 EXPECT_TRUE(in_doc.emplace(row, AllMatches(match[3], "`([^`]+)`")).second) << row;
               });

  std::map<std::string, Names> on_page;
  for (const auto& [series, value] : page_.values) {
    const std::string metric = MetricOf(series);
    ForEachMatch(series, R"x((\w+)="([^"]*)")x", [&](const std::smatch& match) {
      const std::string label = match[1];
      const std::string of_metric = absl::StrCat(label, " of ", metric);
      if (label != "le") on_page[in_doc.count(of_metric) > 0 ? of_metric : label].insert(match[2]);
    });
  }

  // Of these the values are any, and the page tells in words what they mean.
  for (const char* label : {"version", "commit", "cuda", "device", "gpu_uuid", "pool"}) {
    EXPECT_EQ(in_doc.erase(label), 1u) << label << " is not described";
    on_page.erase(label);
  }
  EXPECT_EQ(in_doc, on_page);
}

}  // namespace
}  // namespace swiglu::server
