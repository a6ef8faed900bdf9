// What a backend must do: one narrow C table. The CPU backend is built in; others are shared libraries behind the ABI
// version. A backend never sees a plan, a file or a JavaScript value: it gets weights in memory and a program.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "exchange.h"
#include "model_weights.h"

#ifdef __cplusplus
extern "C" {
#endif

// Raised whenever anything in this file, or in model_weights.h, changes.
#define CQIL_BACKEND_ABI 17

// Tokens one forward takes at most, of all its rows together: the height of activation buffers.
#define CQIL_MAX_BATCH 256

// Tokens of a row that are traced at most: a trace holds three vectors per layer and token.
#define CQIL_MAX_TRACE 32

// Tokens of a row at most when the logits, or a shortlist, of all are wanted.
#define CQIL_MAX_LOGIT_ROWS 32

// Most entries of a shortlist.
#define CQIL_MAX_SHORTLIST 64

// Rows of a matrix that are prepared together begin at a multiple of this.
#define CQIL_PREPARED_ROWS 64

typedef enum cqil_status {
  CQIL_OK = 0,
  CQIL_INVALID_ARGUMENT,
  CQIL_UNSUPPORTED_MODEL,
  CQIL_BACKEND_UNAVAILABLE,
  CQIL_OUT_OF_MEMORY,
  CQIL_ABORTED,
  CQIL_RANK_LOST,
  CQIL_INTERNAL
} cqil_status;

// Filled by a call that returns anything but CQIL_OK: one sentence.
typedef struct cqil_error {
  char text[512];
} cqil_error;

// A rank is one of several processes that compute a model together, each with a device of its own. What it holds of a
// layer: key/value heads with the query heads that share them, and values of the hidden vector. All of the layer, a
// slice, or nothing. Its matrices have the rows and columns of its share, and no data where it has nothing.
typedef struct cqil_share {
  int32_t first_kv_head, n_kv_heads;
  int32_t first_hidden, n_hidden;
} cqil_share;

typedef struct cqil_ranks {
  int32_t rank;  // this one
  int32_t n_ranks;
  cqil_share whole;          // what a rank has that holds all of a layer
  const cqil_share* shares;  // [n_ranks, n_layers]
  int32_t n_layers;
  const int32_t* vocabulary;  // [n_ranks + 1]: rank r computes the logits of ids vocabulary[r] .. vocabulary[r + 1] - 1
  // What moves bytes between them; null where a schedule is only looked at.
  const cqil_exchange* exchange;
  cqil_exchange_end* end;
  int64_t patience_ns;  // how long the others are waited for; 0: for ever
} cqil_ranks;

typedef enum cqil_phase_kind {
  CQIL_EMBED = 0,      // x = rows of the token embedding
  CQIL_QKV,            // norm of x, Q, K, V, biases, q/k norm, RoPE, cache append; per lane
  CQIL_ATTENTION,      // softmax(q K^T / sqrt(head_dim)) V; per lane
  CQIL_ATTENTION_OUT,  // a_j = [post-norm of] Wo . attention; per lane
  CQIL_GATE_UP,        // act(W_gate . h) * (W_up . h), h = norm of x + a_j + b_j; per lane
  CQIL_DOWN,           // x = x + sum over lanes of (a_j [+ b_j] + m_j), m_j = [post-norm of] W_down . gate_up
  CQIL_HEAD            // norm of x, logits
} cqil_phase_kind;

// One dependent step. Lane l computes layer first_layer + l.
typedef struct cqil_phase {
  cqil_phase_kind kind;
  int32_t stage;  // -1 for embed and head
  int32_t first_layer;
  int32_t n_lanes;
} cqil_phase;

// What a step of a schedule computes: a phase, or part of one.
typedef enum cqil_op {
  CQIL_OP_EMBED = 0,
  CQIL_OP_QKV,
  CQIL_OP_ATTENTION,
  CQIL_OP_ATTENTION_OUT,
  CQIL_OP_ATTENTION_POST_NORM,  // where layers have one: a_j from what CQIL_OP_ATTENTION_OUT left
  CQIL_OP_GATE_UP,
  CQIL_OP_DOWN,           // the product and the sum over lanes in one; not where layers have post-norms
  CQIL_OP_DOWN_APART,     // m_j of each lane, kept
  CQIL_OP_MLP_POST_NORM,  // where layers have one: m_j from what CQIL_OP_DOWN_APART left
  // Between ranks: every rank gets a_j of the lanes that not every rank has computed, summed over the ranks that hold
  // slices of its layer, in their order.
  CQIL_OP_SHARE_ATTENTION,
  // Between ranks: every rank gets m_j likewise, and a_j too where a stage has no CQIL_OP_SHARE_ATTENTION.
  CQIL_OP_REDUCE,
  CQIL_OP_RECORD,  // x, and each a_j and m_j, to the trace
  CQIL_OP_JOIN,    // x = x + sum over lanes of (a_j [+ b_j] + m_j), in the order and to the bits of CQIL_OP_DOWN
  CQIL_OP_HEAD
} cqil_op;

// Who meets at the end of a step, before any of them goes on.
typedef enum cqil_meeting { CQIL_NOBODY = 0, CQIL_CREW, CQIL_EVERYBODY } cqil_meeting;

// Threads are split in n_crews crews: thread t is member t / n_crews of crew t % n_crews. Where n_crews is 1, that is
// everybody. On a device a crew is a stream: its steps follow each other, and a step of everybody comes after all of
// every crew.
typedef struct cqil_step {
  cqil_op op;
  int32_t phase;        // index in the program
  int32_t first_layer;  // of lane 0
  int32_t first_lane;
  int32_t n_lanes;
  int32_t n_crews;
  int32_t crew;       // which of them computes this
  int32_t alone;      // 1: member 0 of the crew computes it, the others do not
  int32_t waits_for;  // lanes before first_lane of this stage whose a_j it reads too: a bypass
  cqil_meeting then;
  int32_t ends_stage;  // 1: between this step and the next a forward may be cancelled, or go on with one thread
} cqil_step;

typedef struct cqil_schedule {
  const cqil_step* steps;
  int32_t n_steps;
  int32_t threads;  // that compute it, 0 on a device
} cqil_schedule;

typedef struct cqil_program {
  const cqil_phase* phases;
  int32_t n_phases;
  int32_t n_stages;
  int32_t max_lanes;
  int32_t bypass;           // D: b_j sums the attention outputs of up to D earlier lanes of the group
  int32_t bypass_residual;  // 1: b_j also joins the residual ("official"); 0: "paper"
} cqil_program;

// What a vector is when weights are multiplied with it. The sum over a product is float32 either way.
typedef enum cqil_activations {
  CQIL_ACTIVATIONS_F32 = 0,
  // Rounded, where the backend has such products for the weights' dtype:
  CQIL_ACTIVATIONS_INT8,  // to int8 in blocks of 32
  CQIL_ACTIVATIONS_BF16,
} cqil_activations;

typedef struct cqil_cache_options {
  int32_t context_length;  // positions it holds, for every layer at the layer's own index
  cqil_dtype kv_dtype;     // of cached keys and values: CQIL_F32, CQIL_F16 or CQIL_Q8_0 (blocks along head_dim)
} cqil_cache_options;

// How the lanes of a stage run; changes the time only.
typedef enum cqil_execution {
  CQIL_WIDE = 0,    // every phase takes all lanes at once
  CQIL_LANES,       // each lane by itself, joined where the formula joins
  CQIL_PERSISTENT,  // CUDA: one kernel walks the program for a whole token
  CQIL_EXECUTION_COUNT
} cqil_execution;

typedef enum cqil_output {
  CQIL_OUTPUT_NONE = 0,
  CQIL_OUTPUT_LOGITS,
  CQIL_OUTPUT_SCORES,
  CQIL_OUTPUT_TRACE,
  CQIL_OUTPUT_ALL_LOGITS,
  CQIL_OUTPUT_SHORTLIST
} cqil_output;

// What is left of the logits after one id where a caller samples from the likeliest: the highest, in falling order,
// ties by lowest id. log_sum_exp is of all logits: log(sum(exp(logit))), natural; NaN when a logit is NaN or infinite,
// and the entries then mean nothing.
typedef struct cqil_shortlist {
  double log_sum_exp;
  int32_t count;
  int32_t reserved;
  int32_t ids[CQIL_MAX_SHORTLIST];
  float logits[CQIL_MAX_SHORTLIST];
} cqil_shortlist;

// When one thread computed its part of one phase, in nanoseconds since the call began, by a clock that never goes back.
typedef struct cqil_span {
  int32_t step;    // index in the schedule; -1: nothing was noted here
  int32_t thread;  // of the backend
  int64_t begin_ns;
  int64_t end_ns;
} cqil_span;

// One text's keys and values.
typedef struct cqil_backend_cache cqil_backend_cache;
// Activations and scratch of one program: what a forward needs besides weights and caches.
typedef struct cqil_backend_workspace cqil_backend_workspace;

// One text's part of a forward.
typedef struct cqil_row {
  cqil_backend_cache* cache;  // no two rows of a forward have the same
  const int32_t* ids;         // [n_ids], at least 1, each in [0, vocab_size)
  int32_t n_ids;
  int32_t position;  // of ids[0]
  cqil_output output;
  const int32_t* targets;  // [n_scores] for CQIL_OUTPUT_SCORES
  int32_t n_scores;        // <= n_ids
  float* result;  // null where nobody wants it: on ranks but the first. Else logits of the last id [vocab_size], or
                  // log-probabilities of the targets [n_scores], nats, NaN where a logit is not finite, or, of each
                  // layer, its input x, a_j and m_j [n_layers, 3, n_ids, dim], or the logits of every id [n_ids,
                  // vocab_size]. A value that is not finite, or a key or value that the cache's format does not hold,
                  // makes every result that depends on it NaN: nothing hides it
  cqil_shortlist* shortlists;  // null as result, or [n_listed], of the last n_listed ids for CQIL_OUTPUT_SHORTLIST. The
                               // count of each, 1
                               // .. CQIL_MAX_SHORTLIST, says how many entries are wanted, and afterwards how many there
                               // are, fewer only in a smaller vocabulary
  int32_t n_listed;            // 1 .. min(n_ids, CQIL_MAX_LOGIT_ROWS)
} cqil_row;

typedef struct cqil_forward {
  const cqil_row* rows;  // [n_rows], at least 1, CQIL_MAX_BATCH ids in all. What comes of a row has the same bits
  int32_t n_rows;        // whatever other rows there are, except on a device
  cqil_execution execution;
  cqil_schedule schedule;  // of the workspace's program, for these rows
  // Nanoseconds after which one thread computes the remaining stages alone, because the threads may be waiting for one
  // that does not run. 0: never.
  int64_t patience_ns;
  // Null, or asked between stages, on any thread: non-zero ends the call with CQIL_ABORTED.
  int32_t (*cancelled)(const void* cancel_flag);
  const void* cancel_flag;
  cqil_span* spans;  // [n_spans], step -1 throughout, or null where no times are wanted, which then cost nothing.
  int32_t n_spans;   // At least threads * the schedule's steps; a backend that keeps no times writes none.
} cqil_forward;

static inline int32_t cqil_cancelled(const cqil_forward* request) {
  return request->cancelled && request->cancelled(request->cancel_flag);
}

// A device that can compute.
typedef struct cqil_device {
  char name[128];
  int32_t capability_major;  // compute capability, as in 9.0
  int32_t capability_minor;
  int32_t multiprocessors;
  uint64_t memory_bytes;
} cqil_device;

typedef struct cqil_model_options {
  int32_t threads;  // of the CPU backend
  int32_t device;   // an index into what list_devices gives; 0 on the CPU
  cqil_activations activations;
  // Null, or the model this is a variant of, with the same options otherwise: it outlives this one, forwards of both
  // never overlap, and a tensor with the same data pointer is the same tensor, so that it need not be held
  // twice.
  struct cqil_backend_model* base;
  // On the CPU: the most bytes of a layer, its weights and its keys and values, that a token reads where one thread
  // computes the layer. 0: all threads share every layer. The results have the same bits.
  int64_t alone_bytes;
  // Null, or which part of the model this process computes; outlives the model.
  const cqil_ranks* ranks;
} cqil_model_options;

// What only a backend knows of itself.
typedef struct cqil_limits {
  // Bytes of a layer, its weights and its keys and values, up to which one thread computes a token of it faster than
  // all do. 0: there are no threads.
  int64_t alone_bytes;
  int32_t queries_together;  // query heads of one key/value head that a thread attends with at a time
  int32_t stops_at_stage;    // 1: a token that is cancelled ends at its next stage; 0: once begun, it is computed whole
  int32_t rows_together;     // most rows of a forward that are computed together rather than one after the other
} cqil_limits;

typedef struct cqil_backend_model cqil_backend_model;

// Forwards of one model never overlap: the core sees to it. Workspaces and caches are made and destroyed meanwhile, on
// other threads, those in use excepted.
typedef struct cqil_backend {
  uint32_t abi;
  const char* name;
  cqil_limits limits;
  // Writes at most capacity devices and how many there are. CQIL_BACKEND_UNAVAILABLE says why there is none. The CPU is
  // no device.
  cqil_status (*list_devices)(cqil_device* devices, int32_t capacity, int32_t* count, cqil_error* error);
  cqil_status (*model_create)(const cqil_weights* weights, const cqil_model_options* options, cqil_backend_model** out,
                              cqil_error* error);
  void (*model_destroy)(cqil_backend_model* model);
  // Null, or brings rows of the matrix with this data, which are in memory by now, to where products read them: n_rows
  // from first_row on, a multiple of CQIL_PREPARED_ROWS, or as many as there are. A matrix that is not complete there
  // when a workspace is made is brought there then. *moved is 1 where these rows are not read again, except as token
  // embeddings. Calls for rows of one model may overlap, where each is given once; they do not overlap with calls on
  // its own workspaces.
  cqil_status (*prepare)(cqil_backend_model* model, const void* data, int64_t first_row, int64_t n_rows, int32_t* moved,
                         cqil_error* error);
  // Bit 1 << e is set when forwards of this model take the cqil_execution e.
  uint32_t (*executions)(const cqil_backend_model* model);
  // The number of threads that compute a forward of this model, unless it asks for fewer; 0 where a device computes.
  int32_t (*threads)(const cqil_backend_model* model);
  // The program is copied. A workspace serves any number of caches, and grows to their longest context as forwards
  // reach it.
  cqil_status (*workspace_create)(cqil_backend_model* model, const cqil_program* program, cqil_backend_workspace** out,
                                  cqil_error* error);
  void (*workspace_destroy)(cqil_backend_workspace* workspace);
  // A cache for forwards with this workspace, which outlives it. A token's own keys and values are read back from the
  // cache like all others, so that rounding them does not depend on how a prompt is split.
  cqil_status (*cache_create)(cqil_backend_workspace* workspace, const cqil_cache_options* options,
                              cqil_backend_cache** out, cqil_error* error);
  void (*cache_destroy)(cqil_backend_cache* cache);
  // On ranks: all of them make the same forwards, with schedules of their own. Cancelled is asked on rank 0 alone, at
  // exchanges, and ends the call on all ranks.
  cqil_status (*forward)(cqil_backend_workspace* workspace, const cqil_forward* request, cqil_error* error);
} cqil_backend;

// What a shared library exports, under this name: its table, which lives as long as the library.
#define CQIL_BACKEND_ENTRY "cqil_backend_entry"
typedef const cqil_backend* (*cqil_backend_entry_function)(void);

#ifdef __cplusplus
}
#endif
