// Linked with the objects of all headers; see CMakeLists.txt. Those of testing/ need doctest's implementation.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>

int main() {
  std::printf("%d headers compile alone, %d of them also as C++17\n", HEADERS, HEADERS_CXX17);
  return HEADERS > 0 && HEADERS_CXX17 > 0 ? 0 : 1;
}
