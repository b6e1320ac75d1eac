// SPDX-License-Identifier: Apache-2.0
//
// What arguments, the environment and files set, the sentences about what is wrong with them, and
// the help, over small tables of flags.
#include "server/base/command_line.h"

#include <cstdio>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "server/base/flag_values.h"

namespace swiglu::server {
namespace {

// A program without commands.
struct Baker {
  std::string flour;
  int num_loaves = 0;
  bool is_dark = false;
  Program program = {
      .name = "bake",
      .about = "Bakes.\n",
      .notes = "Eat soon.\n",
      .flags = {{"flour", "rye", "What from.", "any text", Text(&flour)},
                {"num_loaves", "1", "How many.", "1 to 9", Number(&num_loaves, 1, 9)},
                {"dark",
                 "false",
                 "How long.",
                 "true or false",
                 Truth(&is_dark),
                 {.implied = "true", .is_argument_only = true}}}};

  // "" if the arguments are right.
  std::string Mistake(std::vector<const char*> arguments) {
    arguments.insert(arguments.begin(), "bake");
    SetDefaults(program);
    return std::string(ReadArguments(program, static_cast<int>(arguments.size()), arguments.data())
                           .status()
                           .message());
  }
};

// A program with commands.
struct Shop {
  std::string good;
  std::string price = "unset";
  std::string address;
  bool help = false;
  Program program = {
      .name = "shop",
      .wording = Wording::kTakes,
      .about = "Trades.\n",
      .notes = "Open at nine.\n",
      .commands = {{"buy", "--good GOOD", "takes money"},
                   {"sell", "--good GOOD --price PRICE", "gives money"},
                   {"close", "", "ends"}},
      .flags = {{"address", "here", "Where.", "a place", Text(&address), {.is_required = true}},
                {"good",
                 "",
                 "What.",
                 "a good",
                 Text(&good),
                 {.is_required = true, .commands = {"buy", "sell"}}},
                {"price", "", "How much.", "a price", Text(&price), {.commands = {"sell"}}},
                {"help",
                 "",
                 "Print this.",
                 "nothing",
                 Truth(&help),
                 {.implied = "true", .short_name = "-h,", .ends_reading = true}}}};

  absl::StatusOr<std::string> Read(std::vector<const char*> arguments) {
    arguments.insert(arguments.begin(), "shop");
    SetDefaults(program);
    return ReadArguments(program, static_cast<int>(arguments.size()), arguments.data());
  }
  std::string Mistake(std::vector<const char*> arguments) {
    return std::string(Read(std::move(arguments)).status().message());
  }
};

TEST(ReadArgumentsTest, SetsDefaultsAndValuesInBothForms) {
  Baker baker;
  EXPECT_EQ(baker.Mistake({}), "");
  EXPECT_EQ(baker.flour, "rye");
  EXPECT_EQ(baker.num_loaves, 1);
  EXPECT_EQ(baker.Mistake({"--flour=oats", "--num_loaves", "3", "--dark"}), "");
  EXPECT_EQ(baker.flour, "oats");
  EXPECT_EQ(baker.num_loaves, 3);
  EXPECT_TRUE(baker.is_dark);
}

TEST(ReadArgumentsTest, TheLastOfARepeatedFlagCounts) {
  Baker baker;
  EXPECT_EQ(baker.Mistake({"--num_loaves=2", "--dark", "--num_loaves=3", "--dark=false"}), "");
  EXPECT_EQ(baker.num_loaves, 3);
  EXPECT_FALSE(baker.is_dark);
  EXPECT_EQ(baker.Mistake({"--num_loaves=0", "--num_loaves=3"}), "--num_loaves=0: want 1 to 9");
}

// Values that CLI11 itself would take for something else.
TEST(ReadArgumentsTest, TakesEveryValueAsItIs) {
  Baker baker;
  for (const char* value : {"", "{}", "[a,b]", "=x", "--dark", "--a=b", "-h", "++", "--", " a "}) {
    EXPECT_EQ(baker.Mistake({"--flour", value}), "");
    EXPECT_EQ(baker.flour, value);
    EXPECT_EQ(baker.Mistake({absl::StrCat("--flour=", value).c_str(), "--num_loaves=2"}), "");
    EXPECT_EQ(baker.flour, value);
    EXPECT_EQ(baker.num_loaves, 2);
    EXPECT_FALSE(baker.is_dark);
  }
  EXPECT_EQ(baker.Mistake({"--dark="}), "--dark=: want true or false");
  EXPECT_EQ(baker.Mistake({"--dark={}"}), "--dark={}: want true or false");
}

TEST(ReadArgumentsTest, RefusesWhatIsNoFlag) {
  Baker baker;
  for (const char* argument : {"loaf", "-h", "--", "++", "-", "", "a=b"}) {
    EXPECT_EQ(baker.Mistake({argument}), absl::StrCat("unexpected argument '", argument,
                                                      "': only flags are taken, see --help"));
  }
  EXPECT_EQ(baker.Mistake({"--dark", "false"}),
            "unexpected argument 'false': only flags are taken, see --help");
  EXPECT_EQ(baker.Mistake({"--num_loaves"}), "--num_loaves needs a value: want 1 to 9");
  EXPECT_EQ(baker.Mistake({"--", "--num_loaves=3"}),
            "unexpected argument '--': only flags are taken, see --help");
  EXPECT_EQ(baker.Mistake({"-num_loaves=3"}),
            "unexpected argument '-num_loaves=3', did you mean '--num_loaves'? See --help");
}

// What follows a wrong command is not to blame.
TEST(ReadArgumentsTest, BlamesTheWordThatIsNoCommand) {
  Shop shop;
  EXPECT_EQ(shop.Mistake({"true", "buy"}), "unknown command 'true'; see shop --help");
  EXPECT_EQ(shop.Mistake({"++", "buy"}), "unknown command '++'; see shop --help");
  EXPECT_EQ(shop.Mistake({"buy", "sell"}), "unexpected argument 'sell'; see shop --help");
}

TEST(ReadArgumentsTest, NamesTheFlagThatWasMeant) {
  Baker baker;
  for (const char* argument : {"--flor", "--folur", "--fluor", "--flourr", "--blour"}) {
    EXPECT_EQ(baker.Mistake({absl::StrCat(argument, "=x").c_str()}),
              absl::StrCat("unknown flag '", argument, "', did you mean '--flour'? See --help"));
  }
  EXPECT_EQ(baker.Mistake({"--num_loave", "3"}),
            "unknown flag '--num_loave', did you mean '--num_loaves'? See --help");
}

TEST(ReadArgumentsTest, NamesNoFlagThatIsNotNear) {
  Baker baker;
  for (const char* argument : {"--fl", "--flrr", "--water", "--dk", "--"}) {
    EXPECT_FALSE(absl::StrContains(baker.Mistake({argument}), "did you mean")) << argument;
  }
  EXPECT_EQ(baker.Mistake({"--water=1"}), "unknown flag '--water', see --help");
}

TEST(ReadArgumentsTest, NamesTheCommand) {
  Shop shop;
  EXPECT_EQ(shop.Read({"buy", "--good=tea"}).value(), "buy");
  EXPECT_EQ(shop.good, "tea");
  EXPECT_EQ(shop.Read({"--price", "9", "sell", "--good=tea"}).value(), "sell");
  EXPECT_EQ(shop.price, "9");
  EXPECT_EQ(shop.Read({"close"}).value(), "close");
}

TEST(ReadArgumentsTest, SaysWhatIsWrongWithACommand) {
  Shop shop;
  EXPECT_EQ(shop.Mistake({}), "a command is missing: buy, sell or close; see shop --help");
  EXPECT_EQ(shop.Mistake({"steal"}), "unknown command 'steal'; see shop --help");
  EXPECT_EQ(shop.Mistake({"clsoe"}),
            "unknown command 'clsoe', did you mean 'close'? See shop --help");
  EXPECT_EQ(shop.Mistake({"close", "buy"}), "unexpected argument 'buy'; see shop --help");
  EXPECT_EQ(shop.Mistake({"close", "--"}), "unexpected argument '--'; see shop --help");
  EXPECT_EQ(shop.Mistake({"close", "++"}), "unexpected argument '++'; see shop --help");
  // A value of an unknown flag is not taken for the command.
  EXPECT_EQ(shop.Mistake({"--adress", "there", "close"}),
            "unknown flag '--adress', did you mean '--address'? See shop --help");
}

TEST(ReadArgumentsTest, SaysWhatIsWrongWithTheFlagsOfACommand) {
  Shop shop;
  EXPECT_EQ(shop.Mistake({"buy"}), "--good is missing; see shop --help");
  EXPECT_EQ(shop.Mistake({"buy", "--good="}), "--good is missing; see shop --help");
  EXPECT_EQ(shop.Mistake({"close", "--address="}), "--address is missing; see shop --help");
  EXPECT_EQ(shop.Mistake({"buy", "--good=tea", "--price=1"}),
            "--price does not belong to this command; see shop --help");
  EXPECT_EQ(shop.Mistake({"close", "--address"}), "--address needs a value; see shop --help");
  EXPECT_EQ(shop.Mistake({"close", "--help=no idea"}),
            "--help takes nothing, not 'no idea'; see shop --help");
}

TEST(ReadArgumentsTest, AFlagMayEndTheReading) {
  Shop shop;
  EXPECT_EQ(shop.Read({"--help", "--bogus"}).value(), "");
  EXPECT_TRUE(shop.help);
  EXPECT_EQ(shop.Read({"--help", "--address=there"}).value(), "");
  EXPECT_EQ(shop.address, "here");
  EXPECT_EQ(shop.Read({"sell", "-h"}).value(), "sell");
  EXPECT_EQ(shop.Mistake({"steal", "--help"}), "unknown command 'steal'; see shop --help");
}

TEST(ReadArgumentsTest, MistakesAreOneLineAndCut) {
  Baker baker;
  EXPECT_EQ(baker.Mistake({"--num_loaves=a\nb"}), "--num_loaves=a\\nb: want 1 to 9");
  EXPECT_EQ(baker.Mistake({("--num_loaves=" + std::string(201, '7')).c_str()}),
            "--num_loaves=" + std::string(200, '7') + "...: want 1 to 9");
}

// A file that is there as long as the object.
class ConfigFile {
 public:
  explicit ConfigFile(const std::string& text) { std::ofstream(path_) << text; }
  ~ConfigFile() { std::remove(path_.c_str()); }

  // What the reading of the file says, from behind the file's name on; "" if nothing is wrong.
  std::string ReadInto(Baker& baker) const {
    const absl::Status status = ReadConfigFile(baker.program, path_);
    if (status.ok()) return "";
    EXPECT_TRUE(absl::StartsWith(status.message(), absl::StrCat(path_, ": "))) << status;
    return std::string(status.message().substr(path_.size() + 2));
  }

 private:
  const std::string path_ = absl::StrCat(testing::TempDir(), "/command_line_test.conf");
};

TEST(ReadConfigFileTest, SetsFlagsFromLines) {
  Baker baker;
  const ConfigFile file(
      "# A comment.\n\n"
      "flour = fine rye, ground  # another\n"
      "  num_loaves=3\r\n");
  EXPECT_EQ(file.ReadInto(baker), "");
  EXPECT_EQ(baker.flour, "fine rye, ground");
  EXPECT_EQ(baker.num_loaves, 3);
}

TEST(ReadConfigFileTest, TakesTheValueToTheEndOfItsLine) {
  for (const auto& [written, value] : std::map<std::string, std::string>{{"", ""},
                                                                         {"\"\"", ""},
                                                                         {"\" a \"", " a "},
                                                                         {"'a b'", "a b"},
                                                                         {"[::1]:80", "[::1]:80"},
                                                                         {"a = b", "a = b"},
                                                                         {"[1,", "[1,"},
                                                                         {"{}", "{}"},
                                                                         {"unix:/a#b", "unix:/a#b"},
                                                                         {"a #b", "a"},
                                                                         {"#b", ""},
                                                                         {"'a #b' # c", "a #b"}}) {
    Baker baker;
    EXPECT_EQ(ConfigFile(absl::StrCat("flour = ", written, "\nnum_loaves = 2")).ReadInto(baker),
              "");
    EXPECT_EQ(baker.flour, value);
    EXPECT_EQ(baker.num_loaves, 2) << written;
  }
}

TEST(ReadConfigFileTest, TheLastOfARepeatedNameCounts) {
  Baker baker;
  EXPECT_EQ(ConfigFile("num_loaves = 2\nnum_loaves = 3\nflour = a\nnum_loaves = 4").ReadInto(baker),
            "");
  EXPECT_EQ(baker.num_loaves, 4);
  EXPECT_EQ(ConfigFile("num_loaves = 0\nnum_loaves = 3").ReadInto(baker),
            "num_loaves=0: want 1 to 9");
}

TEST(ReadConfigFileTest, NamesWhatIsWrong) {
  for (const auto& [text, sentence] : std::map<std::string, std::string>{
           {"num_loaves = many", "num_loaves=many: want 1 to 9"},
           {"num_loaves", "line 1: want NAME = VALUE, not 'num_loaves'"},
           {"water = 1", "unknown name 'water', see --help"},
           {"flor = x", "unknown name 'flor', did you mean 'flour'? See --help"},
           {"--flour = x", "unknown name '--flour', see --help"},
           {"[oven]\nflour = x", "line 1: want NAME = VALUE, not '[oven]'"},
           {"dark = true", "unknown name 'dark', see --help"},
           {"drak = true", "unknown name 'drak', see --help"},
           {"++ = x", "unknown name '++', see --help"},
           {"flour = x\njust words", "line 2: want NAME = VALUE, not 'just words'"},
           {"ab", "line 1: want NAME = VALUE, not 'ab'"},
           {"flour = \"x", "line 1: want NAME = VALUE, not 'flour = \"x'"},
           {"flour = 'x' y", "line 1: want NAME = VALUE, not 'flour = 'x' y'"},
           {"= x", "unknown name '', see --help"}}) {
    Baker baker;
    EXPECT_EQ(ConfigFile(text).ReadInto(baker), sentence);
  }
}

TEST(ReadConfigFileTest, AnEmptyFileSetsNothing) {
  Baker baker;
  EXPECT_EQ(ConfigFile("").ReadInto(baker), "");
  EXPECT_EQ(ConfigFile("\n# nothing\n  # more\n").ReadInto(baker), "");
}

TEST(ReadConfigFileTest, SaysWhyAFileCannotBeRead) {
  const Baker baker;
  EXPECT_EQ(ReadConfigFile(baker.program, "/nonexistent/file").message(),
            "/nonexistent/file: cannot read: No such file or directory");
  EXPECT_EQ(ReadConfigFile(baker.program, "/").message(), "/: cannot read: Is a directory");
  EXPECT_EQ(ReadConfigFile(baker.program, "/dev/zero").message(),
            "/dev/zero: a file of settings has at most 1048576 bytes");
}

// A variable of the environment, and no other.
Environment Variable(const std::string& name, const std::string& value) {
  return [=](const char* asked) { return asked == name ? value.c_str() : nullptr; };
}

TEST(ReadEnvironmentTest, SetsTheFlagOfAVariable) {
  Baker baker;
  EXPECT_TRUE(ReadEnvironment(baker.program, "BAKE", Variable("BAKE_NUM_LOAVES", "3")).ok());
  EXPECT_EQ(baker.num_loaves, 3);
  baker.flour = "rye";
  EXPECT_TRUE(ReadEnvironment(baker.program, "BAKE", Variable("BAKE_FLOUR", "")).ok());
  EXPECT_EQ(baker.flour, "");
}

TEST(ReadEnvironmentTest, IgnoresOtherVariables) {
  Baker baker;
  SetDefaults(baker.program);
  for (const char* name : {"BAKE_PORT", "NUM_LOAVES", "BAKE_num_loaves", "BAKE_DARK"}) {
    EXPECT_TRUE(ReadEnvironment(baker.program, "BAKE", Variable(name, "true")).ok()) << name;
  }
  EXPECT_EQ(baker.num_loaves, 1);
  EXPECT_FALSE(baker.is_dark);
}

TEST(ReadEnvironmentTest, NamesTheVariableOfABadValue) {
  Baker baker;
  EXPECT_EQ(ReadEnvironment(baker.program, "BAKE", Variable("BAKE_NUM_LOAVES", "many")).message(),
            "BAKE_NUM_LOAVES=many: want 1 to 9");
  EXPECT_EQ(ReadEnvironment(baker.program, "BAKE", Variable("BAKE_NUM_LOAVES", "")).message(),
            "BAKE_NUM_LOAVES=: want 1 to 9");
}

TEST(HelpTextTest, ShowsEveryFlagWithItsDefault) {
  EXPECT_EQ(HelpText(Baker().program, ""),
            "Bakes.\n\n"
            "Usage: bake [--FLAG=VALUE]...\n\n"
            "  --flour=rye\n      What from.\n      (any text)\n"
            "  --num_loaves=1\n      How many.\n      (1 to 9)\n"
            "  --dark=false\n      How long.\n      (true or false)\n\n"
            "Eat soon.\n");
}

TEST(HelpTextTest, ShowsTheCommandsWithTheFlagsOfEveryOne) {
  EXPECT_EQ(HelpText(Shop().program, ""),
            "Trades.\n\n"
            "  shop buy --good GOOD\n      takes money\n"
            "  shop sell --good GOOD --price PRICE\n      gives money\n"
            "  shop close\n      ends\n\n"
            "Flags of every command; shop COMMAND --help has all:\n"
            "  --address=here\n      Where.\n      (a place)\n"
            "  --help\n      Print this.\n      (nothing)\n\n"
            "Open at nine.\n");
}

TEST(HelpTextTest, ShowsOneCommandWithItsFlags) {
  EXPECT_EQ(HelpText(Shop().program, "buy"),
            "  shop buy --good GOOD\n      takes money\n\n"
            "Flags:\n"
            "  --address=here\n      Where.\n      (a place)\n"
            "  --good\n      What.\n      (a good)\n"
            "  --help\n      Print this.\n      (nothing)\n\n"
            "Open at nine.\n");
}

}  // namespace
}  // namespace swiglu::server
