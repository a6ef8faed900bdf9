// llama.cpp without Node.js: one timed run with the libraries that the peer's prebuilt package brings.
//
//   cc -O2 native_llama.c -o native_llama -ldl
//   native_llama LIBLLAMA MODEL THREADS CONTEXT TOKENS < IDS
//
// IDS: the number of warm-up ids and those ids, then the number of the prompt's ids and those. Writes to stdout:
// { "prefillMs": prompt and first token, "decodeMs": [TOKENS], "ids": [TOKENS] }, greedily, one token per step.
// The package has no headers. What is called here is declared by hand from llama.cpp's documented C interface. Structs
// of parameters are opaque and larger than the library's own: its functions fill them with defaults, and a caller may
// pass more bytes by value than the callee reads. Only the first fields, the context's length and the sizes of batches,
// are set. Linux on x86-64 and AArch64.
#include <dlfcn.h>
#include <libgen.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct { uint64_t words[128]; } Defaults;
typedef struct {
  int32_t n_tokens;
  void* fields[6];
} Batch;

static void* llama;
static void* context;
static int vocab_size;
static Batch (*batch_get_one)(int32_t*, int32_t);
static int32_t (*decode)(void*, Batch);
static float* (*get_logits_ith)(void*, int32_t);

static void fail(const char* what) {
  fprintf(stderr, "native_llama: %s\n", what);
  exit(1);
}

static void* symbol(void* library, const char* name) {
  void* found = dlsym(library, name);
  if (!found) fail(dlerror());
  return found;
}

static void* open_library(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
  if (!library) fail(dlerror());
  return library;
}

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

// The likeliest token after these.
static int32_t next(int32_t* ids, int32_t n) {
  if (decode(context, batch_get_one(ids, n)) != 0) fail("llama_decode failed");
  const float* logits = get_logits_ith(context, -1);
  int32_t best = 0;
  for (int32_t i = 1; i < vocab_size; i++) {
    if (logits[i] > logits[best]) best = i;
  }
  return best;
}

static int32_t* read_ids(int32_t* n) {
  if (scanf("%d", n) != 1 || *n < 1) fail("no ids on stdin");
  int32_t* ids = malloc(*n * sizeof *ids);
  for (int32_t i = 0; i < *n; i++) {
    if (scanf("%d", ids + i) != 1) fail("fewer ids than announced");
  }
  return ids;
}

static void quiet(int level, const char* text, void* data) {
  (void)data;
  if (level == 4) fputs(text, stderr);  // errors
}

int main(int argc, char** argv) {
  if (argc != 6) fail("expected LIBLLAMA MODEL THREADS CONTEXT TOKENS");
  const int threads = atoi(argv[3]), tokens = atoi(argv[5]);
  llama = open_library(argv[1]);
  // ggml's functions are found through the library that needs them.
  ((void (*)(void*, void*))symbol(llama, "llama_log_set"))((void*)quiet, NULL);
  ((void (*)(const char*))symbol(llama, "ggml_backend_load_all_from_path"))(dirname(strdup(argv[1])));
  ((void (*)(void))symbol(llama, "llama_backend_init"))();

  Defaults model_defaults = ((Defaults(*)(void))symbol(llama, "llama_model_default_params"))();
  void* model = ((void* (*)(const char*, Defaults))symbol(llama, "llama_model_load_from_file"))(argv[2], model_defaults);
  if (!model) fail("the model cannot be loaded");
  Defaults context_defaults = ((Defaults(*)(void))symbol(llama, "llama_context_default_params"))();
  const uint32_t sizes[] = {atoi(argv[4]), 512, 512};  // n_ctx, n_batch, n_ubatch
  memcpy(&context_defaults, sizes, sizeof sizes);
  context = ((void* (*)(void*, Defaults))symbol(llama, "llama_init_from_model"))(model, context_defaults);
  if (!context) fail("no context");
  ((void (*)(void*, int32_t, int32_t))symbol(llama, "llama_set_n_threads"))(context, threads, threads);
  void* vocab = ((void* (*)(void*))symbol(llama, "llama_model_get_vocab"))(model);
  vocab_size = ((int32_t(*)(void*))symbol(llama, "llama_vocab_n_tokens"))(vocab);
  batch_get_one = (Batch(*)(int32_t*, int32_t))symbol(llama, "llama_batch_get_one");
  decode = (int32_t(*)(void*, Batch))symbol(llama, "llama_decode");
  get_logits_ith = (float* (*)(void*, int32_t))symbol(llama, "llama_get_logits_ith");

  int32_t n_warm, n;
  int32_t* warm = read_ids(&n_warm);
  int32_t* ids = read_ids(&n);
  int32_t token = next(warm, n_warm);
  next(&token, 1);
  void* memory = ((void* (*)(void*))symbol(llama, "llama_get_memory"))(context);
  ((void (*)(void*, int))symbol(llama, "llama_memory_clear"))(memory, 1);

  double before = now_ms();
  token = next(ids, n);
  printf("{\"prefillMs\":%.4f,\"decodeMs\":[", now_ms() - before);
  int32_t* greedy = malloc(tokens * sizeof *greedy);
  for (int i = 0; i < tokens; i++) {
    before = now_ms();
    greedy[i] = token = next(&token, 1);
    printf("%s%.4f", i ? "," : "", now_ms() - before);
  }
  printf("],\"ids\":[");
  for (int i = 0; i < tokens; i++) printf("%s%d", i ? "," : "", greedy[i]);
  printf("]}\n");
  return 0;
}
