/* An export under load, as TF Serving's C++ holds it, without Python: threads that ask, and versions that change meanwhile. For load.py.

   load THREADS MOST INTRA INTER INPUT LABEL SCORE TEXTS COUNT MODEL ... [LIBRARY ...]

   Each of the COUNT MODELs is the folder of a version; each is asked for every text alone first, and those are the answers expected of it.
   Then THREADS threads ask the first one for 1 to MOST texts at a time, drawn anew, until standard input ends. A line "swap N" there makes
   the N-th MODEL, counted from 0, a new session: once it is loaded requests go to it, and the old one is deleted when the last of its own is
   answered. A line "report" prints what was answered since the last one, a JSON object on one line; a line "heap", what malloc has given out.
   INTRA and INTER, the names of tensors and TEXTS are as in serving.c. */

#include <malloc.h>
#include <pthread.h>

#include "serving.h"

typedef struct {
  TF_Session *session;
  TF_Graph *graph;
  TF_Output input, outputs[2]; /* the label, the score */
  int model, users;
} Version;

typedef struct {
  char **labels;
  size_t *sizes;
  float *scores;
} Answers;

static Texts texts;
static Answers *expected; /* of each model */
static char **models, *names[3];
static int most, intra, inter;
static volatile int stopped;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t left = PTHREAD_COND_INITIALIZER;
static Version *current;
static double *latencies;
static size_t requests, room;
static long long rows, failures, different;
static float apart;

static Version *loaded(int model, TF_Status *status) {
  Version *version = calloc(1, sizeof *version);
  version->model = model;
  version->graph = TF_NewGraph();
  version->session = opened(models[model], intra, inter, version->graph, status);
  version->input = tensor_named(version->graph, names[0]);
  for (int i = 0; i < 2; i++) version->outputs[i] = tensor_named(version->graph, names[1 + i]);
  return version;
}

static void forget(Version *version, TF_Status *status) {
  TF_CloseSession(version->session, status), check(status, "close");
  TF_DeleteSession(version->session, status), check(status, "delete");
  TF_DeleteGraph(version->graph);
  free(version);
}

/* One text alone; the caller deletes the results. */
static void run_one(Version *version, int64_t text, TF_Tensor *results[2], TF_Status *status) {
  run(version->session, version->input, version->outputs, 2, &texts.texts[text], &texts.sizes[text], 1, results, status);
  check(status, "run");
}

/* The first request makes the graph ready; as TF Serving's warmup, before others come. */
static Version *warmed(int model, TF_Status *status) {
  Version *version = loaded(model, status);
  TF_Tensor *results[2];
  run_one(version, 0, results, status);
  for (int k = 0; k < 2; k++) TF_DeleteTensor(results[k]);
  return version;
}

static void expect(int model, TF_Status *status) {
  Version *version = loaded(model, status);
  Answers *found = &expected[model];
  found->labels = calloc(texts.count, sizeof *found->labels);
  found->sizes = calloc(texts.count, sizeof *found->sizes);
  found->scores = calloc(texts.count, sizeof *found->scores);
  for (int64_t i = 0; i < texts.count; i++) {
    TF_Tensor *results[2];
    run_one(version, i, results, status);
    const TF_TString *label = TF_TensorData(results[0]);
    found->sizes[i] = TF_TString_GetSize(label);
    found->labels[i] = malloc(found->sizes[i] + 1);
    memcpy(found->labels[i], TF_TString_GetDataPointer(label), found->sizes[i]);
    found->scores[i] = *(const float *)TF_TensorData(results[1]);
    for (int k = 0; k < 2; k++) TF_DeleteTensor(results[k]);
  }
  forget(version, status);
}

/* How many rows have another label than the one expected, or a score that is 1e-5 away; the largest distance of the others. */
static int compare(TF_Tensor *results[2], const Answers *wanted, const int64_t *chosen, int count, float *largest) {
  const TF_TString *labels = TF_TensorData(results[0]);
  const float *scores = TF_TensorData(results[1]);
  int wrong = 0;
  for (int i = 0; i < count; i++) {
    size_t size = wanted->sizes[chosen[i]];
    float distance = scores[i] - wanted->scores[chosen[i]];
    distance = distance < 0 ? -distance : distance;
    int same = TF_TString_GetSize(&labels[i]) == size && !memcmp(TF_TString_GetDataPointer(&labels[i]), wanted->labels[chosen[i]], size);
    if (!same || !(distance <= 1e-5f)) wrong++;
    if (same && distance > *largest) *largest = distance;
  }
  return wrong;
}

static void *ask(void *number) {
  unsigned seed = (unsigned)(intptr_t)number;
  TF_Status *status = TF_NewStatus();
  char *chosen_texts[64];
  size_t sizes[64];
  int64_t chosen[64];
  while (!stopped) {
    int count = 1 + rand_r(&seed) % most, wrong = 0;
    for (int i = 0; i < count; i++) {
      chosen[i] = rand_r(&seed) % texts.count;
      chosen_texts[i] = texts.texts[chosen[i]], sizes[i] = texts.sizes[chosen[i]];
    }
    pthread_mutex_lock(&mutex);
    Version *version = current;
    version->users++;
    pthread_mutex_unlock(&mutex);
    TF_Tensor *results[2] = {NULL, NULL};
    float largest = 0;
    double begin = seconds(CLOCK_MONOTONIC);
    run(version->session, version->input, version->outputs, 2, chosen_texts, sizes, count, results, status);
    double taken = seconds(CLOCK_MONOTONIC) - begin;
    int failed = TF_GetCode(status) != TF_OK;
    if (failed) fprintf(stderr, "run: %s\n", TF_Message(status));
    if (!failed) wrong = compare(results, &expected[version->model], chosen, count, &largest);
    for (int k = 0; k < 2 && !failed; k++) TF_DeleteTensor(results[k]);
    pthread_mutex_lock(&mutex);
    if (--version->users == 0) pthread_cond_broadcast(&left);
    if (requests == room) latencies = realloc(latencies, (room = 2 * room + 1024) * sizeof *latencies);
    latencies[requests++] = taken;
    rows += count, failures += failed, different += wrong;
    if (largest > apart) apart = largest;
    pthread_mutex_unlock(&mutex);
  }
  TF_DeleteStatus(status);
  return NULL;
}

static void swap(int model, TF_Status *status) {
  Version *new = warmed(model, status);
  pthread_mutex_lock(&mutex);
  Version *old = current;
  current = new;
  while (old->users) pthread_cond_wait(&left, &mutex);
  pthread_mutex_unlock(&mutex);
  forget(old, status);
}

static void report(void) {
  pthread_mutex_lock(&mutex);
  printf("{\"requests\": %zu, \"rows\": %lld, \"failures\": %lld, \"different\": %lld, \"largest_difference\": %.9g, \"latencies\": [",
         requests, rows, failures, different, apart);
  for (size_t i = 0; i < requests; i++) printf("%s%.6f", i ? ", " : "", latencies[i]);
  printf("]}\n");
  fflush(stdout);
  requests = rows = failures = different = 0, apart = 0;
  pthread_mutex_unlock(&mutex);
}

/* What was allocated and not freed, beside what malloc holds of the system and could give out again: a leak is in the first. */
static void heap(void) {
  struct mallinfo2 held = mallinfo2();
  printf("{\"allocated_mib\": %.1f, \"free_mib\": %.1f}\n", (held.uordblks + held.hblkhd) / 1048576., held.fordblks / 1048576.);
  fflush(stdout);
}

int main(int argc, char **argv) {
  if (argc < 11) return fprintf(stderr, "usage: load THREADS MOST INTRA INTER INPUT LABEL SCORE TEXTS COUNT MODEL ... [LIBRARY ...]\n"), 2;
  int threads = atoi(argv[1]), count = atoi(argv[9]);
  most = atoi(argv[2]), intra = atoi(argv[3]), inter = atoi(argv[4]);
  if (most < 1 || most > 64 || threads < 1 || threads > 256) return fprintf(stderr, "1 to 64 texts, 1 to 256 threads\n"), 2;
  memcpy(names, argv + 5, sizeof names);
  TF_Status *status = TF_NewStatus();
  load_libraries(argc - 10 - count, argv + 10 + count, status);
  texts = read_texts(argv[8]);
  models = argv + 10;
  expected = calloc(count, sizeof *expected);
  for (int model = 0; model < count; model++) expect(model, status);
  current = warmed(0, status);
  pthread_t asking[256];
  for (int i = 0; i < threads; i++) pthread_create(&asking[i], NULL, ask, (void *)(intptr_t)i);
  report();
  char line[64];
  for (int model; fgets(line, sizeof line, stdin);) {
    if (sscanf(line, "swap %d", &model) == 1 && model >= 0 && model < count) {
      swap(model, status);
      printf("{\"swapped\": %d}\n", model);
      fflush(stdout);
    } else if (!strcmp(line, "heap\n")) {
      heap();
    } else {
      report();
    }
  }
  stopped = 1;
  for (int i = 0; i < threads; i++) pthread_join(asking[i], NULL);
  forget(current, status);
  return 0;
}
