// SPDX-License-Identifier: Apache-2.0
//
// The cursor over slices: primitives that lie within a slice, across several, and past the end.
#include "server/codec/slice_reader.h"

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/rpc/requests.h"

namespace swiglu::server {
namespace {

std::string CopyOut(SliceReader& reader, size_t size) {
  std::string bytes(size, '\0');
  reader.Copy(reinterpret_cast<std::byte*>(bytes.data()), size);
  return bytes;
}

TEST(SliceReaderTest, HasNothingOverNoSlices) {
  SliceReader reader;
  uint64_t value = 0;
  EXPECT_EQ(reader.remaining(), 0u);
  EXPECT_FALSE(reader.ReadVarint(&value));
  EXPECT_TRUE(reader.Skip(0));
  EXPECT_FALSE(reader.Skip(1));
}

TEST(SliceReaderTest, ReadsVarintsAcrossEverySplit) {
  const uint64_t values[] = {0, 1, 127, 128, 300, 1u << 31, std::numeric_limits<uint64_t>::max()};
  for (const uint64_t expected : values) {
    for (size_t slice_bytes = 1; slice_bytes <= 10; ++slice_bytes) {
      const std::vector<grpc::Slice> slices = Sliced(Varint(expected), slice_bytes);
      SliceReader reader(slices);
      uint64_t value = 0;
      ASSERT_TRUE(reader.ReadVarint(&value)) << expected << " in slices of " << slice_bytes;
      EXPECT_EQ(value, expected);
      EXPECT_EQ(reader.remaining(), 0u);
      EXPECT_EQ(reader.position(), Varint(expected).size());
    }
  }
}

TEST(SliceReaderTest, TakesAVarintWithNeedlessZeroBytes) {
  const std::vector<grpc::Slice> slices = Sliced(std::string("\x85\x80\x80\x00", 4), 4);
  SliceReader reader(slices);
  uint64_t value = 0;
  ASSERT_TRUE(reader.ReadVarint(&value));
  EXPECT_EQ(value, 5u);
}

TEST(SliceReaderTest, RefusesVarintsThatAreCutShortTooLongOrTooLarge) {
  const std::string all_bits(9, '\xff');
  const std::string bad[] = {
      "\x80",                           // cut short
      all_bits,                         // cut short at nine
      all_bits + '\x02',                // a 65th bit
      all_bits + '\x7f',                // more of them
      std::string(10, '\x80') + '\x01'  // eleven bytes
  };
  for (const std::string& bytes : bad) {
    for (const size_t slice_bytes : {size_t{1}, bytes.size()}) {
      const std::vector<grpc::Slice> slices = Sliced(bytes, slice_bytes);
      SliceReader reader(slices);
      uint64_t value = 0;
      EXPECT_FALSE(reader.ReadVarint(&value)) << bytes.size() << " bytes";
    }
  }
}

TEST(SliceReaderTest, TakesVarintsOf32BitsInUpToFiveBytes) {
  const std::pair<std::string, uint32_t> cases[] = {
      {std::string("\x85\x80\x80\x80\x00", 5), 5},
      {"\xff\xff\xff\xff\x0f", std::numeric_limits<uint32_t>::max()}};
  for (const auto& [bytes, expected] : cases) {
    const std::vector<grpc::Slice> slices = Sliced(bytes, 2);
    SliceReader reader(slices);
    uint32_t value = 0;
    ASSERT_TRUE(reader.ReadVarint(&value));
    EXPECT_EQ(value, expected);
    EXPECT_EQ(reader.remaining(), 0u);
  }
}

TEST(SliceReaderTest, RefusesVarintsOf32BitsThatAreCutShortTooLongOrTooLarge) {
  const std::string bad[] = {
      "\x80\x80\x80\x80",                         // cut short at four
      "\xff\xff\xff\xff\x10",                     // a 33rd bit
      std::string("\x85\x80\x80\x80\x80\x00", 6)  // six bytes
  };
  for (const std::string& bytes : bad) {
    const std::vector<grpc::Slice> slices = Sliced(bytes, bytes.size());
    SliceReader reader(slices);
    uint32_t value = 0;
    EXPECT_FALSE(reader.ReadVarint(&value)) << bytes.size() << " bytes";
  }
}

TEST(SliceReaderTest, CopiesAppendsAndSkipsAcrossSlices) {
  const std::string bytes = "abcdefghijklmnop";
  for (size_t slice_bytes = 1; slice_bytes <= bytes.size(); ++slice_bytes) {
    const std::vector<grpc::Slice> slices = Sliced(bytes, slice_bytes);
    SliceReader reader(slices);
    EXPECT_EQ(CopyOut(reader, 3), "abc");
    EXPECT_TRUE(reader.Skip(5));
    std::string appended = ">";
    reader.Append(&appended, 4);
    EXPECT_EQ(appended, ">ijkl");
    EXPECT_EQ(reader.position(), 12u);
    EXPECT_EQ(reader.remaining(), 4u);
    EXPECT_EQ(CopyOut(reader, 4), "mnop");
    EXPECT_EQ(reader.remaining(), 0u);
  }
}

TEST(SliceReaderTest, WalksOverEmptySlices) {
  const std::vector<grpc::Slice> slices = {grpc::Slice(), grpc::Slice("ab"), grpc::Slice(),
                                           grpc::Slice(), grpc::Slice("c"),  grpc::Slice()};
  SliceReader reader(slices);
  EXPECT_EQ(reader.remaining(), 3u);
  EXPECT_EQ(CopyOut(reader, 3), "abc");
  EXPECT_EQ(reader.remaining(), 0u);
  EXPECT_FALSE(reader.Skip(1));
}

TEST(SliceReaderTest, MovesNothingWhenASkipGoesPastTheEnd) {
  const std::vector<grpc::Slice> slices = Sliced("abcdef", 2);
  SliceReader reader(slices);
  EXPECT_FALSE(reader.Skip(7));
  EXPECT_FALSE(reader.Skip(std::numeric_limits<size_t>::max()));
  EXPECT_EQ(reader.position(), 0u);
  EXPECT_EQ(CopyOut(reader, 6), "abcdef");
}

TEST(SliceReaderTest, CopyIsABookmark) {
  const std::vector<grpc::Slice> slices = Sliced("abcdef", 2);
  SliceReader reader(slices);
  ASSERT_TRUE(reader.Skip(3));
  SliceReader bookmark = reader;
  EXPECT_EQ(CopyOut(reader, 3), "def");
  EXPECT_EQ(CopyOut(bookmark, 2), "de");
  EXPECT_EQ(bookmark.position(), 5u);
}

}  // namespace
}  // namespace swiglu::server
