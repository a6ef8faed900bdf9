// What texts share on CUDA and what is their own: open conversations, and tokens of many caches by the same graphs.
// Built twice, see cuda_models.h.
#include <memory>

#include "cuda_models.h"
#include "shortlist.h"

using namespace cuda_models;

namespace {

// Texts that take turns, token by token, in caches of every format and of several lengths: each has the bits that it
// has alone. A graph is captured for a format by one text and replayed for the others; a longer cache comes when some
// are there already, and lists of other lengths and logits between them.
void test_turns(Execution execution) {
  constexpr int32_t kTokens = 3;
  const auto model = model_on(cuda(), check::small_weights("BF16", 3));
  const Plan plan = plan_of({{0, 2}}, 1);
  const cqil_dtype kv_dtypes[] = {CQIL_F16, CQIL_F32, CQIL_Q8_0};
  const int32_t contexts[] = {16, 300, 24, 400};
  struct Text {
    std::unique_ptr<Session> turns, alone;
    std::vector<int32_t> ids;
    int32_t position;
  };
  std::vector<Text> texts;
  for (size_t i = 0; i < std::size(contexts); i++) {
    const auto open = [&] { return std::make_unique<Session>(model, plan, execution, contexts[i], kv_dtypes[i % 3]); };
    texts.push_back({open(), open(), some_ids(kTokens, 50 + i), 0});
    // Prompts of different lengths, so that positions differ.
    const ForwardRequest prompt = request_of(some_ids(static_cast<int>(1 + i)), 0, CQIL_OUTPUT_NONE);
    texts[i].turns->forward(prompt);
    texts[i].alone->forward(prompt);
    texts[i].position = static_cast<int32_t>(1 + i);
  }
  const auto request_for = [&](const Text& text, size_t i, int32_t token) {
    const bool listed = (i + static_cast<size_t>(token)) % 2 == 0;
    ForwardRequest request = request_of({text.ids[static_cast<size_t>(token)]}, text.position + token,
                                        listed ? CQIL_OUTPUT_SHORTLIST : CQIL_OUTPUT_LOGITS);
    request.count = 1 + static_cast<int32_t>(i) * 7;
    return request;
  };
  const auto answer = [](Session& session, const ForwardRequest& request) {
    Call call{session, request, session.cancel_flag()};
    Session::run_together({&call});
    CHECK(!call.failure, "a token is computed");
    return std::pair{call.result, call.shortlists};
  };
  std::vector<std::pair<std::vector<float>, std::vector<cqil_shortlist>>> found;
  for (int32_t token = 0; token < kTokens; token++)
    for (size_t i = 0; i < texts.size(); i++) found.push_back(answer(*texts[i].turns, request_for(texts[i], i, token)));
  bool right = true;
  for (size_t i = 0; i < texts.size(); i++)
    for (int32_t token = 0; token < kTokens; token++) {
      const auto alone = answer(*texts[i].alone, request_for(texts[i], i, token));
      const auto& turn = found[static_cast<size_t>(token) * texts.size() + i];
      right = right && check::same_bits(turn.first, alone.first) && turn.second.size() == alone.second.size();
      for (size_t list = 0; right && list < alone.second.size(); list++)
        right = check::same(turn.second[list], alone.second[list]);
    }
  CHECK(right, "texts in turns have the bits of each alone, execution " + std::to_string(static_cast<int>(execution)));
}

#ifdef CQIL_CUDA_EMULATOR

// 1,000 open conversations cost their caches and no more: one allocation each, of keys and values alone, whatever is
// computed in between.
void test_conversations() {
  constexpr int kConversations = 1000;
  constexpr int32_t kContext = 16;
  const auto model = model_on(cuda(), check::small_weights("BF16", 2, true));
  const Plan plan = plan_of({{0, 2}});
  std::vector<std::unique_ptr<Session>> sessions;
  const auto open = [&] {
    sessions.push_back(std::make_unique<Session>(model, plan, Execution::kWide, kContext, CQIL_F16));
  };
  const auto talk = [&](size_t i) {
    for (int32_t position = 0; position < 3; position++)
      sessions[i]->forward(request_of({static_cast<int32_t>(i % 101)}, position, CQIL_OUTPUT_LOGITS));
  };
  open();
  talk(0);  // the graphs, the streams' first work, the angles of RoPE
  const size_t bytes = emulator::device_bytes();
  const int objects = emulator::live_objects();
  const uint64_t cache = sessions[0]->cache_bytes();  // in whole units of memory, as heads have 64 values
  for (int i = 1; i < kConversations; i++) open();
  for (size_t i : {1, 500, 999}) talk(i);
  const size_t more = emulator::device_bytes() - bytes;
  CHECK(more == (kConversations - 1) * cache, "999 conversations cost their caches of " + std::to_string(cache) +
                                                  " bytes and no more: " + std::to_string(more));
  CHECK(emulator::live_objects() - objects == kConversations - 1, "and no stream, event or graph of its own");
  sessions.resize(1);
  CHECK(emulator::device_bytes() == bytes && emulator::live_objects() == objects, "closed, it costs nothing");
}

#endif

}  // namespace

int main() {
  if (skipped("cuda_workspace")) return 77;
  if (asked_for("short")) {
    test_turns(Execution::kWide);
  } else {
    for (Execution execution : kExecutions) test_turns(execution);
#ifdef CQIL_CUDA_EMULATOR
    test_conversations();
#endif
  }
  expect_freed("everything is freed");
  return check::report("cuda_workspace");
}
