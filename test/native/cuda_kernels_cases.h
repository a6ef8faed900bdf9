// The shapes that the kernel tests run.
#pragma once
#include "cuda_kernels_model.h"

namespace check {

// Every phase, by one and by several tokens.
inline const Case kCases[] = {
    // name, dim, hidden, head_dim, heads, kv heads, vocab, dtype, wv + w_down, w_up, cache, lanes, D, official, biases,
    // head norms, interleaved, window, position
    {"F32 odd", 51, 77, 34, 3, 1, 131, CQIL_F32, CQIL_F32, CQIL_F32, CQIL_F32, 1, 0, 0, true, false, true, 0, 5},
    {"BF16 lanes", 90, 70, 48, 4, 2, 150, CQIL_BF16, CQIL_BF16, CQIL_BF16, CQIL_F16, 3, 2, 1, false, false, false, 0,
     37},
    {"F16 head norms", 66, 130, 64, 2, 1, 97, CQIL_F16, CQIL_F16, CQIL_F16, CQIL_F16, 2, 1, 0, true, true, false, 19,
     40},
    {"Q8_0", 96, 128, 80, 4, 4, 70, CQIL_Q8_0, CQIL_Q8_0, CQIL_Q8_0, CQIL_Q8_0, 2, 0, 0, false, false, true, 0, 66},
    {"Q4_0", 160, 96, 32, 10, 2, 70, CQIL_Q4_0, CQIL_Q4_0, CQIL_Q4_0, CQIL_F16, 4, 1, 1, true, false, false, 0, 0},
    {"Q4_K mixed", 256, 256, 128, 4, 2, 64, CQIL_Q4_K, CQIL_Q6_K, CQIL_Q5_K, CQIL_F16, 1, 0, 0, false, false, true, 0,
     9},
    {"Q5_K", 256, 512, 64, 4, 1, 33, CQIL_Q5_K, CQIL_Q5_K, CQIL_Q5_K, CQIL_F16, 1, 0, 0, false, false, false, 0, 130},
    {"Q6_K", 256, 256, 256, 2, 2, 33, CQIL_Q6_K, CQIL_Q6_K, CQIL_Q6_K, CQIL_F32, 2, 1, 0, false, false, false, 0, 3},
    {"long context", 64, 64, 32, 8, 1, 1700, CQIL_BF16, CQIL_BF16, CQIL_BF16, CQIL_F16, 1, 0, 0, false, false, false, 0,
     1000},
    {"long window", 64, 32, 64, 4, 2, 40, CQIL_BF16, CQIL_BF16, CQIL_BF16, CQIL_Q8_0, 1, 0, 0, false, false, false, 300,
     517},
};

// Vectors of several lanes that do not fit shared memory at once, and one that does not fit at all.
inline const Case kLarge[] = {
    {"large", 40, 25000, 8, 1, 1, 11, CQIL_BF16, CQIL_BF16, CQIL_BF16, CQIL_F16, 2, 0, 0, false, false, false, 0, 2},
    {"large Q6_K", 256, 16640, 8, 1, 1, 11, CQIL_BF16, CQIL_Q6_K, CQIL_BF16, CQIL_F16, 1, 0, 0, false, false, false, 0,
     2},
};

// Rows of more than one part of a ring, of each format.
inline const Case kLongRows[] = {
    {"long rows Q8_0", 1120, 1312, 32, 4, 2, 40, CQIL_Q8_0, CQIL_Q8_0, CQIL_Q8_0, CQIL_F16, 2, 0, 0, false, false,
     false, 0, 2},
    {"long rows Q4_0", 2208, 1312, 32, 4, 2, 40, CQIL_Q4_0, CQIL_Q4_0, CQIL_Q4_0, CQIL_F16, 1, 0, 0, false, false,
     false, 0, 2},
    {"long rows Q4_K", 2304, 1280, 64, 4, 2, 40, CQIL_Q4_K, CQIL_Q6_K, CQIL_Q5_K, CQIL_F16, 1, 0, 0, false, false,
     false, 0, 2},
    {"long rows BF16", 1096, 2100, 32, 4, 2, 40, CQIL_BF16, CQIL_BF16, CQIL_BF16, CQIL_F16, 1, 0, 0, false, false,
     false, 0, 2},
};

// Rows that are cut: enough of them, in one round and several, of vectors that are staged at once, one by one, and in
// pieces, with the least shared memory that is enough for that.
constexpr int64_t kLittleShared = 91 * 1024;
inline const Case kManyRows[] = {
    {"many rows BF16", 3100, 1090, 34, 31, 1, 11, CQIL_BF16, CQIL_BF16, CQIL_BF16, CQIL_F16, 3, 1, 1, true, false,
     false, 0, 2},
    {"many rows F32", 3090, 300, 30, 30, 1, 11, CQIL_F32, CQIL_F32, CQIL_F32, CQIL_F16, 1, 0, 0, false, false, false, 0,
     2},
    {"many rows Q8_0", 3104, 8704, 32, 8, 1, 11, CQIL_Q8_0, CQIL_Q8_0, CQIL_Q8_0, CQIL_F16, 1, 0, 0, false, false,
     false, 0, 2},
    {"many rows Q4_0", 3104, 3232, 32, 40, 1, 11, CQIL_Q4_0, CQIL_Q4_0, CQIL_Q4_0, CQIL_F16, 2, 0, 0, false, false,
     false, 0, 2},
    {"many rows Q4_K", 3328, 3328, 64, 4, 1, 11, CQIL_Q4_K, CQIL_Q6_K, CQIL_Q5_K, CQIL_F16, 1, 0, 0, false, false,
     false, 0, 2},
    {"many rows Q6_K", 3328, 2048, 64, 4, 1, 11, CQIL_Q6_K, CQIL_Q6_K, CQIL_Q6_K, CQIL_F16, 1, 0, 0, false, false,
     false, 0, 2},
};

// Vocabularies of one slice, of several, the last a short one, and of all slices, longer ones than the shortest.
inline const Case kVocabularies[] = {
    {"100 logits", 8, 8, 8, 1, 1, 100, CQIL_BF16, CQIL_BF16, CQIL_BF16, CQIL_F16, 1, 0, 0, false, false, false, 0, 2},
    {"769 logits", 8, 8, 8, 1, 1, 769, CQIL_BF16, CQIL_BF16, CQIL_BF16, CQIL_F16, 1, 0, 0, false, false, false, 0, 2},
    {"5000 logits", 8, 8, 8, 1, 1, 5000, CQIL_BF16, CQIL_BF16, CQIL_BF16, CQIL_F16, 1, 0, 0, false, false, false, 0, 2},
    {"130001 logits", 8, 8, 8, 1, 1, 130001, CQIL_BF16, CQIL_BF16, CQIL_BF16, CQIL_F16, 1, 0, 0, false, false, false, 0,
     2},
};

}  // namespace check
