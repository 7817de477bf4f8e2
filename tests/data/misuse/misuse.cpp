// One misuse of the splits for each value of MISUSE; MISUSE 0 is right and must compile.
#include <shardkit/backends/self.hpp>
#include <shardkit/comm/group.hpp>
#include <shardkit/data/gather_trim.hpp>
#include <shardkit/data/pad_and_split.hpp>
#include <shardkit/data/split.hpp>

#include <list>
#include <set>
#include <string>
#include <string_view>
#include <vector>

using namespace shardkit;

// A space that is not the host, with just what naming it needs.
struct device_space : host_space {
  struct stream {};
};

std::vector<float> make_list();

void use(self_communicator& comm) {
  std::string text = "prompt";
  const char* pointer = text.c_str();
  int number = 1;
  std::list<int> list;
  std::set<int> set;
  std::vector<bool> bits;
  std::vector<float> floats(1), out(1);
  std::vector<int> integers(1);
  const std::vector<float> constant(1);
  view<float, device_space> far(floats.data(), 1);
  matrix_view<float> matrix(floats.data(), 1, 1);

#if MISUSE == 0
  split(comm, floats);
  gather_trim(comm, floats, 1);
  gather_columns(comm, matrix, matrix_view(out.data(), 1, 1), partition::balanced(1, 1), out);
#elif MISUSE == 1
  split(comm, text);
#elif MISUSE == 2
  split(comm, pointer);
#elif MISUSE == 3
  split(comm, "a literal");
#elif MISUSE == 4
  split(comm, std::string_view(text));
#elif MISUSE == 5
  split(comm, L"a wide literal");
#elif MISUSE == 6
  split(comm, list);
#elif MISUSE == 7
  split(comm, set);
#elif MISUSE == 8
  split(comm, bits);
#elif MISUSE == 9
  split(comm, &number);
#elif MISUSE == 10
  split(comm, number);
#elif MISUSE == 11
  split(comm, make_list());
#elif MISUSE == 12
  split(comm, floats, text);
#elif MISUSE == 13
  auto mine = pad_and_split(comm, text);
#elif MISUSE == 14
  auto mine = pad_and_split(comm, list, layout::block);
#elif MISUSE == 15
  auto mine = pad_and_split(comm, far);
#elif MISUSE == 16
  pad_and_split_into(comm, floats, make_list());
#elif MISUSE == 17
  pad_and_split_into(comm, floats, integers);
#elif MISUSE == 18
  pad_and_split_into(comm, floats, constant);
#elif MISUSE == 19
  gather_trim(comm, text, 1);
#elif MISUSE == 20
  gather_trim(comm, list, 1);
#elif MISUSE == 21
  gather_trim_into(comm, floats, integers);
#elif MISUSE == 22
  gather_trim(comm, far, 1);
#elif MISUSE == 23
  gather_columns(comm, floats, matrix, partition::balanced(1, 1), out);
#elif MISUSE == 24
  comm.group([&](auto& group) { gather_trim_into(group, floats, out); });
#elif MISUSE == 25
  split_rows(comm, floats);
#endif
  (void)pointer, (void)number;
}
