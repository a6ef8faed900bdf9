// Decoding ahead: whatever is asked for, in time, late or not at all, every outcome is what a session gives that never
// was ahead.
#include "core/ahead.h"

#include <chrono>
#include <condition_variable>
#include <map>
#include <thread>

#include "check.h"
#include "shortlist.h"
#include "small_model.h"
#include "some_text.h"

using namespace cqil;
using check::same;
using check::small_model;
using check::some_ids;

namespace {

constexpr int32_t kContext = 48;
constexpr int32_t kCount = 5;
constexpr std::chrono::milliseconds kNoEnd = std::chrono::hours(1);

ForwardRequest listed(std::vector<int32_t> ids, int32_t position, bool ahead = true) {
  ForwardRequest request;
  request.ids = std::move(ids);
  request.position = position;
  request.output = CQIL_OUTPUT_SHORTLIST;
  request.count = kCount;
  request.ahead = ahead;
  return request;
}

// The tokens after some_ids(9), each the likeliest, and their shortlists: one forward after the other.
struct Text {
  std::vector<int32_t> ids;
  std::vector<cqil_shortlist> lists;

  explicit Text(int n) {
    Session session(small_model(1), Plan{}, Execution::kWide, kContext);
    ForwardRequest request = listed(some_ids(9), 0);
    for (int i = 0; i < n; i++) {
      lists.push_back(session.shortlist(request));
      ids.push_back(lists.back().ids[0]);
      request = listed({ids.back()}, 9 + i);
    }
  }
};

// Who asks says which it is; here a number.
Ahead::Asker asker(size_t i) { return reinterpret_cast<Ahead::Asker>(i + 1); }
size_t number(Ahead::Asker asker) { return reinterpret_cast<size_t>(asker) - 1; }

// Asks for each next token as soon as it is known, as often as told, then no more.
void test_chain(int threads, size_t asked) {
  const Text text(20);
  Session session(small_model(threads), Plan{}, Execution::kAuto, kContext);
  std::vector<cqil_shortlist> found;
  bool claimed = true;
  session.ahead().run(
      session, listed(some_ids(9), 0), asker(0),
      [&](Ahead::Asker who, const Outcome& outcome) {
        claimed = claimed && number(who) == found.size() && !outcome.failure;
        found.push_back(outcome.shortlist);
        if (found.size() <= asked) {
          const auto n = found.size();
          claimed = claimed &&
                    session.ahead().ask(
                        session, listed({outcome.shortlist.ids[0]}, 8 + static_cast<int32_t>(n), n < asked), asker(n));
        }
      },
      kNoEnd);
  CHECK(claimed && found.size() == asked + 1, "every token that is asked for is under way, and no other is delivered");
  for (size_t i = 0; i < found.size(); i++) CHECK(same(found[i], text.lists[i]), "ahead, list " + std::to_string(i));
  // Then as if nothing had been: the next token, and one from before.
  const auto position = 9 + static_cast<int32_t>(asked);
  CHECK(same(session.shortlist(listed({text.ids[asked]}, position)), text.lists[asked + 1]), "after a chain");
  CHECK(same(session.shortlist(listed({text.ids[0]}, 9)), text.lists[1]), "back again");
}

void run_once(Session& session, const ForwardRequest& request) {
  int delivered = 0;
  session.ahead().run(
      session, request, asker(0), [&](Ahead::Asker, const Outcome& outcome) { delivered += !outcome.failure; }, kNoEnd);
  CHECK(delivered == 1, "nobody asked for more");
}

// What was not asked for in time is kept for just that request, until any other forward.
void test_kept() {
  const Text text(4);
  auto model = small_model(2);
  Session session(model, Plan{}, Execution::kWide, kContext), other(model, Plan{}, Execution::kWide, kContext);
  const ForwardRequest prompt = listed(some_ids(9), 0), next = listed({text.ids[0]}, 9);
  const int32_t wrong = (text.ids[0] + 1) % 101;

  run_once(session, prompt);
  CHECK(!session.ahead().take(other, next) && !session.ahead().take(session, listed({wrong}, 9)) &&
            !session.ahead().take(session, listed({text.ids[0]}, 8)) && session.ahead().take(session, next),
        "only that request takes it");
  CHECK(!session.ahead().take(session, next), "and only once");

  run_once(session, prompt);
  CHECK(!session.ahead().ask(session, next, asker(1)), "done is not under way");
  CHECK(same(session.shortlist(next), text.lists[1]), "kept");
  CHECK(same(session.shortlist(listed({text.ids[1]}, 10)), text.lists[2]), "and its keys and values are there");

  run_once(session, prompt);
  std::vector<int32_t> changed = some_ids(9);
  changed[8] = wrong;
  Session apart(small_model(1), Plan{}, Execution::kWide, kContext);
  const std::vector<float> expected = check::run(apart, changed, {9});
  CHECK(check::same_bits(check::run(session, changed, {9}), expected), "another text instead");
  CHECK(!session.ahead().take(session, next), "with which it is forgotten");

  run_once(session, prompt);
  check::run(other, changed, {9});
  CHECK(!session.ahead().take(session, next), "as with another session's forward");
  CHECK(same(session.shortlist(next), text.lists[1]), "which loses nothing");

  run_once(session, prompt);
  CHECK(!session.ahead().ask(session, listed({wrong}, 9), asker(1)) && !session.ahead().take(session, next),
        "or another request");
  run_once(session, prompt);
  session.cancel();
  session.arm();
  CHECK(!session.ahead().take(session, next), "or cancel()");
  {
    Session gone(model, Plan{}, Execution::kWide, kContext);
    run_once(gone, prompt);
  }
  CHECK(!model->ahead().ask(session, next, asker(1)) && !model->ahead().take(session, next), "or the session's end");
}

// A thread that has run for long enough begins nothing more.
void test_turns() {
  const Text text(3);
  Session session(small_model(2), Plan{}, Execution::kWide, kContext);
  int delivered = 0;
  auto deliver = [&](Ahead::Asker, const Outcome& outcome) {
    CHECK(same(outcome.shortlist, text.lists[static_cast<size_t>(delivered)]), "a turn's token");
    if (delivered++ > 0) return;
    CHECK(session.ahead().ask(session, listed({text.ids[0]}, 9), asker(1)), "under way");
    std::this_thread::sleep_for(std::chrono::milliseconds(1300));
  };
  session.ahead().run(session, listed(some_ids(9), 0), asker(0), deliver, std::chrono::milliseconds(1000));
  CHECK(delivered == 2, "what is under way is delivered");
  CHECK(!session.ahead().take(session, listed({text.ids[1]}, 10)), "and nothing follows");
}

void test_stopped() {
  const Text text(4);
  Session session(small_model(2), Plan{}, Execution::kWide, kContext);
  Ahead& ahead = session.ahead();
  const ForwardRequest prompt = listed(some_ids(9), 0), next = listed({text.ids[0]}, 9);
  std::vector<Outcome> found;
  ahead.run(
      session, prompt, asker(0),
      [&](Ahead::Asker, const Outcome& outcome) {
        found.push_back(outcome);
        if (found.size() > 1) return;
        CHECK(ahead.ask(session, next, asker(1)), "asked for");
        ahead.stop();  // somebody waits for it
        session.cancel();
      },
      kNoEnd);
  CHECK(found.size() == 2 && found[1].failure, "what is asked for and cancelled is delivered as that");
  if (found.size() == 2) check::throws("ABORTED", [&] { std::rethrow_exception(found[1].failure); }, "cancelled");
  session.arm();
  CHECK(same(session.shortlist(next), text.lists[1]), "and can be had after all");

  // What else is asked of the session comes instead, at once.
  const ForwardRequest other = listed({(text.ids[0] + 1) % 101}, 9);
  Session apart(small_model(1), Plan{}, Execution::kWide, kContext);
  apart.shortlist(listed(some_ids(9), 0, false));
  const cqil_shortlist expected = apart.shortlist(other);
  for (bool cancelled : {false, true}) {
    found.clear();
    session.arm();
    ahead.run(
        session, prompt, asker(0),
        [&](Ahead::Asker who, const Outcome& outcome) {
          CHECK(number(who) == found.size(), "whose it is");
          found.push_back(outcome);
          if (found.size() > 1) return;
          CHECK(ahead.ask(session, other, asker(1)), "taken instead");
          CHECK(!ahead.ask(session, next, asker(2)), "and nothing beside it");
          if (cancelled) session.cancel();
        },
        kNoEnd);
    CHECK(found.size() == 2, "delivered instead");
    if (found.size() < 2) continue;
    if (cancelled)
      check::throws("ABORTED", [&] { std::rethrow_exception(found[1].failure); }, "cancelled before its turn");
    else CHECK(!found[1].failure && same(found[1].shortlist, expected), "what it would have been");
  }
  session.arm();

  int delivered = 0;
  ahead.run(
      session, prompt, asker(0),
      [&](Ahead::Asker, const Outcome&) {
        delivered++;
        ahead.stop();
        CHECK(!ahead.ask(session, next, asker(1)), "what is given up is not under way");
      },
      kNoEnd);
  CHECK(delivered == 1, "nor delivered");

  delivered = 0;
  session.cancel();
  ahead.run(
      session, prompt, asker(0), [&](Ahead::Asker, const Outcome& outcome) { delivered += outcome.failure != nullptr; },
      kNoEnd);
  CHECK(delivered == 1, "nothing follows a failure");
  session.arm();
  delivered = 0;
  ahead.run(
      session, listed(some_ids(kContext), 0), asker(0),
      [&](Ahead::Asker, const Outcome& outcome) { delivered += !outcome.failure; }, kNoEnd);
  CHECK(delivered == 1, "nothing follows the context's end");
}

// One thread computes, another asks: at once or late, for the token that is likeliest or for another, in one session or
// in two in turn. Gives how many were under way: a matter of luck.
int test_two_threads(uint64_t seed) {
  struct Waiting {
    std::mutex mutex;
    std::condition_variable told;
    std::map<size_t, Outcome> outcomes;
  } waiting;
  check::Random random(seed);
  auto model = small_model(2);
  Session sessions[2] = {{model, Plan{}, Execution::kWide, kContext}, {model, Plan{}, Execution::kWide, kContext}};
  std::vector<int32_t> texts[2] = {some_ids(3), some_ids(4)};
  int32_t positions[2] = {0, 0};
  std::vector<std::thread> runs;
  std::vector<std::vector<int32_t>> asked;  // the whole text at each step
  int claimed = 0, of = 0;
  for (size_t step = 0; step < 40; step++) {
    if (random.below(6) == 0) of = 1 - of;
    Session& session = sessions[of];
    std::vector<int32_t>& text = texts[of];
    const ForwardRequest request =
        listed({text.begin() + positions[of], text.end()}, positions[of], random.below(5) != 0);
    session.arm();
    if (session.ahead().ask(session, request, asker(step))) claimed++;
    else
      runs.emplace_back([&session, &waiting, request, step] {
        session.ahead().run(
            session, request, asker(step),
            [&waiting](Ahead::Asker who, const Outcome& outcome) {
              std::lock_guard<std::mutex> lock(waiting.mutex);
              waiting.outcomes[number(who)] = outcome;
              waiting.told.notify_all();
            },
            kNoEnd);
      });
    std::unique_lock<std::mutex> lock(waiting.mutex);
    waiting.told.wait(lock, [&] { return waiting.outcomes.count(step) > 0; });
    const int32_t likeliest = waiting.outcomes[step].shortlist.ids[0];
    lock.unlock();
    asked.push_back(text);
    positions[of] = static_cast<int32_t>(text.size());
    text.push_back(random.below(4) == 0 ? (likeliest + 1) % 101 : likeliest);
    if (random.below(3) == 0) std::this_thread::sleep_for(std::chrono::microseconds(random.below(1500)));
  }
  model->ahead().stop();
  for (std::thread& run : runs) run.join();
  Session plain(small_model(1), Plan{}, Execution::kWide, kContext);
  bool right = true;
  for (size_t step = 0; step < asked.size(); step++) {
    const Outcome& outcome = waiting.outcomes[step];
    right = right && !outcome.failure && same(outcome.shortlist, plain.shortlist(listed(asked[step], 0, false)));
  }
  CHECK(right, "two threads, seed " + std::to_string(seed));
  return claimed;
}

}  // namespace

int main() {
  for (int threads : {1, 3})
    for (size_t asked : {0, 1, 15}) test_chain(threads, asked);
  test_kept();
  test_turns();
  test_stopped();
  int claimed = 0;
  for (uint64_t seed = 1; seed <= 5; seed++) claimed += test_two_threads(seed);
  std::printf("ahead: %d of 200 requests found their token under way\n", claimed);
  return check::report("ahead");
}
