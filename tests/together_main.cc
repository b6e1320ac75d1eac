// SPDX-License-Identifier: Apache-2.0
//
// The program that several test programs are compiled to where SWIGLU_TOGETHER=ALL. Its arguments
// are sources, by their paths in the tree, and it runs the tests that they define.
#include <gtest/gtest.h>

#include <cstdio>
#include <string>
#include <string_view>

namespace {

// Returns the tests of a source, as a part of a filter of GoogleTest.
std::string FilterOf(std::string_view source) {
  std::string filter;
  const testing::UnitTest& all = *testing::UnitTest::GetInstance();
  for (int i = 0; i < all.total_test_suite_count(); ++i) {
    const testing::TestSuite& suite = *all.GetTestSuite(i);
    for (int j = 0; j < suite.total_test_count(); ++j) {
      const testing::TestInfo& test = *suite.GetTestInfo(j);
      if (!std::string_view(test.file()).ends_with(source)) continue;
      filter.append(suite.name()).append(".").append(test.name()).append(":");
    }
  }
  return filter;
}

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  // A filter that the caller gives says what to run.
  if (argc == 1 || testing::GTEST_FLAG(filter) != "*") return RUN_ALL_TESTS();
  std::string filter;
  for (int i = 1; i < argc; ++i) {
    const std::string tests = FilterOf(argv[i]);
    if (tests.empty()) {
      std::fprintf(stderr, "%s: there is no test of this source\n", argv[i]);
      return 1;
    }
    filter += tests;
  }
  testing::GTEST_FLAG(filter) = filter;
  return RUN_ALL_TESTS();
}
