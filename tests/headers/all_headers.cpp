// Linked with the objects of all headers; see CMakeLists.txt.
#include <cstdio>

int main() {
  std::printf("%d headers compile alone, %d of them also as C++17\n", HEADERS, HEADERS_CXX17);
  return HEADERS > 0 && HEADERS_CXX17 > 0 ? 0 : 1;
}
