// The library's own list, shared owner and atomic, which stand for what costs compilers more.
#include <shardkit/core/detail/atomic.hpp>
#include <shardkit/core/detail/list.hpp>
#include <shardkit/core/detail/shared.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

using shardkit::detail::atomic;
using shardkit::detail::list;
using shardkit::detail::shared;
using shardkit::detail::shared_object;

namespace {

// Moves only, and knows how many of it there are. Its address is part of it, as a reader of a stale place would see.
struct alignas(64) item {
  explicit item(int number = -1) noexcept : value(number), self(this) { ++live; }
  item(item&& other) noexcept : value(std::exchange(other.value, -2)), self(this) { ++live; }
  item& operator=(item&& other) noexcept {
    value = std::exchange(other.value, -2);
    return *this;
  }
  ~item() { --live; }
  bool whole() const { return self == this && reinterpret_cast<std::uintptr_t>(this) % 64 == 0; }
  friend bool operator==(const item& a, const item& b) { return a.value == b.value; }

  int value;
  item* self;
  static int live;
};
int item::live = 0;

list<item> numbers(int count) {
  list<item> result;
  for (int i = 0; i < count; ++i) result.emplace_back(i);
  return result;
}
void check(const list<item>& found, const std::vector<int>& expected) {
  REQUIRE(found.size() == expected.size());
  CHECK(found.empty() == expected.empty());
  CHECK(static_cast<std::size_t>(found.end() - found.begin()) == expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    CHECK(found[i].value == expected[i]);
    CHECK(found[i].whole());
  }
}
std::vector<int> up_to(int count) {
  std::vector<int> result;
  for (int i = 0; i < count; ++i) result.push_back(i);
  return result;
}

// Runs `body` on `threads` threads at once.
void on_threads(int threads, const std::function<void(int)>& body) {
  std::vector<std::thread> all;
  for (int i = 0; i < threads; ++i) all.emplace_back(body, i);
  for (std::thread& one : all) one.join();
}

constexpr int threads = 4;

}  // namespace

TEST_CASE("a list keeps its elements in order while it grows, and each in a place of its alignment") {
  for (const int count : {0, 1, 3, 4, 5, 12, 13, 97}) {
    check(numbers(count), up_to(count));
    CHECK(item::live == 0);
  }
  const list<item> made(7);
  check(made, std::vector<int>(7, -1));
  CHECK(item::live == 7);
}

TEST_CASE("room that a list has been given is used before it looks for more") {
  list<item> all;
  all.reserve(6);
  const item* const place = all.data();
  for (int i = 0; i < 6; ++i) all.push_back(item(i));
  CHECK(all.data() == place);
  all.reserve(3);  // never less
  CHECK(all.data() == place);
  all.make_room();
  CHECK(all.data() != place);
  const item* const larger = all.data();
  all.emplace_back(6);
  CHECK(all.data() == larger);
  check(all, up_to(7));
  CHECK(all.front().value == 0);
  CHECK(all.back().value == 6);
}

TEST_CASE("a list can be given an element of its own") {
  list<int> all;
  for (int i = 0; i < 20; ++i) all.push_back(i == 0 ? 5 : all[0]);
  CHECK(all.size() == 20);
  for (const int one : all) CHECK(one == 5);
}

TEST_CASE("what is taken out of a list is gone, and the others stay in order") {
  for (int at = 0; at < 5; ++at) {
    list<item> all = numbers(5), same = numbers(5);
    std::vector<int> expected = up_to(5);
    expected.erase(expected.begin() + at);
    all.erase(all.begin() + at);
    check(all, expected);
    same.remove(item(at));
    check(same, expected);
    same.remove(item(at));  // it is not there
    same.remove(item(7));
    check(same, expected);
    CHECK(item::live == 8);
  }
  list<item> twice = numbers(3);
  twice.emplace_back(1);
  twice.remove(twice[1]);  // the first of the two, named by itself
  check(twice, {0, 2, 1});
  list<item> none;
  none.remove(item(0));
  check(none, {});
  CHECK(item::live == 3);
}

TEST_CASE("a list that is shortened or cleared ends the elements and keeps its room") {
  list<item> all = numbers(9);
  const item* const place = all.data();
  all.shorten(20);
  check(all, up_to(9));
  all.shorten(4);
  check(all, up_to(4));
  CHECK(item::live == 4);
  all.clear();
  check(all, {});
  CHECK(item::live == 0);
  all.emplace_back(3);
  CHECK(all.data() == place);
  check(all, {3});
}

TEST_CASE("lists are moved as a whole, to themselves too, and nothing is lost or ended twice") {
  list<item> from = numbers(5);
  const item* const place = from.data();
  list<item> to(std::move(from));
  CHECK(to.data() == place);
  check(to, up_to(5));
  list<item> other = numbers(2);
  other = std::move(to);
  check(other, up_to(5));
  list<item>& again = other;
  other = std::move(again);
  check(other, up_to(5));
  other = list<item>();
  to = numbers(3);  // one that was moved from can be used again
  check(to, up_to(3));
  CHECK(item::live == 3);
}

namespace {

struct animal : shared_object {
  explicit animal(int number) : legs(number) {
    if (number < 0) throw std::runtime_error("no such animal");
    ++live;
  }
  ~animal() override { --live; }
  int legs;
  static int live;
};
int animal::live = 0;
struct dog final : animal {
  dog() : animal(4) {}
};

}  // namespace

TEST_CASE("a shared object lives as long as its last owner") {
  {
    shared<animal> none, first = shared<animal>::make(2);
    CHECK(!none);
    CHECK(none.get() == nullptr);
    shared<animal> second = first;
    CHECK(animal::live == 1);
    CHECK(second.get() == first.get());
    first = none;
    CHECK(!first);
    CHECK(second->legs == 2);
    const shared<animal> third(std::move(second));
    CHECK(!second);
    CHECK((*third).legs == 2);
    const shared<animal> same(third.get());  // by the object itself
    CHECK(animal::live == 1);
  }
  CHECK(animal::live == 0);
}

TEST_CASE("a shared object survives the assignment of its owner to itself") {
  shared<animal> only = shared<animal>::make(6);
  shared<animal>& again = only;
  only = again;
  CHECK(only->legs == 6);
  only = std::move(again);
  REQUIRE(only);
  CHECK(only->legs == 6);
  only = shared<animal>::make(8);
  CHECK(animal::live == 1);
  only = shared<animal>();
  CHECK(animal::live == 0);
}

TEST_CASE("owners of a base end the object that was made") {
  shared<animal> base = shared<dog>::make();
  const shared<dog> none;
  CHECK(base->legs == 4);
  CHECK(animal::live == 1);
  base = none;
  CHECK(animal::live == 0);
  CHECK_THROWS_AS(shared<animal>::make(-1), std::runtime_error);
  CHECK(animal::live == 0);
}

TEST_CASE("owners on several threads: one of them ends the object, and sees what all have written") {
  struct notes : shared_object {
    explicit notes(int& where) : sum(where) {}
    ~notes() override {
      for (const int one : written) sum += one;
    }
    int written[threads] = {};
    int& sum;
  };
  for (int round = 0; round < 200; ++round) {
    int sum = 0;
    {
      list<shared<notes>> owners;
      owners.emplace_back(shared<notes>::make(sum));
      for (int i = 1; i < threads; ++i) owners.push_back(owners[0]);
      on_threads(threads, [&](int i) {
        shared<notes> own = std::move(owners[static_cast<std::size_t>(i)]);
        for (int copies = 0; copies < 20; ++copies) {
          const shared<notes> copy = own;
          ++copy->written[i];
        }
      });
    }
    REQUIRE(sum == threads * 20);
  }
}

TEST_CASE("atomics do what they say, alone") {
  atomic<unsigned> bits{5};
  CHECK(bits.load() == 5);
  CHECK(bits.fetch_or(2) == 5);
  CHECK(bits.fetch_add(3) == 7);
  CHECK(bits.fetch_sub(1) == 10);
  CHECK(bits.exchange(4) == 9);
  unsigned expected = 3;
  CHECK(!bits.compare_exchange_strong(expected, 8));
  CHECK(expected == 4);
  CHECK(bits.load() == 4);
  CHECK(bits.compare_exchange_strong(expected, 8));
  CHECK(bits.load() == 8);
  atomic<bool> flag;
  CHECK(!flag.exchange(true));
  CHECK(flag.load());
  int place = 0;
  atomic<int*> pointer{nullptr};
  pointer.store(&place);
  CHECK(pointer.load() == &place);
}

TEST_CASE("atomics lose nothing between threads, and what is released is there for who acquires") {
  constexpr int times = 20000;
  atomic<int> sum{0}, won{0};
  atomic<int> turn{0};
  int plain = 0;  // written by one thread after the other, in turns
  on_threads(threads, [&](int me) {
    for (int i = 0; i < times; ++i) {
      sum.fetch_add(1, shardkit::detail::memory_order_relaxed);
      int expected = i;
      if (won.compare_exchange_strong(expected, i + 1)) sum.fetch_sub(1);
    }
    for (int i = 0; i < 50; ++i) {
      while (turn.load(shardkit::detail::memory_order_acquire) % threads != me) std::this_thread::yield();
      ++plain;
      turn.store(turn.load(shardkit::detail::memory_order_relaxed) + 1, shardkit::detail::memory_order_release);
    }
  });
  CHECK(sum.load() == times * threads - won.load());
  CHECK(plain == 50 * threads);
  CHECK(turn.load() == 50 * threads);
}
