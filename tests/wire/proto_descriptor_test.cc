// SPDX-License-Identifier: Apache-2.0
//
// The wire contract as sorted lines of text, compared with a golden file: a field, an enum value or
// a method that is renamed, renumbered or retyped breaks clients, and fails here. Without an
// argument the program prints the lines, which is how the golden file is made.
#include <fstream>
#include <iostream>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/descriptor.pb.h"
#include "proto/health.pb.h"
#include "proto/inference.pb.h"
#include "proto/reflection.pb.h"

namespace swiglu {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::FileDescriptor;
using google::protobuf::MethodDescriptor;
using google::protobuf::ServiceDescriptor;
using Lines = std::set<std::string>;

std::string TypeOf(const FieldDescriptor& field) {
  if (field.type() == FieldDescriptor::TYPE_MESSAGE) return field.message_type()->full_name();
  if (field.type() == FieldDescriptor::TYPE_ENUM) return field.enum_type()->full_name();
  return field.type_name();
}

void AddField(const FieldDescriptor& field, Lines& lines) {
  const auto* oneof = field.containing_oneof();
  lines.insert(absl::StrCat("field ", field.full_name(), " = ", field.number(), " : ",
                            field.is_repeated() ? "repeated " : "", TypeOf(field),
                            oneof == nullptr ? "" : absl::StrCat(" in oneof ", oneof->name())));
}

void AddEnum(const EnumDescriptor& type, Lines& lines) {
  for (int i = 0; i < type.value_count(); ++i) {
    const auto& value = *type.value(i);
    lines.insert(
        absl::StrCat("value ", type.full_name(), ".", value.name(), " = ", value.number()));
  }
}

// A message without fields has a line too.
void AddMessage(const Descriptor& message, Lines& lines) {
  lines.insert(absl::StrCat("message ", message.full_name(),
                            message.options().map_entry() ? " of a map" : ""));
  for (int i = 0; i < message.field_count(); ++i) AddField(*message.field(i), lines);
  for (int i = 0; i < message.enum_type_count(); ++i) AddEnum(*message.enum_type(i), lines);
  for (int i = 0; i < message.nested_type_count(); ++i) AddMessage(*message.nested_type(i), lines);
}

void AddMethod(const MethodDescriptor& method, Lines& lines) {
  lines.insert(
      absl::StrCat("rpc ", method.full_name(), " : ", method.client_streaming() ? "stream " : "",
                   method.input_type()->full_name(), " -> ",
                   method.server_streaming() ? "stream " : "", method.output_type()->full_name()));
}

// Where generated code of other languages lies: programs import it by these names.
void AddOptions(const FileDescriptor& file, Lines& lines) {
  const google::protobuf::FileOptions& options = file.options();
  for (const auto& [name, value] :
       {std::pair<std::string, std::string>("csharp_namespace", options.csharp_namespace()),
        {"go_package", options.go_package()},
        {"java_package", options.java_package()},
        {"java_outer_classname", options.java_outer_classname()},
        {"java_multiple_files", options.java_multiple_files() ? "true" : "false"}}) {
    lines.insert(absl::StrCat("option ", file.name(), " ", name, " = ", value));
  }
}

void AddFile(const FileDescriptor& file, Lines& lines) {
  AddOptions(file, lines);
  for (int i = 0; i < file.message_type_count(); ++i) AddMessage(*file.message_type(i), lines);
  for (int i = 0; i < file.enum_type_count(); ++i) AddEnum(*file.enum_type(i), lines);
  for (int i = 0; i < file.service_count(); ++i) {
    const ServiceDescriptor& service = *file.service(i);
    for (int k = 0; k < service.method_count(); ++k) AddMethod(*service.method(k), lines);
  }
}

Lines Contract() {
  Lines lines;
  AddFile(*inference::ModelInferRequest::descriptor()->file(), lines);
  AddFile(*grpc::health::v1::HealthCheckRequest::descriptor()->file(), lines);
  AddFile(*grpc::reflection::v1::ServerReflectionRequest::descriptor()->file(), lines);
  return lines;
}

// Prints what stands only in `left`, each line behind `mark`; returns whether there is anything.
bool PrintMissing(const Lines& left, const Lines& right, char mark) {
  bool any = false;
  for (const std::string& line : left) {
    if (right.count(line) != 0) continue;
    std::cout << mark << " " << line << "\n";
    any = true;
  }
  return any;
}

int Compare(const std::string& golden_path, const std::string& program) {
  std::ifstream file(golden_path);
  Lines golden;
  for (std::string line; std::getline(file, line);) golden.insert(line);
  const Lines contract = Contract();
  const bool has_less = PrintMissing(golden, contract, '-');
  const bool has_more = PrintMissing(contract, golden, '+');
  if (!has_less && !has_more) {
    std::cout << contract.size() << " lines are as in the golden file\n";
    return 0;
  }
  std::cout << "proto/ (+) differs from " << golden_path
            << " (-). A change that no client sees as\n"
            << "a break is taken over by:\n  " << program << " > " << golden_path << "\n";
  return 1;
}

}  // namespace
}  // namespace swiglu

int main(int argc, char** argv) {
  if (argc == 2) return swiglu::Compare(argv[1], argv[0]);
  for (const std::string& line : swiglu::Contract()) std::cout << line << "\n";
  return 0;
}
